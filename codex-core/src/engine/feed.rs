//! The feed of a group: its changes, which the leader puts into the mailboxes of the watches after
//! they are visible.

use std::mem;
use std::sync::{Arc, Weak};

use codex_storage::Result;
use codex_storage::batch::{Group, Seq, TableId};

use super::Engine;
use super::commit::Disk;
use super::leader::Leader;
use super::queue::Admission;
use crate::cursor;
use crate::entry::Entry;
use crate::map::Map;
use crate::watch::{Change, Mailbox, Watch};

/// The changes by the members of a group that are decided so far, in order. Empty if no watch reads
/// them.
#[derive(Debug, Default)]
pub(super) struct Feed {
    is_watched: bool,
    changes: Vec<Fed>,
}

/// A change, with the index of its batch in the group, and the table of its key.
#[derive(Debug)]
struct Fed {
    batch: usize,
    table: Option<TableId>,
    change: Change,
}

/// A watch, as the disk knows it. Dropping it ends the watch, so it must not be dropped while a
/// lock is held.
pub(super) struct Subscriber {
    /// Only the watch keeps its mailbox in memory.
    mailbox: Weak<Mailbox>,
    /// The table, or `None` for keys outside tables.
    table: Option<TableId>,
    prefix: Box<[u8]>,
}

codex_storage::opaque_debug!(Subscriber);

impl Engine {
    /// Watches the keys of `table`, or those outside tables, that begin with `prefix`, between two
    /// groups.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`.
    pub fn watch(&self, table: Option<TableId>, prefix: &[u8]) -> Result<Watch> {
        let mailbox = Arc::new(Mailbox::default());
        let (weak, prefix) = (Arc::downgrade(&mailbox), prefix.into());
        let subscriber = Subscriber { mailbox: weak, table, prefix };
        let start = self.exclusive(Admission::WhileOpen, |disk| {
            disk.subscribers.retain(Subscriber::is_alive);
            disk.subscribers.push(subscriber);
            Ok(disk.read(Map::seq))
        })?;
        Ok(Watch::new(mailbox, start, self.clock.clone()))
    }

    /// Ends all watches, because no further commit is made.
    pub(super) fn end_watches(&self) {
        let subscribers = mem::take(&mut self.locks.persist().subscribers);
        // Order: unlock before the watches end, because their wakers are code of the user.
        drop(subscribers);
    }
}

impl Disk {
    /// Puts the group, whose first commit has the number `first`, into the mailboxes.
    pub(super) fn publish(&mut self, first: Seq, leader: &mut Leader<'_>) {
        self.publish_to(first, &mut leader.filled);
    }

    /// Puts the planned commits, the first of which has the number `first`, into the mailboxes,
    /// which are added to `filled`.
    pub(super) fn publish_to(&mut self, first: Seq, filled: &mut Vec<Arc<Mailbox>>) {
        let Self { plan, subscribers, .. } = self;
        plan.feed.publish(first, subscribers, filled);
    }

    /// Reports a gap to all watches, whose mailboxes are added to `filled`.
    pub(super) fn lag(&mut self, first: Seq, last: Seq, filled: &mut Vec<Arc<Mailbox>>) {
        for mailbox in self.subscribers.iter().filter_map(Subscriber::mailbox) {
            mailbox.lag(first, last);
            filled.push(mailbox);
        }
    }
}

impl Feed {
    /// Begins an empty feed, which stays empty unless it is watched.
    pub(super) fn begin(&mut self, is_watched: bool) {
        self.changes.clear();
        self.is_watched = is_watched;
    }

    /// Adds that the batch which `group` has begun sets `entry`.
    pub(super) fn set(&mut self, group: &Group, entry: &Entry) {
        self.add(group, entry.table(), || Change::Set(cursor::Entry::new(entry.clone())));
    }

    /// Adds that the batch which `group` has begun removes `entry`.
    pub(super) fn removed(&mut self, group: &Group, entry: &Entry) {
        self.add(group, entry.table(), || Change::Removed(cursor::Key::new(entry.clone())));
    }

    /// Adds that the batch which `group` has begun removes all entries of `table`, or all outside
    /// tables.
    pub(super) fn cleared(&mut self, group: &Group, table: Option<TableId>) {
        self.add(group, table, || Change::Cleared);
    }

    fn add(&mut self, group: &Group, table: Option<TableId>, change: impl FnOnce() -> Change) {
        if self.is_watched {
            self.changes.push(Fed { batch: group.batches(), table, change: change() });
        }
    }

    /// Returns the number of changes.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Removes the changes after the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.changes.truncate(len);
    }

    /// Puts the changes of a group whose first commit has the number `first` into the mailboxes and
    /// adds these to `filled`. The caller wakes their watches, and drops them, without a lock.
    pub(super) fn publish(
        &self,
        first: Seq,
        subscribers: &mut Vec<Subscriber>,
        filled: &mut Vec<Arc<Mailbox>>,
    ) {
        subscribers.retain(|subscriber| {
            let is_alive = subscriber.is_alive();
            if is_alive {
                filled.extend(self.publish_to(first, subscriber));
            }
            is_alive
        });
    }

    /// Puts the changes that concern `subscriber` into its mailbox, commit by commit. Returns the
    /// mailbox if there are any.
    fn publish_to(&self, first: Seq, subscriber: &Subscriber) -> Option<Arc<Mailbox>> {
        let concerns =
            |fed: &&Fed| fed.table == subscriber.table && fed.change.concerns(&subscriber.prefix);
        // Most groups do not concern most watches. Those are not even locked.
        self.changes.iter().find(concerns)?;
        let mailbox = subscriber.mailbox.upgrade()?;
        for commit in self.changes.chunk_by(|one, next| one.batch == next.batch) {
            let mut matching = commit.iter().filter(concerns).peekable();
            if let Some(fed) = matching.peek() {
                let seq = first + u64::try_from(fed.batch).expect("a count fits in 64 bits");
                mailbox.put(seq, matching.map(|fed| &fed.change));
            }
        }
        Some(mailbox)
    }
}

impl Subscriber {
    /// Returns the mailbox, unless the watch was dropped.
    pub(super) fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.mailbox.upgrade()
    }

    /// Returns true if the watch was not dropped.
    fn is_alive(&self) -> bool {
        self.mailbox.strong_count() > 0
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.end();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use codex_storage::storage::Durability;
    use codex_storage::vfs::SimClock;

    use super::Engine;
    use crate::commit::{Change, Commit};
    use crate::engine::EngineOptions;
    use crate::map::Map;

    #[test]
    fn a_dropped_watch_is_forgotten_by_the_next_group_or_the_next_watch() {
        let options = EngineOptions {
            path: "(in memory)".into(),
            durability: Durability::Sync,
            clock: Arc::new(SimClock::new()),
            background: false,
            newest_us: i64::MIN,
        };
        let engine = Engine::start(codex_storage::null(), Map::new(), options);
        let count = || engine.locks.persist().subscribers.len();
        let kept = engine.watch(None, b"").unwrap();
        let dropped = engine.watch(None, b"").unwrap();
        assert_eq!(count(), 2);
        drop(dropped);
        engine.submit(Commit::one(Change::Put(crate::entry::Entry::new(b"k", b"v")))).unwrap();
        assert_eq!(count(), 1, "a group");
        for _ in 0..3 {
            drop(engine.watch(None, b"").unwrap());
        }
        assert_eq!(count(), 2, "a watch");
        engine.submit(Commit::one(Change::Put(crate::entry::Entry::new(b"k", b"v")))).unwrap();
        drop(kept);
        engine.submit(Commit::one(Change::Clear(None))).unwrap();
        assert_eq!(count(), 0, "the last one");
        engine.close().unwrap();
    }
}
