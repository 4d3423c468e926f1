//! The construction of a tree from items in ascending order, from the leaves up.

use std::mem;

use arrayvec::ArrayVec;
use triomphe::Arc;

use super::{CHILDREN_MAX, Fences, HALF, LEAF_MAX, Node, Sorted, Tree};

/// Collects items in ascending order into a [`Tree`].
///
/// Its nodes are not quite full, so that a few later insertions do not split them.
pub(in super::super) struct Ascending<T> {
    /// The items of the next leaf.
    items: ArrayVec<T, LEAF_FILL>,
    leaves: Vec<Node<T>>,
    /// The separators after the leaves.
    separators: Vec<T>,
    len: usize,
}

impl<T: Sorted> Ascending<T> {
    /// Adds `item`, whose key is above all others.
    pub(in super::super) fn push(&mut self, item: T) {
        if self.items.is_full() {
            let separator = T::separator(self.items.last().expect(HALF), &item);
            self.end_leaf(Some(&separator));
            self.separators.push(separator);
        }
        self.items.push(item);
        self.len += 1;
    }

    /// Returns the tree.
    pub(in super::super) fn finish(mut self) -> Tree<T> {
        if !self.items.is_empty() {
            self.end_leaf(None);
        }
        let Self { leaves: mut nodes, mut separators, len, .. } = self;
        while nodes.len() > 1 {
            (nodes, separators) = level_above(nodes, separators);
        }
        Tree { root: nodes.pop(), len }
    }

    fn end_leaf(&mut self, upper: Option<&T>) {
        let fences = Fences { lower: self.separators.last(), upper };
        let items = mem::take(&mut self.items);
        self.leaves.push(Node::leaf(items.into_iter(), fences));
    }
}

impl<T> Default for Ascending<T> {
    fn default() -> Self {
        Self { items: ArrayVec::new(), leaves: Vec::new(), separators: Vec::new(), len: 0 }
    }
}

impl<T: Sorted> Tree<T> {
    /// Moves all items to the end of `items`, in order. Copies those of nodes that are shared.
    pub(in super::super) fn move_to(self, items: &mut Vec<T>) {
        let mut left: Vec<Node<T>> = self.root.into_iter().collect();
        while let Some(node) = left.pop() {
            match node {
                Node::Leaf(leaf) => {
                    let leaf = Arc::try_unwrap(leaf).unwrap_or_else(|shared| (*shared).clone());
                    items.extend(leaf.items);
                }
                Node::Branch(branch) => {
                    let branch = Arc::try_unwrap(branch);
                    let branch = branch.unwrap_or_else(|shared| (*shared).clone());
                    left.extend(branch.children.into_iter().rev());
                }
            }
        }
    }
}

/// Distributes `nodes` evenly over branches. Returns these and the separators between them.
fn level_above<T: Sorted>(nodes: Vec<Node<T>>, separators: Vec<T>) -> (Vec<Node<T>>, Vec<T>) {
    let count = nodes.len().div_ceil(CHILDREN_FILL);
    let (each, more) = (nodes.len() / count, nodes.len() % count);
    let (mut nodes, mut separators) = (nodes.into_iter(), separators.into_iter());
    let (mut branches, mut between) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for number in 0..count {
        let children = each + usize::from(number < more);
        let inner: ArrayVec<T, { CHILDREN_MAX - 1 }> =
            separators.by_ref().take(children - 1).collect();
        let upper = separators.next();
        let fences = Fences { lower: between.last(), upper: upper.as_ref() };
        let children = nodes.by_ref().take(children).collect();
        branches.push(Node::branch(inner.into_iter(), children, fences));
        between.extend(upper);
    }
    (branches, between)
}

/// The number of items in a leaf.
const LEAF_FILL: usize = LEAF_MAX / 8 * 7;
/// The maximum number of children in a branch.
const CHILDREN_FILL: usize = CHILDREN_MAX / 8 * 7;
