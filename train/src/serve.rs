//! Serving a checkpoint.
