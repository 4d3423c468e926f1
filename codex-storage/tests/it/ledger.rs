//! The parts that only a ledger has: times, the chain of digests, and reading its past.

use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::Op;
use codex_storage::storage::{Anchor, Durability, Form};
use codex_storage::vfs::{Mode, Open, SimClock, Vfs};
use codex_storage::{Access, Create, Error, LedgerReader, read_commits};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::common::log::{Sample, dense, model, put};
use crate::common::store::Store;
use crate::common::{Bed, NAME, bytes, keys};

/// A ledger in memory, and its clock.
fn timed(sealed: bool) -> (Bed, SimClock) {
    let clock = SimClock::new();
    let vfs = Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(5) };
    (Bed::new(vfs, Form::Ledger, sealed), clock)
}

/// The time and the anchor of each commit.
fn past(bed: &Bed) -> Vec<(i64, Anchor)> {
    let mut found = Vec::new();
    let keys = bed.keys.as_deref();
    read_commits(&bed.vfs, NAME, keys, u64::MAX, &mut |commit| {
        assert_eq!(commit.seq, commit.anchor().seq);
        found.push((commit.time_us, commit.anchor()));
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn each_commit_has_its_time_and_times_never_run_backwards() {
    for sealed in [false, true] {
        let (bed, clock) = timed(sealed);
        let mut store = Store::open(bed.config()).unwrap();
        for now in [100, 200, 50, 300] {
            clock.set_now_us(now);
            put(&mut store, 1, b"x").unwrap();
        }
        drop(store);
        clock.set_now_us(10);
        let mut store = Store::open(bed.config()).unwrap();
        put(&mut store, 1, b"x").unwrap();
        drop(store);
        let times: Vec<i64> = past(&bed).into_iter().map(|(time, _)| time).collect();
        assert_eq!(times, [100, 200, 200, 300, 300]);
    }
}

#[test]
fn the_digests_are_the_chain_that_the_format_describes() {
    let (bed, clock) = timed(false);
    let mut store = Store::open(bed.config()).unwrap();
    let base = store.storage.anchor();
    clock.set_now_us(77);
    let set = Op::set(b"k", b"v");
    store.commit(&[&[set, Op::remove(b"gone")], &[Op::CLEAR]]).unwrap();
    let link = |before: [u8; 32], seq: u64, count: u32, records: &[u8]| -> [u8; 32] {
        let mut sha = Sha256::new();
        sha.update(b"codexdb ledger 1");
        sha.update(before);
        sha.update(seq.to_le_bytes());
        sha.update(77_i64.to_le_bytes());
        sha.update(count.to_le_bytes());
        sha.update(records);
        sha.finalize().into()
    };
    let records = b"\x01\0\x01\0\x01\0\0\0kv\x02\0\x04\0\0\0\0\0gone";
    let genesis: [u8; 32] = bytes(&bed.vfs, NAME)[96..128].try_into().unwrap();
    assert_ne!(genesis, [0; 32], "random");
    let first = link(genesis, 1, 2, records);
    let second = link(first, 2, 1, b"\x03\0\0\0\0\0\0\0");
    let anchor = |seq: u64, digest: [u8; 32]| {
        let mut sha = Sha256::new();
        sha.update(b"codexdb anchor 1");
        sha.update(base.store_id);
        sha.update(seq.to_le_bytes());
        sha.update(digest);
        Anchor::new(base.store_id, seq, sha.finalize().into())
    };
    assert_eq!(base, anchor(0, genesis));
    assert_eq!(past(&bed), [(77, anchor(1, first)), (77, anchor(2, second))]);
    assert_eq!(store.storage.anchor(), anchor(2, second));
}

#[test]
fn an_anchor_may_name_any_commit_of_a_group() {
    let (bed, _) = timed(true);
    let mut store = Store::open(bed.config()).unwrap();
    let set = Op::set(b"k", b"v");
    store.commit(&[&[set], &[set], &[set]]).unwrap();
    drop(store);
    for (_, anchor) in past(&bed) {
        let mut config = bed.config();
        config.anchor = Some(anchor);
        Store::open(config.clone()).unwrap();
        config.anchor = Some(Anchor::new(anchor.store_id, anchor.seq, [8; 32]));
        let refused = Store::open(config);
        assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{refused:?}");
    }
}

/// Changes one byte of a plain ledger, and corrects every checksum of its frame.
fn forge(sample: &Sample, n: usize, at: usize) -> Vec<u8> {
    let mut bytes = sample.bytes.clone();
    let frame = sample.ends[n - 1];
    bytes[frame + 64 + at] ^= 1;
    crate::common::format::resum_frame(&mut bytes, frame);
    bytes
}

#[test]
fn a_commit_changed_under_right_checksums_breaks_the_chain() {
    let values = [dense(1, 40), dense(2, 40)];
    let sample = Sample::new(false, Durability::Sync, &values, false);
    // In the last frame, so that no later frame refuses it by its chain value: time, digest,
    // record.
    for at in [8, 15, 16, 47, 56, 70] {
        let refused = sample.read(&forge(&sample, 2, at));
        let offset = sample.ends[1] as u64;
        assert!(
            matches!(&refused, Err(Error::Damaged { offset: o, what, .. })
                if *o == offset && what.contains("digest")),
            "byte {at}: {refused:?}"
        );
    }
}

#[test]
fn the_past_is_read_up_to_any_commit_and_cut_into_a_ledger_of_its_own() {
    for sealed in [false, true] {
        let (bed, _) = timed(sealed);
        let mut store = Store::open(bed.config()).unwrap();
        let values: Vec<Vec<u8>> = (0..6).map(|n| dense(n, 200)).collect();
        for n in 1..=3 {
            put(&mut store, n, &values[n as usize - 1]).unwrap();
        }
        store.close().unwrap();
        let mut store = Store::open(bed.config()).unwrap();
        let key = |n: u64| format!("key {n}").into_bytes();
        let (four, five) = (key(4), key(5));
        let ops = [Op::set(&four, &values[3]), Op::set(&five, &values[4])];
        store.commit(&[&ops[..1], &ops[1..]]).unwrap();
        put(&mut store, 6, &values[5]).unwrap();
        let whole = bytes(&bed.vfs, NAME);
        for upto in 0..=7 {
            let mut seen = 0;
            let cut = read_commits(&bed.vfs, NAME, bed.keys.as_deref(), upto, &mut |commit| {
                seen += 1;
                assert_eq!(commit.seq, seen);
                assert_eq!(commit.ops.map(Result::unwrap).count(), 1);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, upto.min(6));
            // The fourth and the fifth commit are one group, which is not divided.
            assert_eq!(cut.seq, if upto == 4 { 3 } else { upto.min(6) });
            let copy = Bed { vfs: Vfs::mem(6), ..bed.clone() };
            let file = copy.vfs.dir.open(NAME, Open::CreateNew(Mode::Private)).unwrap();
            file.write_all_at(&whole[..cut.offset as usize], 0).unwrap();
            file.set_len(cut.offset.next_multiple_of(4096)).unwrap();
            let mut restored = Store::open(copy.config()).unwrap();
            assert_eq!(restored.map, model(&values, cut.seq));
            let anchor = restored.storage.anchor();
            assert_eq!((anchor.seq, anchor), (cut.seq, cut.anchor));
            assert_eq!(restored.recovered.cut, None);
            put(&mut restored, cut.seq + 1, b"another future").unwrap();
            drop(restored);
            assert_eq!(Store::open(copy.config()).unwrap().recovered.seq, cut.seq + 1);
        }
    }
}

#[test]
fn a_reader_goes_back_to_any_commit_and_finds_what_came_since() {
    for sealed in [false, true] {
        let (bed, _) = timed(sealed);
        let mut store = Store::open(bed.config()).unwrap();
        let set = Op::set(b"k", b"v");
        // Groups of one to four commits, in two epochs.
        for size in [1, 4, 2] {
            store.commit(&vec![&[set][..]; size]).unwrap();
        }
        store.close().unwrap();
        let mut store = Store::open(bed.config()).unwrap();
        store.commit(&[&[set], &[set]]).unwrap();
        let mut reader = LedgerReader::open(&bed.vfs, NAME, bed.keys.as_deref()).unwrap();
        let read = |reader: &mut LedgerReader, upto: u64| {
            let mut anchors = Vec::new();
            let mut sink = |commit: codex_storage::LedgerCommit<'_>| {
                anchors.push(commit.anchor());
                Ok(())
            };
            while reader.next(upto, &mut sink).unwrap() {}
            anchors
        };
        let all: Vec<Anchor> = past(&bed).into_iter().map(|(_, anchor)| anchor).collect();
        let mut places = vec![reader.place()];
        for seq in 1..=9 {
            assert_eq!(read(&mut reader, seq), [all[seq as usize - 1]]);
            assert_eq!(read(&mut reader, seq), [], "it was passed");
            places.push(reader.place());
        }
        for (from, place) in places.iter().enumerate().rev() {
            for upto in from..=9 {
                reader.go_to(place).unwrap();
                assert_eq!(read(&mut reader, upto as u64), all[from..upto], "{from} to {upto}");
            }
        }
        assert_eq!(read(&mut reader, u64::MAX), [], "the end");
        store.commit(&[&[set], &[set]]).unwrap();
        reader.go_to(&places[8]).unwrap();
        let all: Vec<Anchor> = past(&bed).into_iter().map(|(_, anchor)| anchor).collect();
        assert_eq!(read(&mut reader, 10), all[8..10]);
        assert_eq!(reader.cut().seq, 9, "a group is not divided");
        assert_eq!(read(&mut reader, 11), all[10..]);
        // A sink that fails gets the group again.
        reader.go_to(&places[0]).unwrap();
        let path = std::path::PathBuf::from(NAME);
        let refuse =
            &mut |_: codex_storage::LedgerCommit<'_>| Err(Error::NotFound { path: path.clone() });
        assert!(reader.next(9, refuse).is_err());
        assert_eq!(read(&mut reader, 11), all);
    }
}

#[test]
fn reading_the_past_asks_for_the_same_key_and_form() {
    let (bed, _) = timed(true);
    Store::open(bed.config()).unwrap().close().unwrap();
    let read = |name: &str, keys: Option<&dyn codex_storage::seal::Keys>| {
        read_commits(&bed.vfs, name, keys, 9, &mut |_| Ok(()))
    };
    assert!(matches!(read(NAME, None), Err(Error::KeyRequired { .. })));
    assert!(matches!(read(NAME, Some(&*keys("guess"))), Err(Error::WrongKey { .. })));
    assert!(matches!(read("none.db", None), Err(Error::NotFound { .. })));
    let snapshot = Bed::new(bed.vfs.clone(), Form::Snapshot, false);
    let mut config = snapshot.config();
    config.name = "other.db".to_owned();
    Store::open(config).unwrap().close().unwrap();
    assert!(matches!(read("other.db", None), Err(Error::WrongForm { .. })));
}

#[test]
fn a_clean_close_is_told_from_a_crash_and_written_once() {
    let (bed, _) = timed(false);
    let mut store = Store::open(bed.config()).unwrap();
    put(&mut store, 1, b"one").unwrap();
    store.close().unwrap();
    let closed = bytes(&bed.vfs, NAME);
    for _ in 0..3 {
        let store = Store::open(bed.config()).unwrap();
        assert!(store.recovered.clean);
        assert_eq!(store.recovered.durable, 1);
        store.close().unwrap();
        assert_eq!(bytes(&bed.vfs, NAME), closed, "nothing new, nothing written");
    }
    let mut store = Store::open(bed.config()).unwrap();
    put(&mut store, 2, b"two").unwrap();
    drop(store);
    assert!(!Store::open(bed.config()).unwrap().recovered.clean);
}

#[test]
fn an_interval_ledger_says_what_is_durable() {
    let (bed, _) = timed(false);
    let level = Durability::Interval(Duration::from_millis(5));
    let mut store = Store::open(bed.at(level)).unwrap();
    put(&mut store, 1, b"one").unwrap();
    assert_eq!(store.storage.stats().durable, 0);
    let point = store.storage.sync_point().unwrap().unwrap();
    put(&mut store, 2, b"two").unwrap();
    store.storage.synced(point.sync()).unwrap();
    assert_eq!((store.storage.stats().durable, store.storage.stats().seq), (1, 2));
    store.flush().unwrap();
    assert_eq!(store.storage.stats().durable, 2);
    assert!(store.storage.sync_point().unwrap().is_none());
    let stats = store.storage.stats();
    assert_eq!((stats.groups, stats.syncs), (2, 2));
}

#[test]
fn many_commits_grow_the_log_and_shrink_it_at_the_close() {
    let (bed, _) = timed(false);
    let mut store = Store::open(bed.config()).unwrap();
    let values: Vec<Vec<u8>> = (0..300).map(|n| dense(n, 3_000)).collect();
    for (n, value) in (1..).zip(&values) {
        put(&mut store, n, value).unwrap();
    }
    let open_len = bytes(&bed.vfs, NAME).len() as u64;
    let used = store.storage.stats().log_bytes;
    assert!(open_len > used && open_len.is_multiple_of(65_536), "{open_len} for {used}");
    store.close().unwrap();
    assert_eq!(bytes(&bed.vfs, NAME).len() as u64, used + 128, "a close frame follows");
    assert_eq!(Store::open(bed.config()).unwrap().map, model(&values, 300));
}

#[test]
fn a_reader_reports_a_torn_tail_and_leaves_it() {
    let values = [dense(1, 100), dense(2, 100)];
    let sample = Sample::new(false, Durability::Sync, &values, false);
    let at = sample.ends[2] - 90;
    let torn = &[&sample.bytes[..at], &vec![0; sample.bytes.len() - at]].concat();
    let config = sample.config(torn, Access::ReadOnly);
    let store = Store::open(config.clone()).unwrap();
    assert!(store.recovered.cut.is_some());
    assert_eq!(bytes(&config.vfs, NAME), *torn);
    assert!(store.storage.poisoned().is_none());
    let mut config = config;
    config.create = Create::Never;
    config.access = Access::ReadWrite;
    drop(store);
    let mut store = Store::open(config.clone()).unwrap();
    assert!(store.recovered.cut.is_some());
    assert_eq!(bytes(&config.vfs, NAME), *torn, "an opening that writes nothing changes nothing");
    put(&mut store, 2, b"again").unwrap();
    let resume = sample.ends[2].next_multiple_of(512);
    assert_eq!(bytes(&config.vfs, NAME)[resume..resume + 5], *b"CDXF\x02");
}

/// An operation with owned bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Clear,
}

impl Change {
    fn op(&self) -> Op<'_> {
        match self {
            Self::Set(key, value) => Op::set(key, value),
            Self::Remove(key) => Op::remove(key),
            Self::Clear => Op::CLEAR,
        }
    }
}

impl From<Op<'_>> for Change {
    fn from(op: Op<'_>) -> Self {
        match op {
            Op::Set(item) => Self::Set(item.key.to_vec(), item.value.to_vec()),
            Op::Remove { key, .. } => Self::Remove(key.to_vec()),
            Op::Clear { .. } => Self::Clear,
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let key = prop::collection::vec(any::<u8>(), 0..4);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        (any::<u8>(), 0..3_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    prop_oneof![
        6 => (key.clone(), value).prop_map(|(key, value)| Change::Set(key, value)),
        2 => key.prop_map(Change::Remove),
        1 => Just(Change::Clear),
    ]
}

/// Sessions of groups of batches of operations, and whether each session ends with a close.
type Sessions = Vec<(bool, bool, Vec<Vec<Vec<Change>>>)>;

fn sessions() -> impl Strategy<Value = Sessions> {
    let batch = prop::collection::vec(change(), 0..4);
    let group = prop::collection::vec(batch, 1..4);
    let session = (any::<bool>(), any::<bool>(), prop::collection::vec(group, 0..5));
    prop::collection::vec(session, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: u32::try_from(crate::common::scaled(150)).unwrap(),
        rng_seed: proptest::test_runner::RngSeed::Fixed(crate::common::seed()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_change_ever_committed_is_read_in_order(sealed: bool, sessions in sessions()) {
        let (bed, _) = timed(sealed);
        let mut history: Vec<Vec<Change>> = Vec::new();
        let mut map = crate::common::store::Map::default();
        for (is_lazy, closes, groups) in &sessions {
            let level = if *is_lazy { Durability::Os } else { Durability::Sync };
            let mut store = Store::open(bed.at(level)).unwrap();
            prop_assert_eq!(&store.map, &map);
            for group in groups {
                let batches: Vec<Vec<Op<'_>>> =
                    group.iter().map(|batch| batch.iter().map(Change::op).collect()).collect();
                let slices: Vec<&[Op<'_>]> = batches.iter().map(Vec::as_slice).collect();
                let first = history.len() as u64 + 1;
                let seqs = store.commit(&slices).unwrap();
                prop_assert_eq!(seqs, first..first + group.len() as u64);
                history.extend(group.iter().cloned());
            }
            map.clone_from(&store.map);
            if *closes {
                store.close().unwrap();
            }
        }
        let mut read: Vec<Vec<Change>> = Vec::new();
        read_commits(&bed.vfs, NAME, bed.keys.as_deref(), u64::MAX, &mut |commit| {
            read.push(commit.ops.map(|op| op.unwrap().into()).collect());
            Ok(())
        })
        .unwrap();
        prop_assert_eq!(read, history);
    }
}
