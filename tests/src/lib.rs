//! End-to-end tests of the `webdancer` command live in `tests/it`; this crate has no code of its own.
