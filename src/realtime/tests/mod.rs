//! Tests of the core without any I/O.
