//! ringcast: a Supabase-Realtime-compatible gateway on io_uring shards.
//!
//! | component | what it is |
//! |---|---|
//! | [`cli`] | command line: serve, dev, check, token, tenant |
//! | [`boot`] | start and end of the process |
//! | [`shard`] | data plane: one thread per core, the only user of monoio |
//! | [`control`] | control plane: tenants, management API, signals; the only user of tokio |
//! | [`mailbox`] | the only way between threads |
//! | [`realtime`] | product rules, pure |
//! | [`protocol`] | bytes ⇄ meaning, pure |
//! | [`local_postgres`] | a private Postgres for development and tests |
//! | [`telemetry`], [`config`], [`base`] | logs and metrics, settings, clock and the like |
//!
//! Dependencies point downwards in this list; `docs/ARCHITECTURE.md` walks from accept to fan-out.

pub mod base;
pub mod boot;
pub mod cli;
pub mod config;
pub mod control;
pub mod local_postgres;
pub mod mailbox;
pub mod protocol;
pub mod realtime;
pub mod shard;
pub mod telemetry;
