//! Conversion of a closed store to another form, to another key, or to no key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{Group, Item, Op, TableId};
use crate::config::{Access, Config, Create};
use crate::error::{Error, RecordError, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Found, Header};
use crate::history::{History, Position};
use crate::image::ImageReader;
use crate::ledger::{Rewrite, install, write_ledger};
use crate::names::{Names, Role, Temporary};
use crate::open::{open, read_main};
use crate::pack::Compression;
use crate::seal::{Keys, Seal};
use crate::storage::{Anchor, Durability, EntrySink, Form, NO_FILES, State, Storage};
use crate::vfs::{Mode, Open, Vfs};

/// The form and the keys to give to a store.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// The new form. `None` keeps the current form.
    pub form: Option<Form>,
    /// The new keys, under a fresh root key. `None` makes the store plain.
    pub keys: Option<Arc<dyn Keys>>,
    /// The new compression. `None` keeps that of the main file.
    pub compression: Option<Compression>,
}

/// The result of a conversion, and the files that it did not convert.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// The new form of the store.
    pub form: Form,
    /// An anchor of the last commit.
    pub anchor: Anchor,
    /// Unencrypted files of the store, or of the store that it was restored from: backups, and
    /// files that a restore has replaced. Empty if the store itself is plain.
    pub plain: Vec<PathBuf>,
    /// Encrypted files of the store under another root key, which the former key still opens.
    pub under_other_keys: Vec<PathBuf>,
}

/// Converts the closed store that `config` names and opens to the form and the keys of `to`.
///
/// The new file is written under a temporary name, synced, read back, and then renamed over the old
/// one. After a crash the store is either as it was (a Wal possibly closed into its image) or
/// converted.
///
/// Commit numbers continue and the history keeps its digest, so an anchor of the last commit stays
/// valid. A ledger that stays a ledger keeps every commit with its time. A ledger that becomes an
/// image keeps only the state. An image that becomes a ledger begins with commits that set every
/// entry.
///
/// The bytes of the old file are not overwritten. The file system, the disk, snapshots and backups
/// may keep them.
///
/// # Errors
/// The errors of [`open`] and of writing. The store is as it was. After an `Io` from the last step,
/// the next open finds the old store or the new one.
pub fn convert(config: Config, to: &Conversion) -> Result<Converted> {
    let (vfs, name) = (config.vfs.clone(), config.name.clone());
    let path = vfs.dir.path(&name);
    let names = Names::new(&name, &path)?;
    let mut config = Config { access: Access::ReadWrite, create: Create::Never, ..config };
    // A Wal is closed into one image, whatever its size, so that one file has to be converted.
    config.checkpoint.close_into_image_bytes_max = u64::MAX;
    let main = read_main(&vfs, &names, &path)?;
    let is_ledger = main.is_some_and(|(_, found)| found.header.form == Form::Ledger);
    let keeps_history = is_ledger && to.form.is_none_or(|form| form == Form::Ledger);
    if keeps_history {
        // The state is not needed. The store must still be a ledger when its lock is held.
        config.form.get_or_insert(Form::Ledger);
    }
    let mut entries = Entries::default();
    let (mut storage, _) = open(&config, &mut |op| {
        if !keeps_history {
            entries.apply(op);
        }
        Ok(())
    })?;
    // The report has an anchor, so the new store must list this commit.
    storage.anchor();
    let stored = storage.stored().ok_or(Error::Contradiction(NO_FILES))?;
    let history = stored.history.clone();
    // Order: the store is closed before it is converted, so that its main file contains all
    // commits.
    storage.close(&entries)?;
    // The lock is held while the storage exists.
    let source = Source { vfs, names, path, history, storage };
    let converted = source.write(to, config.keys.as_deref(), &entries);
    drop(source);
    converted
}

/// A closed store whose lock is held by `storage`.
struct Source {
    vfs: Vfs,
    names: Names,
    path: PathBuf,
    history: History,
    storage: Box<dyn Storage>,
}

impl Source {
    /// Writes the store in its new form, and installs it.
    fn write(
        &self,
        to: &Conversion,
        old_keys: Option<&dyn Keys>,
        entries: &Entries,
    ) -> Result<Converted> {
        let form = to.form.unwrap_or(self.storage.form());
        let (old, old_seal) = self.header(old_keys)?;
        let kind = if form == Form::Ledger { FileKind::Log } else { FileKind::Image };
        // The store keeps its id, its commit numbers and its digest. Everything else is new.
        let header = Header {
            store_id: old.store_id,
            generation: if kind == FileKind::Log { 1 } else { old.generation },
            compression: to.compression.unwrap_or(old.compression),
            base_seq: self.history.seq(),
            base_digest: self.history.end().digest,
            ..Header::new(&self.vfs, &self.path, kind, form)?
        };
        let first = if kind == FileKind::Log { header.base_seq } else { 0 };
        let header = Header { named_seq: first, oldest_seq: first, ..header };
        let (header, seal) = match &to.keys {
            None => (header, None),
            Some(keys) => {
                let replacing = Header { envelope: old.envelope.clone(), ..header };
                let (header, seal) = replacing.under_fresh_root(&**keys, &self.path)?;
                (header, Some(seal))
            }
        };
        let root_id = header.root_id;
        // A file of another kind than the old one gets the permissions of its own kind.
        let own = if kind == FileKind::Log { Mode::Private } else { Mode::Frozen };
        let mode = (old.kind != kind).then_some(own);
        let end = if form == Form::Ledger {
            self.ledger(&old, old_seal, header, seal, mode, entries)?
        } else {
            self.image(header, seal, mode, entries)?
        };
        let (plain, under_other_keys) = match &to.keys {
            Some(_) => self.left(&old.store_id, root_id)?,
            None => Default::default(),
        };
        let anchor = end.anchor(old.store_id);
        Ok(Converted { form, anchor, plain, under_other_keys })
    }

    /// Returns the header of the single file of the closed store.
    fn header(&self, keys: Option<&dyn Keys>) -> Result<(Header, Option<Arc<dyn Seal>>)> {
        let file = self.vfs.dir.open(self.names.main(), Open::Read);
        let file = file.map_err(|e| Error::io("open", &self.path, e))?;
        let found = Found::read(&*file, &self.path)?;
        let (header, seal) = found.unlock(keys, &self.path)?;
        if header.next_generation != 0 {
            return Err(Error::Contradiction(
                "the store could not be closed into one image: free some space and try again",
            ));
        }
        self.remove_segments(&header.store_id)?;
        Ok((header, seal))
    }

    /// Removes the segments of the store durably. Its main file, which is durable under its name,
    /// contains them.
    ///
    /// Order: before the new main file gets its name. A segment that a power cut brings back later
    /// would not be removed, because the new file may have another form or another key.
    fn remove_segments(&self, store_id: &[u8; 16]) -> Result<()> {
        let dir = &self.vfs.dir;
        for name in self.listed()? {
            if !matches!(self.names.role(&name), Some(Role::Segment(_))) {
                continue;
            }
            let path = dir.path(&name);
            let is_ours = |header: Header| header.store_id == *store_id;
            if !self.header_of(&name, &path).is_some_and(is_ours) {
                return Err(Error::ForeignLog { path });
            }
            dir.remove(&name).map_err(|e| Error::io("remove the leftover log", &path, e))?;
        }
        dir.sync().map_err(|e| Error::io("sync the folder of", &self.path, e))
    }

    /// Writes and installs the store as an image.
    fn image(
        &self,
        header: Header,
        seal: Option<Arc<dyn Seal>>,
        mode: Option<Mode>,
        entries: &Entries,
    ) -> Result<Position> {
        let files = self.files(seal.clone());
        let written = files.image(header).write(entries, &self.history, &|_| true)?;
        let installed = files.install_as(&written.temporary, mode);
        self.installed(installed.map(drop).map_err(Into::into))?;
        Ok(Position::base(ImageReader::open(&self.vfs, self.names.main(), seal)?.header()))
    }

    /// Writes and installs the store as a ledger.
    fn ledger(
        &self,
        old: &Header,
        old_seal: Option<Arc<dyn Seal>>,
        header: Header,
        seal: Option<Arc<dyn Seal>>,
        mode: Option<Mode>,
        entries: &Entries,
    ) -> Result<Position> {
        let writer;
        let temporary;
        // A ledger is copied with all of its commits. An image becomes commits that set every
        // entry.
        if old.form == Form::Ledger {
            let header = Header {
                base_seq: old.base_seq,
                base_digest: old.base_digest,
                oldest_seq: old.oldest_seq,
                ..header
            };
            let files = self.files(old_seal);
            let rewrite = Rewrite::begin(&files, Durability::Os, old, header, seal.clone())?;
            temporary = rewrite.temporary.clone();
            let complete = rewrite.complete(self.history.seq());
            writer = complete.inspect_err(|_| self.discard(&temporary))?.0;
        } else {
            temporary = self.names.temporary(Temporary::Convert);
            let files = self.files(seal.clone());
            let written = write_ledger(&files, header, &temporary, &mut |group, full| {
                entries.groups(group, full)
            });
            writer = written.inspect_err(|_| self.discard(&temporary))?;
        }
        // Order: the new ledger is durable and has the lock of the store before it gets its name.
        let files = self.files(seal);
        let prepared = self.installed(files.prepare(&temporary, mode));
        prepared.inspect_err(|_| self.discard(&temporary))?;
        install(&files, &temporary)?;
        let end = writer.end();
        Ok(Position { seq: end.seq, digest: end.digest })
    }

    /// Removes an unfinished file. An error is ignored.
    fn discard(&self, temporary: &str) {
        // If the file stays, the next open for writing removes it.
        drop(self.vfs.dir.remove(temporary));
    }

    /// Returns the error of the last step.
    fn installed(&self, done: std::io::Result<()>) -> Result<()> {
        done.map_err(|e| Error::io("put the converted store in place as", &self.path, e))
    }

    /// Returns the plain files that belong to the store, and the files under another root key. A
    /// file belongs to the store if its name is one of the store's; a file whose name only begins
    /// like one, if its header has the id of the store.
    fn left(&self, store_id: &[u8; 16], root_id: [u8; 16]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut plain, mut other) = (Vec::new(), Vec::new());
        let mut names = self.listed()?;
        names.sort();
        for name in names {
            let path = self.vfs.dir.path(&name);
            let is_named = self.names.role(&name).is_some_and(has_contents);
            match self.header_of(&name, &path) {
                Some(header) if !is_named && header.store_id != *store_id => {}
                Some(header) if header.cipher == 0 => plain.push(path),
                Some(header) if header.root_id != root_id => other.push(path),
                // The file is not known to be encrypted: it cannot be read, or a crash has left it
                // without a header.
                None if is_named => plain.push(path),
                _ => {}
            }
        }
        Ok((plain, other))
    }

    /// Returns the header of a file, if it has one and its name begins with the name of the store.
    fn header_of(&self, name: &str, path: &Path) -> Option<Header> {
        let is_ours = name.strip_prefix(self.names.main())?.starts_with('.');
        let file = self.vfs.dir.open(name, Open::Read).ok().filter(|_| is_ours)?;
        Found::read(&*file, path).ok().map(|found| found.header)
    }

    /// Lists the directory.
    fn listed(&self) -> Result<Vec<String>> {
        self.vfs.dir.list().map_err(|e| Error::io("list the folder of", &self.path, e))
    }

    /// Returns the files of the store under the key `seal`.
    fn files(&self, seal: Option<Arc<dyn Seal>>) -> StoreFiles {
        StoreFiles {
            vfs: self.vfs.clone(),
            names: self.names.clone(),
            seal,
            compression: Compression::None,
            lock: self.storage.lock(),
        }
    }
}

/// Returns whether files of this role contain entries or commits.
fn has_contents(role: Role) -> bool {
    matches!(
        role,
        Role::Segment(_)
            | Role::Temporary(_)
            | Role::Backup(_)
            | Role::BackupTemporary(_)
            | Role::Replaced(_)
    )
}

/// The entries of a store in the order of images: by table and key, of each the stored value and
/// the expiry.
#[derive(Default)]
pub(crate) struct Entries(BTreeMap<Name, (Vec<u8>, Option<i64>)>);

/// The table of an entry and its key.
pub(crate) type Name = (Option<TableId>, Vec<u8>);

impl Entries {
    /// Applies one operation of the history.
    pub(crate) fn apply(&mut self, op: Op<'_>) {
        match op {
            Op::Set(Item { table, key, value, expires_us }) => {
                self.0.insert((table, key.to_vec()), (value.to_vec(), expires_us));
            }
            Op::Remove { table, key } => drop(self.0.remove(&(table, key.to_vec()))),
            Op::Clear { table: cleared } => self.0.retain(|(table, _), _| *table != cleared),
        }
    }

    /// Adds the entries of `other` whose table and key fulfil `is_wanted`.
    pub(crate) fn add(&mut self, other: Self, is_wanted: impl Fn(&Name) -> bool) {
        self.0.extend(other.0.into_iter().filter(|(key, _)| is_wanted(key)));
    }

    /// Returns the entries in order.
    fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.0.iter().map(|((table, key), (value, expires_us))| {
            let table = *table;
            Item { table, key, value, expires_us: *expires_us }
        })
    }

    /// Fills `group` with one commit that sets every entry, and calls `full` with it. If the
    /// entries do not fit one commit, there are as few as possible.
    pub(crate) fn groups(
        &self,
        group: &mut Group,
        full: &mut dyn FnMut(&mut Group) -> Result<()>,
    ) -> Result<()> {
        let mut is_open = false;
        for item in self.items() {
            let op = Op::Set(item);
            let mut pushed = group.push(op);
            if is_open && matches!(pushed, Err(RecordError::BatchTooLarge { .. })) {
                group.finish();
                full(group)?;
                // An entry that was stored fits a batch by itself.
                pushed = group.push(op);
            }
            pushed.map_err(|source| Error::Record { path: PathBuf::new(), source })?;
            is_open = true;
        }
        if !is_open {
            return Ok(());
        }
        group.finish();
        full(group)
    }
}

impl State for Entries {
    fn len(&self) -> u64 {
        crate::codec::u64_of(self.0.len())
    }

    fn for_each(&self, sink: &mut EntrySink<'_>) -> Result<()> {
        self.items().try_for_each(sink)
    }
}
