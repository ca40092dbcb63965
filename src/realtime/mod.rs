//! Product rules: what joining, broadcasting, presence and tokens mean (protocol sections 4–10, 13–15).
//!
//! Pure: no I/O, no clock, no randomness of its own. Time comes in as [`Now`], everything that leaves goes through
//! [`Effects`], so the same code runs on a shard, under unit tests and in the seeded simulation of several shards.
//!
//! One [`Hub`] per shard owns the tenants, sockets, channels and rooms of that shard. Hubs talk to each other only in
//! [`PeerMail`]; what one room looks like elsewhere is known as *interest* (which shards have members, by serializer).
//!
//! | file | concept |
//! |---|---|
//! | `hub` | the state of one shard and the entry points |
//! | `dispatch` | from a client message to the rule that handles it |
//! | `join`, `join_request`, `admission`, `held`, `refusal` | joining, its payload, its checks, joins that wait, and why one is refused |
//! | `database`, `private` | questions to the tenant's database; permissions of private channels |
//! | `room` | topic membership and fan-out, local and across shards |
//! | `broadcast`, `payload_size` | user messages and their size rule |
//! | `changes`, `postgres_changes` | row changes for channels, and what they subscribe to |
//! | `presence`, `presence_room` | tracking, and the state and diffs of one room |
//! | `token` | refresh and expiry |
//! | `lifecycle` | ends of channels, sockets, tenants and the process |
//! | `tenant`, `rates` | settings, limits and counters shared by the shards |

mod admission;
mod broadcast;
mod changes;
pub mod database;
mod dispatch;
mod effects;
mod held;
mod hub;
mod join;
mod join_request;
mod lifecycle;
pub mod payload_size;
pub mod postgres_changes;
mod presence;
mod presence_room;
mod private;
pub mod rates;
mod refusal;
mod room;
pub mod tenant;
mod token;

pub use broadcast::{Form, Publication};
pub use effects::{Effects, Frame, PeerMail, Seat, Timer};
pub use hub::{ConnId, Hub, HubSettings, HubStats, Now, OpenSocket};
pub use lifecycle::CloseCode;
pub use refusal::token_code;
pub use room::{Delivery, RoomId, SHARDS_MAX};
pub use token::Token;

#[cfg(test)]
mod tests;
