//! The traits of the vfs for a simulated disk. Each call passes through the plan of faults.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{Disk, Ino};
use super::machine::{Limits, Machine, Request};
use super::{CallKind, FaultDir};
use crate::vfs::call::open_kind;
use crate::vfs::mem::handle_is_read_only;
use crate::vfs::{
    Clock, Dir, File, LockGuard, LockKind, Metadata, Mode, Open, check_name, check_names,
    range_end, same_system,
};

impl Dir for FaultDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let now_us = self.machine.clock.now_us();
        let request = Request { kind: open_kind(how), name, to: None, offset: 0, len: 0 };
        let effect = |disk: &mut Disk, limits: Limits| {
            let ino = disk.open(name, how, now_us)?;
            // If the call fails after its effect, the caller has no handle.
            if limits.is_told {
                disk.retain(ino);
            }
            Ok(ino)
        };
        let ino = self.machine.call(self.process, &request, effect, |_, _| ())?;
        let machine = Arc::clone(&self.machine);
        let writable = how != Open::Read;
        Ok(Arc::new(FaultFile { machine, process: self.process, ino, writable }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.on_pair(CallKind::Rename, from, to, |disk| disk.rename(from, to))
    }

    fn reflink(&self, from: &Arc<dyn File>, to: &str, mode: Mode) -> io::Result<()> {
        let from: &FaultFile = same_system(from)?;
        if !Arc::ptr_eq(&from.machine, &self.machine) {
            return Err(ErrorKind::Unsupported.into());
        }
        let (name, now_us) = (from.label(), self.machine.clock.now_us());
        let effect = |disk: &mut Disk| disk.reflink(from.ino, to, mode, now_us);
        self.on_pair(CallKind::Reflink, &name, to, effect)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.on_name(CallKind::Remove, name, |disk| disk.remove(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.on_name(CallKind::List, "", |disk| Ok(disk.list()))
    }

    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        check_name(name)?;
        self.on_name(CallKind::Metadata, name, |disk| disk.metadata(name))
    }

    fn sync(&self) -> io::Result<()> {
        let request = Request { kind: CallKind::SyncDir, name: "", to: None, offset: 0, len: 0 };
        let settle = |disk: &mut Disk, limits: Limits| {
            disk.settle_names(limits.upto);
            Ok(())
        };
        self.machine.call(self.process, &request, settle, Disk::doom_names)
    }

    fn try_lock(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        check_name(name)?;
        let now_us = self.machine.clock.now_us();
        let (locks, ino) = self.on_name(CallKind::TryLock, name, |disk| {
            // A missing lock file is created.
            let ino = match disk.ino(name) {
                Ok(ino) => ino,
                Err(_) => disk.create(name, Mode::Private, now_us)?,
            };
            Ok((Arc::clone(&disk.inode(ino)?.locks), ino))
        })?;
        Ok(locks.try_lock(kind, ino))
    }

    fn lock_existing(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        check_name(name)?;
        let (locks, ino) = self.on_name(CallKind::LockExisting, name, |disk| {
            let ino = disk.ino(name)?;
            Ok((Arc::clone(&disk.inode(ino)?.locks), ino))
        })?;
        Ok(locks.try_lock(kind, ino))
    }

    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> io::Result<()> {
        self.on_pair(CallKind::Inherit, from, to, |disk| {
            let mode = mode.unwrap_or(disk.inode(disk.ino(from)?)?.mode);
            let to = disk.ino(to)?;
            disk.inode_mut(to)?.mode = mode;
            Ok(())
        })
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        self.on_name(CallKind::AvailableBytes, "", |disk| {
            let free = |capacity: u64| capacity.saturating_sub(disk.used_bytes());
            Ok(disk.space.capacity().map(free))
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(":simulated:").join(name)
    }
}

impl FaultDir {
    /// Makes a call that names one file or none.
    fn on_name<T>(
        &self,
        kind: CallKind,
        name: &str,
        effect: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        let request = Request { kind, name, to: None, offset: 0, len: 0 };
        self.machine.call(self.process, &request, |disk, _| effect(disk), |_, _| ())
    }

    /// Makes a call that names two files.
    fn on_pair(
        &self,
        kind: CallKind,
        from: &str,
        to: &str,
        effect: impl FnOnce(&mut Disk) -> io::Result<()>,
    ) -> io::Result<()> {
        check_names(from, to)?;
        let request = Request { kind, name: from, to: Some(to), offset: 0, len: 0 };
        self.machine.call(self.process, &request, |disk, _| effect(disk), |_, _| ())
    }
}

struct FaultFile {
    machine: Arc<Machine>,
    process: u64,
    ino: Ino,
    writable: bool,
}

impl FaultFile {
    /// Makes a call to the file. If a fault replaces the effect, `failed` runs instead.
    fn call<T>(
        &self,
        kind: CallKind,
        offset: u64,
        len: u64,
        effect: impl FnOnce(&mut Disk, Limits) -> io::Result<T>,
        failed: impl FnOnce(&mut Disk, u64),
    ) -> io::Result<T> {
        let name = self.label();
        let request = Request { kind, name: &name, to: None, offset, len };
        self.machine.call(self.process, &request, effect, failed)
    }

    /// Makes a call that changes the file. Refuses it if the handle is read-only.
    fn change(
        &self,
        kind: CallKind,
        offset: u64,
        len: u64,
        effect: impl FnOnce(&mut Disk, Limits) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.writable {
            return Err(handle_is_read_only());
        }
        let now_us = self.machine.clock.now_us();
        let effect = |disk: &mut Disk, limits: Limits| {
            disk.inode_mut(self.ino)?.modified_us = now_us;
            effect(disk, limits)
        };
        self.call(kind, offset, len, effect, |_, _| ())
    }

    /// Returns the current name of the file, which rules match and traces show.
    fn label(&self) -> Arc<str> {
        let state = self.machine.state();
        state.disk.inode(self.ino).map_or_else(|_| "".into(), |inode| Arc::clone(&inode.label))
    }
}

impl fmt::Debug for FaultFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultFile").field("name", &self.label()).finish_non_exhaustive()
    }
}

impl File for FaultFile {
    fn len(&self) -> io::Result<u64> {
        let len = |disk: &mut Disk, _| Ok(disk.inode(self.ino)?.cached.len());
        self.call(CallKind::Len, 0, 0, len, |_, _| ())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let width = range_end(0, buf.len())?;
        let read = |disk: &mut Disk, _| disk.inode(self.ino)?.cached.read_exact(buf, offset);
        self.call(CallKind::Read, offset, width, read, |_, _| ())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let width = range_end(0, buf.len())?;
        self.change(CallKind::Write, offset, width, |disk, limits| {
            // A short write affects only the first bytes.
            let buf = limits.write_max.and_then(|max| buf.get(..max)).unwrap_or(buf);
            disk.write(self.ino, buf, offset, range_end(offset, buf.len())?)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(CallKind::SetLen, 0, len, |disk, _| disk.set_len(self.ino, len))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let effect = |disk: &mut Disk, _| disk.allocate(self.ino, offset, len);
        self.change(CallKind::Allocate, offset, len, effect)
    }

    fn sync(&self) -> io::Result<()> {
        let effect = |disk: &mut Disk, limits: Limits| disk.sync(self.ino, limits.upto);
        let failed = |disk: &mut Disk, upto: u64| {
            if let Ok(inode) = disk.inode_mut(self.ino) {
                inode.doom(upto);
            }
        };
        self.call(CallKind::Sync, 0, 0, effect, failed)
    }

    fn identity(&self) -> io::Result<u64> {
        Ok(self.ino)
    }
}

impl Drop for FaultFile {
    fn drop(&mut self) {
        let mut state = self.machine.state();
        // The handles of a process that has ended were closed with it.
        if state.process == self.process {
            state.disk.close(self.ino);
        }
    }
}
