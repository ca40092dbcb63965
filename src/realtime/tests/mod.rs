//! Tests of the core without any I/O: rules one by one, and a seeded simulation of several shards.

mod changes;
mod database;
mod rules;
mod simulation;
mod world;
