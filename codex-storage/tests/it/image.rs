//! Damaged images: every byte is checked, and each kind of damage has its own error.

use codex_storage::batch::{Item, Op, TableId};
use codex_storage::storage::{EntrySink, Form, State};
use codex_storage::vfs::SeededEntropy;
use codex_storage::{Access, Error, Result};

use crate::common::format::{TAIL_LEN, parts, resum_footer, resum_header_at, resum_part_head};
use crate::common::store::Store;
use crate::common::{Bed, NAME, bytes, files, put, scaled, seed, stride};

#[test]
fn each_flipped_bit_of_a_small_image_is_a_typed_error() {
    for bed in small_images() {
        let image = bytes(&bed.vfs, NAME);
        for at in 0..image.len() {
            for bit in 0..8 {
                let mut damaged = image.clone();
                damaged[at] ^= 1 << bit;
                is_refused(&bed, &damaged, &format!("bit {bit} of byte {at}"));
            }
        }
    }
}

#[test]
fn each_byte_set_to_zero_or_to_ones_is_a_typed_error() {
    for bed in small_images() {
        let image = bytes(&bed.vfs, NAME);
        for at in 0..image.len() {
            for byte in [0, 0xFF] {
                let mut damaged = image.clone();
                damaged[at] = byte;
                if damaged != image {
                    is_refused(&bed, &damaged, &format!("byte {at} set to {byte}"));
                }
            }
        }
    }
}

/// Each byte of a small image, and one of 70 of a large one; at scale 70 each of that too.
#[test]
fn each_zeroed_sector_of_an_image_that_is_looked_at_is_a_typed_error() {
    let large = large_images().into_iter().map(|bed| (bed, stride(70)));
    for (bed, sectors) in small_images().into_iter().map(|bed| (bed, 1)).chain(large) {
        let image = bytes(&bed.vfs, NAME);
        for at in (0..image.len()).step_by(512 * sectors) {
            let mut damaged = image.clone();
            let end = image.len().min(at + 512);
            damaged[at..end].fill(0);
            is_refused(&bed, &damaged, &format!("the sector at {at}"));
        }
    }
}

#[test]
fn each_truncation_and_every_byte_too_many_is_a_typed_error() {
    for bed in small_images() {
        let image = bytes(&bed.vfs, NAME);
        for len in 0..image.len() {
            is_refused(&bed, &image[..len], &format!("cut to {len} bytes"));
        }
        for more in [1, 96, 512, 4096] {
            for byte in [0, 0xA5] {
                let mut longer = image.clone();
                longer.resize(image.len() + more, byte);
                is_refused(&bed, &longer, &format!("{more} bytes more"));
            }
        }
    }
}

#[test]
fn random_damage_to_an_image_that_two_threads_read_is_a_typed_error() {
    let random = SeededEntropy::new(seed());
    for bed in large_images() {
        let image = bytes(&bed.vfs, NAME);
        assert!(image.len() > 1 << 20, "long enough for the reading thread");
        for _ in 0..scaled(20) {
            let mut damaged = image.clone();
            let at = random.below(image.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
            is_refused(&bed, &damaged, &format!("byte {at}, seed {}", seed()));
            let len = random.below(image.len() as u64) as usize;
            is_refused(&bed, &image[..len], &format!("cut to {len}, seed {}", seed()));
        }
    }
}

#[test]
fn blocks_swapped_dropped_doubled_or_taken_from_another_image_are_refused() {
    for bed in large_images() {
        let image = bytes(&bed.vfs, NAME);
        let blocks = blocks(&image);
        let with = |order: &[&[u8]]| {
            let mut made = image[..512].to_vec();
            for block in order {
                made.extend_from_slice(block);
            }
            made.extend_from_slice(&image[image.len() - TAIL_LEN..]);
            made
        };
        assert_eq!(with(&blocks), image, "the parts are the whole");
        let mut swapped = blocks.clone();
        swapped.swap(1, 2);
        is_refused(&bed, &with(&swapped), "blocks 1 and 2 swapped");
        for at in 0..blocks.len() {
            let mut dropped = blocks.clone();
            dropped.remove(at);
            is_refused(&bed, &with(&dropped), &format!("block {at} dropped"));
            let mut doubled = blocks.clone();
            doubled.insert(at, blocks[at]);
            is_refused(&bed, &with(&doubled), &format!("block {at} doubled"));
        }
        // The next image of the same store, with another value of the first entry.
        let mut store = Store::open(bed.config()).unwrap();
        store.set("", "another value").unwrap();
        store.close().unwrap();
        let newer = bytes(&bed.vfs, NAME);
        let foreign = self::blocks(&newer);
        let mut spliced = blocks.clone();
        spliced[1] = foreign[1];
        is_refused(&bed, &with(&spliced), "block 1 of the next image");
    }
}

#[test]
fn a_forged_length_costs_no_memory() {
    let bed = Bed::mem(Form::Snapshot, false);
    Store::open(bed.config()).unwrap().set("a", "1").unwrap();
    let image = bytes(&bed.vfs, NAME);
    let mut forged = image.clone();
    forged[512 + 12..512 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    resum_part_head(&mut forged, 512);
    let refused = open_with(&bed, &forged).unwrap_err();
    let at_block = matches!(&refused, Error::Damaged { offset: 512, what, .. }
        if what.contains("runs past the end"));
    assert!(at_block, "{refused}");
}

/// Numbers in the header at their limits, with a correct checksum: an error of a known kind or the
/// same state, never another state and never a panic.
#[test]
fn header_fields_at_their_extremes_never_give_another_state() {
    let fields =
        [(8, 2), (10, 1), (11, 1), (12, 1), (13, 1), (48, 8), (56, 8), (64, 8), (72, 8), (80, 8)];
    let others = [(88, 8), (96, 8), (128, 8), (144, 8), (160, 8), (192, 8), (208, 8), (224, 8)];
    for form in [Form::Snapshot, Form::Wal] {
        for closed in [true, false] {
            let bed = Bed::mem(form, false);
            let mut store = Store::open(bed.config()).unwrap();
            store.set("a", "1").unwrap();
            store.checkpoint().unwrap();
            store.set("b", "2").unwrap();
            let map = store.map.clone();
            if closed {
                store.close().unwrap();
            } else {
                drop(store);
            }
            let image = bytes(&bed.vfs, NAME);
            for (at, width) in fields.into_iter().chain(others) {
                let mut word = [0; 8];
                word[..width].copy_from_slice(&image[at..at + width]);
                let value = u64::from_le_bytes(word);
                for forged in [0, 1, u64::MAX, value.wrapping_add(1), value.wrapping_sub(1)] {
                    let mut made = image.clone();
                    made[at..at + width].copy_from_slice(&forged.to_le_bytes()[..width]);
                    resum_header_at(&mut made, 0);
                    let second = made.len() - 512;
                    made.copy_within(..512, second);
                    let copy = bed.copy();
                    put(&copy.vfs, NAME, &made);
                    let opened = Store::open(copy.config());
                    let breaks_link = at == 48 && forged != value && form == Form::Wal && !closed;
                    assert!(!breaks_link || matches!(opened, Err(Error::Damaged { .. })));
                    let Ok(mut store) = opened else { continue };
                    assert_eq!(store.map, map, "{form}, offset {at} forged to {forged:#x}");
                    drop(store.set("c", "3"));
                    drop(store.checkpoint());
                    let expected = store.map.clone();
                    drop(store.close());
                    let found = Store::open(copy.config()).unwrap().map;
                    assert_eq!(found, expected, "{form}, offset {at} forged to {forged:#x}");
                }
            }
        }
    }
}

#[test]
fn a_state_out_of_order_is_refused_and_leaves_nothing() {
    for keys in [[(0, "b"), (0, "a")], [(0, "a"); 2], [(1, "a"), (0, "b")], [(2, "a"), (1, "b")]] {
        let bed = Bed::mem(Form::Snapshot, false);
        let (mut storage, _) = codex_storage::open(&bed.config(), &mut |_| Ok(())).unwrap();
        let before = files(&bed.vfs);
        let mut group = storage.group();
        group.push(Op::set(b"a", b"")).unwrap();
        group.finish();
        let refused = storage.commit(&mut group, Some(&Unsorted(keys)));
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
        assert_eq!(files(&bed.vfs), before, "the image in place is untouched");
        assert!(storage.poisoned().is_none());
    }
}

#[test]
fn a_large_image_is_read_the_same_by_one_thread_and_by_two() {
    for bed in large_images() {
        let mut config = bed.config();
        config.access = Access::ReadOnly;
        let store = Store::open(config).unwrap();
        assert_eq!(store.map.0.len(), 40);
        for n in 0..40_u8 {
            assert_eq!(store.map.0[[n].as_slice()], vec![n + 1; 40_000], "entry {n}");
        }
    }
}

#[test]
fn an_error_of_the_sink_ends_the_reading_of_a_large_image() {
    for bed in large_images() {
        let mut seen = 0;
        let stopped = codex_storage::open(&bed.config(), &mut |_| {
            seen += 1;
            if seen == 3 { Err(Error::Contradiction("enough")) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(Error::Contradiction("enough"))), "{stopped:?}");
        assert_eq!(seen, 3);
    }
}

/// Stores of which one image has a destroyed header, and the calls that open them again.
#[test]
fn an_image_is_repaired_from_the_header_that_is_left() {
    for (form, sealed) in [Form::Wal, Form::Snapshot].iter().flat_map(|&f| [(f, false), (f, true)])
    {
        let bed = Bed::mem(form, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        store.set("b", "2").unwrap();
        let map = store.map.clone();
        drop(store);
        let keys = bed.keys.as_deref();
        let whole = bytes(&bed.vfs, NAME);
        assert!(!codex_storage::repair_header(&bed.vfs, NAME, keys).unwrap(), "nothing to mend");
        assert_eq!(bytes(&bed.vfs, NAME), whole);
        let second = whole.len() - 512;
        for at in [0, second] {
            for fill in [vec![0; 512], vec![0xA5; 512], flipped(&whole[at..at + 512])] {
                let mut damaged = whole.clone();
                damaged[at..at + 512].copy_from_slice(&fill);
                // A backup is repaired like a store.
                for name in [NAME, "app.db.bak.1"] {
                    let copy = bed.copy();
                    put(&copy.vfs, name, &damaged);
                    let mut config = copy.config();
                    config.name = name.to_owned();
                    config.access = Access::ReadOnly;
                    let refused = Store::open(config.clone()).unwrap_err();
                    let Error::Damaged { what, .. } = refused else { panic!("{refused}") };
                    assert!(at > 0 || what.contains("`repair_header`"), "{what}");
                    if sealed {
                        let refused = codex_storage::repair_header(&copy.vfs, name, None);
                        assert!(matches!(refused, Err(Error::KeyRequired { .. })), "{refused:?}");
                        assert_eq!(bytes(&copy.vfs, name), damaged);
                    }
                    assert!(codex_storage::repair_header(&copy.vfs, name, keys).unwrap());
                    assert_eq!(bytes(&copy.vfs, name), whole);
                    let store = Store::open(config).unwrap();
                    assert!(name != NAME || store.map == map, "{form} {sealed}");
                    let left = files(&copy.vfs).into_iter().map(|(name, _)| name);
                    assert!(!left.clone().any(|name| name.contains("tmp")), "{left:?}");
                }
            }
        }
    }
}

#[test]
fn a_forged_second_header_is_refused_by_reading_and_by_repair() {
    for bed in small_images() {
        let (keys, whole) = (bed.keys.as_deref(), bytes(&bed.vfs, NAME));
        let other = Bed::new(codex_storage::vfs::Vfs::mem(99), Form::Snapshot, keys.is_some());
        Store::open(other.config()).unwrap().close().unwrap();
        let foreign = bytes(&other.vfs, NAME);
        for at in 0..512 {
            let second = whole.len() - 512;
            let mut forged = whole.clone();
            forged[second + at] ^= 1;
            resum_header_at(&mut forged, second);
            if forged != whole {
                is_refused(&bed, &forged, &format!("byte {at} of the second header"));
            }
            // The link to the log, and the bytes of a plain image that only a key could
            // authenticate.
            let is_covered =
                bed.keys.is_some() && !(72..80).contains(&at) && !(88..96).contains(&at);
            forged[..512].fill(0);
            if is_covered && !(128..144).contains(&at) && at < 508 {
                put(&bed.vfs, NAME, &forged);
                let refused = codex_storage::repair_header(&bed.vfs, NAME, keys);
                let refused = refused.map(|_| format!("byte {at} was not noticed")).unwrap_err();
                assert!(!refused.to_string().is_empty());
                assert_eq!(bytes(&bed.vfs, NAME), forged, "nothing was changed");
            }
        }
        let second = whole.len() - 512;
        let spliced = [&[0; 512], &whole[512..second], &foreign[foreign.len() - 512..]].concat();
        put(&bed.vfs, NAME, &spliced);
        let refused = codex_storage::repair_header(&bed.vfs, NAME, keys);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
        assert_eq!(bytes(&bed.vfs, NAME), spliced);
        assert!(files(&bed.vfs).len() == 1, "no temporary file stays");
    }
}

#[cfg(feature = "fault")]
#[test]
fn an_image_with_a_bad_first_sector_is_repaired() {
    use codex_storage::vfs::CallKind;
    use codex_storage::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
    for sealed in [false, true] {
        for form in [Form::Wal, Form::Snapshot] {
            let disk = FaultDir::new();
            let bed = Bed::new(disk.vfs(3), form, sealed);
            let mut store = Store::open(bed.config()).unwrap();
            store.set("a", "1").unwrap();
            let map = store.map.clone();
            store.close().unwrap();
            let bad = Calls::of(CallKind::Read).on(NAME).at(0..512);
            disk.fail_on(bad, 0, Fault::Eio, Lasting::Sticky, Side::Before);
            let refused = Store::open(bed.config()).unwrap_err();
            // An error of reading may be temporary, so it is not reported as damage.
            let names = matches!(&refused, Error::Io { action, .. }
                if action.contains("`repair_header`"));
            assert!(names, "{refused}");
            assert!(codex_storage::repair_header(&bed.vfs, NAME, bed.keys.as_deref()).unwrap());
            disk.clear_plan();
            assert_eq!(Store::open(bed.config()).unwrap().map, map, "{form} {sealed}");
        }
    }
}

/// A log has only one header.
#[test]
fn a_ledger_is_not_repaired_and_says_so() {
    let bed = Bed::mem(Form::Ledger, false);
    Store::open(bed.config()).unwrap().close().unwrap();
    let whole = bytes(&bed.vfs, NAME);
    assert!(!codex_storage::repair_header(&bed.vfs, NAME, None).unwrap());
    let damaged = [&[0; 512], &whole[512..]].concat();
    put(&bed.vfs, NAME, &damaged);
    let refused = codex_storage::repair_header(&bed.vfs, NAME, None);
    assert!(matches!(refused, Err(Error::NotADatabase { .. })), "{refused:?}");
    assert_eq!(bytes(&bed.vfs, NAME), damaged);
    let missing = codex_storage::repair_header(&bed.vfs, "b.db", None);
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    assert_eq!(bed.vfs.dir.metadata("b.db.lock").unwrap(), None);
}

/// A section of an unknown kind, and a section that occurs twice.
#[test]
fn unknown_and_doubled_sections_are_refused() {
    let bed = small_images().remove(0);
    let image = bytes(&bed.vfs, NAME);
    let section = image.len() - TAIL_LEN - blocks(&image).last().unwrap().len();
    let footer = image.len() - TAIL_LEN;
    let mut unknown = image.clone();
    unknown[section + 4] = 2;
    resum_part_head(&mut unknown, section);
    let refused = open_with(&bed, &unknown).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    for count in [0_usize, 2] {
        let sections = vec![&image[section..footer]; count].concat();
        let mut made = [&image[..section], &sections, &image[footer..]].concat();
        let (len, at) = (made.len() as u64, made.len() - TAIL_LEN);
        made[at + 40..at + 48].copy_from_slice(&len.to_le_bytes());
        made[at + 80] = count as u8;
        resum_footer(&mut made);
        is_refused(&bed, &made, &format!("{count} sections"));
    }
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[100] ^= 4;
    bytes
}

/// Images of a few entries, plain and sealed.
fn small_images() -> Vec<Bed> {
    [false, true]
        .map(|sealed| {
            let bed = Bed::mem(Form::Snapshot, sealed);
            let mut store = Store::open(bed.config()).unwrap();
            for (key, value) in [("", "no key"), ("a", ""), ("b", "two"), ("z\u{ff}", "last")] {
                store.set(key, value).unwrap();
            }
            store.close().unwrap();
            bed
        })
        .into()
}

/// Images of many blocks, plain and sealed.
fn large_images() -> Vec<Bed> {
    [false, true]
        .map(|sealed| {
            let bed = Bed::mem(Form::Snapshot, sealed);
            let mut store = Store::open(bed.config()).unwrap();
            let entries: Vec<([u8; 1], Vec<u8>)> =
                (0..40_u8).map(|n| ([n], vec![n + 1; 40_000])).collect();
            let ops: Vec<Op<'_>> = entries.iter().map(|(key, value)| Op::set(key, value)).collect();
            store.commit(&[&ops]).unwrap();
            store.close().unwrap();
            bed
        })
        .into()
}

/// The blocks and the section between header and footer.
fn blocks(image: &[u8]) -> Vec<&[u8]> {
    parts(image).into_iter().map(|(at, end)| &image[at..end]).collect()
}

/// Opens a copy of the store whose image has these bytes.
fn open_with(bed: &Bed, image: &[u8]) -> Result<Store> {
    let copy = bed.copy();
    put(&copy.vfs, NAME, image);
    let opened = Store::open(copy.config());
    if opened.is_err() {
        assert!(bytes(&copy.vfs, NAME) == image, "what is refused is left as it was");
    }
    opened
}

/// Checks that opening and verifying refuse the image, each with an error that names the fault.
fn is_refused(bed: &Bed, image: &[u8], what: &str) {
    let opened = open_with(bed, image).map(|_| ());
    let mut copy = Bed::mem(bed.form, false);
    copy.keys.clone_from(&bed.keys);
    put(&copy.vfs, NAME, image);
    let verified =
        codex_storage::verify(&copy.vfs, NAME, copy.keys.as_deref()).map(|verified| verified.seq);
    for refused in [opened.unwrap_err_or(what), verified.map(|_| ()).unwrap_err_or(what)] {
        let is_typed = matches!(
            refused,
            Error::Damaged { .. }
                | Error::Tampered { .. }
                | Error::NotADatabase { .. }
                | Error::NewerVersion { .. }
                | Error::EmptyFile { .. }
        );
        assert!(is_typed, "{what}: {refused:?}");
    }
}

trait Refused {
    fn unwrap_err_or(self, what: &str) -> Error;
}

impl Refused for Result<()> {
    fn unwrap_err_or(self, what: &str) -> Error {
        match self {
            Ok(()) => panic!("{what} went unnoticed"),
            Err(e) => e,
        }
    }
}

struct Unsorted([(u32, &'static str); 2]);

impl State for Unsorted {
    fn len(&self) -> u64 {
        2
    }

    fn for_each(&self, sink: &mut EntrySink<'_>) -> Result<()> {
        self.0.iter().try_for_each(|(id, key)| {
            let (table, key) = (TableId::new(*id), key.as_bytes());
            sink(Item { table, key, value: b"value", expires_us: None })
        })
    }
}
