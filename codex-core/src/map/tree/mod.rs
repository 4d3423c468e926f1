//! A persistent B+tree: a sorted set whose copies share their nodes.
//!
//! A node keeps a digest of each of its keys: the bytes after those that all keys of the node have
//! in common. A search compares digests, which are adjacent in memory, and reads a key only if its
//! digest is the same. So it waits for one or two cache misses in each node rather than for one in
//! each comparison.
//!
//! - Separators never change, except when nodes are split or joined. All keys of a child are at
//!   least the separator before it and below the separator after it. These two are its fences.
//! - A digest skips the bytes that the fences of its node have in common, since all keys between
//!   them begin with these bytes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the nodes are our own, and a broken one must stop the commit"
)]

mod build;
mod keys;
mod range;
#[cfg(test)]
mod tests;

use std::mem;

use arrayvec::ArrayVec;
use triomphe::Arc;

pub(super) use build::Ascending;
use keys::{Fences, Keys};

/// An item of a [`Tree`].
pub(super) trait Sorted: Clone {
    /// The key by which items are sorted.
    type Key: Ord + ?Sized;

    /// Returns the key.
    fn key(&self) -> &Self::Key;

    /// Returns the length of the part that all keys from `lower` to `upper` have in common.
    fn common(lower: &Self::Key, upper: &Self::Key) -> usize;

    /// Returns the part of `key` after the first `skip`, as a number. Of two keys with the same
    /// first `skip`, the lesser one must not have the greater digest.
    fn digest(key: &Self::Key, skip: usize) -> u32;

    /// Returns an item with a key above that of `below` and at most that of `above`. It should be
    /// small, and keep neither of them in memory.
    fn separator(below: &Self, above: &Self) -> Self;

    /// Reads the memory of `items`, which makes it faster to clone all of them.
    fn read(items: &[Self]);
}

/// A sorted set of items with different keys. A clone takes O(1).
#[derive(Clone)]
pub(super) struct Tree<T> {
    /// `None` if the set is empty.
    root: Option<Node<T>>,
    len: usize,
}

#[derive(Clone)]
enum Node<T> {
    Leaf(Arc<Leaf<T>>),
    Branch(Arc<Branch<T>>),
}

/// Items in ascending order.
type Leaf<T> = Keys<T, LEAF_MAX>;

/// Nodes in ascending order, and the separators between them: one fewer.
struct Branch<T> {
    separators: Keys<T, { CHILDREN_MAX - 1 }>,
    children: ArrayVec<Node<T>, CHILDREN_MAX>,
}

impl<T: Sorted> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Self { separators: self.separators.clone(), children: self.children.clone() }
    }
}

/// The outcome of an insertion into a node.
enum Inserted<T> {
    Replaced(T),
    Added,
    /// The node was split. The second node begins at the separator.
    Split(T, Node<T>),
}

impl<T> Tree<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Sorted> Tree<T> {
    /// Returns the item with `key`.
    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        let mut node = self.root.as_ref()?;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| &leaf.items[at]),
                Node::Branch(branch) => node = &branch.children[branch.child_of(key)],
            }
        }
    }

    /// Returns the first item. An iterator would allocate.
    pub(super) fn first(&self) -> Option<&T> {
        let mut node = self.root.as_ref()?;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.items.first(),
                Node::Branch(branch) => node = branch.children.first()?,
            }
        }
    }

    /// Inserts `item`, and returns the item with the same key that it replaces.
    pub(super) fn insert(&mut self, item: T) -> Option<T> {
        let Some(root) = &mut self.root else {
            self.root = Some(Node::leaf([item].into_iter(), Fences::none()));
            self.len = 1;
            return None;
        };
        match root.insert(item, Fences::none(), true) {
            Inserted::Replaced(replaced) => return Some(replaced),
            Inserted::Added => {}
            Inserted::Split(separator, right) => {
                let children = [root.clone(), right].into_iter().collect();
                *root = Node::branch([separator].into_iter(), children, Fences::none());
            }
        }
        self.len += 1;
        None
    }

    /// Removes and returns the item with `key`.
    pub(super) fn remove(&mut self, key: &T::Key) -> Option<T> {
        let root = self.root.as_mut()?;
        let removed = root.remove(key, Fences::none())?;
        self.len -= 1;
        // A branch with one child is replaced by the child.
        while let Node::Branch(branch) = root
            && let [only] = &*branch.children
        {
            *root = only.clone();
        }
        if self.len == 0 {
            self.root = None;
        }
        Some(removed)
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<T: Sorted> Node<T> {
    fn leaf(items: impl Iterator<Item = T>, fences: Fences<'_, T>) -> Self {
        Self::Leaf(Arc::new(Keys::new(items.collect(), fences)))
    }

    fn branch(
        separators: impl Iterator<Item = T>,
        children: ArrayVec<Self, CHILDREN_MAX>,
        fences: Fences<'_, T>,
    ) -> Self {
        let separators = Keys::new(separators.collect(), fences);
        Self::Branch(Arc::new(Branch { separators, children }))
    }

    /// Inserts `item`. `is_last` is true if no node of this level comes after this one.
    fn insert(&mut self, item: T, fences: Fences<'_, T>, is_last: bool) -> Inserted<T> {
        match self {
            Self::Leaf(leaf) => Arc::make_mut(leaf).insert_or_split(item, fences, is_last),
            Self::Branch(branch) => Arc::make_mut(branch).insert(item, fences, is_last),
        }
    }

    fn remove(&mut self, key: &T::Key, fences: Fences<'_, T>) -> Option<T> {
        match self {
            Self::Leaf(leaf) => {
                let at = leaf.find(key).ok()?;
                Some(Arc::make_mut(leaf).remove(at))
            }
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let at = branch.child_of(key);
                let inner = fences.of_child(&branch.separators.items, at);
                let removed = branch.children[at].remove(key, inner)?;
                if branch.children[at].is_small() {
                    branch.join(at, fences);
                }
                Some(removed)
            }
        }
    }

    /// Returns true if the node is to be joined with a neighbour.
    fn is_small(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.items.len() < LEAF_MAX / 4,
            Self::Branch(branch) => branch.children.len() < CHILDREN_MAX / 4,
        }
    }

    /// Returns the node with the parts of both, or two nodes of equal size and their separator.
    fn joined(
        left: &Self,
        separator: &T,
        right: &Self,
        fences: Fences<'_, T>,
    ) -> (Self, Option<(T, Self)>) {
        match (left, right) {
            (Self::Leaf(left), Self::Leaf(right)) => {
                let mut items: Vec<T> = left.items.iter().chain(&right.items).cloned().collect();
                if items.len() <= LEAF_MAX / 4 * 3 {
                    return (Self::leaf(items.into_iter(), fences), None);
                }
                let right = items.split_off(items.len() / 2);
                let separator = T::separator(items.last().expect(HALF), right.first().expect(HALF));
                let (below, above) = (fences.below(&separator), fences.above(&separator));
                let right = Self::leaf(right.into_iter(), above);
                (Self::leaf(items.into_iter(), below), Some((separator, right)))
            }
            (Self::Branch(left), Self::Branch(right)) => {
                let parts = (&left.separators.items, &right.separators.items);
                let middle = std::iter::once(separator);
                let mut separators: Vec<T> =
                    parts.0.iter().chain(middle).chain(parts.1).cloned().collect();
                let mut children = left.children.iter().chain(&right.children).cloned();
                if separators.len() < CHILDREN_MAX / 4 * 3 {
                    let children = children.collect();
                    return (Self::branch(separators.into_iter(), children, fences), None);
                }
                let half = separators.len().div_ceil(2);
                let right_separators = separators.split_off(half);
                let separator = separators.pop().expect(HALF);
                let (below, above) = (fences.below(&separator), fences.above(&separator));
                let left_children = children.by_ref().take(half).collect();
                let left = Self::branch(separators.into_iter(), left_children, below);
                let right = Self::branch(right_separators.into_iter(), children.collect(), above);
                (left, Some((separator, right)))
            }
            _ => unreachable!("the children of a branch have the same height"),
        }
    }
}

impl<T: Sorted> Leaf<T> {
    fn insert_or_split(&mut self, item: T, fences: Fences<'_, T>, is_last: bool) -> Inserted<T> {
        let at = match self.find(item.key()) {
            Ok(at) => return Inserted::Replaced(mem::replace(&mut self.items[at], item)),
            Err(at) => at,
        };
        if !self.items.is_full() {
            self.insert(at, item);
            return Inserted::Added;
        }
        // Items that are inserted in ascending order leave full nodes.
        let middle = if is_last && at == LEAF_MAX { LEAF_MAX } else { LEAF_MAX / 2 };
        let mut right: ArrayVec<T, LEAF_MAX> = self.items.drain(middle..).collect();
        let mut left = mem::take(&mut self.items);
        if at < middle {
            left.insert(at, item);
        } else {
            right.insert(at - middle, item);
        }
        let separator = T::separator(left.last().expect(HALF), right.first().expect(HALF));
        *self = Self::new(left, fences.below(&separator));
        let right = Self::new(right, fences.above(&separator));
        Inserted::Split(separator, Node::Leaf(Arc::new(right)))
    }
}

impl<T: Sorted> Branch<T> {
    /// Returns the index of the child in whose range `key` is.
    fn child_of(&self, key: &T::Key) -> usize {
        self.separators.find(key).map_or_else(|at| at, |at| at + 1)
    }

    fn insert(&mut self, item: T, fences: Fences<'_, T>, is_last: bool) -> Inserted<T> {
        let at = self.child_of(item.key());
        let is_last = is_last && at + 1 == self.children.len();
        let inner = fences.of_child(&self.separators.items, at);
        match self.children[at].insert(item, inner, is_last) {
            Inserted::Split(separator, node) if self.children.is_full() => {
                self.split(at, separator, node, fences, is_last)
            }
            Inserted::Split(separator, node) => {
                self.separators.insert(at, separator);
                self.children.insert(at + 1, node);
                Inserted::Added
            }
            done => done,
        }
    }

    /// Splits the full branch, and inserts `node` after the child `at`.
    fn split(
        &mut self,
        at: usize,
        separator: T,
        node: Node<T>,
        fences: Fences<'_, T>,
        is_last: bool,
    ) -> Inserted<T> {
        let middle = if is_last { CHILDREN_MAX - 1 } else { CHILDREN_MAX / 2 };
        let mut children: ArrayVec<Node<T>, CHILDREN_MAX> = self.children.drain(middle..).collect();
        let mut left = mem::take(&mut self.separators.items);
        let mut right: ArrayVec<T, { CHILDREN_MAX - 1 }> = left.drain(middle..).collect();
        let up = left.pop().expect(HALF);
        if at < middle {
            left.insert(at, separator);
            self.children.insert(at + 1, node);
        } else {
            right.insert(at - middle, separator);
            children.insert(at - middle + 1, node);
        }
        self.separators = Keys::new(left, fences.below(&up));
        let right = Node::branch(right.into_iter(), children, fences.above(&up));
        Inserted::Split(up, right)
    }

    /// Joins the child `at` with a neighbour, or moves parts of the neighbour into it.
    fn join(&mut self, at: usize, fences: Fences<'_, T>) {
        let left = at.saturating_sub(1);
        if left + 1 == self.children.len() {
            return;
        }
        let separator = self.separators.remove(left);
        let right = self.children.remove(left + 1);
        // The fences of both together, now that the separator between them is removed.
        let inner = fences.of_child(&self.separators.items, left);
        let (node, rest) = Node::joined(&self.children[left], &separator, &right, inner);
        self.children[left] = node;
        if let Some((separator, right)) = rest {
            self.separators.insert(left, separator);
            self.children.insert(left + 1, right);
        }
    }
}

/// The maximum number of items in a leaf.
const LEAF_MAX: usize = 32;
/// The maximum number of children of a branch.
const CHILDREN_MAX: usize = 16;
/// The reason why both parts of a node that was split have items.
const HALF: &str = "each half of a full node has items";
