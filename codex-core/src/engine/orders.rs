//! Commits as the orders of a shared log, and back.

use std::ops::Bound;

use codex_storage::RecordError;
use codex_storage::batch::TableId;
use codex_storage::shared::{Frame, KeyRange, Order, Orders, Seen, digest_of_value, orders};

use crate::commit::{Change, Check, Commit, End, seen_entries};
use crate::entry::{Entry, Name};
use crate::range::{self, KeyBound};

/// Adds `commit` to `frame`, as one commit. Reads the entries that its checks have seen, and no
/// lock is held.
///
/// # Errors
/// `BatchTooLarge` or `KeyTooLong`: nothing of the commit is in the frame.
pub(super) fn encode(commit: &Commit, frame: &mut Orders) -> Result<(), RecordError> {
    let checks = commit.checks.as_slice().iter();
    let changes = commit.changes.as_slice().iter();
    let pushed = checks
        .filter_map(of_check)
        .chain(changes.map(of_change))
        .try_for_each(|order| frame.push(order));
    match pushed {
        Ok(()) => frame.finish(),
        Err(_) => frame.abandon(),
    }
    pushed
}

/// Returns the commits of `frame`.
///
/// # Errors
/// The fault of an order.
pub(super) fn decode(frame: &Frame<'_>) -> Result<Vec<Commit>, RecordError> {
    let mut commits = Vec::new();
    for batch in frame.commits() {
        let (mut checks, mut changes) = (Vec::new(), Vec::new());
        for order in orders(&batch?) {
            match read(order?) {
                Read::Check(check) => checks.push(check),
                Read::Change(change) => changes.push(change),
            }
        }
        let (checks, changes) = (checks.into(), changes.into());
        commits.push(Commit { checks, changes, ..Commit::default() });
    }
    if commits.len() != usize::try_from(frame.count()).unwrap_or(usize::MAX) {
        return Err(RecordError::Malformed("it has another number of commits than it says"));
    }
    Ok(commits)
}

/// Returns the order of a condition, or `None` if it always holds.
fn of_check(check: &Check) -> Option<Order<'_>> {
    let expect = |Name { table, key }, seen| Order::Expect { table, key, seen };
    Some(match check {
        Check::Same(entry) => expect(entry.name(), Seen::Entry(seen_entries([entry]).digest)),
        Check::Absent(name) | Check::Equals { name, value: None } => {
            expect(name.as_name(), Seen::Absent)
        }
        Check::Equals { name, value: Some(value) } => {
            expect(name.as_name(), Seen::Value(digest_of_value(value)))
        }
        Check::Unchanged { table, lower, upper, base } => {
            // A range whose ends cross has no entries, whatever is committed.
            let bounds = range::bounds(lower, upper)?;
            let seen = seen_entries(base.range(*table, bounds));
            Order::ExpectRange(range_of(*table, lower, upper), seen)
        }
        Check::Seen(name, seen) => expect(name.as_name(), *seen),
        Check::SeenRange(table, lower, upper, seen) => {
            Order::ExpectRange(range_of(*table, lower, upper), *seen)
        }
    })
}

/// Returns the order of a change.
fn of_change(change: &Change) -> Order<'_> {
    match change {
        Change::Put(entry) => Order::Set(entry.item()),
        Change::Remove(name) => {
            let Name { table, key } = name.as_name();
            Order::Remove { table, key }
        }
        Change::Clear(table) => Order::Clear { table: *table },
        Change::RemoveRange(table, lower, upper) => {
            Order::RemoveRange(range_of(*table, lower, upper))
        }
        Change::Pop(table, lower, upper, End::First) => {
            Order::PopFirst(range_of(*table, lower, upper))
        }
        Change::Pop(table, lower, upper, End::Last) => {
            Order::PopLast(range_of(*table, lower, upper))
        }
        Change::Sweep(entry) => {
            let Name { table, key } = entry.name();
            Order::Sweep { table, key }
        }
        Change::Expire(name) => {
            let Name { table, key } = name.as_name();
            Order::Sweep { table, key }
        }
    }
}

fn range_of<'a>(table: Option<TableId>, lower: &'a KeyBound, upper: &'a KeyBound) -> KeyRange<'a> {
    let (lower, upper) = (lower.as_ref().map(|key| &**key), upper.as_ref().map(|key| &**key));
    KeyRange { table, lower, upper }
}

/// An order that was read.
enum Read {
    Check(Check),
    Change(Change),
}

/// Returns the condition or the change of an order.
fn read(order: Order<'_>) -> Read {
    let own = |bound: Bound<&[u8]>| bound.map(Box::<[u8]>::from);
    let ends = |range: KeyRange<'_>| (range.table, own(range.lower), own(range.upper));
    Read::Change(match order {
        Order::Set(item) => Change::Put(Entry::from_item(item)),
        Order::Remove { table, key } => Change::Remove(Name { table, key }.into()),
        Order::Clear { table } => Change::Clear(table),
        Order::RemoveRange(range) => {
            let (table, lower, upper) = ends(range);
            Change::RemoveRange(table, lower, upper)
        }
        Order::PopFirst(range) => {
            let (table, lower, upper) = ends(range);
            Change::Pop(table, lower, upper, End::First)
        }
        Order::PopLast(range) => {
            let (table, lower, upper) = ends(range);
            Change::Pop(table, lower, upper, End::Last)
        }
        Order::Sweep { table, key } => Change::Expire(Name { table, key }.into()),
        Order::Expect { table, key, seen } => {
            return Read::Check(Check::Seen(Name { table, key }.into(), seen));
        }
        Order::ExpectRange(range, seen) => {
            let (table, lower, upper) = ends(range);
            return Read::Check(Check::SeenRange(table, lower, upper, seen));
        }
    })
}
