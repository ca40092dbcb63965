//! Small values every other module may use and which use no other module: the clock, rate windows,
//! CPU sets and byte sizes. Nothing here knows about tenants, sockets or HTTP.

pub mod clock;
pub mod cpuset;
pub mod rate;
pub mod sizes;
