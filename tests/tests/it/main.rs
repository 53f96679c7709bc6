//! Tests of the `webdancer` command as a process: killed, restarted, and run against real servers.

mod check;
mod harness;
mod kafka;
mod kafka_faults;
mod producer;
mod readers;
mod s3;
mod servers;
