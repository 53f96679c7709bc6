//! A lake on a real S3 server.
