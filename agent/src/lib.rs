//! The agent's text: what a model writes in a ReAct trajectory, what the tools answer, and the published files of both.
//!
//! Data flow: a line of a published file is read by [`published`], whose messages go through [`conversation`] into the
//! typed [`Trajectory`](webdancer_schemas::rows::Trajectory), each assistant turn by way of [`format`](mod@format).
//! Rendering goes the same way back and returns the original messages byte for byte. Everything here takes text from
//! strangers: any input gives a value or an error that names the place, in linear time, and [`fuzzing`] holds us to it.
//!
//! [`chat`], [`tool`] and [`judge`] say what a model, a web and a judge are to the rest; [`chat`] also has the client
//! that asks models over HTTP. [`output`] looks at all that an agent wrote, and [`reward`] makes of it and of a verdict
//! what reinforcement learns from.
//!
//! This crate opens no table: lines and batches are handed in, events are handed out.

pub mod chat;
pub mod conversation;
pub mod format;
pub mod fuzzing;
pub mod judge;
pub mod output;
pub mod published;
pub mod reward;
pub mod tool;
