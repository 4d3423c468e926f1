//! Tests of an encrypted store whose files were changed, moved or replaced. The result is a named
//! error, or the reported cut of the last group, which nothing proves.

mod sweep;

use std::collections::BTreeMap;

use codex_core::crypto::Key;
use codex_core::vfs::Vfs;
use codex_core::{CheckpointPolicy, Form, OpenOptions, StorageError, Store};

use crate::common::format::{
    frames, is_log, parts, rechain, resum_frame, resum_header, resum_header_at, resum_image,
};
use crate::common::{FORMS, Files, contents, disk, files, sampled};

const NAME: &str = "a.db";

/// The files of a store, and its contents after each commit.
struct Sample {
    form: Form,
    files: Files,
    states: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// The result of opening changed files.
#[derive(Debug, Default)]
struct Tally {
    errors: u64,
    tampered: u64,
    cuts: u64,
    cases: u64,
}

fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form).key(Key::raw(&[3; 32]).unwrap());
    if form != Form::Wal {
        return options;
    }
    let policy = CheckpointPolicy::default().close_into_image_bytes_max(0);
    options.checkpoint(policy)
}

impl Sample {
    /// Returns a store with two generations, and `tail` commits after them. Another `seed` makes
    /// another store.
    fn new(form: Form, seed: u64, tail: u32, clean: bool) -> Self {
        let vfs = Vfs::mem(seed);
        let mut states = vec![BTreeMap::new()];
        let mut store = options(form).open_in(&vfs, NAME).unwrap();
        let mut set = |store: &Store, n: u32| {
            store.set_bytes(format!("key {n}"), [n as u8 | 1; 40]).unwrap();
            states.push(contents(store));
        };
        set(&store, 0);
        set(&store, 1);
        store.checkpoint().unwrap();
        for n in 0..tail {
            if n == tail / 2 {
                // A second epoch.
                store.close().unwrap();
                store = options(form).open_in(&vfs, NAME).unwrap();
            }
            set(&store, 2 + n);
        }
        if clean {
            store.close().unwrap();
        }
        Self { form, files: files(&vfs), states }
    }

    /// Opens the store read-only with other bytes in the file `name`. Nothing is repaired.
    fn open(&self, name: &str, bytes: Vec<u8>) -> Result<Store, StorageError> {
        let mut files = self.files.clone();
        files.insert(name.to_owned(), bytes);
        self.open_files(&files)
    }

    fn open_files(&self, files: &Files) -> Result<Store, StorageError> {
        let mut options = Store::options().read_only(true).form(self.form);
        options = options.key(Key::raw(&[3; 32]).unwrap());
        options.open_in(&disk(files), NAME).map_err(crate::common::storage)
    }

    /// Checks that the result is an error or, if `cut_allowed`, exactly the state before the last
    /// group with a reported cut.
    fn judge(
        &self,
        tally: &mut Tally,
        opened: Result<Store, StorageError>,
        cut_allowed: bool,
        place: &str,
    ) {
        tally.cases += 1;
        let store = match opened {
            Err(StorageError::Tampered { .. }) => {
                tally.tampered += 1;
                return;
            }
            Err(StorageError::Io { .. } | StorageError::Contradiction(_)) => {
                panic!("{place}: not an error about the file")
            }
            Err(_) => {
                tally.errors += 1;
                return;
            }
            Ok(store) => store,
        };
        let seq = usize::try_from(store.recovered().seq).unwrap();
        assert!(cut_allowed, "{place}: accepted at commit {seq}");
        assert!(store.recovered().cut.is_some(), "{place}: nothing reported");
        let lost = self.states.len() - 1 - seq;
        assert!(lost <= 1, "{place}: more than the last group is gone");
        assert_eq!(contents(&store), self.states[seq], "{place}");
        tally.cuts += 1;
    }
}

/// The connection of the seal and the storage. The tests of codex-storage flip each bit.
#[test]
fn a_flipped_bit_is_an_error_or_the_reported_cut_of_the_last_group() {
    for (form, clean) in FORMS.into_iter().flat_map(|form| [(form, true), (form, false)]) {
        let sample = Sample::new(form, 1, 3, clean);
        let mut tally = Tally::default();
        let log = sample.files.iter().rfind(|(_, bytes)| is_log(bytes));
        let running = log.map(|(name, _)| name).filter(|_| !clean);
        for (name, bytes) in &sample.files {
            // Nothing proves the last group: at its own place, and at the beginning of the next
            // group.
            let last = (running == Some(name)).then(|| *frames(bytes).last().unwrap());
            let end = last.map_or(bytes.len(), |(_, end)| (end + 64).min(bytes.len()));
            for bit in (0..end * 8).step_by(37) {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let opened = sample.open(name, flipped);
                let cut_allowed = last.is_some_and(|(at, _)| bit / 8 >= at);
                let place = format!("{form} {name} bit {bit}");
                sample.judge(&mut tally, opened, cut_allowed, &place);
            }
        }
        println!("{form}, closed {clean}: {tally:?}");
        assert!(tally.errors + tally.tampered > 100, "{tally:?}");
        assert_eq!(tally.cuts > 0, !clean && form != Form::Snapshot, "{tally:?}");
    }
}

/// The stride of the flipped bits. A whole run flips each.
const STRIDE: usize = 11;

/// A change that a disk cannot make, but a forger can: with all checksums corrected.
#[test]
fn every_flipped_bit_under_checksums_that_fit_is_an_error() {
    for form in FORMS {
        let sample = Sample::new(form, 1, 3, true);
        let mut tally = Tally::default();
        for (name, bytes) in &sample.files {
            let body = 512;
            let bits = sampled(0..bytes.len() as u64 * 8, STRIDE, 0).map(|bit| bit as usize);
            for bit in bits.filter(|bit| !(508 * 8..body * 8).contains(bit)) {
                if form == Form::Ledger && (72..80).contains(&(bit / 8)) {
                    // The named seq: copies change it without the key. Raising it to a commit that
                    // exists costs one more copy.
                    continue;
                }
                let mut forged = bytes.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                if bit < 512 * 8 {
                    resum_header(&mut forged);
                } else if is_log(bytes) {
                    let at = frames(bytes).into_iter();
                    let mut at = at.filter(|(at, end)| (*at..*end).contains(&(bit / 8)));
                    at.next().into_iter().for_each(|(at, _)| resum_frame(&mut forged, at));
                } else if bit >= (bytes.len() - 512) * 8 {
                    // The second header alone.
                    resum_header_at(&mut forged, bytes.len() - 512);
                } else if parts(&forged) == parts(bytes) {
                    resum_image(&mut forged);
                }
                if forged == *bytes {
                    // The flipped bit was in a checksum.
                    continue;
                }
                let opened = sample.open(name, forged);
                // A forger of checksums can make the last frame look torn, or cut it off. Here it
                // is the mark of the close, so nothing is lost.
                let last = if is_log(bytes) { frames(bytes).pop() } else { None };
                let in_last = last.is_some_and(|(at, _)| bit / 8 >= at);
                sample.judge(&mut tally, opened, in_last, &format!("{form} {name} bit {bit}"));
            }
        }
        println!("{form}, forged: {tally:?}");
        assert!(tally.tampered > 100, "{tally:?}");
    }
}

/// Returns the log of `file` with these frames, each of its own file.
fn log_of(file: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let body = 512;
    let mut made = file[..body].to_vec();
    for part in parts {
        made.extend_from_slice(part);
    }
    made
}

#[test]
fn frames_that_were_swapped_dropped_doubled_or_taken_from_elsewhere_are_refused() {
    for form in [Form::Wal, Form::Ledger] {
        let sample = Sample::new(form, 1, 4, true);
        // Another store with the same key and contents, and an earlier state of the same store.
        let twin = Sample::new(form, 2, 4, true);
        let log = |sample: &Sample| {
            let found = sample.files.iter().rfind(|(_, bytes)| is_log(bytes));
            found.map(|(name, bytes)| (name.clone(), bytes.clone())).unwrap()
        };
        let ((name, bytes), (_, other)) = (log(&sample), log(&twin));
        let cut = |bytes: &[u8]| -> Vec<Vec<u8>> {
            frames(bytes).into_iter().map(|(at, end)| bytes[at..end].to_vec()).collect()
        };
        let (own, foreign) = (cut(&bytes), cut(&other));
        let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        assert!(own.len() > 4 && own.len() == foreign.len(), "{} frames", own.len());
        let mut variants: Vec<(String, Vec<u8>)> = Vec::new();
        for a in 0..own.len() {
            let mut parts = own.clone();
            parts.remove(a);
            variants.push((format!("{a} dropped"), log_of(&bytes, &parts)));
            let mut parts = own.clone();
            parts.insert(a, own[a]);
            variants.push((format!("{a} doubled"), log_of(&bytes, &parts)));
            let mut parts = own.clone();
            parts[a] = &foreign[a];
            variants.push((format!("{a} of another store"), log_of(&bytes, &parts)));
            for b in a + 1..own.len() {
                let mut parts = own.clone();
                parts.swap(a, b);
                variants.push((format!("{a} and {b} swapped"), log_of(&bytes, &parts)));
            }
        }
        let foreign: Vec<&[u8]> = foreign.iter().map(Vec::as_slice).collect();
        variants.push(("all of another store".into(), log_of(&bytes, &foreign)));
        variants.push(("its header of another store".into(), log_of(&other, &own)));
        variants.push(("another store's".into(), other.clone()));
        let mut tally = Tally::default();
        for (what, made) in variants {
            for fits in [false, true] {
                let mut made = made.clone();
                if fits {
                    rechain(&mut made);
                }
                let is_whole = form == Form::Ledger && what == "another store's";
                let dropped_last = what == format!("{} dropped", own.len() - 1);
                let place = format!("{form}: {what}, checksums fit: {fits}");
                let opened = sample.open(&name, made);
                match opened {
                    // A ledger is one file, so the file of another store is that other store.
                    Ok(store) if is_whole => assert_eq!(contents(&store), twin.states[6]),
                    // Only the mark of the close is missing: the log ends without it, and nothing
                    // is lost.
                    Ok(store) if dropped_last => {
                        assert!(!store.recovered().clean, "{place}");
                        assert_eq!(contents(&store), *sample.states.last().unwrap(), "{place}");
                    }
                    opened => sample.judge(&mut tally, opened, false, &place),
                }
            }
        }
        println!("{form}, frames: {tally:?}");
        assert!(tally.tampered > 0 && tally.cases > 40, "{tally:?}");
    }
}

#[test]
fn blocks_and_files_that_were_moved_are_refused() {
    let mut tally = Tally::default();
    // Several blocks of one length each.
    let make = |seed| {
        let vfs = Vfs::mem(seed);
        let store = options(Form::Snapshot).open_in(&vfs, NAME).unwrap();
        let mut batch = store.batch();
        for n in 0..4 {
            batch.set_bytes(format!("key {n}"), vec![n; 65_536]).unwrap();
        }
        batch.commit().unwrap();
        let states = vec![BTreeMap::new(), contents(&store)];
        store.close().unwrap();
        let earlier = files(&vfs);
        let store = options(Form::Snapshot).open_in(&vfs, NAME).unwrap();
        store.set_bytes("key 0", vec![9; 65_536]).unwrap();
        store.close().unwrap();
        (Sample { form: Form::Snapshot, files: earlier, states }, files(&vfs))
    };
    let (sample, later) = make(1);
    let (twin, _) = make(2);
    let bytes = &sample.files[NAME];
    let ranges = parts(bytes);
    assert_eq!(ranges.len(), 5, "four blocks and a section");
    let mut variants: Vec<(String, Vec<u8>)> = Vec::new();
    for (a, &(from, to)) in ranges.iter().enumerate() {
        let mut dropped = bytes.clone();
        dropped.drain(from..to);
        variants.push((format!("{a} dropped"), dropped));
        let mut doubled = bytes.clone();
        doubled.splice(to..to, bytes[from..to].to_vec());
        variants.push((format!("{a} doubled"), doubled));
        for (what, other) in [("another store", &twin.files), ("a later image", &later)] {
            let mut spliced = bytes.clone();
            spliced[from..to].copy_from_slice(&other[NAME][from..to]);
            variants.push((format!("{a} of {what}"), spliced));
        }
        for &(other, end) in &ranges[a + 1..] {
            let mut swapped = bytes.clone();
            swapped.splice(other..end, bytes[from..to].to_vec());
            swapped.splice(from..to, bytes[other..end].to_vec());
            variants.push((format!("{a} swapped with {other}"), swapped));
        }
    }
    for (what, other) in [("another store", &twin.files), ("a later image", &later)] {
        let mut headed = bytes.clone();
        headed[..512].copy_from_slice(&other[NAME][..512]);
        variants.push((format!("the header of {what}"), headed));
        let mut footed = bytes.clone();
        let (at, end) = (bytes.len() - 96 - 512, bytes.len() - 512);
        let from = other[NAME].len() - 96 - 512;
        footed[at..end].copy_from_slice(&other[NAME][from..from + 96]);
        variants.push((format!("the footer of {what}"), footed));
    }
    for (what, made) in variants {
        for fits in [false, true] {
            let mut made = made.clone();
            if fits {
                resum_image(&mut made);
            }
            let opened = sample.open(NAME, made);
            sample.judge(&mut tally, opened, false, &format!("{what}, checksums fit: {fits}"));
        }
    }
    println!("blocks: {tally:?}");
    assert!(tally.tampered > 10 && tally.cases > 40, "{tally:?}");
}

#[test]
fn a_lost_header_is_repaired_under_each_cipher_and_only_with_the_key() {
    use codex_core::crypto::Cipher;
    use codex_storage::seal::Keys;
    let key = |n| Key::raw(&[n; 32]).unwrap();
    for cipher in [None, Some(Cipher::Aes256Gcm), Some(Cipher::ChaCha20Poly1305)] {
        for form in [Form::Wal, Form::Snapshot] {
            let vfs = Vfs::mem(5);
            let options = || match cipher {
                Some(cipher) => Store::options().form(form).key(key(3)).cipher(cipher),
                None => Store::options().form(form),
            };
            let keys = |n| {
                let entropy = std::sync::Arc::clone(&vfs.entropy);
                cipher.map(|cipher| codex_core::internals::keys(key(n), cipher, entropy))
            };
            let store = options().open_in(&vfs, NAME).unwrap();
            store.set("key", &1).unwrap();
            store.back_up().unwrap();
            store.set("key", &2).unwrap();
            store.close().unwrap();
            let expected = contents(&store);
            drop(store);
            let whole = files(&vfs);
            for (name, is_backup) in [(NAME, false), ("a.db.bak.1", true)] {
                for fill in [0, 0xA5] {
                    let mut damaged = whole.clone();
                    damaged.get_mut(name).unwrap()[..512].fill(fill);
                    let vfs = disk(&damaged);
                    let options = if is_backup { options().read_only(true) } else { options() };
                    let refused = crate::common::storage(options.open_in(&vfs, name).unwrap_err());
                    assert!(refused.to_string().contains("`repair_header`"), "{refused}");
                    let repair = |keys: Option<std::sync::Arc<dyn Keys>>| {
                        codex_storage::repair_header(&vfs, name, keys.as_deref())
                    };
                    if cipher.is_some() {
                        let refused = repair(None).unwrap_err();
                        assert!(matches!(refused, StorageError::KeyRequired { .. }), "{refused}");
                        let refused = repair(keys(4)).unwrap_err();
                        assert!(matches!(refused, StorageError::WrongKey { .. }), "{refused}");
                        assert_eq!(files(&vfs)[name], damaged[name], "nothing was changed");
                    }
                    assert!(repair(keys(3)).unwrap());
                    assert_eq!(files(&vfs)[name], whole[name]);
                    let store = options.open_in(&vfs, name).unwrap();
                    assert!(is_backup || contents(&store) == expected, "{form} {cipher:?}");
                }
            }
        }
    }
}

#[test]
fn a_plain_file_never_passes_in_an_encrypted_store() {
    for form in FORMS {
        let sample = Sample::new(form, 1, 3, true);
        let vfs = Vfs::mem(1);
        let store = Store::options().form(form).open_in(&vfs, NAME).unwrap();
        store.set_bytes("key 0", [1; 40]).unwrap();
        let plain = files(&vfs);
        store.close().unwrap();
        let log = sample.files.keys().next_back().unwrap();
        for (name, bytes) in &plain {
            let name = if name == NAME { name } else { log };
            // Unchanged, and with the ids of the encrypted store.
            let mut claiming = bytes.clone();
            if let Some(own) = sample.files.get(name) {
                claiming[16..64].copy_from_slice(&own[16..64]);
                resum_header(&mut claiming);
            }
            let mut sealed = claiming.clone();
            sealed[12] = sample.files[NAME][12];
            if let Some(own) = sample.files.get(name) {
                sealed[144..160].copy_from_slice(&own[144..160]);
            }
            resum_header(&mut sealed);
            for made in [bytes.clone(), claiming, sealed] {
                let is_main = name == NAME;
                let is_plain = made[12] == 0;
                let error = sample.open(name, made).unwrap_err();
                let right = match error {
                    StorageError::NotEncrypted { .. } => is_main && is_plain,
                    StorageError::Tampered { .. }
                    | StorageError::ForeignLog { .. }
                    | StorageError::Damaged { .. } => !is_main || !is_plain,
                    StorageError::Seal { .. } => is_main && !is_plain,
                    _ => false,
                };
                assert!(right, "{form} {name}: {error}");
            }
        }
    }
}

/// An anchor detects changes that the files alone cannot show.
#[test]
fn an_anchor_detects_that_the_whole_folder_was_put_back() {
    for form in FORMS {
        for sealed in [false, true] {
            let vfs = Vfs::mem(1);
            let open = |vfs: &Vfs, anchor| {
                let options = Store::options().form(form);
                let options =
                    if sealed { options.key(Key::raw(&[3; 32]).unwrap()) } else { options };
                let options = match anchor {
                    Some(anchor) => options.anchor(anchor),
                    None => options,
                };
                options.open_in(vfs, NAME).map_err(crate::common::storage)
            };
            let store = open(&vfs, None).unwrap();
            store.set("key", &1).unwrap();
            let earlier = store.anchor().unwrap();
            let before = files(&vfs);
            store.set("key", &2).unwrap();
            let anchor = store.anchor().unwrap();
            store.close().unwrap();
            for known in [earlier, anchor] {
                // A checkpoint or a close may have merged the history up to there into one image.
                drop(open(&vfs, Some(known)).unwrap());
            }
            let back = disk(&before);
            assert_eq!(open(&back, None).unwrap().get::<i32>("key").unwrap(), Some(1));
            let back = disk(&before);
            drop(open(&back, Some(earlier)).unwrap());
            let refused = open(&disk(&before), Some(anchor)).map(|_| ());
            assert!(
                matches!(refused, Err(StorageError::AnchorMismatch { .. })),
                "{form} {sealed}: {refused:?}"
            );
            let mut other = anchor;
            other.value[0] ^= 1;
            let refused = open(&vfs, Some(other)).map(|_| ());
            assert!(matches!(refused, Err(StorageError::AnchorMismatch { .. })), "{refused:?}");
        }
    }
}

/// A change that the files alone cannot show, as SECURITY.md states: a person with write access can
/// cut the newest log back to any of its frames, with or without the mark of a clean close.
#[test]
fn a_log_that_was_put_back_to_an_earlier_frame_is_not_clean_and_fails_its_anchor() {
    for form in [Form::Wal, Form::Ledger] {
        let vfs = Vfs::mem(1);
        let store = options(form).open_in(&vfs, NAME).unwrap();
        for n in 1..=20_u32 {
            store.set("n", &n).unwrap();
        }
        let anchor = store.anchor().unwrap();
        store.close().unwrap();
        drop(store);
        let whole = files(&vfs);
        let name = crate::common::log_name(&whole, form);
        for kept in [1, 7, 19] {
            let mut cut = whole[&name].clone();
            let end = frames(&cut)[kept].0;
            cut[end..].fill(0);
            let mut folder = whole.clone();
            let mut open = |log: &[u8], anchor| {
                folder.insert(name.clone(), log.to_vec());
                let options = match anchor {
                    Some(anchor) => options(form).anchor(anchor),
                    None => options(form),
                };
                options.open_in(&disk(&folder), NAME).map_err(crate::common::storage)
            };
            // The length still shows that the log was closed.
            assert!(matches!(open(&cut, None), Err(StorageError::Damaged { .. })), "{form} {kept}");
            cut.truncate(end.next_multiple_of(512));
            cut.resize(end.next_multiple_of(512), 0);
            let rolled = open(&cut, None).unwrap();
            assert_eq!(rolled.get::<u32>("n").unwrap(), Some(kept as u32), "{form}");
            assert!(rolled.recovered().cut.is_none() && !rolled.recovered().clean, "{form} {kept}");
            drop(rolled);
            let refused = open(&cut, Some(anchor)).unwrap_err();
            assert!(matches!(refused, StorageError::AnchorMismatch { .. }), "{form}: {refused}");
        }
    }
}
