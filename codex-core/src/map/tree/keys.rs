//! Sorted items with the digests of their keys, and the fences that decide what a digest skips.

use arrayvec::ArrayVec;

use super::Sorted;

/// Items in ascending order, with the digests of their keys.
pub(super) struct Keys<T, const N: usize> {
    pub(super) skip: usize,
    pub(super) digests: [u32; N],
    pub(super) items: ArrayVec<T, N>,
}

/// The separators around a node. There is none at the edge of the tree.
pub(super) struct Fences<'a, T> {
    pub(super) lower: Option<&'a T>,
    pub(super) upper: Option<&'a T>,
}

impl<T: Sorted, const N: usize> Keys<T, N> {
    pub(super) fn new(items: ArrayVec<T, N>, fences: Fences<'_, T>) -> Self {
        let skip = fences.common();
        let mut digests = [0; N];
        for (digest, item) in digests.iter_mut().zip(&items) {
            *digest = T::digest(item.key(), skip);
        }
        Self { skip, digests, items }
    }

    /// Returns the index of the item with `key`, or else the index at which it would be.
    pub(super) fn find(&self, key: &T::Key) -> Result<usize, usize> {
        let digest = T::digest(key, self.skip);
        let digests = &self.digests[..self.items.len()];
        let from = digests.partition_point(|&other| other < digest);
        let same = digests[from..].iter().take_while(|&&other| other == digest).count();
        let found = self.items[from..from + same].binary_search_by(|item| item.key().cmp(key));
        found.map(|at| from + at).map_err(|at| from + at)
    }

    pub(super) fn insert(&mut self, at: usize, item: T) {
        self.digests.copy_within(at..N - 1, at + 1);
        self.digests[at] = T::digest(item.key(), self.skip);
        self.items.insert(at, item);
    }

    pub(super) fn remove(&mut self, at: usize) -> T {
        self.digests.copy_within(at + 1.., at);
        self.items.remove(at)
    }
}

impl<T: Sorted, const N: usize> Clone for Keys<T, N> {
    fn clone(&self) -> Self {
        T::read(&self.items);
        Self { skip: self.skip, digests: self.digests, items: self.items.clone() }
    }
}

impl<'a, T: Sorted> Fences<'a, T> {
    /// Returns the fences of the root.
    pub(super) fn none() -> Self {
        Self { lower: None, upper: None }
    }

    /// Returns the length of the part that all keys between the fences have in common.
    pub(super) fn common(self) -> usize {
        let both = self.lower.zip(self.upper);
        both.map_or(0, |(lower, upper)| T::common(lower.key(), upper.key()))
    }

    pub(super) fn below(self, upper: &'a T) -> Self {
        Self { upper: Some(upper), ..self }
    }

    pub(super) fn above(self, lower: &'a T) -> Self {
        Self { lower: Some(lower), ..self }
    }

    /// Returns the fences of the child `at` of a branch that has these fences.
    pub(super) fn of_child(self, separators: &'a [T], at: usize) -> Self {
        let lower = at.checked_sub(1).map(|before| &separators[before]);
        Self { lower: lower.or(self.lower), upper: separators.get(at).or(self.upper) }
    }
}

impl<T> Clone for Fences<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Fences<'_, T> {}
