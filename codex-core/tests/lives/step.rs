//! The steps of a history.

use codex_core::Form;
use codex_core::vfs::CallKind;
use codex_core::vfs::fault::{Fault, Lasting, Side};

/// A step, with the seed of its random choices.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub step: Step,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A fault will occur at a later call.
    Arm(Aim, Strike),
    /// The disk has this number of bytes left from now on, or no limit any more.
    Room(Option<u64>),
    Open(Opening),
    Set {
        key: u8,
        len: u16,
    },
    Remove(u8),
    RemovePrefix,
    Clear,
    Batch,
    Update(u8),
    Exchange(u8),
    Flush,
    Checkpoint,
    ChangeKey(u8),
    Rekey(u8),
    BackUp,
    /// A hot copy under one of two names.
    Copy(u8),
    OpenCopy(u8),
    RemoveCopy(u8),
    Verify,
    Anchor,
    /// Compares the backups with the model.
    Look,
    Prune(u8),
    Convert {
        key: Pick,
        form: Option<Form>,
        to: To,
    },
    Restore(u8),
    /// A restore of the ledger to one of its commits, or to a number near them.
    RestoreUntil(u8),
    /// Memory pressure: clean pages leave the cache.
    Evict,
    End(End),
}

/// The call to interrupt, counted from now.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    Call(u64),
    Kind(CallKind, u64),
}

#[derive(Debug, Clone, Copy)]
pub enum Strike {
    Cut(Side),
    Kill(Side),
    Fail(Fault, Lasting, Side),
}

#[derive(Debug, Clone, Copy)]
pub struct Opening {
    pub key: Pick,
    pub form: Option<Form>,
    pub read_only: bool,
    pub level: Level,
    /// Whether a close leaves the log, instead of closing into the image.
    pub keeps_log: bool,
    pub packed: bool,
    pub fall_back: bool,
    pub anchor: AnchorPick,
    /// The option for a missing store and an existing one.
    pub create: Create,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    IfMissing,
    Never,
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Sync,
    Interval,
    Os,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorPick {
    None,
    Noted,
    /// The anchor of a commit that never existed.
    Beyond,
}

/// The key that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The key that opens the store; the earlier one first if both may.
    Earlier,
    /// The same, the later one first.
    Later,
    /// Another key, by its distance in the list of keys; any key for a plain store.
    Other(u8),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Same,
    Plain,
    Key(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Close,
    Drop,
    /// The process is killed.
    Kill,
    PowerCut,
}

/// The number of keys: half of them raw, half passphrases.
pub const KEYS: u8 = 6;

/// A history, and the settings for all of its lives.
#[derive(Debug, Clone)]
pub struct Plan {
    pub form: Form,
    pub key: Option<u8>,
    /// The number of backups that the store keeps.
    pub keep: u32,
    pub steps: Vec<Planned>,
}

impl Opening {
    /// For writing, with the key that opens the store.
    pub const fn plain() -> Self {
        Self {
            key: Pick::Later,
            form: None,
            read_only: false,
            level: Level::Sync,
            keeps_log: true,
            packed: false,
            fall_back: false,
            anchor: AnchorPick::None,
            create: Create::IfMissing,
        }
    }
}
