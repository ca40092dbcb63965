//! Load tests for ringcast: the generator `swarm` and the yardstick `floor`.
//!
//! | module | owns |
//! |---|---|
//! | [`wire`] | frames, handshake, Phoenix messages, time stamps, tokens: pure functions over bytes |
//! | [`client`] | many connections on one thread and one epoll |
//! | [`scenario`] | one file per kind of load; each turns a [`client::Fleet`] into a [`measure::Outcome`] |
//! | [`measure`] | CPU, memory, latency, medians |
//! | [`database`] | the tenant's Postgres: policies or a table for the run, rows inserted by SQL |
//! | [`suite`] | the comparison of several servers, interleaved over rounds |
//! | [`report`] | table, JSON, HTML |
//! | [`cli`] | arguments of `swarm` |
//! | [`floor`] | the bare io_uring server |
//! | [`machine`] | clock, core, file limit |

pub mod cli;
pub mod client;
pub mod database;
pub mod floor;
pub mod machine;
pub mod measure;
pub mod report;
pub mod scenario;
pub mod suite;
pub mod wire;
