//! Iteration over a range of a tree, from either end.

use std::collections::VecDeque;
use std::ops::Bound;

use super::{Node, Sorted, Tree};

impl<T: Sorted> Tree<T> {
    /// Returns all items in ascending order.
    pub(in super::super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.range((Bound::Unbounded, Bound::Unbounded))
    }

    /// Returns the items whose keys are within the bounds, in ascending order.
    pub(in super::super) fn range<'a, 'k>(
        &'a self,
        bounds: (Bound<&'k T::Key>, Bound<&'k T::Key>),
    ) -> impl DoubleEndedIterator<Item = &'a T> + use<'a, 'k, T> {
        self.leaves(bounds).flatten()
    }

    /// Returns the same items, leaf by leaf.
    pub(in super::super) fn leaves<'a, 'k>(
        &'a self,
        (lower, upper): (Bound<&'k T::Key>, Bound<&'k T::Key>),
    ) -> impl DoubleEndedIterator<Item = &'a [T]> + use<'a, 'k, T> {
        let nodes = self.root.as_slice();
        let mut left = VecDeque::with_capacity(DEPTH);
        left.push_back(Siblings { nodes, is_lowest: true, is_highest: true });
        Leaves { left, lower, upper }
    }
}

/// An iterator over the leaves that have items within the bounds.
struct Leaves<'a, 'k, T: Sorted> {
    /// The nodes that are left, in ascending order.
    left: VecDeque<Siblings<'a, T>>,
    lower: Bound<&'k T::Key>,
    upper: Bound<&'k T::Key>,
}

/// Nodes that are neighbours.
struct Siblings<'a, T> {
    nodes: &'a [Node<T>],
    /// Whether the lower bound can be in the first node.
    is_lowest: bool,
    /// Whether the upper bound can be in the last node.
    is_highest: bool,
}

impl<'a, T: Sorted> Leaves<'a, '_, T> {
    /// Returns the items of a leaf that are within the bounds, or else the children of a branch
    /// whose ranges overlap with the bounds.
    fn open(&self, node: &'a Node<T>, is_lowest: bool, is_highest: bool) -> Part<'a, T> {
        match node {
            Node::Leaf(leaf) => {
                let after = |key| leaf.find(key).map_or_else(|at| at, |at| at + 1);
                let before = |key| leaf.find(key).unwrap_or_else(|at| at);
                let from = match self.lower {
                    Bound::Included(key) if is_lowest => before(key),
                    Bound::Excluded(key) if is_lowest => after(key),
                    _ => 0,
                };
                let to = match self.upper {
                    Bound::Included(key) if is_highest => after(key),
                    Bound::Excluded(key) if is_highest => before(key),
                    _ => leaf.items.len(),
                };
                Part::Items(leaf.items.get(from..to).unwrap_or_default())
            }
            Node::Branch(branch) => {
                let from = match self.lower {
                    Bound::Included(key) | Bound::Excluded(key) if is_lowest => {
                        branch.child_of(key)
                    }
                    _ => 0,
                };
                let to = match self.upper {
                    Bound::Included(key) | Bound::Excluded(key) if is_highest => {
                        branch.child_of(key) + 1
                    }
                    _ => branch.children.len(),
                };
                let nodes = branch.children.get(from..to).unwrap_or_default();
                Part::Children(Siblings { nodes, is_lowest, is_highest })
            }
        }
    }
}

/// The parts of a node that are within the bounds.
enum Part<'a, T> {
    Items(&'a [T]),
    Children(Siblings<'a, T>),
}

impl<'a, T: Sorted> Iterator for Leaves<'a, '_, T> {
    type Item = &'a [T];

    fn next(&mut self) -> Option<&'a [T]> {
        loop {
            let first = self.left.front_mut()?;
            let Some((node, rest)) = first.nodes.split_first() else {
                self.left.pop_front();
                continue;
            };
            let (is_lowest, is_highest) = (first.is_lowest, first.is_highest && rest.is_empty());
            (first.nodes, first.is_lowest) = (rest, false);
            match self.open(node, is_lowest, is_highest) {
                Part::Items(items) => return Some(items),
                Part::Children(children) => self.left.push_front(children),
            }
        }
    }
}

impl<T: Sorted> DoubleEndedIterator for Leaves<'_, '_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let last = self.left.back_mut()?;
            let Some((node, rest)) = last.nodes.split_last() else {
                self.left.pop_back();
                continue;
            };
            let (is_lowest, is_highest) = (last.is_lowest && rest.is_empty(), last.is_highest);
            (last.nodes, last.is_highest) = (rest, false);
            match self.open(node, is_lowest, is_highest) {
                Part::Items(items) => return Some(items),
                Part::Children(children) => self.left.push_back(children),
            }
        }
    }
}

/// The height of a tree up to which an iterator allocates once.
const DEPTH: usize = 8;
