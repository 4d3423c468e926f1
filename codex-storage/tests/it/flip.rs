//! Flipped bits, overwritten bytes and sectors, moved frames: each gives a typed error or a report.

use codex_storage::storage::Durability;
use codex_storage::vfs::SeededEntropy;
use codex_storage::{Access, Error};

use crate::common::format::resum_frame_head;
use crate::common::log::{Sample, dense, model, put};
use crate::common::store::Store;
use crate::common::{scaled, seed, stride};

/// The results of reading damaged bytes that nothing proves, with their counts.
#[derive(Debug, Default)]
struct Unproven {
    errors: u32,
    reports: u32,
    earlier: u32,
}

/// Reads damaged bytes whose first change is at `at`, in the sample with these values.
fn check(
    sample: &Sample,
    values: &[Vec<u8>],
    bytes: &[u8],
    at: usize,
    proven: usize,
    tally: &mut Unproven,
) {
    let what = format!("changed at {at}, proven up to {proven}");
    match sample.read(bytes) {
        Err(
            error @ (Error::Damaged { .. }
            | Error::Tampered { .. }
            | Error::NotADatabase { .. }
            | Error::NewerVersion { .. }
            | Error::TailSuspect { .. }),
        ) => {
            assert!(!error.to_string().is_empty());
            tally.errors += 1;
        }
        Err(other) => panic!("{what}: {other}"),
        Ok(store) => {
            assert!(at >= proven, "{what}: damage went unnoticed, {:?}", store.recovered);
            let seq = store.recovered.seq;
            assert_eq!(store.map, model(values, seq), "{what}: a wrong value");
            assert!(seq + 1 >= sample.commits(), "{what}: more than the last group is gone");
            match store.recovered.cut {
                Some(_) => tally.reports += 1,
                None => tally.earlier += 1,
            }
        }
    }
}

/// A sample, its values, and the offset up to which a later frame or a close mark proves its bytes.
fn samples() -> Vec<(Sample, Vec<Vec<u8>>, usize)> {
    let mut all = Vec::new();
    for sealed in [false, true] {
        let values = vec![dense(1, 40), vec![0; 30], dense(2, 500), dense(3, 5)];
        let open = Sample::new(sealed, Durability::Sync, &values, false);
        let last_start = open.ends[open.ends.len() - 2];
        all.push((open, values.clone(), last_start));
        let closed = Sample::new(sealed, Durability::Sync, &values, true);
        let end = *closed.ends.last().unwrap();
        all.push((closed, values.clone(), end));
        all.push(with_gap(sealed, &values));
    }
    all
}

/// A ledger with a torn tail in the middle, and a resume frame after it.
fn with_gap(sealed: bool, values: &[Vec<u8>]) -> (Sample, Vec<Vec<u8>>, usize) {
    let torn = Sample::new(sealed, Durability::Sync, &values[..3], false);
    let mut bytes = torn.bytes.clone();
    bytes[torn.ends[3] - 100..torn.ends[3]].fill(0);
    let config = torn.config(&bytes, Access::ReadWrite);
    let mut store = Store::open(config.clone()).unwrap();
    let values = vec![values[0].clone(), values[1].clone(), dense(8, 70), dense(9, 80)];
    put(&mut store, 3, &values[2]).unwrap();
    put(&mut store, 4, &values[3]).unwrap();
    store.close().unwrap();
    let mut bed = torn.bed.clone();
    bed.vfs = config.vfs;
    let sample = Sample::of(bed);
    let end = *sample.ends.last().unwrap();
    (sample, values, end)
}

/// Returns whether a change of this byte can be noticed. It cannot in a tail that a recovery has
/// cut.
fn counts(sample: &Sample, at: usize) -> bool {
    let in_gap = |pair: &[usize]| {
        // A resume frame begins at a multiple of 512 after the tail.
        let [start, end] = [pair[0], pair[1]];
        (start..end).step_by(64).any(|resume| {
            let is_resume = sample.bytes[resume..].starts_with(b"CDXF\x02");
            is_resume && at >= start && at < resume
        })
    };
    !sample.ends.windows(2).any(in_gap)
}

#[test]
fn every_flipped_bit_is_an_error_unless_nothing_proves_it() {
    let mut tally = Unproven::default();
    for (sample, values, proven) in samples() {
        // Every bit of the header and the frames. Of the zeros after them, the first byte and then
        // one byte at each interval.
        let end = (sample.ends[sample.ends.len() - 1] + 200).min(sample.bytes.len());
        let mut bytes = sample.bytes.clone();
        let behind = (end..bytes.len()).step_by(stride(499));
        for at in (0..end).chain(behind).filter(|&at| counts(&sample, at)) {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                check(&sample, &values, &bytes, at, proven, &mut tally);
                bytes[at] ^= 1 << bit;
            }
        }
    }
    println!("unproven last group, flipped bits: {tally:?}");
    assert!(tally.errors > 40_000 && tally.reports > 100, "{tally:?}");
}

#[test]
fn every_byte_to_00_or_ff_and_every_zeroed_sector_is_an_error_unless_nothing_proves_it() {
    let mut tally = Unproven::default();
    for (sample, values, proven) in samples() {
        let mut bytes = sample.bytes.clone();
        let end = (sample.ends[sample.ends.len() - 1] + 300).min(bytes.len());
        for at in (0..end).filter(|&at| counts(&sample, at)) {
            for to in [0, 0xFF] {
                let was = std::mem::replace(&mut bytes[at], to);
                if was != to {
                    check(&sample, &values, &bytes, at, proven, &mut tally);
                }
                bytes[at] = was;
            }
        }
        for sector in (0..end).step_by(512) {
            let until = (sector + 512).min(bytes.len());
            let used = (sector..until).find(|&at| bytes[at] != 0 && counts(&sample, at));
            let was = bytes[sector..until].to_vec();
            bytes[sector..until].fill(0);
            if bytes[sector..].iter().all(|&byte| byte == 0) {
                // A tail that was set to zeros leaves no trace. The result is an earlier state.
                if let Ok(store) = sample.read(&bytes) {
                    assert_eq!(store.map, model(&values, store.recovered.seq));
                }
            } else if let Some(first) = used {
                check(&sample, &values, &bytes, first, proven, &mut tally);
            }
            bytes[sector..until].copy_from_slice(&was);
        }
    }
    println!("unproven last group, bytes and sectors: {tally:?}");
    assert!(tally.errors > 10_000, "{tally:?}");
}

#[test]
fn moved_frames_are_never_taken_for_what_they_replace() {
    let mut cases = 0;
    for sealed in [false, true] {
        // Frames of the same length, so that each fits the place of another.
        let values: Vec<Vec<u8>> = (0..5).map(|n| dense(n, 120)).collect();
        let other: Vec<Vec<u8>> = (5..10).map(|n| dense(n, 120)).collect();
        let sample = Sample::new(sealed, Durability::Sync, &values, true);
        // Another store, and an older generation of this one with other commits.
        let foreign = Sample::with_seed(99, sealed, Durability::Sync, &other, true);
        let older = Sample::with_seed(7, sealed, Durability::Sync, &other, true);
        let frames: Vec<&[u8]> = (1..=5).map(|n| sample.frame(n)).collect();
        let close = &sample.bytes[sample.ends[5]..];
        let glue = |frames: &[&[u8]]| {
            let mut bytes = sample.bytes[..512].to_vec();
            for frame in frames {
                bytes.extend_from_slice(frame);
            }
            bytes
        };
        let mut variants = Vec::new();
        for n in 0..5 {
            let mut deleted = frames.clone();
            deleted.remove(n);
            deleted.push(close);
            variants.push(("deleted", glue(&deleted)));
            let mut doubled = frames.clone();
            doubled.insert(n, frames[n]);
            doubled.push(close);
            variants.push(("doubled", glue(&doubled)));
            for m in 0..n {
                let mut swapped = frames.clone();
                swapped.swap(n, m);
                swapped.push(close);
                variants.push(("swapped", glue(&swapped)));
            }
            for (name, from) in [("foreign", &foreign), ("older", &older)] {
                let mut spliced = frames.clone();
                let of_other: Vec<&[u8]> = (1..=5).map(|n| from.frame(n)).collect();
                // The frames of the first have a salt, and are longer.
                if n > 0 || spliced[0].len() == of_other[0].len() {
                    spliced[n] = of_other[n];
                    spliced.push(close);
                    variants.push((name, glue(&spliced)));
                }
            }
        }
        for (name, bytes) in variants {
            let refused = sample.read(&bytes);
            assert!(
                matches!(
                    refused,
                    Err(Error::Damaged { .. } | Error::Tampered { .. } | Error::TailSuspect { .. })
                ),
                "{name}: {refused:?}"
            );
            cases += 1;
        }
    }
    assert!(cases > 50, "only {cases} cases");
}

#[test]
fn every_truncation_gives_an_error_or_exactly_an_earlier_state() {
    for (sample, values, _) in samples() {
        for len in 0..sample.bytes.len().min(sample.ends[4] + 200) {
            match sample.read(&sample.bytes[..len]) {
                Ok(store) => {
                    assert!(len == sample.bytes.len() || len % 512 == 0, "{len}");
                    assert_eq!(store.map, model(&values, store.recovered.seq), "{len}");
                }
                Err(Error::EmptyFile { .. }) => assert_eq!(len, 0),
                Err(Error::NotADatabase { .. }) => assert!(len < 8, "{len}"),
                Err(Error::Damaged { .. }) => assert!(len % 512 != 0, "{len}"),
                Err(other) => panic!("{len}: {other}"),
            }
        }
    }
}

/// Each header field of a frame at its limits, with correct checksums.
#[test]
fn a_frame_header_with_other_fields_is_an_error_under_a_right_checksum() {
    let values: Vec<Vec<u8>> = (0..3).map(|n| dense(n, 100)).collect();
    let mut cases = 0;
    for sealed in [false, true] {
        let sample = Sample::new(sealed, Durability::Sync, &values, true);
        let fields = [(4, 1), (5, 1), (6, 2), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8), (48, 4)];
        for n in 1..=3 {
            let at = sample.ends[n - 1];
            for (field, len) in fields.into_iter().chain([(52, 4), (56, 4)]) {
                for change in 0..5_u64 {
                    let mut bytes = sample.bytes.clone();
                    let place = at + field..at + field + len;
                    let mut was = [0; 8];
                    was[..len].copy_from_slice(&bytes[place.clone()]);
                    let was = u64::from_le_bytes(was);
                    let to =
                        [0, 1, u64::MAX, was.wrapping_add(1), was.wrapping_sub(1)][change as usize];
                    bytes[place.clone()].copy_from_slice(&to.to_le_bytes()[..len]);
                    if bytes == sample.bytes {
                        continue;
                    }
                    resum_frame_head(&mut bytes, at);
                    let refused = sample.read(&bytes);
                    // The chain value of the next frame depends on the checksum of this one.
                    assert!(
                        matches!(refused, Err(Error::Damaged { .. } | Error::Tampered { .. })),
                        "field {field} of frame {n} to {to}: {refused:?}"
                    );
                    cases += 1;
                }
            }
        }
    }
    assert!(cases > scaled(200).min(200), "only {cases} cases");
}

#[test]
fn random_damage_gives_an_error_or_an_earlier_state_and_never_a_panic() {
    let random = SeededEntropy::new(seed());
    let (mut errors, mut states) = (0, 0);
    for (sample, values, _) in samples() {
        for case in 0..scaled(400) {
            let mut bytes = sample.bytes.clone();
            let len = bytes.len() as u64;
            for _ in 0..=random.below(3) {
                let from = (512 + random.below(len - 512)) as usize;
                let to = (from + 1 + random.below(200) as usize).min(bytes.len());
                match random.below(4) {
                    0 => bytes[from..to].fill(0),
                    1 => bytes[from..to].fill(random.below(256) as u8),
                    2 => {
                        let source = random.below(len - 200) as usize;
                        bytes.copy_within(source..source + to - from, from);
                    }
                    _ => bytes[from..to].fill_with(|| random.below(256) as u8),
                }
            }
            match sample.read(&bytes) {
                Ok(store) => {
                    let what = format!("seed {}, case {case}", seed());
                    assert_eq!(store.map, model(&values, store.recovered.seq), "{what}");
                    states += 1;
                }
                Err(Error::Damaged { .. } | Error::Tampered { .. } | Error::TailSuspect { .. }) => {
                    errors += 1;
                }
                Err(other) => panic!("seed {}, case {case}: {other}", seed()),
            }
        }
    }
    assert!(errors > states && states > 0, "{errors} errors, {states} states");
}
