//! Tests that no part of keys, passphrases, keys of the store or values is in a file, a name, an
//! error or a `Debug` output of an encrypted store. The control finds them in those of a plain
//! store.

mod digests;

use std::fmt::{Debug, Display};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::sampled;
use codex_core::crypto::{KdfCosts, Key};
use codex_core::vfs::fault::{Fault, FaultDir, Lasting, Side, Survivors};
use codex_core::vfs::{Dir, Open};
use codex_core::{
    BackupEvent, BackupPolicy, Backups, CheckpointPolicy, Conversion, Form, OpenOptions,
    RestorePoint, Store,
};
use codex_storage::sync::Mutex;

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];
const NAME: &str = "app.db";
const KEY: &[u8] = b"patient/4711/diagnosis";
const VALUE: &[u8] = b"a value that nobody may read";
const PASSPHRASE: &[u8] = b"correct horse battery staple";
const RAW: [u8; 32] = *b"0123456789abcdefRAWKEY9876543210";
const SECRETS: [&[u8]; 4] = [KEY, VALUE, PASSPHRASE, &RAW];

/// The searched texts, and the findings.
#[derive(Default)]
struct Search {
    bytes: usize,
    texts: usize,
    hits: Vec<String>,
}

impl Search {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.bytes += bytes.len();
        for secret in SECRETS {
            // A part of a secret counts as a secret.
            for part in [&secret[..secret.len() / 2], &secret[secret.len() / 2..]] {
                let hex = part.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                let list = format!("{part:?}");
                for needle in [part, hex.as_bytes(), list.trim_matches(['[', ']']).as_bytes()] {
                    if contains(bytes, needle) {
                        self.hits.push(format!("{place}: {}", String::from_utf8_lossy(part)));
                    }
                }
            }
        }
    }

    /// Every file of a disk, with its name.
    fn files(&mut self, disk: &FaultDir) {
        // The content that callers see, with or without power.
        let disk = disk.reboot(Survivors::Everything);
        for name in disk.list().unwrap() {
            self.look("a name", name.as_bytes());
            self.look(&name, &disk.peek(&name).unwrap());
        }
    }

    fn shown(&mut self, what: &impl Debug) {
        self.texts += 1;
        self.look("Debug", format!("{what:?} {what:#?}").as_bytes());
    }

    fn outcome<T, E: Debug + Display>(&mut self, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.look("Display", error.to_string().as_bytes());
                self.shown(&error);
                None
            }
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// The lowest costs that a passphrase may have.
fn passphrase() -> Key {
    Key::passphrase_costing_exactly(PASSPHRASE, KdfCosts::new(1, 8, 1).unwrap()).unwrap()
}

fn raw() -> Key {
    Key::raw(&RAW).unwrap()
}

fn options(form: Form, key: Option<Key>) -> OpenOptions {
    let options = Store::options().form(form);
    let options = match key {
        Some(key) => options.key(key),
        None => options,
    };
    if form != Form::Wal {
        return options;
    }
    let policy = CheckpointPolicy::default().close_into_image_bytes_max(0);
    options.checkpoint(policy)
}

/// Makes all operations of a store on its files. Searches the error of each step, and continues
/// after it.
fn story(disk: &FaultDir, form: Form, sealed: bool, search: &mut Search) {
    let vfs = disk.vfs(1);
    let opened = options(form, sealed.then(passphrase)).open_in(&vfs, NAME);
    let Some(store) = search.outcome(opened) else { return };
    let mut batch = store.batch();
    search.outcome(batch.set_bytes(KEY, VALUE));
    search.shown(&batch);
    search.outcome(batch.commit());
    for n in 0..3 {
        search.outcome(store.set([KEY, &[n]].concat(), VALUE));
    }
    search.outcome(store.checkpoint());
    search.outcome(store.set_bytes([KEY, b"4"].concat(), VALUE));
    search.outcome(store.get::<u64>([KEY, &[0]].concat()));
    search.outcome(store.get::<String>(KEY));
    search.outcome(store.set(vec![KEY; 4000].concat(), VALUE));
    for entry in &store {
        search.texts += 1;
        search.look("Debug", format!("{entry:?}").as_bytes());
    }
    search.shown(&store.get_bytes(KEY));
    search.shown(&store.snapshot());
    search.shown(&store.stats());
    search.shown(&store);
    if sealed {
        search.outcome(store.change_key(raw()));
        search.outcome(store.rekey(passphrase()));
    }
    search.outcome(store.remove(KEY));
    search.outcome(store.close());
    search.outcome(store.set(KEY, VALUE));
    drop(store);
    search.outcome(options(form, Some(raw())).open_in(&vfs, NAME));
    search.outcome(options(form, None).open_in(&vfs, NAME));
    let other = if form == Form::Ledger { Form::Wal } else { Form::Ledger };
    let conversion = Conversion::new().form(other);
    let conversion = if sealed { conversion.key(passphrase()).encrypt(raw()) } else { conversion };
    search.shown(&conversion);
    let converted = search.outcome(conversion.convert_in(&vfs, NAME));
    search.shown(&converted);
    if let Some(store) = search.outcome(options(other, sealed.then(raw)).open_in(&vfs, NAME)) {
        search.outcome(store.set(KEY, VALUE));
    }
}

/// A story on a disk, in a form, encrypted or not, with its search results.
type Story = fn(&FaultDir, Form, bool, &mut Search);

/// Runs the story, with interruptions and failures at its calls.
fn interrupted(story: Story, form: Form, sealed: bool, search: &mut Search) -> u64 {
    let disk = FaultDir::new();
    story(&disk, form, sealed, search);
    search.files(&disk);
    let calls = disk.calls();
    // A whole run interrupts each call of all stories.
    for call in sampled(0..calls, 8, 0) {
        let disk = FaultDir::new();
        disk.cut_power_at(call, Side::After);
        story(&disk, form, sealed, search);
        search.files(&disk);
        search.files(&disk.reboot(Survivors::Seeded(call)));
        let disk = FaultDir::new();
        disk.fail_at(call, Fault::Eio, Lasting::Once, Side::Before);
        story(&disk, form, sealed, search);
        search.files(&disk);
    }
    calls
}

#[test]
fn no_secret_is_in_any_file_name_error_or_debug_output() {
    let mut search = Search::default();
    let mut calls = 0;
    for form in FORMS {
        calls += interrupted(story, form, true, &mut search);
    }
    let keys = [passphrase(), raw()];
    search.shown(&keys);
    search.shown(&options(Form::Wal, Some(raw())));
    let Search { bytes, texts, hits } = search;
    println!("{calls} calls, {bytes} bytes and {texts} texts searched");
    assert_eq!(hits, Vec::<String>::new());
    assert!(bytes > 10_000_000 && texts > 1_000, "{bytes} bytes, {texts} texts");
}

/// Makes all operations on the backups of a store, from the first one to the last one that is
/// removed.
fn backups_story(disk: &FaultDir, form: Form, sealed: bool, search: &mut Search) {
    let vfs = disk.vfs(1);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let on_backup = move |event: &BackupEvent| {
        if let BackupEvent::Failed { error } = event {
            hears.lock().push(error.to_string());
        }
        hears.lock().push(format!("{event:?} {event:#?}"));
    };
    let options =
        |key| options(form, key).backups(BackupPolicy::keep(2)).on_backup(on_backup.clone());
    if let Some(store) = search.outcome(options(sealed.then(passphrase)).open_in(&vfs, NAME)) {
        for n in 0..3 {
            search.outcome(store.set([KEY, &[n]].concat(), VALUE));
            let rotated = search.outcome(store.back_up());
            search.shown(&rotated);
            search.shown(&store.stats().backups);
        }
        let on = &mut |_| ControlFlow::Continue(());
        search.outcome(store.backup_to_in(&vfs, "copy.db", on));
        // A name that is already used.
        search.outcome(store.backup_to_in(&vfs, "copy.db", on));
        search.outcome(store.set_bytes(KEY, VALUE));
        search.shown(&store);
        search.outcome(store.close());
    }
    let copy = self::options(form, sealed.then(passphrase)).open_in(&vfs, "copy.db");
    if let Some(copy) = search.outcome(copy) {
        search.outcome(copy.set([KEY, b"copy"].concat(), VALUE));
        search.outcome(copy.close());
    }
    for backups in [Some(passphrase()), Some(raw()), None].map(|key| match key {
        Some(key) if sealed => Backups::of_in(&vfs, NAME).key(key),
        _ => Backups::of_in(&vfs, NAME),
    }) {
        search.shown(&backups);
        for index in 1..=3 {
            let proof = search.outcome(backups.verify(index));
            search.shown(&proof);
        }
        for entry in search.outcome(backups.list()).unwrap_or_default() {
            search.shown(&entry);
            search.outcome(entry.facts);
        }
        let good = search.outcome(backups.newest_good());
        search.shown(&good);
        let until = search.outcome(backups.restore_until(RestorePoint::Seq(2)));
        search.shown(&until);
        let restored = search.outcome(backups.restore(2));
        search.shown(&restored);
        let pending = search.outcome(backups.pending());
        search.shown(&pending);
    }
    if let Some(store) = search.outcome(options(sealed.then(passphrase)).open_in(&vfs, NAME)) {
        search.shown(&store.restored());
        search.outcome(store.set(KEY, VALUE));
        search.outcome(store.back_up());
    }
    let pruned = search.outcome(Backups::of_in(&vfs, NAME).prune(1));
    search.shown(&pruned);
    for text in heard.lock().drain(..) {
        search.texts += 1;
        search.look("an event", text.as_bytes());
    }
}

#[test]
fn no_secret_is_in_any_file_name_error_or_debug_output_of_backups() {
    let mut search = Search::default();
    let mut calls = 0;
    for form in FORMS {
        calls += interrupted(backups_story, form, true, &mut search);
    }
    let Search { bytes, texts, hits } = search;
    println!("{calls} calls, {bytes} bytes and {texts} texts searched");
    assert_eq!(hits, Vec::<String>::new());
    assert!(bytes > 10_000_000 && texts > 1_000, "{bytes} bytes, {texts} texts");
}

/// The control: the secrets of a plain store are in each kind of file that backups leave.
#[test]
fn the_search_finds_what_backups_of_a_plain_store_leave() {
    for form in FORMS {
        let (disk, mut search) = (FaultDir::new(), Search::default());
        backups_story(&disk, form, false, &mut search);
        assert_eq!(search.hits, Vec::<String>::new(), "errors and Debug of a plain store");
        // A backup has its temporary name for a few calls.
        for call in (0..disk.calls()).step_by(3) {
            let disk = FaultDir::new();
            disk.cut_power_at(call, Side::After);
            backups_story(&disk, form, false, &mut Search::default());
            search.files(&disk);
        }
        for file in [
            "app.db.bak.1",
            "app.db.bak.tmp:",
            "app.db.bak.new:",
            "app.db.bak.stage:",
            "app.db.replaced.",
            "copy.db.bak.copy:",
            "copy.db:",
        ] {
            assert!(search.hits.iter().any(|hit| hit.starts_with(file)), "{form}: none in {file}");
        }
    }
}

/// The control: the same search of a plain store.
#[test]
fn the_search_finds_what_a_plain_store_writes() {
    for form in FORMS {
        let (disk, mut search) = (FaultDir::new(), Search::default());
        story(&disk, form, false, &mut search);
        assert_eq!(search.hits, Vec::<String>::new(), "errors and Debug of a plain store");
        search.files(&disk);
        for secret in [KEY, VALUE] {
            let half = String::from_utf8_lossy(&secret[..secret.len() / 2]).into_owned();
            assert!(search.hits.iter().any(|hit| hit.ends_with(&half)), "{form}: no {half}");
        }
        // And files that exist only for a short time.
        let mut hits = 0;
        for call in (0..disk.calls()).step_by(7) {
            let (disk, mut search) = (FaultDir::new(), Search::default());
            disk.cut_power_at(call, Side::After);
            story(&disk, form, false, &mut search);
            search.files(&disk);
            hits += usize::from(!search.hits.is_empty());
        }
        assert!(hits > 3, "{form}: {hits}");
    }
}

/// A panic prints its message, so no message contains a secret.
#[test]
fn a_panic_in_a_users_closure_shows_nothing() {
    let disk = FaultDir::new();
    let store = options(Form::Wal, Some(raw())).open_in(&disk.vfs(1), NAME).unwrap();
    store.set(KEY, VALUE).unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store
            .update(KEY, |_: Option<Vec<u8>>| -> Option<Vec<u8>> { panic!("the user's own words") })
    }));
    let mut search = Search::default();
    let words = unwound.unwrap_err();
    search.look("a panic", words.downcast_ref::<&str>().unwrap().as_bytes());
    assert_eq!(search.hits, Vec::<String>::new());
    store.set(KEY, VALUE).unwrap();
    drop(disk.open(NAME, Open::Read).unwrap());
}
