//! The simulated disk: files, their names, and the space they take.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::Space;
use super::bytes::LEN_MAX;
use super::inode::{BLOCK, Inode};
use super::plan::Fault;
use crate::vfs::entropy::mix;
use crate::vfs::{Kind, Metadata, Mode, Open, not_found, taken};

/// The number of a file, never given twice.
pub(super) type Ino = u64;
/// The names of a directory.
pub(super) type Names = BTreeMap<Arc<str>, Ino>;

/// All files and names of the simulated disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    /// The names that callers see.
    pub(super) names: Names,
    /// The names that a power cut leaves, unless a change below reached the disk too.
    pub(super) durable_names: Names,
    /// The changes of names since, in order.
    pub(super) name_changes: Vec<NameChange>,
    pub(super) inodes: BTreeMap<Ino, Inode>,
    pub(super) last_ino: Ino,
    /// The number of the last change.
    pub(super) seq: u64,
    pub(super) space: Space,
}

/// A change of names that is durable only after a sync of the directory.
#[derive(Debug, Clone)]
pub(super) struct NameChange {
    pub(super) seq: u64,
    pub(super) what: NameWhat,
    pub(super) state: NameState,
}

#[derive(Debug, Clone)]
pub(super) enum NameWhat {
    Add { name: Arc<str>, ino: Ino },
    Rename { from: Arc<str>, to: Arc<str>, ino: Ino },
    Remove { name: Arc<str> },
}

/// What a power cut may do to a change of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameState {
    /// Keep it or lose it; the next sync of the directory makes it durable.
    Pending,
    /// Keep it or lose it, for good: a sync failed on it.
    Doomed,
    /// Keep it. It stands behind a doomed one, so it is not in the durable names yet.
    Settled,
}

impl Space {
    pub(super) fn capacity(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::AtOnce(capacity) | Self::AtSync(capacity) => Some(capacity),
        }
    }
}

impl NameWhat {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Add { name, ino } => {
                names.insert(Arc::clone(name), *ino);
            }
            Self::Rename { from, to, ino } => {
                names.remove(from);
                names.insert(Arc::clone(to), *ino);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }

    fn ino(&self) -> Option<Ino> {
        match self {
            Self::Add { ino, .. } | Self::Rename { ino, .. } => Some(*ino),
            Self::Remove { .. } => None,
        }
    }
}

impl Disk {
    pub(super) fn ino(&self, name: &str) -> io::Result<Ino> {
        self.names.get(name).copied().ok_or_else(|| not_found(name))
    }

    pub(super) fn inode(&self, ino: Ino) -> io::Result<&Inode> {
        self.inodes.get(&ino).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn inode_mut(&mut self, ino: Ino) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Opens or creates a file, without a handle yet.
    pub(super) fn open(&mut self, name: &str, how: Open, now_us: i64) -> io::Result<Ino> {
        let ino = match how {
            Open::CreateNew(mode) => self.create(name, mode, now_us)?,
            Open::Read | Open::Write => self.ino(name)?,
        };
        if how == Open::Write && self.inode(ino)?.mode == Mode::Frozen {
            let message = format!("{name} is read-only");
            return Err(io::Error::new(ErrorKind::PermissionDenied, message));
        }
        Ok(ino)
    }

    /// Counts a handle of the file, which lives as long as it has one.
    pub(super) fn retain(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.handles += 1;
        }
    }

    pub(super) fn close(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.handles = inode.handles.saturating_sub(1);
        }
    }

    pub(super) fn create(&mut self, name: &str, mode: Mode, now_us: i64) -> io::Result<Ino> {
        if self.names.contains_key(name) {
            return Err(taken(name));
        }
        self.last_ino += 1;
        let (name, ino): (Arc<str>, Ino) = (name.into(), self.last_ino);
        self.inodes.insert(ino, Inode::new(mode, Arc::clone(&name), now_us));
        self.change_names(NameWhat::Add { name, ino });
        Ok(ino)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let ino = self.ino(from)?;
        // POSIX: a rename to its own name changes nothing.
        if self.names.get(to) == Some(&ino) {
            return Ok(());
        }
        let to: Arc<str> = to.into();
        self.inode_mut(ino)?.label = Arc::clone(&to);
        self.change_names(NameWhat::Rename { from: from.into(), to, ino });
        Ok(())
    }

    pub(super) fn reflink(
        &mut self,
        from: &str,
        to: &str,
        mode: Mode,
        now_us: i64,
    ) -> io::Result<()> {
        let source = self.inode(self.ino(from)?)?.cached.clone();
        let len = usize::try_from(source.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        let copy = self.create(to, mode, now_us)?;
        let mut bytes = vec![0; len];
        source.read_exact(&mut bytes, 0)?;
        let seq = self.next_seq();
        self.inode_mut(copy)?.write(seq, &bytes, 0);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.ino(name)?;
        self.change_names(NameWhat::Remove { name: name.into() });
        Ok(())
    }

    /// The names in an order that nobody may rely on, as on a real disk.
    pub(super) fn list(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.keys().map(ToString::to_string).collect();
        names.sort_by_cached_key(|name| name.bytes().fold(0, |sum, b| mix(sum ^ u64::from(b))));
        names
    }

    pub(super) fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        let Some(&ino) = self.names.get(name) else {
            return Ok(None);
        };
        let inode = self.inode(ino)?;
        Ok(Some(Metadata {
            kind: Kind::File,
            len: inode.cached.len(),
            modified_us: inode.modified_us,
            identity: ino,
        }))
    }

    /// What a successful sync of the directory does to the changes up to `upto`.
    pub(super) fn settle_names(&mut self, upto: u64) {
        for change in &mut self.name_changes {
            if change.seq <= upto && change.state == NameState::Pending {
                change.state = NameState::Settled;
            }
        }
        let open = self.name_changes.iter().position(|change| change.state != NameState::Settled);
        let settled = open.unwrap_or(self.name_changes.len());
        for change in self.name_changes.drain(..settled) {
            change.what.apply(&mut self.durable_names);
        }
        self.drop_unreachable();
    }

    /// What a failed sync of the directory does.
    pub(super) fn doom_names(&mut self, upto: u64) {
        for change in &mut self.name_changes {
            if change.seq <= upto && change.state == NameState::Pending {
                change.state = NameState::Doomed;
            }
        }
    }

    /// Writes what fits, like a disk that runs full in the middle of a write.
    pub(super) fn write(&mut self, ino: Ino, buf: &[u8], offset: u64, end: u64) -> io::Result<()> {
        if end > LEN_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let seq = self.next_seq();
        let needed = self.missing_blocks(ino, offset, end)?;
        let Some(room) = self.room_in_blocks().filter(|room| needed.len() > *room) else {
            let at_sync = matches!(self.space, Space::AtSync(_));
            let inode = self.inode_mut(ino)?;
            inode.write(seq, buf, offset);
            let taken = if at_sync { &mut inode.delayed } else { &mut inode.blocks };
            taken.extend(needed);
            return Ok(());
        };
        let end = needed.get(room).map_or(end, |block| (block * BLOCK).max(offset));
        let fits = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let inode = self.inode_mut(ino)?;
        inode.write(seq, buf.get(..fits).unwrap_or(buf), offset);
        inode.blocks.extend(needed.iter().take(room));
        Err(Fault::Enospc.error())
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        if len > LEN_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let seq = self.next_seq();
        self.inode_mut(ino)?.set_len(seq, len);
        Ok(())
    }

    pub(super) fn allocate(&mut self, ino: Ino, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(ErrorKind::FileTooLarge)?;
        if end > LEN_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if len == 0 {
            return Ok(());
        }
        let mut needed = self.missing_blocks(ino, offset, end)?;
        if let Some(capacity) = self.space.capacity() {
            let delayed = &self.inode(ino)?.delayed;
            needed.extend((offset / BLOCK..end.div_ceil(BLOCK)).filter(|b| delayed.contains(b)));
            let room = capacity.saturating_sub(self.used_bytes()) / BLOCK;
            if u64::try_from(needed.len()).unwrap_or(u64::MAX) > room {
                return Err(Fault::Enospc.error());
            }
        }
        let seq = self.next_seq();
        let inode = self.inode_mut(ino)?;
        for block in needed {
            inode.delayed.remove(&block);
            inode.blocks.insert(block);
        }
        inode.grow(seq, end);
        Ok(())
    }

    /// Syncs the changes up to `upto`; gives delayed blocks their space first.
    pub(super) fn sync(&mut self, ino: Ino, upto: u64) -> io::Result<()> {
        let room = self.space.capacity().map(|capacity| capacity.saturating_sub(self.used_bytes()));
        let inode = self.inode_mut(ino)?;
        let needed = u64::try_from(inode.delayed.len()).unwrap_or(u64::MAX).saturating_mul(BLOCK);
        if room.is_some_and(|room| needed > room) {
            inode.doom(upto);
            return Err(Fault::Enospc.error());
        }
        let delayed = std::mem::take(&mut inode.delayed);
        inode.blocks.extend(delayed);
        inode.settle(upto);
        Ok(())
    }

    /// Sets the room. Files that were written without a limit have space as far as they reach.
    pub(super) fn set_space(&mut self, space: Space) {
        if self.space == Space::Unlimited {
            for inode in self.inodes.values_mut() {
                inode.blocks = (0..inode.cached.len().div_ceil(BLOCK)).collect();
            }
        }
        self.space = space;
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let blocks: usize = self.inodes.values().map(|inode| inode.blocks.len()).sum();
        u64::try_from(blocks).unwrap_or(u64::MAX).saturating_mul(BLOCK)
    }

    /// Forgets the files that no name, no possible name and no handle leads to.
    pub(super) fn drop_unreachable(&mut self) {
        let changes = self.name_changes.iter().filter_map(|change| change.what.ino());
        let names = self.names.values().chain(self.durable_names.values()).copied();
        let reachable: BTreeSet<Ino> = names.chain(changes).collect();
        self.inodes.retain(|ino, inode| inode.handles > 0 || reachable.contains(ino));
    }

    fn change_names(&mut self, what: NameWhat) {
        what.apply(&mut self.names);
        let seq = self.next_seq();
        self.name_changes.push(NameChange { seq, what, state: NameState::Pending });
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// How many blocks a write may still take; `None` where it takes them only at the sync.
    fn room_in_blocks(&self) -> Option<usize> {
        match self.space {
            Space::AtOnce(capacity) => {
                let room = capacity.saturating_sub(self.used_bytes()) / BLOCK;
                Some(usize::try_from(room).unwrap_or(usize::MAX))
            }
            Space::Unlimited | Space::AtSync(_) => None,
        }
    }

    /// The blocks of `[offset, end)` that have no space, where space is counted.
    fn missing_blocks(&self, ino: Ino, offset: u64, end: u64) -> io::Result<Vec<u64>> {
        if self.space == Space::Unlimited || offset >= end {
            return Ok(Vec::new());
        }
        let inode = self.inode(ino)?;
        let has = |block: &u64| inode.blocks.contains(block) || inode.delayed.contains(block);
        Ok((offset / BLOCK..end.div_ceil(BLOCK)).filter(|block| !has(block)).collect())
    }
}
