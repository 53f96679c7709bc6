//! From a pin to a model.
//!
//! In order: [`data`] reads the trajectories of a pin; [`chat`] renders one as text in the frame of the model's family;
//! [`tokenizer`] and [`mask`] make token ids of it and say which were written by the agent; [`split`] keeps some of them
//! back, and [`pack`] puts documents into a
//! [`PackedBatch`](batch::PackedBatch). With feature `torch` the rest follows: `model` runs the batch, `loss` looks
//! only at trained tokens, `optim` updates the weights, `sft` is the loop, `checkpoint` keeps its state, and
//! `generate` and `serve` let the result write.
//!
//! Reinforcement learning begins elsewhere: [`questions`] are read from a pin and attempted by `rollout`, an [`episode`]
//! holds the tokens that were sampled, [`dapo`] says which episodes are learnt from, and by how much, and `rl` is the loop.
//!
//! [`experiment`] runs many of these trainings, each as a process of its own, and compares what came of them by [`score`].
//!
//! [`prepare`] does the first half at once, [`inspect`] shows what came of it, [`contract`] and [`events`] are what a
//! trainer and its parent say to one another.
//!
//! This crate opens no table: it takes a pin's files and gives events.

pub mod batch;
pub mod chat;
pub mod config;
pub mod contract;
pub mod dapo;
pub mod data;
pub mod episode;
pub mod events;
pub mod experiment;
pub mod input;
pub mod inspect;
pub mod lock;
pub mod mask;
pub mod pack;
pub mod prepare;
pub mod questions;
pub mod score;
pub mod settings_error;
pub mod small;
pub mod split;
pub mod tokenizer;

#[cfg(feature = "torch")]
pub mod bench;
#[cfg(feature = "torch")]
pub mod checkpoint;
#[cfg(feature = "torch")]
pub mod device;
#[cfg(feature = "torch")]
pub mod error;
#[cfg(feature = "torch")]
pub mod generate;
#[cfg(feature = "torch")]
mod graphs;
#[cfg(feature = "torch")]
pub mod job;
#[cfg(feature = "torch")]
pub mod loss;
#[cfg(feature = "torch")]
pub mod model;
#[cfg(feature = "torch")]
pub mod optim;
#[cfg(feature = "torch")]
pub mod rl;
#[cfg(feature = "torch")]
pub mod rollout;
#[cfg(feature = "torch")]
pub mod serve;
#[cfg(feature = "torch")]
pub mod sft;
#[cfg(feature = "torch")]
mod shim;
