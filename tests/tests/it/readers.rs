//! Other engines read the tables.
