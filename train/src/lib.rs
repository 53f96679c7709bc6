//! From a pin to a model.
//!
//! In order: `data` reads the trajectories of a pin; `chat` renders one as text by the template of the model's family;
//! `tokenizer` and `mask` make token ids of it and say which were written by the agent; `pack` puts documents into a
//! [`PackedBatch`](batch::PackedBatch). With feature `torch` the rest follows: [`model`] runs the batch, [`loss`] looks
//! only at trained tokens, [`optim`] updates the weights, [`sft`] is the loop, [`checkpoint`] keeps its state, and
//! [`generate`] and [`serve`] let the result write.
//!
//! This crate opens no table: it takes a pin's files and gives events.

pub mod batch;
pub mod config;
pub mod settings_error;

#[cfg(feature = "torch")]
pub mod checkpoint;
#[cfg(feature = "torch")]
pub mod device;
#[cfg(feature = "torch")]
pub mod error;
#[cfg(feature = "torch")]
pub mod generate;
#[cfg(feature = "torch")]
pub mod loss;
#[cfg(feature = "torch")]
pub mod model;
#[cfg(feature = "torch")]
pub mod optim;
#[cfg(feature = "torch")]
pub mod serve;
#[cfg(feature = "torch")]
pub mod sft;
