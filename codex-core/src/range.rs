//! Ranges of keys, for the methods that scan and remove.

use std::ops::{
    self, Bound, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

/// A range of keys: `..`, `from..to`, `from..`, `..to`, `from..=to`, `..=to`, a pair of
/// [`Bound`]s, or a [`Prefix`].
///
/// The ends are bytes in any form: `&str`, `String`, `&[u8]`, `[u8; N]`, `Vec<u8>`,
/// [`Key`](crate::Key), references to them, and other types that implement `AsRef<[u8]>`. Both ends
/// have one type. A range whose ends cross is empty. No type of another crate can implement the
/// trait.
///
/// Keys are ordered by their bytes, so numbers are given in big-endian form: `7_u64.to_be_bytes()`.
///
/// ```
/// use codex_core::{Prefix, Store};
/// use std::ops::Bound;
///
/// let store = Store::in_memory()?;
/// for key in ["a", "ab", "b", "c"] {
///     store.set(key, &1)?;
/// }
/// let (from, to) = (String::from("ab"), String::from("b"));
/// assert_eq!(store.range(..).count(), 4);
/// assert_eq!(store.range("a".."c").count(), 3);
/// assert_eq!(store.range(b"b"..=b"c").count(), 2);
/// assert_eq!(store.range(&from..&to).count(), 1);
/// assert_eq!(store.range((Bound::Excluded("a"), Bound::Unbounded)).count(), 3);
/// assert_eq!(store.range(Prefix("a")).count(), 2);
/// # Ok::<(), codex_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a range of keys",
    label = "not a range of keys",
    note = "all keys are `..`, and the keys from one to another are `from..to` or `from..=to`",
    note = "the keys that begin with some bytes are `Prefix(\"some bytes\")`",
    note = "the ends are strings or bytes; of a number: `7_u64.to_be_bytes()`"
)]
pub trait KeyRange: sealed::Bounds {}

/// The range of all keys that begin with these bytes.
///
/// ```
/// use codex_core::{Prefix, Store};
///
/// let store = Store::in_memory()?;
/// store.set("jobs/1", "wash")?;
/// store.set("done/0", "shop")?;
/// let job = store.pop_first(Prefix("jobs/"))?;
/// assert_eq!(job.map(|entry| entry.key().to_vec()), Some(b"jobs/1".to_vec()));
/// # Ok::<(), codex_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix<K>(pub K);

/// One end of a range of keys.
pub(crate) type KeyBound = Bound<Box<[u8]>>;

/// Both ends of a range, in the form for a lookup.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

pub(crate) mod sealed {
    use super::KeyBound;

    /// A trait that other crates cannot name, so that they cannot implement
    /// [`KeyRange`](super::KeyRange).
    pub trait Bounds: Sized {
        /// Returns both ends. Calls code of the user.
        fn into_bounds(self) -> (KeyBound, KeyBound);
    }
}

macro_rules! key_ranges {
    ($($range:ty),+ $(,)?) => {$(
        impl<K: AsRef<[u8]>> KeyRange for $range {}

        impl<K: AsRef<[u8]>> sealed::Bounds for $range {
            fn into_bounds(self) -> (KeyBound, KeyBound) {
                let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().into());
                (own(self.start_bound()), own(self.end_bound()))
            }
        }
    )+};
}

key_ranges! {
    ops::Range<K>,
    RangeFrom<K>,
    RangeInclusive<K>,
    RangeTo<K>,
    RangeToInclusive<K>,
    (Bound<K>, Bound<K>),
}

impl KeyRange for RangeFull {}

impl sealed::Bounds for RangeFull {
    fn into_bounds(self) -> (KeyBound, KeyBound) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> KeyRange for Prefix<K> {}

impl<K: AsRef<[u8]>> sealed::Bounds for Prefix<K> {
    fn into_bounds(self) -> (KeyBound, KeyBound) {
        prefix_bounds(self.0.as_ref())
    }
}

/// Returns the bounds of all keys that begin with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> (KeyBound, KeyBound) {
    // The upper bound is the prefix with its last byte incremented. A byte of 255 cannot be
    // incremented, so trailing ones are cut off first. A prefix of only such bytes has no upper
    // bound.
    let end = prefix.iter().rposition(|&byte| byte != u8::MAX).and_then(|last| {
        let mut end: Box<[u8]> = prefix.get(..=last)?.into();
        *end.last_mut()? += 1;
        Some(end)
    });
    (Bound::Included(prefix.into()), end.map_or(Bound::Unbounded, Bound::Excluded))
}

/// Returns the bounds in the form for a lookup, or `None` if they cross, so that no key can lie
/// between them.
pub(crate) fn bounds<'a>(lower: &'a KeyBound, upper: &'a KeyBound) -> Option<Bounds<'a>> {
    use Bound::{Excluded, Included, Unbounded};
    let bounds = (lower.as_ref().map(|key| &**key), upper.as_ref().map(|key| &**key));
    match bounds {
        (Included(from), Included(to)) if from > to => None,
        (Included(from) | Excluded(from), Excluded(to)) if from >= to => None,
        (Excluded(from), Included(to)) if from >= to => None,
        (Unbounded | Included(_) | Excluded(_), _) => Some(bounds),
    }
}

/// Returns true if `key` lies within the bounds.
pub(crate) fn contains((lower, upper): Bounds<'_>, key: &[u8]) -> bool {
    let above = match lower {
        Bound::Included(lower) => lower <= key,
        Bound::Excluded(lower) => lower < key,
        Bound::Unbounded => true,
    };
    above
        && match upper {
            Bound::Included(upper) => key <= upper,
            Bound::Excluded(upper) => key < upper,
            Bound::Unbounded => true,
        }
}
