//! `info`: the kind of a file, and the state of a store and its backups.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use clap::Args;
use codex_core::internals::tables;
use codex_core::vfs::{LockKind, Vfs};
use codex_core::{Backups, FileRole, StorageError, Store};
use codex_storage::MainFile;
use codex_storage::names::{Names, Role};

use crate::failure::Failure;
use crate::out::{Cell, Out, Record};
use crate::target::{Target, place};
use crate::time;
use crate::{Outcome, go, key};

/// The options of `info`.
#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    target: Target,
}

impl Info {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        self.tell(None, out)
    }

    /// Prints the kind of the file. `open` is the store, if this process has it open.
    pub(crate) fn tell(&self, open: Option<&Store>, out: &mut Out) -> Outcome {
        let path = &self.target.path;
        if path.is_dir() {
            return folder(path, out);
        }
        let (vfs, name) = place(path)?;
        let mut record: Record = vec![("path", Cell::Text(path.display().to_string()))];
        let role = role(&name);
        // A file beside a store is known by its name, and its contents are those of the store.
        if let Some((store, role)) = &role
            && !matches!(role, Role::Backup(_))
        {
            record.push(("is", Cell::Text(format!("{} of the store {store}", words(*role)))));
            record.push(("next", Cell::Text(format!("codexdb info {store}"))));
            out.record(&record)?;
            return Ok(true);
        }
        let file = match MainFile::open(&vfs, &name) {
            Err(StorageError::NotADatabase { .. }) => {
                if let Some(kind) = go::kind(path) {
                    record.push(("is", Cell::Text(kind)));
                    let next = format!("codexdb import-go {} STORE", path.display());
                    record.push(("next", Cell::Text(next)));
                    out.record(&record)?;
                    return Ok(true);
                }
                if let Some(what) = foreign(path) {
                    record.push(("is", Cell::Text(format!("{what}, not a CodexDB file"))));
                    out.record(&record)?;
                }
                return Err(StorageError::NotADatabase { path: path.clone() }.into());
            }
            file => file?,
        };
        let is = match &role {
            Some((store, role)) => format!("{} of the store {store}", words(*role)),
            None => "a store".to_owned(),
        };
        record.push(("is", Cell::Text(is)));
        let holder = if role.is_none() { holder(&vfs, &name)? } else { None };
        self.facts(&file, holder.is_some(), open, &mut record)?;
        if role.is_none() {
            files(path, &vfs, &mut record)?;
            let held = holder.map_or("no".to_owned(), |holder| format!("yes, {holder}"));
            record.push(("open for writing", Cell::Text(held)));
            self.backups(&mut record)?;
        }
        out.record(&record)?;
        Ok(true)
    }

    /// Adds the facts of the main file, and those of the whole store if it can be opened.
    fn facts(
        &self,
        file: &MainFile,
        is_held: bool,
        open: Option<&Store>,
        record: &mut Record,
    ) -> Outcome<()> {
        let facts = file.facts(&mut |_| true)?;
        let secret = self.target.secret()?;
        record.push(("form", Cell::Text(facts.form.to_string())));
        record.push(("encrypted", Cell::Flag(facts.encrypted)));
        record.push(("compression", Cell::Text(facts.compression.to_string())));
        record.push(("id", Cell::Text(key::hex(&facts.store_id))));
        record.push(("file made", Cell::Time(facts.created_us)));
        // A store that another process has open has commits that the main file does not have yet.
        if open.is_none() && (is_held || facts.encrypted && secret.is_none()) {
            record.push(("commits in the main file", Cell::Count(facts.seq)));
            let why = if is_held { "it is open elsewhere" } else { "no key was given" };
            record.push(("not read", Cell::Text(why.to_owned())));
            let next = "give the key: `--passphrase ask`, or `--key file:PATH`";
            record.push(("next", Some(next.to_owned()).filter(|_| !is_held).into()));
            return Ok(());
        }
        let store = match open {
            Some(store) => store.clone(),
            None => self.target.read_with(secret.as_ref())?,
        };
        let recovered = store.recovered();
        record.push(("commits", Cell::Count(store.stats().storage.seq)));
        record.push(("keys", store.len().into()));
        let tables = tables(&store.snapshot());
        if !tables.is_empty() {
            let entries = tables.iter().map(|table| table.entries).sum();
            record.push(("tables", tables.len().into()));
            record.push(("keys in tables", Cell::Count(entries)));
        }
        let expiring = Some(store.stats().expiring).filter(|count| *count > 0);
        record.push(("keys that expire", expiring.into()));
        record.push(("closed cleanly", Cell::Flag(recovered.clean)));
        Ok(())
    }

    /// Adds the number of the backups, and the age of the newest.
    fn backups(&self, record: &mut Record) -> Outcome<()> {
        let backups = Backups::of(&self.target.path)?;
        let list = backups.list()?;
        record.push(("backups", list.len().into()));
        let newest = list.iter().find_map(|entry| entry.facts.as_ref().ok());
        if let Some(newest) = newest {
            record.push(("newest backup at commit", Cell::Count(newest.seq)));
            let age = newest.time_us.map(time::ago);
            record.push(("newest backup made", age.into()));
        }
        if let Some(pending) = backups.pending()? {
            let text = format!("to commit {}; the next opening for writing ends it", pending.seq);
            record.push(("interrupted restore", Cell::Text(text)));
        }
        Ok(())
    }
}

/// Tells which stores are in a folder.
fn folder(path: &Path, out: &mut Out) -> Outcome {
    let unread = |source| Failure::file(path.display(), source);
    let mut stores = Vec::new();
    for entry in fs::read_dir(path).map_err(unread)? {
        let name = entry.map_err(unread)?.file_name().to_string_lossy().into_owned();
        let vfs = Vfs::os(path).map_err(unread)?;
        let is_file = path.join(&name).is_file();
        if is_file && role(&name).is_none() && MainFile::open(&vfs, &name).is_ok() {
            stores.push(name);
        }
    }
    stores.sort();
    let next = stores.first().map(|name| format!("codexdb info {}", path.join(name).display()));
    let is_found = !stores.is_empty();
    out.record(&vec![
        ("path", Cell::Text(path.display().to_string())),
        ("is", Cell::Text("a folder".to_owned())),
        ("stores in it", Cell::List(stores)),
        ("next", next.into()),
    ])?;
    Ok(is_found)
}

/// Adds the sizes of the files of the store, and the time of the last change.
fn files(path: &Path, vfs: &Vfs, record: &mut Record) -> Outcome<()> {
    let (mut count, mut bytes, mut changed_us) = (0_u64, 0_u64, None);
    for file in Store::files(path)? {
        if file.role != FileRole::Store {
            continue;
        }
        count += 1;
        bytes = bytes.saturating_add(file.bytes);
        let name = file.path.file_name().and_then(|name| name.to_str());
        if let Some(Ok(Some(found))) = name.map(|name| vfs.dir.metadata(name)) {
            changed_us = changed_us.max(Some(found.modified_us));
        }
    }
    record.push(("files", Cell::Count(count)));
    record.push(("size", Cell::Bytes(bytes)));
    record.push(("last written", changed_us.map_or(Cell::Nothing, Cell::Time)));
    Ok(())
}

/// Returns the process that has the store open for writing, if one has.
pub(crate) fn holder(vfs: &Vfs, name: &str) -> Outcome<Option<String>> {
    let names = Names::new(name, &vfs.dir.path(name))?;
    let lock = names.lock();
    // The lock is free again at the end of the statement. No lock file is made.
    match vfs.dir.lock_existing(&lock, LockKind::Shared).map(|guard| guard.is_some()) {
        Ok(false) => {
            let signer = vfs.dir.lock_signer(&lock);
            Ok(Some(signer.map_or("by an unknown process".to_owned(), |h| h.to_string())))
        }
        // Without a lock file, or without the right to lock it, nothing is known.
        Ok(true) | Err(_) => Ok(None),
    }
}

/// Returns the store that a file belongs to by its name, and its role there, unless it is the main
/// file of a store.
fn role(name: &str) -> Option<(String, Role)> {
    // The longest name of a store comes first: a store may have a name with dots.
    name.rmatch_indices('.').find_map(|(at, _)| {
        let base = name.get(..at)?;
        let names = Names::new(base, Path::new(base)).ok()?;
        let role = names.role(name).filter(|role| *role != Role::Main)?;
        Some((base.to_owned(), role))
    })
}

/// Returns the role of a file in words.
fn words(role: Role) -> String {
    match role {
        Role::Main => "the main file".to_owned(),
        Role::Segment(generation) => format!("log segment {generation}"),
        Role::Lock | Role::BackupLock => "a lock file".to_owned(),
        Role::Backup(index) => format!("backup {index}"),
        Role::RestoreRecord => "the record of an interrupted restore".to_owned(),
        Role::Replaced(number) => format!("a file that restore {number} replaced"),
        _ => "a temporary file".to_owned(),
    }
}

/// Returns the kind of a file of another program, by the bytes at its beginning.
fn foreign(path: &Path) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 7] = [
        (b"SQLite format 3\0", "an SQLite database"),
        (b"redb", "a redb database"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"PK\x03\x04", "a zip file"),
        (b"{", "a text, perhaps JSON"),
        (b"[", "a text, perhaps JSON"),
    ];
    let mut start = Vec::new();
    File::open(path).ok()?.take(16).read_to_end(&mut start).ok()?;
    KINDS.iter().find(|(bytes, _)| start.starts_with(bytes)).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::{Role, role};

    #[test]
    fn a_file_beside_a_store_is_known_by_its_name() {
        let of = role;
        assert_eq!(of("app.db"), None);
        assert_eq!(of("app.db.bak.2"), Some(("app.db".to_owned(), Role::Backup(2))));
        let segment = "app.db.wal.00000000000000000007";
        assert_eq!(of(segment), Some(("app.db".to_owned(), Role::Segment(7))));
        assert_eq!(of("app.db.lock"), Some(("app.db".to_owned(), Role::Lock)));
    }
}
