//! A closed store in another form, or under another key, or under none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{Group, Op};
use crate::config::{Access, Config, Create};
use crate::error::{Error, RecordError, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Found, Header};
use crate::history::{History, Position};
use crate::image::ImageReader;
use crate::ledger::{Rewrite, install, write_ledger};
use crate::names::{Names, Role, Temporary};
use crate::open::{open, read_main};
use crate::seal::{Keys, Seal};
use crate::storage::{Anchor, Durability, EntrySink, Form, State, Storage};
use crate::vfs::{Mode, Open, Vfs};

/// The form and the keys to give to a store.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// Its form; `None` keeps the one it has.
    pub form: Option<Form>,
    /// The keys that open it then, under a fresh root key; `None` for a plain store.
    pub keys: Option<Arc<dyn Keys>>,
}

/// The result of a conversion, and the files that it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// The form of the store now.
    pub form: Form,
    /// Its last commit.
    pub anchor: Anchor,
    /// Files of the store, or of the one it was restored from, that are not encrypted: backups, and
    /// the files that a restore has replaced. Empty when the store is plain itself.
    pub plain: Vec<PathBuf>,
    /// Encrypted files of the store under another root key, which the earlier key still opens.
    pub under_other_keys: Vec<PathBuf>,
}

/// Converts the closed store that `config` names and opens to the form and the keys of `to`. The
/// new file is written under a temporary name, synced, read back, and takes the place of the old
/// one in one step: a crash leaves the store as it was (a Wal perhaps closed into its image) or
/// converted.
///
/// Commit numbers go on and the history keeps its digest, so an anchor of the last commit stays
/// good. A ledger that stays one keeps every commit with its time; one that becomes an image keeps
/// the state; an image that becomes a ledger begins with commits that set every entry.
///
/// The bytes that the old file had are not overwritten: the file system, the disk, snapshots and
/// backups may keep them.
///
/// # Errors
/// As [`open`] and as writing: the store is as it was, or `Io` from the last step, after which the
/// next open finds one or the other.
pub fn convert(config: Config, to: &Conversion) -> Result<Converted> {
    let (vfs, name) = (config.vfs.clone(), config.name.clone());
    let path = vfs.dir.path(&name);
    let names = Names::new(&name, &path)?;
    let mut config = Config { access: Access::ReadWrite, create: Create::Never, ..config };
    config.checkpoint.close_into_image_bytes_max = u64::MAX;
    let main = read_main(&vfs, &names, &path)?;
    let is_ledger = main.is_some_and(|(_, found)| found.header.form == Form::Ledger);
    let keeps_history = is_ledger && to.form.is_none_or(|form| form == Form::Ledger);
    if keeps_history {
        // Its state is not needed below. Under the lock it has to be a ledger still.
        config.form.get_or_insert(Form::Ledger);
    }
    let mut entries = Entries::default();
    let (mut storage, _) = open(&config, &mut |op| {
        if !keeps_history {
            entries.apply(op);
        }
        Ok(())
    })?;
    // The report has an anchor, so the store that is made lists that commit.
    storage.anchor();
    let history = storage.history();
    storage.close(&entries)?;
    // The lock is held as long as the storage is there.
    let source = Source { vfs, names, path, history, storage };
    let converted = source.write(to, config.keys.as_deref(), &entries);
    drop(source);
    converted
}

/// A closed store whose lock is held.
struct Source {
    vfs: Vfs,
    names: Names,
    path: PathBuf,
    history: History,
    storage: Box<dyn Storage>,
}

impl Source {
    fn write(
        &self,
        to: &Conversion,
        old_keys: Option<&dyn Keys>,
        entries: &Entries,
    ) -> Result<Converted> {
        let form = to.form.unwrap_or(self.storage.form());
        let (old, old_seal) = self.header(old_keys)?;
        let kind = if form == Form::Ledger { FileKind::Log } else { FileKind::Image };
        let header = Header {
            store_id: old.store_id,
            generation: if kind == FileKind::Log { 1 } else { old.generation },
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
        let own = if kind == FileKind::Log { Mode::Private } else { Mode::Frozen };
        let mode = (old.kind != kind).then_some(own);
        let end = if form == Form::Ledger {
            self.ledger(&old, old_seal, header, seal, mode, entries)?
        } else {
            self.image(header, seal, mode, entries)?
        };
        let (plain, under_other_keys) = match &to.keys {
            Some(_) => self.left(root_id)?,
            None => Default::default(),
        };
        let anchor = end.anchor(old.store_id);
        Ok(Converted { form, anchor, plain, under_other_keys })
    }

    /// The header of the one file that the store is now.
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

    /// Removes the segments of the store durably: its main file, which is durable under its name,
    /// contains them.
    ///
    /// Order: before the new main file gets its name. Beside that one, which may be of another
    /// form or have another key, nothing would remove a segment that a power cut brings back.
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
        self.installed(installed.map_err(Into::into))?;
        Ok(Position::base(ImageReader::open(&self.vfs, self.names.main(), seal)?.header()))
    }

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
        let files = self.files(seal);
        let prepared = self.installed(files.prepare(&temporary, mode));
        prepared.inspect_err(|_| self.discard(&temporary))?;
        install(&files, &temporary)?;
        let end = writer.end();
        Ok(Position { seq: end.seq, digest: end.digest })
    }

    fn discard(&self, temporary: &str) {
        // The next open for writing removes a file that stays.
        drop(self.vfs.dir.remove(temporary));
    }

    fn installed(&self, done: std::io::Result<()>) -> Result<()> {
        done.map_err(|e| Error::io("put the converted store in place as", &self.path, e))
    }

    /// Plain files that belong to the store, and those under another root key.
    fn left(&self, root_id: [u8; 16]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut plain, mut other) = (Vec::new(), Vec::new());
        let mut names = self.listed()?;
        names.sort();
        for name in names {
            let path = self.vfs.dir.path(&name);
            match self.header_of(&name, &path) {
                Some(header) if header.cipher == 0 => plain.push(path),
                Some(header) if header.root_id != root_id => other.push(path),
                // Not shown to be encrypted: it cannot be read, or a crash left it without its
                // header.
                None if self.names.role(&name).is_some_and(has_contents) => plain.push(path),
                _ => {}
            }
        }
        Ok((plain, other))
    }

    /// The header of a file whose name begins with the store's own, where it has one.
    fn header_of(&self, name: &str, path: &Path) -> Option<Header> {
        let is_ours = name.strip_prefix(self.names.main())?.starts_with('.');
        let file = self.vfs.dir.open(name, Open::Read).ok().filter(|_| is_ours)?;
        Found::read(&*file, path).ok().map(|found| found.header)
    }

    fn listed(&self) -> Result<Vec<String>> {
        self.vfs.dir.list().map_err(|e| Error::io("list the folder of", &self.path, e))
    }

    fn files(&self, seal: Option<Arc<dyn Seal>>) -> StoreFiles {
        StoreFiles {
            vfs: self.vfs.clone(),
            names: self.names.clone(),
            seal,
            lock: self.storage.lock(),
        }
    }
}

/// Whether files of this role hold entries or commits.
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

/// The entries of a store in key order.
#[derive(Default)]
struct Entries(BTreeMap<Vec<u8>, Vec<u8>>);

impl Entries {
    fn apply(&mut self, op: Op<'_>) {
        match op {
            Op::Set { key, value } => drop(self.0.insert(key.to_vec(), value.to_vec())),
            Op::Remove { key } => drop(self.0.remove(key)),
            Op::Clear => self.0.clear(),
        }
    }

    /// Fills `group` with one commit that sets every entry, and calls `full`; with as few as
    /// possible where they do not fit into one.
    fn groups(
        &self,
        group: &mut Group,
        full: &mut dyn FnMut(&mut Group) -> Result<()>,
    ) -> Result<()> {
        let mut is_open = false;
        for (key, value) in &self.0 {
            let op = Op::Set { key, value };
            let mut pushed = group.push(op);
            if is_open && matches!(pushed, Err(RecordError::BatchTooLarge { .. })) {
                group.finish();
                full(group)?;
                // An entry that was stored fits a batch of its own.
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
        self.0.iter().try_for_each(|(key, value)| sink(key, value))
    }
}
