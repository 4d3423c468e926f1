//! Durable ordered commits in three forms.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "codex-storage runs on Linux and macOS only: it does not know how to make the names in a \
     folder durable on this system"
);

/// The `Debug` output of a type: its name, and none of its contents.
#[doc(hidden)]
#[macro_export]
macro_rules! opaque_debug {
    ($type:ident) => {
        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(::std::stringify!($type))
            }
        }
    };
}

/// The `Debug` output of an error: the name of its variant, then the text of `Display`. A program
/// whose `main` returns the error prints that text.
///
/// A variant after the semicolon wraps an error, whose own `Debug` output takes the place of the
/// text.
#[doc(hidden)]
#[macro_export]
macro_rules! debug_as_display {
    (
        $type:ident: $($variant:ident),* $(,)? $(; $($(#[$attribute:meta])* $wrapper:ident),*)?
    ) => {
        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let name = match self {
                    $(Self::$variant { .. } => ::std::stringify!($variant),)*
                    $($($(#[$attribute])* Self::$wrapper(inner) => {
                        return ::std::write!(f, "{}: {inner:?}", ::std::stringify!($wrapper));
                    })*)?
                };
                ::std::write!(f, "{name}: {self}")
            }
        }
    };
}

pub mod batch;
mod codec;
mod config;
mod convert;
mod digest;
mod earlier;
mod error;
mod files;
mod follow;
mod frame;
mod header;
mod history;
mod image;
mod ledger;
mod live;
mod lock;
mod log;
mod main_file;
pub mod names;
#[cfg(feature = "net")]
#[doc(hidden)]
pub mod net;
mod null;
mod open;
mod pack;
mod read_only;
mod remove;
mod repair;
mod salvage;
pub mod seal;
mod separate;
#[cfg(feature = "shared")]
pub mod shared;
mod snapshot;
pub mod storage;
/// Locks, threads and channels for the crates of the workspace. It is not part of the API.
#[doc(hidden)]
pub mod sync;
mod text;
mod verify;
pub mod vfs;
mod wal;
mod write_state;

pub use config::{Access, CheckpointPolicy, Config, Create, OnDamage};
pub use convert::{Conversion, Converted, convert};
pub use earlier::EarlierStore;
pub use error::{Error, RecordError, Result};
pub use image::{LostKeys, WriteAt};
pub use ledger::{
    LedgerCommit, LedgerCut, LedgerIndex, LedgerPlace, LedgerReader, RestorePoint,
    archived_ledger_at, ledger_at, read_commits,
};
pub use lock::StoreLock;
pub use main_file::{FileFacts, MainFile, check_name, segments};
pub use null::null;
pub use open::{open, open_staged, restore_is_pending};
pub use pack::Compression;
pub use remove::{FileEntry, FileRole, destroy, files};
pub use repair::repair_header;
pub use salvage::{Salvage, Taken, salvage};
pub use separate::SeparateImage;
pub use text::ParseError;
pub use verify::{Verified, verify, verify_open};
pub use wal::{Replayed, replay_archived};

/// The example of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// The tests in this crate use the test doubles of those outside, which use the name of the crate.
#[cfg(test)]
#[cfg(feature = "fault")]
extern crate self as codex_storage;
#[cfg(test)]
#[cfg(feature = "fault")]
#[path = "../tests/common/seal.rs"]
#[allow(unreachable_pub, reason = "its other users see it as a crate of their own")]
mod toy_seal;
