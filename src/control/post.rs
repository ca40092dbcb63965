//! The control plane's ends of the shards' mailboxes, shared by everything that runs on its thread.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::mailbox::{Sender, ToShard};

/// Mail to the shards.
pub struct PostOffice {
    shards: RefCell<Vec<Sender<ToShard>>>,
}

impl PostOffice {
    /// Ends by shard number.
    pub fn new(shards: Vec<Sender<ToShard>>) -> Self {
        Self { shards: RefCell::new(shards) }
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.borrow().len()
    }

    /// Hands mail to one shard.
    pub fn send(&self, shard: u16, mail: ToShard) {
        self.shards.borrow_mut()[usize::from(shard)].send(mail);
    }

    /// Hands the same mail to every shard.
    pub fn send_all(&self, mail: impl Fn() -> ToShard) {
        for shard in &mut *self.shards.borrow_mut() {
            shard.send(mail());
        }
    }

    /// Moves on what did not fit.
    pub fn flush(&self) {
        for shard in &mut *self.shards.borrow_mut() {
            shard.flush();
        }
    }

    /// The shard through which everything goes that must keep its order for a tenant.
    pub fn home_of(&self, external_id: &str) -> u16 {
        let mut hasher = DefaultHasher::new();
        external_id.hash(&mut hasher);
        u16::try_from(hasher.finish() % self.shards() as u64).expect("there are at most SHARDS_MAX shards")
    }
}
