//! The trainer: a process that reads a pin and writes events and checkpoints.

fn main() {}
