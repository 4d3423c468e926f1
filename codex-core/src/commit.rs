//! A commit: its conditions, its changes and its outcome.

use std::fmt;

use codex_storage::batch::{Op, Seq, TableId, record_len};
#[cfg(feature = "shared")]
use codex_storage::shared::{Digests, Seen, SeenEntries, digest_of_value};

use crate::engine::View;
use crate::entry::{Entry, Name, OwnedName};
use crate::range::{KeyBound, bounds};

/// Changes that become durable and visible together, if all checks hold.
#[derive(Debug, Default)]
pub struct Commit {
    /// The conditions. If one does not hold, nothing is changed.
    pub checks: SmallVec<Check>,
    /// The changes, in order.
    pub changes: SmallVec<Change>,
    /// A state in which all checks are known to hold. If it is still the current one, they are not
    /// tested.
    pub base: Option<Base>,
    /// The number of earlier attempts that ended in a conflict. A commit with more of them is made
    /// before the waiting commits with fewer.
    pub rounds: u32,
    /// Whether the commit is as durable as at the level `Sync` before it is visible, whichever
    /// level the store has. [`Engine::submit_synced`](crate::internals::Engine::submit_synced) sets
    /// it.
    pub sync: bool,
}

impl Commit {
    /// Returns a commit of one change without a condition.
    pub fn one(change: Change) -> Self {
        Self { changes: SmallVec::One(change), ..Self::default() }
    }

    /// Returns a commit of one change, under the condition that `check` holds.
    pub fn checked(check: Check, change: Change) -> Self {
        Self { checks: SmallVec::One(check), ..Self::one(change) }
    }

    /// Returns the same commit, under the condition that `check` holds too.
    pub(crate) fn also(self, check: Check) -> Self {
        let checks = match self.checks {
            SmallVec::None => SmallVec::One(check),
            SmallVec::One(one) => SmallVec::Many(vec![one, check]),
            SmallVec::Many(mut many) => {
                many.push(check);
                SmallVec::Many(many)
            }
        };
        Self { checks, ..self }
    }

    /// Returns true if the commit puts no entry, so that it can only free memory.
    pub(crate) fn only_removes(&self) -> bool {
        !self.changes.as_slice().iter().any(|change| matches!(change, Change::Put(_)))
    }

    /// Returns true if the commit puts an entry that expires.
    pub(crate) fn puts_expiring(&self) -> bool {
        let expires = |change: &Change| match change {
            Change::Put(entry) => entry.expires_us().is_some(),
            _ => false,
        };
        self.changes.as_slice().iter().any(expires)
    }

    /// Returns the approximate encoded length, in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        self.changes.as_slice().iter().map(Change::encoded_len).fold(0, usize::saturating_add)
    }
}

/// A change of the store.
#[derive(Clone)]
pub enum Change {
    /// The key of the entry gets its value.
    Put(Entry),
    /// The key is removed. If it has no value, nothing is written.
    Remove(OwnedName),
    /// All keys of the table, or all outside tables, are removed. If there are none, nothing is
    /// written. The commit has one record.
    Clear(Option<TableId>),
    /// All keys within the bounds, of the table or outside tables, are removed.
    ///
    /// The leader finds the keys while it holds `persist`, so writers wait for it and readers do
    /// not. The commit has one record for each removed key.
    RemoveRange(Option<TableId>, KeyBound, KeyBound),
    /// The entry is removed if its key still has this very entry, and it has expired.
    Sweep(Entry),
    /// The key at this end of the range within the bounds, of the table or outside tables, is
    /// removed. If the range has no key, nothing is written.
    Pop(Option<TableId>, KeyBound, KeyBound, End),
    /// The key is removed if its entry has expired. The sweep of another node of a shared store.
    #[cfg(feature = "shared")]
    Expire(OwnedName),
}

/// An end of a range of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The smallest key.
    First,
    /// The largest key.
    Last,
}

impl Change {
    /// Returns the table of the keys, or `None` if they are outside tables.
    pub(crate) fn table(&self) -> Option<TableId> {
        match self {
            Self::Put(entry) | Self::Sweep(entry) => entry.table(),
            Self::Remove(name) => name.as_name().table,
            #[cfg(feature = "shared")]
            Self::Expire(name) => name.as_name().table,
            Self::Clear(table) | Self::RemoveRange(table, ..) | Self::Pop(table, ..) => *table,
        }
    }

    /// Returns the encoded length, in bytes. A removal by range counts as a record without a key,
    /// because the keys are known only when the leader decides.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Put(entry) => record_len(Op::Set(entry.item())),
            Self::Remove(name) => record_len(name.as_name().removal()),
            #[cfg(feature = "shared")]
            Self::Expire(name) => record_len(name.as_name().removal()),
            Self::Sweep(entry) => record_len(entry.removal()),
            Self::Clear(table) | Self::RemoveRange(table, ..) | Self::Pop(table, ..) => {
                record_len(Op::Clear { table: *table })
            }
        }
    }
}

/// Shows only the kind of change, because programs write `Debug` output to logs.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put(_) => "Put",
            Self::Remove(_) => "Remove",
            Self::Clear(_) => "Clear",
            Self::RemoveRange(..) => "RemoveRange",
            Self::Sweep(_) => "Sweep",
            Self::Pop(..) => "Pop",
            #[cfg(feature = "shared")]
            Self::Expire(_) => "Expire",
        })
    }
}

/// A state in which all checks of a commit hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The last commit of the state.
    pub seq: Seq,
    /// The time by which entries of the state were hidden, in microseconds since 1970.
    pub now_us: i64,
}

/// A condition of a commit. The leader tests it in the order of commits. An entry that has expired
/// counts as absent.
pub enum Check {
    /// The entry that was read is still that of its key. An equal entry that was written since does
    /// not count.
    Same(Entry),
    /// The key still has no entry.
    Absent(OwnedName),
    /// The stored value of the key is equal to `value`, or there is none.
    Equals {
        /// The key and its table.
        name: OwnedName,
        /// The expected stored value.
        value: Option<Box<[u8]>>,
    },
    /// The range contains the same entries as when it was read, and no others.
    Unchanged {
        /// The table, or `None` for the keys outside tables.
        table: Option<TableId>,
        /// The lower end of the range.
        lower: KeyBound,
        /// The upper end of the range.
        upper: KeyBound,
        /// The state that was read.
        base: View,
    },
    /// The key has what another node of a shared store has seen.
    #[cfg(feature = "shared")]
    Seen(OwnedName, Seen),
    /// The range has the entries that another node of a shared store has seen, and no others. An
    /// equal entry that was written since counts as the same.
    #[cfg(feature = "shared")]
    SeenRange(Option<TableId>, KeyBound, KeyBound, SeenEntries),
}

impl Check {
    /// Returns the condition that the entry of `name` is still `seen`, or that there is still none.
    pub(crate) fn of(name: Name<'_>, seen: Option<Entry>) -> Self {
        seen.map_or_else(|| Self::Absent(name.into()), Self::Same)
    }

    /// Returns true if the check holds in `state`.
    pub(crate) fn holds_in(&self, state: &View) -> bool {
        match self {
            Self::Same(seen) => is_same(state.get(seen.name()), Some(seen)),
            Self::Absent(name) => state.get(name.as_name()).is_none(),
            Self::Equals { name, value } => {
                state.get(name.as_name()).map(Entry::value) == value.as_deref()
            }
            Self::Unchanged { table, lower, upper, base } => match bounds(lower, upper) {
                Some(bounds) => are_same(state.range(*table, bounds), base.range(*table, bounds)),
                None => true,
            },
            #[cfg(feature = "shared")]
            Self::Seen(name, seen) => is_seen(state.get(name.as_name()), *seen),
            #[cfg(feature = "shared")]
            Self::SeenRange(table, lower, upper, seen) => {
                let bounds = bounds(lower, upper);
                let entries = bounds.into_iter().flat_map(|bounds| state.range(*table, bounds));
                seen_entries(entries) == *seen
            }
        }
    }
}

/// Returns true if `now` is what was seen of its key.
#[cfg(feature = "shared")]
pub(crate) fn is_seen(now: Option<&Entry>, seen: Seen) -> bool {
    match (now, seen) {
        (now, Seen::Absent) => now.is_none(),
        (Some(now), Seen::Value(digest)) => digest_of_value(now.value()) == digest,
        (Some(now), Seen::Entry(digest)) => seen_entries([now]).digest == digest,
        (None, _) => false,
    }
}

/// Returns the number and the digest of `entries`.
#[cfg(feature = "shared")]
#[expect(clippy::expect_used, reason = "an entry with a longer key was never committed")]
pub(crate) fn seen_entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> SeenEntries {
    let mut digest = Digests::new();
    for entry in entries {
        digest.add(entry.item()).expect("the key of an entry fits a record");
    }
    digest.finish()
}

/// Returns true if both are the very same entry, or if there is none.
pub(crate) fn is_same(now: Option<&Entry>, seen: Option<&Entry>) -> bool {
    match (now, seen) {
        (Some(now), Some(seen)) => now.same(seen),
        (now, seen) => now.is_none() && seen.is_none(),
    }
}

/// Returns true if both iterators return the very same entries.
pub(crate) fn are_same<'a>(
    mut now: impl Iterator<Item = &'a Entry>,
    mut seen: impl Iterator<Item = &'a Entry>,
) -> bool {
    loop {
        match (now.next(), seen.next()) {
            (None, None) => return true,
            (now, seen) if is_same(now, seen) => {}
            _ => return false,
        }
    }
}

/// Shows only the kind of check, because programs write `Debug` output to logs.
impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same(_) => "Same",
            Self::Absent(_) => "Absent",
            Self::Equals { .. } => "Equals",
            Self::Unchanged { .. } => "Unchanged",
            #[cfg(feature = "shared")]
            Self::Seen(..) => "Seen",
            #[cfg(feature = "shared")]
            Self::SeenRange(..) => "SeenRange",
        })
    }
}

/// The outcome of a commit.
#[derive(Debug)]
pub enum Outcome {
    /// The commit is durable at the level of the store, and visible.
    Done {
        /// The number of the commit, or `None` if there was nothing to write.
        seq: Option<Seq>,
        /// The number of removed keys.
        removed: u64,
        /// The entry that the last `Put`, `Remove` or `Pop` of the commit replaced or removed.
        previous: Option<Entry>,
    },
    /// A check did not hold, and nothing was changed. The state against which it was tested is
    /// durable.
    Conflict,
}

impl Outcome {
    /// Returns the number of the commit, if anything was written.
    pub(crate) fn seq(&self) -> Option<Seq> {
        match self {
            Self::Done { seq, .. } => *seq,
            Self::Conflict => None,
        }
    }

    /// Returns the entry that the last change of one key replaced or removed.
    pub(crate) fn previous(self) -> Option<Entry> {
        match self {
            Self::Done { previous, .. } => previous,
            Self::Conflict => None,
        }
    }

    /// Returns the number of removed keys.
    pub(crate) fn removed(&self) -> u64 {
        match self {
            Self::Done { removed, .. } => *removed,
            Self::Conflict => 0,
        }
    }
}

/// Zero, one or several elements. Zero or one need no allocation.
#[derive(Debug, Default)]
pub enum SmallVec<T> {
    /// No element.
    #[default]
    None,
    /// One element.
    One(T),
    /// Several elements.
    Many(Vec<T>),
}

impl<T> SmallVec<T> {
    /// Returns all elements.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl<T> From<SmallVec<T>> for Vec<T> {
    fn from(small: SmallVec<T>) -> Self {
        match small {
            SmallVec::None => Self::new(),
            SmallVec::One(one) => vec![one],
            SmallVec::Many(many) => many,
        }
    }
}

impl<T> From<Vec<T>> for SmallVec<T> {
    fn from(many: Vec<T>) -> Self {
        Self::Many(many)
    }
}
