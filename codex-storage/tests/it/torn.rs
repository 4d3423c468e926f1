//! A log whose last frame is cut at every byte, with each kind of bytes after the cut.

use codex_storage::storage::{Durability, Recovered};
use codex_storage::{Access, Error, OnDamage};

use crate::common::log::{Sample, dense, model, put};
use crate::common::store::Store;
use crate::common::stride;

fn samples() -> Vec<(Sample, Vec<Vec<u8>>)> {
    let mut samples = Vec::new();
    for level in [Durability::Sync, Durability::Os] {
        for sealed in [false, true] {
            for len in [1, 400, 1600] {
                let values = vec![dense(1, 300), dense(2, 20), dense(3, len)];
                samples.push((Sample::new(sealed, level, &values, false), values));
            }
        }
    }
    samples
}

/// Returns the length without the padding. The last byte is the end byte of the frame.
fn used(frame: &[u8]) -> usize {
    frame.iter().rposition(|&byte| byte != 0).unwrap() + 1
}

fn assert_cut(recovered: &Recovered, sample: &Sample, cut_at: usize, what: &str) {
    let last = sample.ends.len() - 1;
    let start = sample.ends[last - 1];
    let cut = recovered.cut.as_ref().unwrap_or_else(|| panic!("{what}: nothing is reported"));
    assert_eq!(recovered.seq, last as u64 - 1, "{what}");
    assert_eq!((cut.offset, cut.seq, &*cut.file), (start as u64, recovered.seq, "app.db"));
    let torn = &sample.bytes[start..cut_at];
    assert_eq!(cut.bytes, used(torn) as u64, "{what}: each dropped byte is reported");
}

#[test]
fn torn_tail_is_dropped_and_reported() {
    for (sample, values) in samples() {
        let last = sample.ends.len() - 1;
        let (start, end) = (sample.ends[last - 1], sample.ends[last]);
        let whole = start + used(sample.frame(last));
        for at in start..=end {
            let zeroed = [&sample.bytes[..at], &vec![0; sample.bytes.len() - at]].concat();
            for bytes in [&sample.bytes[..at], &zeroed] {
                let what = format!("cut at {at} of {start}..{end}, {} bytes", bytes.len());
                let read = sample.read(bytes);
                if bytes.len() % 512 != 0 {
                    // A log in service never has such a length.
                    assert!(matches!(read, Err(Error::Damaged { .. })), "{what}: {read:?}");
                    continue;
                }
                let store = read.unwrap_or_else(|e| panic!("{what}: {e}"));
                if at == start || at >= whole {
                    let commits = if at == start { last - 1 } else { last } as u64;
                    assert_eq!((store.recovered.seq, &store.recovered.cut), (commits, &None));
                    assert_eq!(store.map, model(&values, commits), "{what}");
                    continue;
                }
                assert_cut(&store.recovered, &sample, at, &what);
                assert_eq!(store.map, model(&values, last as u64 - 1), "{what}");
            }
        }
    }
}

#[test]
fn a_tail_that_no_crash_leaves_is_suspect_and_cut_only_on_request() {
    for (sample, values) in samples() {
        let last = sample.ends.len() - 1;
        let (start, end) = (sample.ends[last - 1], sample.ends[last]);
        let rest = sample.bytes.len() - start;
        let old = [sample.frame(1)[64..].to_vec(), sample.frame(2)[64..].to_vec()].concat();
        let old: Vec<u8> = old.into_iter().filter(|&byte| byte != 0).cycle().take(rest).collect();
        let fills = [vec![0xFF; rest], dense(9, rest), old];
        for at in start + 1..end {
            for (n, fill) in fills.iter().enumerate() {
                let bytes = [&sample.bytes[..at], &fill[..sample.bytes.len() - at]].concat();
                let what = format!("cut at {at} of {start}..{end}, filling {n}");
                if bytes[..end] == sample.bytes[..end] {
                    continue;
                }
                let refused = sample.read(&bytes);
                assert!(
                    matches!(&refused, Err(Error::TailSuspect { offset, seq, bytes, .. })
                        if *offset == start as u64 && *seq == last as u64 - 1
                            && *bytes == rest as u64),
                    "{what}: {refused:?}"
                );
                if at % 97 == 0 {
                    let mut config = sample.config(&bytes, Access::ReadOnly);
                    config.on_damage = OnDamage::CutTail;
                    let store = Store::open(config).unwrap();
                    assert_eq!(store.map, model(&values, last as u64 - 1), "{what}");
                    assert_eq!(store.recovered.cut.unwrap().bytes, rest as u64);
                }
            }
        }
    }
}

#[test]
fn writing_goes_on_behind_a_torn_tail_again_and_again() {
    for (sample, mut values) in samples() {
        let last = sample.ends.len() - 1;
        let start = sample.ends[last - 1];
        values.truncate(last - 1);
        for at in (start + 1..start + used(sample.frame(last))).step_by(13) {
            let torn = [&sample.bytes[..at], &vec![0; sample.bytes.len() - at]].concat();
            let config = sample.config(&torn, Access::ReadWrite);
            let mut values = values.clone();
            for round in 0..3 {
                let mut store = Store::open(config.clone()).unwrap();
                assert_eq!(store.recovered.cut.is_some(), round == 0, "cut at {at}");
                assert_eq!(store.map, model(&values, values.len() as u64), "cut at {at}");
                values.push(dense(round, 100));
                put(&mut store, values.len() as u64, values.last().unwrap()).unwrap();
            }
            let file = crate::common::bytes(&config.vfs, crate::common::NAME);
            assert_eq!(file[..start], torn[..start], "no byte is changed");
        }
    }
}

#[test]
fn values_that_contain_copies_of_the_log_are_never_taken_for_it() {
    for sealed in [false, true] {
        let inner = vec![dense(1, 90), dense(2, 90), dense(3, 90)];
        let copy = Sample::new(sealed, Durability::Sync, &inner, true).bytes;
        let frames = copy[512..].to_vec();
        // At each alignment to the frames around it, and one at its original place.
        let mut values: Vec<Vec<u8>> =
            [0, 1, 16, 63].iter().map(|&n| [vec![1; n], frames.clone()].concat()).collect();
        values.insert(0, dense(4, 10));
        let sample = Sample::new(sealed, Durability::Sync, &values, false);
        let last = sample.ends.len() - 1;
        assert_eq!(sample.read(&sample.bytes).unwrap().map, model(&values, last as u64));
        for at in (sample.ends[last - 1] + 1..sample.ends[last] - 64).step_by(stride(7)) {
            let zeroed = [&sample.bytes[..at], &vec![0; sample.bytes.len() - at]].concat();
            let store = sample.read(&zeroed).unwrap();
            assert_eq!(store.map, model(&values, last as u64 - 1), "cut at {at}");
            assert_cut(&store.recovered, &sample, at, "a copy inside a value");
        }
    }
}
