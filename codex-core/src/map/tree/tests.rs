//! Tests of the tree against a `BTreeMap`, and of its invariants.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::{Ascending, CHILDREN_MAX, Fences, LEAF_MAX, Node, Sorted, Tree};
use crate::entry::Entry;

type Model = BTreeMap<Vec<u8>, u32>;

fn entry(key: &[u8], value: u32) -> Entry {
    Entry::new(key, &value.to_le_bytes())
}

fn contents<'a>(items: impl Iterator<Item = &'a Entry>) -> Vec<(Vec<u8>, u32)> {
    let value = |item: &Entry| u32::from_le_bytes(item.value().try_into().unwrap());
    items.map(|item| (item.key().to_vec(), value(item))).collect()
}

fn model_contents<'a>(items: impl Iterator<Item = (&'a Vec<u8>, &'a u32)>) -> Vec<(Vec<u8>, u32)> {
    items.map(|(key, value)| (key.clone(), *value)).collect()
}

/// Checks the invariants of all nodes, and returns the number of items and the height.
fn check_node<T: Sorted>(node: &Node<T>, fences: Fences<'_, T>, is_last: bool) -> (usize, usize) {
    let within = |item: &T| {
        fences.lower.is_none_or(|lower| lower.key() <= item.key())
            && fences.upper.is_none_or(|upper| item.key() < upper.key())
    };
    let (skip, digests, items, len, height) = match node {
        Node::Leaf(leaf) => (leaf.skip, &leaf.digests[..], &leaf.items[..], leaf.items.len(), 0),
        Node::Branch(branch) => {
            assert_eq!(branch.separators.items.len() + 1, branch.children.len());
            let children = branch.children.iter().enumerate().map(|(at, child)| {
                let inner = fences.of_child(&branch.separators.items, at);
                let is_last = is_last && at + 1 == branch.children.len();
                assert!(is_last || !child.is_small(), "a small node is not the last one");
                check_node(child, inner, is_last)
            });
            let children: Vec<_> = children.collect();
            assert!(children.iter().all(|child| child.1 == children[0].1), "the heights differ");
            let separators = &branch.separators;
            let len = children.iter().map(|child| child.0).sum();
            let height = children[0].1 + 1;
            (separators.skip, &separators.digests[..], &separators.items[..], len, height)
        }
    };
    assert!(items.windows(2).all(|pair| pair[0].key() < pair[1].key()));
    assert!(items.iter().all(within), "an item is beyond the fences");
    assert!(skip <= fences.common(), "a digest skips bytes that differ");
    for (item, digest) in items.iter().zip(digests) {
        assert_eq!(*digest, T::digest(item.key(), skip));
    }
    (len, height)
}

fn check<T: Sorted>(tree: &Tree<T>) -> usize {
    let root = tree.root.as_ref().map(|root| check_node(root, Fences::none(), true));
    let (len, height) = root.unwrap_or_default();
    assert_eq!((tree.len(), tree.is_empty()), (len, len == 0));
    assert!(tree.first().map(T::key) == tree.iter().next().map(T::key));
    if let Some(Node::Branch(root)) = &tree.root {
        assert!(root.children.len() > 1, "the root has one child");
    }
    height
}

/// Keys of several kinds, in few enough variants that they meet again.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(0_u8..3, 0..6),
        (0..400_u32).prop_map(|n| format!("user:{n:012}").into_bytes()),
        (0..400_u32).prop_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes().to_vec()),
        (0..20_usize, 0..20_u8).prop_map(|(len, last)| [&[0; 20][..len], &[last]].concat()),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        keys().prop_map(Bound::Included),
        keys().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

proptest! {
    #![proptest_config(crate::seeded::cases(64))]

    #[test]
    fn a_tree_agrees_with_a_btree_map(
        acts in prop::collection::vec((keys(), any::<u32>(), 0..100_u8), 0..1500),
        removals in 0..70_u8,
        ranges in prop::collection::vec((bound(), bound(), any::<u32>()), 20),
    ) {
        let (mut tree, mut model) = (Tree::<Entry>::default(), Model::new());
        let mut copies: Vec<(Tree<Entry>, Model)> = Vec::new();
        for (n, (key, value, kind)) in acts.iter().enumerate() {
            // First mostly insertions, then removals too.
            if n > acts.len() / 2 && *kind < removals {
                let removed = tree.remove(key).map(|item| item.key().to_vec());
                prop_assert_eq!(removed, model.remove_entry(key).map(|(key, _)| key));
            } else {
                let replaced = tree.insert(entry(key, *value));
                let replaced = contents(replaced.iter()).pop().map(|(_, value)| value);
                prop_assert_eq!(replaced, model.insert(key.clone(), *value));
            }
            if n % 200 == 0 {
                check(&tree);
                copies.push((tree.clone(), model.clone()));
            }
        }
        copies.push((tree, model));
        for (tree, model) in &copies {
            check(tree);
            prop_assert_eq!(contents(tree.iter()), model_contents(model.iter()));
            prop_assert_eq!(
                contents(tree.iter().rev()),
                model_contents(model.iter().rev())
            );
            for (key, ..) in &acts {
                let found = contents(tree.get(key).into_iter()).pop().map(|(_, value)| value);
                prop_assert_eq!(found, model.get(key).copied());
            }
            for (lower, upper, ends) in &ranges {
                let bounds = (lower.clone(), upper.clone());
                let Some(_) = crate::range::bounds(&own(lower), &own(upper)) else { continue };
                let mut found = tree.range((lower.as_ref().map(|key| &key[..]),
                    upper.as_ref().map(|key| &key[..])));
                let mut wanted = model.range(bounds);
                // From both ends in turn, by the bits of a number.
                for step in 0.. {
                    let is_front = ends.rotate_right(step) & 1 == 0;
                    let next = if is_front { found.next() } else { found.next_back() };
                    let other = if is_front { wanted.next() } else { wanted.next_back() };
                    prop_assert_eq!(contents(next.into_iter()), model_contents(other.into_iter()));
                    if other.is_none() {
                        break;
                    }
                }
                prop_assert!(found.next().is_none() && found.next_back().is_none());
            }
        }
    }
}

fn own(bound: &Bound<Vec<u8>>) -> crate::range::KeyBound {
    bound.as_ref().map(|key| key[..].into())
}

fn sorted(count: u32) -> impl Iterator<Item = Entry> {
    (0..count).map(|n| entry(format!("user:{n:012}").as_bytes(), n))
}

#[test]
fn a_tree_that_is_built_from_the_leaves_up_equals_one_that_is_filled() {
    for count in [0, 1, 2, 27, 28, 29, 56, 57, 28 * 14, 28 * 14 + 1, 20_000] {
        let (mut built, mut filled) = (Ascending::default(), Tree::default());
        for item in sorted(count) {
            built.push(item.clone());
            filled.insert(item);
        }
        let mut built = built.finish();
        check(&built);
        check(&filled);
        assert_eq!(contents(built.iter()), contents(filled.iter()));
        // The tree that was built takes changes.
        for item in sorted(count).step_by(3) {
            assert!(built.remove(item.key()).is_some());
            built.insert(entry(&[item.key(), b"x"].concat(), 0));
        }
        check(&built);
        for item in sorted(count) {
            assert_eq!(
                built.get(item.key()).is_some(),
                filled.remove(item.key()).is_some_and(|_| {
                    !u32::from_le_bytes(item.value().try_into().unwrap()).is_multiple_of(3)
                })
            );
        }
        assert!(filled.is_empty() && filled.root.is_none());
    }
}

#[test]
fn ascending_insertions_leave_full_nodes() {
    let mut tree = Tree::default();
    sorted(u32::try_from(LEAF_MAX * CHILDREN_MAX * 10).unwrap()).for_each(|item| {
        tree.insert(item);
    });
    let (mut leaves, mut branches) = (Vec::new(), Vec::new());
    let mut nodes: Vec<_> = tree.root.iter().collect();
    while let Some(node) = nodes.pop() {
        match node {
            Node::Leaf(leaf) => leaves.push(leaf.items.len() + 1 >= LEAF_MAX),
            Node::Branch(branch) => {
                branches.push(branch.children.len() + 1 >= CHILDREN_MAX);
                nodes.extend(&branch.children);
            }
        }
    }
    // Of each level, the last node is not full.
    assert!(leaves.iter().filter(|full| !**full).count() <= 1, "{leaves:?}");
    assert!(branches.iter().filter(|full| !**full).count() <= 3, "{branches:?}");
}

#[test]
fn removals_join_nodes_that_have_become_small() {
    const COUNT: u32 = 20_000;
    let mut tree = Tree::default();
    let mut model = Model::new();
    for item in sorted(COUNT) {
        model.insert(item.key().to_vec(), 0);
        tree.insert(item);
    }
    let full = check(&tree);
    // 7,919 is a prime number, so each number is removed once, and neighbours at different times.
    for n in 0..COUNT {
        let key = format!("user:{:012}", n * 7_919 % COUNT).into_bytes();
        assert!(tree.remove(&key).is_some() && model.remove(&key).is_some());
        if n % 500 == 0 || COUNT - n < 200 {
            check(&tree);
            assert!(tree.iter().map(Entry::key).eq(model.keys()));
        }
        if n + 100 == COUNT {
            let left = check(&tree);
            assert!(left < full, "99 of {COUNT} items are in {left} levels of branches");
        }
    }
    assert!(tree.is_empty() && tree.root.is_none());
}

/// The copies share all nodes, so a change of a shared node would change them too.
#[test]
fn a_copy_is_not_changed_by_splits_and_joins_of_the_other() {
    let mut tree = Tree::default();
    for item in sorted(3_000).step_by(2) {
        tree.insert(item);
    }
    let (copy, before) = (tree.clone(), contents(tree.iter()));
    for item in sorted(3_000).skip(1).step_by(2) {
        tree.insert(item);
    }
    for item in sorted(2_900) {
        tree.remove(item.key());
    }
    assert_eq!((check(&tree), contents(copy.iter()) == before), (1, true));
    check(&copy);
}
