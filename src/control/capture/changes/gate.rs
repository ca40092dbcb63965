//! Visibility is judged by what the database says at that moment, so all groups are to judge a change before anybody is told of
//! it: whoever acts on a change must not make it visible, or invisible, for others that were about to be told (8.4).
//!
//! A group that does not answer in time is not waited for until it answers again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::group::Group;

/// How long the groups of a batch wait for each other. Judging takes a millisecond or two.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// Changes that some group has yet to judge, in order.
#[derive(Default)]
pub struct Gate {
    pending: RefCell<VecDeque<(u64, Vec<Weak<Group>>)>>,
    next: Cell<u64>,
    judged: Notify,
}

/// A group's word that it will judge a change; given back when dropped.
pub struct Ticket {
    gate: Rc<Gate>,
    number: u64,
    group: Weak<Group>,
}

impl Gate {
    /// Numbers a change that these groups are going to judge, and gives each its ticket.
    pub fn admit(self: &Rc<Self>, groups: &[Rc<Group>]) -> Vec<Ticket> {
        let number = self.next.get();
        self.next.set(number + 1);
        let waited_for: Vec<Weak<Group>> = groups.iter().filter(|group| !group.is_slow.get()).map(Rc::downgrade).collect();
        if !waited_for.is_empty() {
            self.pending.borrow_mut().push_back((number, waited_for));
        }
        groups.iter().map(|group| Ticket { gate: self.clone(), number, group: Rc::downgrade(group) }).collect()
    }

    /// Resolves when every change up to this one has been judged, or waiting for it was given up.
    pub async fn passed(&self, number: u64) {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let judged = self.judged.notified();
            if self.pending.borrow().front().is_none_or(|(first, _)| *first > number) {
                return;
            }
            if tokio::time::timeout_at(deadline, judged).await.is_err() {
                return self.give_up(number);
            }
        }
    }

    fn give_up(&self, number: u64) {
        let mut pending = self.pending.borrow_mut();
        while pending.front().is_some_and(|(first, _)| *first <= number) {
            for group in pending.pop_front().into_iter().flat_map(|(_, groups)| groups) {
                if let Some(group) = group.upgrade() {
                    group.is_slow.set(true);
                }
            }
        }
        drop(pending);
        self.judged.notify_waiters();
    }
}

impl Ticket {
    /// Number of the change.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut pending = self.gate.pending.borrow_mut();
        if let Ok(place) = pending.binary_search_by_key(&self.number, |(number, _)| *number) {
            pending[place].1.retain(|group| !group.ptr_eq(&self.group));
        }
        let mut moved = false;
        while pending.front().is_some_and(|(_, groups)| groups.is_empty()) {
            pending.pop_front();
            moved = true;
        }
        drop(pending);
        if moved {
            self.gate.judged.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_tokio(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn nobody_passes_before_all_have_judged() {
        on_tokio(async {
            let gate = Rc::new(Gate::default());
            let groups = [Group::new("a".into(), "{}".into()), Group::new("b".into(), "{}".into())];
            let mut first = gate.admit(&groups);
            let second = gate.admit(&groups);
            let number = second[0].number();
            drop(first.remove(0));
            drop(second);
            let soon = Duration::from_millis(20);
            assert!(tokio::time::timeout(soon, gate.passed(number)).await.is_err());
            drop(first);
            tokio::time::timeout(soon, gate.passed(number)).await.expect("all have judged");
        });
    }

    #[test]
    fn a_slow_group_is_waited_for_once() {
        on_tokio(async {
            let gate = Rc::new(Gate::default());
            let groups = [Group::new("a".into(), "{}".into()), Group::new("b".into(), "{}".into())];
            let mut tickets = gate.admit(&groups);
            let slow = tickets.pop();
            drop(tickets);
            gate.passed(0).await;
            assert!(groups[1].is_slow.get() && !groups[0].is_slow.get());
            let later = gate.admit(&groups);
            let number = later[0].number();
            let (fast, still_slow): (Vec<_>, Vec<_>) =
                later.into_iter().partition(|ticket| ticket.group.ptr_eq(&Rc::downgrade(&groups[0])));
            drop(fast);
            tokio::time::timeout(Duration::from_millis(20), gate.passed(number)).await.expect("the slow one is left out");
            drop((slow, still_slow));
        });
    }
}
