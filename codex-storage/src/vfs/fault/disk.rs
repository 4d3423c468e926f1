//! The simulated disk: its files, their names, and the space that they take.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::Space;
use super::bytes::LEN_MAX;
use super::inode::{BLOCK, Inode};
use super::plan::Fault;
use crate::vfs::entropy::mix;
use crate::vfs::mem::{not_found, taken};
use crate::vfs::{Kind, Metadata, Mode, Open};

/// The number of a file. No number is used twice.
pub(super) type Ino = u64;
/// The names of a directory.
pub(super) type NameMap = BTreeMap<Arc<str>, Ino>;

/// All files and names of the simulated disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    /// The names that callers see.
    pub(super) names: NameMap,
    /// The names that a power cut certainly leaves, apart from the effect of `name_changes`.
    pub(super) durable_names: NameMap,
    /// The changes of names since then, in order.
    pub(super) name_changes: Vec<NameChange>,
    pub(super) inodes: BTreeMap<Ino, Inode>,
    pub(super) last_ino: Ino,
    /// The number of the last change.
    pub(super) seq: u64,
    pub(super) space: Space,
}

/// A change of names. Only a sync of the directory makes it durable.
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

/// The possible effects of a power cut on a change of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameState {
    /// It may be kept or lost. The next sync of the directory makes it durable.
    Pending,
    /// It may be kept or lost, and no later sync makes it durable: a sync of it failed.
    Doomed,
    /// It is kept. An earlier change is doomed, so this one is not yet in the durable names.
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
    pub(super) fn apply(&self, names: &mut NameMap) {
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

    /// Opens or creates a file, and returns its number. The caller counts the handle.
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

    /// Counts a handle of the file. The file exists at least as long as it has a handle.
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
        // POSIX: a rename of a file to a name that it already has changes nothing.
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
        from: Ino,
        to: &str,
        mode: Mode,
        now_us: i64,
    ) -> io::Result<()> {
        let source = self.inode(from)?.cached.clone();
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

    /// Returns the names in an arbitrary order, as a real disk does.
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

    /// Applies a successful sync of the directory to the changes up to `upto`.
    pub(super) fn settle_names(&mut self, upto: u64) {
        for change in &mut self.name_changes {
            if change.seq <= upto && change.state == NameState::Pending {
                change.state = NameState::Settled;
            }
        }
        // Changes become part of the durable names in their order, so only those before the first
        // unsettled change can.
        let open = self.name_changes.iter().position(|change| change.state != NameState::Settled);
        let settled = open.unwrap_or(self.name_changes.len());
        for change in self.name_changes.drain(..settled) {
            change.what.apply(&mut self.durable_names);
        }
        self.drop_unreachable();
    }

    /// Applies a failed sync of the directory to the changes up to `upto`.
    pub(super) fn doom_names(&mut self, upto: u64) {
        for change in &mut self.name_changes {
            if change.seq <= upto && change.state == NameState::Pending {
                change.state = NameState::Doomed;
            }
        }
    }

    /// Writes the part of `buf` for which there is space, like a disk that becomes full during a
    /// write.
    pub(super) fn write(&mut self, ino: Ino, buf: &[u8], offset: u64, end: u64) -> io::Result<()> {
        if end > LEN_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let seq = self.next_seq();
        let needed = self.missing_blocks(ino, offset, end)?;
        // With enough room, or if space is allocated only at the sync, the whole write succeeds.
        let Some(room) = self.room_in_blocks().filter(|room| needed.len() > *room) else {
            let at_sync = matches!(self.space, Space::AtSync(_));
            let inode = self.inode_mut(ino)?;
            inode.write(seq, buf, offset);
            let taken = if at_sync { &mut inode.delayed } else { &mut inode.blocks };
            taken.extend(needed);
            return Ok(());
        };
        // The write stops at the first block without space.
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
            // Delayed blocks of the range get their space now too.
            let delayed = &self.inode(ino)?.delayed;
            needed.extend((offset / BLOCK..end.div_ceil(BLOCK)).filter(|b| delayed.contains(b)));
            let room = capacity.saturating_sub(self.used_bytes()) / BLOCK;
            if u64::try_from(needed.len()).unwrap_or(u64::MAX) > room {
                return Err(Fault::Enospc.error());
            }
        }
        // Order: nothing is changed before all blocks are known to fit, so the call has no partial
        // effect.
        let seq = self.next_seq();
        let inode = self.inode_mut(ino)?;
        for block in needed {
            inode.delayed.remove(&block);
            inode.blocks.insert(block);
        }
        inode.grow(seq, end);
        Ok(())
    }

    /// Syncs the changes up to `upto`. Allocates space for delayed blocks first; if there is too
    /// little, the sync fails.
    pub(super) fn sync(&mut self, ino: Ino, upto: u64) -> io::Result<()> {
        let room = self.space.capacity().map(|capacity| capacity.saturating_sub(self.used_bytes()));
        let inode = self.inode_mut(ino)?;
        let needed = u64::try_from(inode.delayed.len()).unwrap_or(u64::MAX).saturating_mul(BLOCK);
        // The pages without space are lost, as after any other failed sync.
        if room.is_some_and(|room| needed > room) {
            inode.doom(upto);
            return Err(Fault::Enospc.error());
        }
        let delayed = std::mem::take(&mut inode.delayed);
        inode.blocks.extend(delayed);
        inode.settle(upto);
        Ok(())
    }

    /// Sets the available space. Files that were written without a limit get space for all their
    /// blocks.
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

    /// Removes the files that have no name, no possible name after a power cut, and no handle.
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

    /// Returns the number of blocks that a write may still take, or `None` if blocks are only taken
    /// at a sync or if space is unlimited.
    fn room_in_blocks(&self) -> Option<usize> {
        match self.space {
            Space::AtOnce(capacity) => {
                let room = capacity.saturating_sub(self.used_bytes()) / BLOCK;
                Some(usize::try_from(room).unwrap_or(usize::MAX))
            }
            Space::Unlimited | Space::AtSync(_) => None,
        }
    }

    /// Returns the blocks of `[offset, end)` without space, or none if space is unlimited.
    fn missing_blocks(&self, ino: Ino, offset: u64, end: u64) -> io::Result<Vec<u64>> {
        if self.space == Space::Unlimited || offset >= end {
            return Ok(Vec::new());
        }
        let inode = self.inode(ino)?;
        let has = |block: &u64| inode.blocks.contains(block) || inode.delayed.contains(block);
        Ok((offset / BLOCK..end.div_ceil(BLOCK)).filter(|block| !has(block)).collect())
    }
}
