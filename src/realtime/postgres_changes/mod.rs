//! Subscriptions to row changes: what an entry of a join means and what its client is told (protocol 11, database 7 and 8.6).
//!
//! Pure: texts in, texts out. The channel rules call [`ids`] when a join is answered; the change worker calls [`parse`] or
//! [`legacy`] before it stores a subscription, the texts of [`message_not_published`] and [`message_rejected`] when that
//! fails, and [`ChangeData`] with [`payload`] when a row has changed.
//!
//! Invariants: entries are spans that the JSON scanner accepted, yet any text is safe; nothing here panics or recurses
//! deeper than a constant. Everything fails by value, as an [`EntryError`] whose `Display` is the text for the client.
//!
//! | file | concept |
//! |---|---|
//! | `subscription` | an entry and the shapes it may have |
//! | `filter` | the filter grammar |
//! | `rejection` | what the client is told when the database refuses |
//! | `sqlstate` | names of error codes |
//! | `inspect` | Elixir syntax, as those texts need it |
//! | `entry_id` | the number that stands for an entry |
//! | `change` | the delivered change |

mod change;
mod entry_id;
mod filter;
mod inspect;
mod rejection;
mod sqlstate;
mod subscription;

pub use change::{ChangeData, Fields, Kind, NO_PRIMARY_KEY, PAYLOAD_TOO_LARGE, UNAUTHORIZED, commit_timestamp_text, payload};
pub use entry_id::{ENTRY_ID_MAX, entry_id, ids};
pub use filter::{Filter, FilterError, Op};
pub use rejection::{message_not_published, message_rejected};
pub use sqlstate::condition_name;
pub use subscription::{EntryError, Event, Subscription, legacy, parse};

#[cfg(test)]
mod properties;
