//! Tests of both indexes against a `BTreeMap`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::hash::shard;
use super::{Image, Map, MapBuilder, Ordered, Step, StepKind, Work};
use crate::entry::Entry;
use codex_storage::batch::{Item, Op};
use codex_storage::storage::State as _;

#[derive(Debug, Clone)]
enum Act {
    Put(u8, u8),
    Remove(u8),
    Clear,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        20 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Act::Put(key, value)),
        10 => any::<u8>().prop_map(Act::Remove),
        1 => Just(Act::Clear),
    ];
    prop::collection::vec(act, 0..300)
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(ordered: &Ordered) -> Model {
    ordered.iter().map(|entry| (entry.key().to_vec(), entry.value().to_vec())).collect()
}

fn check(map: &Map, model: &Model) {
    assert_eq!(&contents(&map.ordered()), model);
    assert_eq!(map.len(), model.len());
    for key in 0..=u8::MAX {
        let found = map.get(&[key]);
        assert_eq!(found.as_ref().map(Entry::value), model.get(&[key][..]).map(|v| &v[..]));
    }
}

fn apply(map: &mut Map, act: &Act, [beforehand, rebuilt]: [bool; 2]) {
    let mut work = Work::default();
    let step = |key: u8, value: &[u8], kind| Step {
        entry: Entry::new(&[key], value),
        hash: map.hash().hasher().hash(&[key]),
        kind,
    };
    match *act {
        Act::Put(key, value) => work.steps.push(step(key, &[value], StepKind::Put { new: true })),
        Act::Remove(key) => work.steps.push(step(key, &[], StepKind::Remove)),
        Act::Clear => work.clear = true,
    }
    if rebuilt {
        work.hash_done = true;
        work.tables = map.hash().rebuilt(&work.steps, work.clear);
    }
    for step in work.steps.iter().filter(|_| !rebuilt) {
        if let Some(table) = map.hash().grown(shard(step.hash), 1) {
            work.tables.push((shard(step.hash), table));
        }
    }
    if beforehand {
        let mut ordered = if work.clear { Ordered::new() } else { map.ordered() };
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
        let mut views: Vec<(Ordered, Model)> = Vec::new();
        let mut builder = MapBuilder::new();
        for (n, act) in acts.iter().enumerate() {
            apply(&mut map, act, how);
            match *act {
                Act::Put(key, value) => {
                    model.insert(vec![key], vec![value]);
                    builder.push(Op::set(&[key], &[value]));
                }
                Act::Remove(key) => {
                    model.remove(&[key][..]);
                    builder.push(Op::Remove { key: &[key] });
                }
                Act::Clear => {
                    model.clear();
                    builder.push(Op::Clear);
                }
            }
            if n % 50 == 0 {
                views.push((map.ordered(), model.clone()));
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
    let items = [(0, Some(7)), (1, None), (2, Some(i64::MIN))];
    let items = items.map(|(n, expires_us)| {
        let key: &[u8] = [b"a", b"b", b"c"][n];
        Item { key, value: b"value", expires_us }
    });
    let mut builder = MapBuilder::new();
    items.iter().rev().for_each(|item| builder.push(Op::Set(*item)));
    let mut found = Vec::new();
    let image = Image(builder.finish(1).ordered());
    let sink = &mut |item: Item<'_>| {
        found.push((item.key.to_vec(), item.value.to_vec(), item.expires_us));
        Ok(())
    };
    image.for_each(sink).unwrap();
    assert_eq!(found, items.map(|item| (item.key.to_vec(), item.value.to_vec(), item.expires_us)));
}
