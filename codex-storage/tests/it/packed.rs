//! Compressed files: their bytes, damage in them, and every way in which a file is written.

use codex_storage::batch::Op;
use codex_storage::storage::{Durability, Form};
use codex_storage::{
    Access, Compression, Config, Conversion, Create, Error, RestorePoint, convert, ledger_at,
    verify,
};

use crate::common::format::{frames, parts, resum_frame, resum_header, resum_image};
use crate::common::log::{Sample, dense, model};
use crate::common::store::{Map, Store};
use crate::common::{Bed, NAME, bytes, files, keys, mem_with, stride};

const FORMS: [Form; 3] = [Form::Snapshot, Form::Wal, Form::Ledger];

/// A bed whose files are compressed.
fn packed(form: Form, sealed: bool) -> Bed {
    Bed { compression: Some(Compression::Lz4), ..Bed::mem(form, sealed) }
}

/// Commits 40 entries that compress well, in groups of four.
fn fill(store: &mut Store) {
    for group in 0..10 {
        let pairs: Vec<_> = (0..4)
            .map(|n| (format!("user:{group}:{n}"), format!("{{\"name\":\"user {n}\"}}").repeat(9)))
            .collect();
        let ops: Vec<_> =
            pairs.iter().map(|(key, value)| [Op::set(key.as_bytes(), value.as_bytes())]).collect();
        let batches: Vec<&[Op<'_>]> = ops.iter().map(|op| &op[..]).collect();
        store.commit(&batches).unwrap();
    }
}

/// Returns the compression in the header of each file of entries.
fn compressions(bed: &Bed) -> Vec<(String, u8)> {
    let files = files(&bed.vfs).into_iter();
    files.filter(|(_, bytes)| bytes.len() > 512).map(|(name, bytes)| (name, bytes[14])).collect()
}

#[test]
fn compressed_files_are_shorter_and_have_the_same_state_and_the_same_anchor() {
    for (form, sealed) in FORMS.into_iter().flat_map(|form| [(form, false), (form, true)]) {
        let run = |bed: &Bed| {
            let mut store = Store::open(bed.config()).unwrap();
            fill(&mut store);
            store.checkpoint().unwrap();
            store.set("last", "commit").unwrap();
            let (anchor, map) = (store.storage.anchor(), store.map.clone());
            drop(store);
            let stored: usize = files(&bed.vfs).iter().map(|(_, bytes)| bytes.len()).sum();
            let reopened = Store::open(bed.config()).unwrap();
            assert_eq!(reopened.map, map, "{form:?}");
            assert_eq!(reopened.recovered.seq, 41);
            (anchor, map, stored, frames_and_parts(bed))
        };
        let (plain, packed) = (run(&Bed::mem(form, sealed)), run(&packed(form, sealed)));
        assert_eq!(plain.1, packed.1);
        // The history digest covers the records as they are in memory.
        assert_eq!(plain.0, packed.0, "{form:?}");
        assert!(2 * packed.3 < plain.3, "{form:?}: {} and {} bytes", packed.3, plain.3);
        assert!(packed.2 <= plain.2);
    }
}

/// Returns the number of bytes in frames, blocks and sections.
fn frames_and_parts(bed: &Bed) -> usize {
    let used = |file: &[u8]| -> usize {
        let found = if file[10] == 2 { frames(file) } else { parts(file) };
        found.iter().map(|(start, end)| end - start).sum()
    };
    files(&bed.vfs).iter().filter(|(_, file)| file.len() > 512).map(|(_, file)| used(file)).sum()
}

#[test]
fn each_file_has_its_own_compression_and_a_store_may_change_it_at_each_opening() {
    for (form, sealed) in [(Form::Wal, false), (Form::Wal, true), (Form::Snapshot, false)] {
        let mut bed = Bed::mem(form, sealed);
        let mut expected = Map::default();
        let orders =
            [Some(Compression::Lz4), None, Some(Compression::None), Some(Compression::Lz4)];
        // Without an option, new files have the compression of the main file.
        let written = [1, 1, 0, 1];
        for (round, (order, written)) in orders.into_iter().zip(written).enumerate() {
            bed.compression = order;
            let mut store = Store::open(bed.config()).unwrap();
            assert_eq!(store.map, expected, "{form:?} {round}");
            fill(&mut store);
            store.set("round", &round.to_string()).unwrap();
            store.checkpoint().unwrap();
            store.set("more", &round.to_string()).unwrap();
            let found = compressions(&bed);
            assert!(found.iter().all(|(_, number)| *number == written), "{round}: {found:?}");
            expected = store.map.clone();
            // Every second store is left open, so that a segment is continued under another option.
            if round % 2 == 0 {
                store.close().unwrap();
            }
        }
        assert_eq!(Store::open(bed.config()).unwrap().map, expected);
    }
}

#[test]
fn a_ledger_keeps_its_compression_until_it_is_written_again() {
    let bed = packed(Form::Ledger, true);
    let mut store = Store::open(bed.config()).unwrap();
    fill(&mut store);
    store.close().unwrap();
    let other = Bed { compression: Some(Compression::None), ..bed.clone() };
    let mut store = Store::open(other.config()).unwrap();
    fill(&mut store);
    assert_eq!(compressions(&bed), [(NAME.to_owned(), 1)]);
    // A change of the root key writes it again.
    let rekey = store.storage.rekey(&*keys("another"), &store.map.clone()).unwrap().unwrap();
    let written = rekey.write(&store.map, &|_| true);
    store.storage.finish_checkpoint(written).unwrap();
    let map = store.map.clone();
    store.close().unwrap();
    assert_eq!(compressions(&bed), [(NAME.to_owned(), 0)]);
    let bed = Bed { keys: Some(keys("another")), ..bed };
    assert_eq!(Store::open(bed.config()).unwrap().map, map);
    // An earlier state of a compressed ledger is a compressed ledger.
    let bed = packed(Form::Ledger, false);
    let mut store = Store::open(bed.config()).unwrap();
    fill(&mut store);
    store.close().unwrap();
    let earlier = ledger_at(&bed.vfs, NAME, None, RestorePoint::Seq(20)).unwrap();
    drop(earlier);
}

#[test]
fn a_conversion_keeps_the_compression_or_changes_it() {
    for (from, to) in FORMS.into_iter().flat_map(|from| FORMS.map(|to| (from, to))) {
        for wanted in [None, Some(Compression::None), Some(Compression::Lz4)] {
            let bed = packed(from, false);
            let mut store = Store::open(bed.config()).unwrap();
            fill(&mut store);
            let map = store.map.clone();
            store.close().unwrap();
            let config = Config { compression: None, ..bed.config() };
            let conversion = Conversion { form: Some(to), keys: None, compression: wanted };
            convert(config, &conversion).unwrap();
            let number = u8::from(wanted != Some(Compression::None));
            assert_eq!(compressions(&bed), [(NAME.to_owned(), number)], "{from:?} {to:?}");
            let bed = Bed { form: to, ..bed };
            assert_eq!(Store::open(bed.config()).unwrap().map, map);
            verify(&bed.vfs, NAME, None).unwrap();
        }
    }
}

#[test]
fn a_compression_of_a_later_build_is_refused_and_nothing_is_touched() {
    for form in FORMS {
        let bed = packed(form, false);
        let mut store = Store::open(bed.config()).unwrap();
        fill(&mut store);
        store.set("more", "commits").unwrap();
        drop(store);
        // Of a Wal, the image and the segment in turn.
        for changed in 0..compressions(&bed).len() {
            let mut all = files(&bed.vfs);
            let file = all.iter_mut().filter(|(_, bytes)| bytes.len() > 512).nth(changed);
            let file = &mut file.unwrap().1;
            file[14] = 2;
            resum_header(file);
            let vfs = mem_with(&all);
            let mut config = Bed { vfs: vfs.clone(), ..bed.clone() }.config();
            config.create = Create::Never;
            let error = Store::open(config).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{form:?}: {error}");
            assert_eq!(files(&vfs), all, "{form:?}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_compressed_image_is_found() {
    for sealed in [false, true] {
        let bed = packed(Form::Snapshot, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        fill(&mut store);
        store.close().unwrap();
        let whole = bytes(&bed.vfs, NAME);
        for at in (512..whole.len() - 608).step_by(stride(3)) {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            let vfs = mem_with(&[(NAME.to_owned(), changed)]);
            let config = Config { access: Access::ReadOnly, ..Bed { vfs, ..bed.clone() }.config() };
            let error = Store::open(config).unwrap_err();
            assert!(
                matches!(error, Error::Damaged { .. } | Error::Tampered { .. }),
                "{at}: {error}"
            );
        }
    }
}

#[test]
fn forged_bytes_under_correct_checksums_are_damage() {
    // A ledger: the raw length, then the compressed bytes of the second frame.
    let values: Vec<_> = (0..3).map(|n| vec![n + 1; 2000]).collect();
    let sample = Sample::in_bed(packed(Form::Ledger, false), Durability::Sync, &values, true);
    let at = sample.ends[1];
    let image = packed(Form::Snapshot, false);
    let mut store = Store::open(image.config()).unwrap();
    fill(&mut store);
    store.close().unwrap();
    for offset in [0, 1, 2, 3, 4, 5, 9] {
        let mut forged = sample.bytes.clone();
        forged[at + 64 + offset] ^= 0x55;
        resum_frame(&mut forged, at);
        let error = sample.read(&forged).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "frame, {offset}: {error}");
        let mut forged = bytes(&image.vfs, NAME);
        forged[512 + 32 + offset] ^= 0x55;
        resum_image(&mut forged);
        let vfs = mem_with(&[(NAME.to_owned(), forged)]);
        let error = Store::open(Bed { vfs, ..image.clone() }.config()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "block, {offset}: {error}");
    }
}

#[test]
fn a_compressed_frame_that_a_crash_has_torn_is_cut() {
    let values: Vec<_> =
        (0..3).map(|n| [vec![n + 1; 2000], dense(n.into(), 700)].concat()).collect();
    for sealed in [false, true] {
        let bed = packed(Form::Ledger, sealed);
        let sample = Sample::in_bed(bed, Durability::Sync, &values, false);
        let (start, end) = (sample.ends[2], sample.ends[3]);
        for cut in (start + 1..end - 64).step_by(stride(97)) {
            let mut torn = sample.bytes.clone();
            // A prefix of the frame has arrived: whole sectors, and a part of one.
            torn[cut..end].fill(0);
            let store = sample.read(&torn).unwrap();
            assert_eq!(store.map, model(&values, 2), "{cut}");
            assert!(store.recovered.cut.is_some(), "{cut}");
        }
    }
}

/// SECURITY.md warns of this: the length of a compressed frame tells how alike its records are.
#[test]
fn a_right_guess_beside_a_secret_shortens_an_encrypted_frame() {
    let length = |guess: &[u8]| {
        let bed = packed(Form::Ledger, true);
        let mut store = Store::open(bed.config()).unwrap();
        let secret = dense(1, 400);
        store.commit(&[&[Op::set(b"secret", &secret)], &[Op::set(b"guess", guess)]]).unwrap();
        drop(store);
        let file = bytes(&bed.vfs, NAME);
        frames(&file).last().map(|(start, end)| end - start).unwrap()
    };
    assert!(length(&dense(1, 400)) + 320 <= length(&dense(2, 400)));
}

#[test]
fn random_values_take_four_bytes_more_at_most() {
    let length = |bed: &Bed| {
        let mut store = Store::open(bed.config()).unwrap();
        for n in 0..5 {
            let value = dense(n, 4000);
            store.commit(&[&[Op::set(&n.to_le_bytes(), &value)]]).unwrap();
        }
        drop(store);
        frames_and_parts(bed)
    };
    // Frames are padded to multiples of 64 bytes.
    let (plain, packed) =
        (length(&Bed::mem(Form::Ledger, false)), length(&packed(Form::Ledger, false)));
    assert!(packed <= plain + 5 * 64, "{packed} and {plain}");
}
