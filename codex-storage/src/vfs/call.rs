//! The description of a call to the vfs, for traces, plans of faults, and observers.

use std::fmt;
use std::sync::Arc;

/// One call to a directory or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The number of calls before this one.
    pub index: u64,
    /// The kind of the call.
    pub kind: CallKind,
    /// The name of the file. If the file was renamed after it was opened, this is the current name.
    /// Empty for a call to the whole directory.
    pub name: Arc<str>,
    /// The second name of a rename, reflink or inherit.
    pub to: Option<Arc<str>>,
    /// The offset of the bytes in a call to a file; 0 for other calls.
    pub offset: u64,
    /// The number of bytes in a call to a file; the new length for [`CallKind::SetLen`].
    pub len: u64,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {:?} {}", self.index, self.kind, self.name)?;
        if let Some(to) = &self.to {
            write!(f, " -> {to}")?;
        }
        match self.kind {
            CallKind::Read | CallKind::Write | CallKind::Allocate => {
                write!(f, " {}+{}", self.offset, self.len)
            }
            CallKind::SetLen => write!(f, " {}", self.len),
            _ => Ok(()),
        }
    }
}

/// A call of the traits `Dir` and `File`. (`Dir::path` does not touch the disk and has none.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// `Dir::open` of an existing file.
    Open,
    /// `Dir::open` of a new file.
    Create,
    /// `Dir::rename`.
    Rename,
    /// `Dir::reflink`.
    Reflink,
    /// `Dir::remove`.
    Remove,
    /// `Dir::list`.
    List,
    /// `Dir::metadata`.
    Metadata,
    /// `Dir::sync`.
    SyncDir,
    /// `Dir::try_lock`.
    TryLock,
    /// `Dir::lock_existing`.
    LockExisting,
    /// `Dir::inherit`.
    Inherit,
    /// `Dir::available_bytes`.
    AvailableBytes,
    /// `File::len`.
    Len,
    /// `File::read_exact_at`.
    Read,
    /// `File::write_all_at`.
    Write,
    /// `File::set_len`.
    SetLen,
    /// `File::allocate`.
    Allocate,
    /// `File::sync`.
    Sync,
}

impl CallKind {
    /// Returns whether the call can change the contents of a disk, now or after a power cut.
    pub fn changes(self) -> bool {
        !matches!(
            self,
            Self::Open
                | Self::List
                | Self::Metadata
                | Self::LockExisting
                | Self::AvailableBytes
                | Self::Len
                | Self::Read
        )
    }

    /// Returns whether the call may need free space.
    pub fn takes_space(self) -> bool {
        self.changes() && !matches!(self, Self::Remove | Self::Inherit)
    }
}

/// Returns the kind of the call [`super::Dir::open`] with `how`.
pub(super) fn open_kind(how: super::Open) -> CallKind {
    match how {
        super::Open::Read | super::Open::Write => CallKind::Open,
        super::Open::CreateNew(_) => CallKind::Create,
    }
}
