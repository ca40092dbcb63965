//! Visibility is judged by what the database says at that moment, so all groups are to judge a change before anybody is told of
//! it: whoever acts on a change must not make it visible, or invisible, for others that were about to be told (8.4).
//!
//! A group that comes too late is not waited for until it has been fast again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::group::Group;

/// How long the groups of a batch wait for each other. Judging takes a millisecond or two.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// Changes that some groups have yet to judge: number and how many groups, in order.
#[derive(Default)]
pub struct Gate {
    pending: RefCell<VecDeque<(u64, usize)>>,
    next: Cell<u64>,
    judged: Notify,
}

/// A group's word that it will judge a change; given back when dropped.
pub struct Ticket {
    gate: Rc<Gate>,
    number: u64,
    group: Weak<Group>,
    /// The others wait for it.
    is_counted: bool,
}

impl Gate {
    /// Numbers a change that these groups are going to judge, and gives each its ticket.
    pub fn admit(self: &Rc<Self>, groups: &[Rc<Group>]) -> Vec<Ticket> {
        let number = self.next.get();
        self.next.set(number + 1);
        let tickets: Vec<Ticket> = groups
            .iter()
            .map(|group| Ticket { gate: self.clone(), number, group: Rc::downgrade(group), is_counted: !group.is_slow.get() })
            .collect();
        let counted = tickets.iter().filter(|ticket| ticket.is_counted).count();
        if counted > 0 {
            self.pending.borrow_mut().push_back((number, counted));
        }
        tickets
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
                let mut pending = self.pending.borrow_mut();
                while pending.front().is_some_and(|(first, _)| *first <= number) {
                    pending.pop_front();
                }
                drop(pending);
                return self.judged.notify_waiters();
            }
        }
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
        if !self.is_counted {
            return;
        }
        let mut pending = self.gate.pending.borrow_mut();
        match pending.binary_search_by_key(&self.number, |(number, _)| *number) {
            Ok(place) => pending[place].1 -= 1,
            // The others have gone on without it.
            Err(_) => {
                if let Some(group) = self.group.upgrade() {
                    group.is_slow.set(true);
                }
            }
        }
        let mut moved = false;
        while pending.front().is_some_and(|(_, left)| *left == 0) {
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

    const SOON: Duration = Duration::from_millis(20);

    fn on_tokio(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(test);
    }

    fn two_groups() -> [Rc<Group>; 2] {
        [Group::new("a".into(), "{}".into()), Group::new("b".into(), "{}".into())]
    }

    #[test]
    fn nobody_passes_before_all_have_judged() {
        on_tokio(async {
            let (gate, groups) = (Rc::new(Gate::default()), two_groups());
            let mut first = gate.admit(&groups);
            let second = gate.admit(&groups);
            let number = second[0].number();
            drop(first.remove(0));
            drop(second);
            assert!(tokio::time::timeout(SOON, gate.passed(number)).await.is_err());
            drop(first);
            tokio::time::timeout(SOON, gate.passed(number)).await.expect("all have judged");
        });
    }

    #[test]
    fn a_group_that_came_too_late_is_not_waited_for_again() {
        on_tokio(async {
            let (gate, groups) = (Rc::new(Gate::default()), two_groups());
            let mut tickets = gate.admit(&groups);
            let late = tickets.pop();
            drop(tickets);
            gate.passed(0).await;
            drop(late);
            assert!(groups[1].is_slow.get() && !groups[0].is_slow.get());
            let mut later = gate.admit(&groups);
            let number = later[0].number();
            drop(later.remove(0));
            tokio::time::timeout(SOON, gate.passed(number)).await.expect("the slow one is left out");
        });
    }
}
