//! Tests of both indexes against a `BTreeMap`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::hash::shard;
use super::{Image, Map, MapBuilder, Ordered, Step, StepKind, Work};
use crate::entry::{Entry, Name};
use codex_storage::batch::{Item, Op, TableId};
use codex_storage::storage::State as _;

/// The table 0 is the keys outside tables.
#[derive(Debug, Clone)]
enum Act {
    Put(u32, u8, u8),
    Remove(u32, u8),
    Clear,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let table = || prop_oneof![3 => Just(0_u32), 1 => 1..3_u32];
    let act = prop_oneof![
        20 => (table(), any::<u8>(), any::<u8>()).prop_map(|(id, k, v)| Act::Put(id, k, v)),
        10 => (table(), any::<u8>()).prop_map(|(id, key)| Act::Remove(id, key)),
        1 => Just(Act::Clear),
    ];
    prop::collection::vec(act, 0..300)
}

/// Values by table and key. Every odd value is an expiry too.
type Model = BTreeMap<(Option<TableId>, u8), u8>;

fn item<'a>(id: u32, key: &'a [u8; 1], value: &'a [u8; 1]) -> Item<'a> {
    let expires_us = (value[0] % 2 == 1).then_some(i64::from(value[0]));
    Item { table: TableId::new(id), key, value, expires_us }
}

fn contents(ordered: &Ordered) -> Vec<((Option<TableId>, u8), u8)> {
    let item = |entry: &Entry| ((entry.table(), entry.key()[0]), entry.value()[0]);
    let all: Vec<_> = ordered.iter_with_tables().map(item).collect();
    let due: BTreeSet<_> = ordered.expired_at(i64::MAX).map(item).collect();
    assert_eq!(due, all.iter().copied().filter(|(_, value)| value % 2 == 1).collect());
    let plain: Vec<_> = all.iter().copied().filter(|((table, _), _)| table.is_none()).collect();
    assert_eq!(ordered.iter().map(item).collect::<Vec<_>>(), plain);
    assert_eq!((ordered.len(), ordered.len_with_tables()), (plain.len(), all.len()));
    assert_eq!(ordered.has_tables(), plain.len() < all.len());
    let hidden = plain.iter().filter(|(_, value)| value % 2 == 1).count();
    assert_eq!(ordered.len_at(None, i64::MAX), plain.len() - hidden);
    all
}

fn check(map: &Map, model: &Model) {
    assert_eq!(contents(&map.ordered()), model.clone().into_iter().collect::<Vec<_>>());
    for key in 0..=u8::MAX {
        for id in 0..3 {
            let name = Name { table: TableId::new(id), key: &[key] };
            let value = model.get(&(name.table, key)).copied();
            let found = map.hash().find(map.hash().hasher().hash(name), name);
            assert_eq!(found.map(|entry| entry.value()[0]), value);
            assert_eq!(map.ordered().get(name).map(|entry| entry.value()[0]), value);
        }
        let plain = model.get(&(None, key)).copied();
        assert_eq!(map.get(&[key]).map(|entry| entry.value()[0]), plain);
    }
}

fn apply(map: &mut Map, act: &Act, [beforehand, rebuilt]: [bool; 2]) {
    let mut work = Work::default();
    let step = |id, key: u8, value: u8, kind| {
        let entry = Entry::from_item(item(id, &[key], &[value]));
        Step { hash: map.hash().hasher().hash(entry.name()), entry, kind }
    };
    match *act {
        Act::Put(id, key, value) => {
            work.steps.push(step(id, key, value, StepKind::Put { new: true }));
        }
        Act::Remove(id, key) => work.steps.push(step(id, key, 0, StepKind::Remove)),
        Act::Clear => work.clear = true,
    }
    let leaves_tables = work.clear && map.ordered_ref().has_tables();
    if rebuilt || leaves_tables {
        work.hash_done = true;
        work.tables = if work.clear {
            map.hash().cleared(leaves_tables).rebuilt(&work.steps)
        } else {
            map.hash().rebuilt(&work.steps)
        };
    }
    for step in work.steps.iter().filter(|_| !work.hash_done) {
        if let Some(table) = map.hash().grown(shard(step.hash), 1) {
            work.tables.push((shard(step.hash), table));
        }
    }
    if beforehand || leaves_tables {
        let mut ordered = map.ordered();
        if work.clear {
            ordered.clear(None);
        }
        work.apply_to(&mut ordered);
        work.ordered = Some(ordered);
    }
    map.apply(&mut work);
}

proptest! {
    #![proptest_config(crate::seeded::cases(64))]

    #[test]
    fn both_indexes_agree_with_a_btree_map(acts in acts(), how: [bool; 2]) {
        let (mut map, mut model) = (Map::new(), Model::new());
        let mut views = Vec::new();
        let mut builder = MapBuilder::new();
        for (n, act) in acts.iter().enumerate() {
            apply(&mut map, act, how);
            match *act {
                Act::Put(id, key, value) => {
                    model.insert((TableId::new(id), key), value);
                    builder.push(Op::Set(item(id, &[key], &[value])));
                }
                Act::Remove(id, key) => {
                    model.remove(&(TableId::new(id), key));
                    builder.push(Op::Remove { table: TableId::new(id), key: &[key] });
                }
                Act::Clear => {
                    model.retain(|(table, _), _| table.is_some());
                    builder.push(Op::CLEAR);
                }
            }
            if n % 50 == 0 {
                let then: Vec<_> = model.clone().into_iter().collect();
                views.push((map.ordered(), then));
            }
        }
        check(&map, &model);
        check(&builder.finish(1), &model);
        for (view, then) in views {
            prop_assert_eq!(contents(&view), then);
        }
    }
}

#[test]
fn the_image_of_a_replayed_map_has_the_items_that_were_replayed() {
    let items =
        [(0, 0, Some(7)), (0, 1, None), (0, 2, Some(i64::MIN)), (1, 1, None), (2, 0, Some(7))];
    let items = items.map(|(id, n, expires_us)| {
        let key: &[u8] = [b"a", b"b", b"c"][n];
        Item { table: TableId::new(id), key, value: b"value", expires_us }
    });
    let mut builder = MapBuilder::new();
    items.iter().rev().for_each(|item| builder.push(Op::Set(*item)));
    let copy = |item: Item<'_>| (item.table, item.key.to_vec(), item.expires_us);
    let mut found = Vec::new();
    let image = Image(builder.finish(1).ordered());
    let sink = &mut |item: Item<'_>| {
        found.push(copy(item));
        Ok(())
    };
    image.for_each(sink).unwrap();
    assert_eq!((image.len(), found), (5, items.map(copy).to_vec()));
}
