//! One subscription entry bound to one table: does a change match it, and what may its subscriber see of it? (8.3)

use std::rc::Rc;

use super::change::Change;
use super::group::Group;
use super::subscriber::Subscriber;
use super::table::Table;
use crate::control::capture::filters::{self, FilterColumn, Question, Verdict};
use crate::realtime::postgres_changes::{Kind, Subscription};

/// An entry of a subscriber on one table.
pub struct Binding {
    /// Whose entry it is.
    pub subscriber: Rc<Subscriber>,
    /// Number of the entry among the subscriber's, for its id.
    pub entry: usize,
    /// Role and claims it is judged by.
    pub group: Rc<Group>,
    /// What the entry asks for.
    pub subscription: Rc<Subscription>,
    /// Names of the columns asked for, sorted; `None` means all.
    pub selection: Option<Rc<[String]>>,
    filters: filters::Group,
    /// The table that the conditions are about.
    table: Rc<Table>,
}

/// Whether a change matches an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Only the database can say.
    Ask,
    /// Nothing may be told but that there was a change, so filters were not looked at.
    Withheld,
}

impl Binding {
    /// Binds an entry to a table.
    pub fn new(
        subscriber: Rc<Subscriber>,
        entry: usize,
        group: Rc<Group>,
        subscription: Rc<Subscription>,
        selection: Option<Rc<[String]>>,
        table: &Rc<Table>,
    ) -> Self {
        let filters = filters::compile_all(&subscription.filters, |name| {
            let index = table.column(name)?;
            let column = &table.columns[index];
            Some(FilterColumn { index, type_info: column.info.clone(), deterministic: column.is_deterministic })
        });
        Self { subscriber, entry, group, subscription, selection, filters, table: table.clone() }
    }

    /// The same entry on the table as it is now.
    pub fn renewed(&self, table: &Rc<Table>) -> Self {
        let Self { subscriber, group, subscription, selection, .. } = self;
        Self::new(subscriber.clone(), self.entry, group.clone(), subscription.clone(), selection.clone(), table)
    }

    /// Whether the entry wants this kind of change.
    pub fn wants(&self, kind: Kind) -> bool {
        self.subscription.event.includes(kind)
    }

    /// Conditions are combined with AND; a NULL result does not match, nor does an absent column.
    pub fn matches(&self, change: &Change) -> Match {
        match self.filters.test(|column| change.cell(column)) {
            Verdict::True => Match::Yes,
            Verdict::False | Verdict::Null => Match::No,
            Verdict::AskSql => Match::Ask,
        }
    }

    /// What the database has to be asked, where [`Binding::matches`] said so.
    pub fn questions<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = Question<'a>> {
        self.filters.questions(|column| change.cell(column))
    }

    /// The entry as it applies to a change: one that was written before, or after, the table changed is judged by the table as
    /// it was then.
    pub fn for_change(self: &Rc<Self>, change: &Change) -> Rc<Self> {
        if Rc::ptr_eq(&self.table, &change.table) { self.clone() } else { Rc::new(self.renewed(&change.table)) }
    }

    /// Which columns its subscriber is shown: those its role may read, of those asked for, and always the key.
    pub fn shown(&self, table: &Table, may_read: impl Fn(i16) -> bool) -> Box<[bool]> {
        let selected = |index: usize, name: &str| match &self.selection {
            None => true,
            Some(names) => names.iter().any(|wanted| wanted == name) || table.key.contains(&index),
        };
        let columns = table.columns.iter().enumerate();
        columns.map(|(index, column)| may_read(column.attnum) && selected(index, &column.name)).collect()
    }
}
