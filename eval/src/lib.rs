//! Evaluation: what a run's scores are worth, and which of two runs is better.
//!
//! Data flow: trajectories with their questions and verdicts come in as record batches, one row per attempt at a question
//! ([`attempts`]), and are grouped by run and question ([`run`]). [`report`] and [`compare`] turn them
//! into estimates with intervals, by the pure functions of [`stats`], and tell what it took, in money by [`prices`];
//! [`render`] shows that as tables and plots. Before that, [`benchmark`] makes questions of published files, and
//! [`scoring`] gives verdicts on a run's answers as they are made. [`dashboard`] shows all of it as pages. Nothing here opens
//! a table or asks a model on its own: rows and judges are handed in or come from [`webdancer_query`], results are handed out.

pub mod attempts;
pub mod benchmark;
pub mod compare;
pub mod contamination;
pub mod dashboard;
pub mod drift;
pub mod prices;
pub mod published;
pub mod render;
pub mod report;
pub mod reproduce;
pub mod run;
pub mod schedule;
pub mod scoring;
pub mod stats;
pub mod votes;
