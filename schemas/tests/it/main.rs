//! Schemas: golden fixtures, compatibility, JSON Schemas and the CloudEvents wire form.

mod golden;
mod wire;
