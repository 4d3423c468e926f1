//! The errors of a store. An error names the cause, the place and the next step.

use std::io;
use std::path::PathBuf;

use crate::value::Codec;

/// The result of each fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason for which an operation of a store failed.
///
/// No variant contains a key or a value, or the message of a decoder, which may quote a value:
/// programs write errors to logs. `Debug` is the name of the variant and the text of `Display`, so
/// a program whose `main` returns an error prints the text.
///
/// ```
/// use codex_core::Store;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.db");
/// let never = Store::options().create(false).open(&path);
/// assert!(never.unwrap_err().is_not_found());
/// let store = Store::open(&path)?;
/// let error = Store::open(&path).unwrap_err();
/// assert!(error.is_locked());
/// assert!(error.to_string().contains("is open in this process"));
/// let error = std::io::Error::from(error);
/// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
/// # drop(store);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the disk, the files or the options. [`StorageError`](crate::StorageError) has
    /// one variant for each cause.
    #[error(transparent)]
    Storage(#[from] codex_storage::Error),
    /// A value could not be encoded, or its encoding would not decode to the same value.
    #[error(
        "a {type_name} cannot be encoded as {codec} for a key of {key_len} bytes: {why}; \
         change the type, or store bytes with `set_bytes`"
    )]
    Encode {
        /// The Rust type of the value.
        type_name: &'static str,
        /// The length of the key, in bytes.
        key_len: usize,
        /// The codec of the store.
        codec: Codec,
        /// The reason of the codec.
        why: &'static str,
    },
    /// A stored value does not decode as the requested type. Most often another type was stored, or
    /// the type has gained or lost a field since.
    #[error(
        "the value of a key of {key_len} bytes, stored as {codec}, does not decode as \
         {type_name}: {why}; read it as the type that was stored, or with `get_bytes`"
    )]
    Decode {
        /// The requested type.
        type_name: &'static str,
        /// The length of the key, in bytes.
        key_len: usize,
        /// The codec with which the value was stored.
        codec: Codec,
        /// The reason of the codec.
        why: &'static str,
    },
    /// A value that was stored as raw bytes was read as a type.
    #[error(
        "the value of a key of {key_len} bytes is raw bytes, not an encoded {type_name}; \
         read it with `get_bytes`"
    )]
    RawValue {
        /// The requested type.
        type_name: &'static str,
        /// The length of the key, in bytes.
        key_len: usize,
    },
    /// A value was stored with a codec that this build does not know.
    #[error(
        "the value of a key of {key_len} bytes was stored with codec {codec_id}, which this build \
         cannot decode as {type_name}; enable the feature `bincode` for codec 1 or `json` for \
         codec 2, or use a newer build"
    )]
    UnknownCodec {
        /// The requested type.
        type_name: &'static str,
        /// The length of the key, in bytes.
        key_len: usize,
        /// The number of the codec.
        codec_id: u8,
    },
    /// The closure of an `update` wrote the key that it updates. The write of the closure is kept,
    /// and the value that the closure returned is not written.
    #[error(
        "the closure of `update` writes the key of {key_len} bytes that it updates; return the \
         new value from the closure instead"
    )]
    UpdatesItself {
        /// The length of the key, in bytes.
        key_len: usize,
    },
    /// Other writers changed the key of an `update`, or something that a transaction read, during
    /// each of its attempts. Nothing was written.
    #[error(
        "{what} changed during each of {rounds} attempts; try again, let fewer threads write it, \
         and write in the closure only through its argument"
    )]
    Contended {
        /// The thing that changed, in words.
        what: &'static str,
        /// The number of attempts.
        rounds: u32,
    },
    /// The commits of async calls that wait for the disk take too much memory. Nothing was written.
    #[error(
        "async commits of {bytes} bytes wait for the disk, and at most {limit} may; await some of \
         them, then try again"
    )]
    Backlog {
        /// The encoded length of the commits that wait, in bytes.
        bytes: usize,
        /// The maximum of it, in bytes.
        limit: usize,
    },
    /// A table or an index has no such name: a name has 1 to 255 bytes, none of them 0.
    #[error(
        "the name of a table or an index has 1 to 255 bytes, none of them 0; this one has {len}"
    )]
    TableName {
        /// The length of the name, in bytes.
        len: usize,
    },
    /// The table was dropped, or is not in the state that is read, or the store is read-only and
    /// does not have it.
    #[error(
        "there is no table `{table}`; if it was dropped or created again, open it with \
         `Store::table`"
    )]
    NoTable {
        /// The name of the table.
        table: String,
    },
    /// There is a table of the name that a table was to get. Nothing was written.
    #[error("there is a table `{table}` already; drop it, or choose another name")]
    TableExists {
        /// The name of the table.
        table: String,
    },
    /// The table has keys of another kind.
    #[error(
        "the keys of the table `{table}` are of the kind {stored}, not {wanted}; open it with keys \
         of that kind"
    )]
    TableKey {
        /// The name of the table.
        table: String,
        /// The kind of the stored keys.
        stored: String,
        /// The kind of the requested keys.
        wanted: String,
    },
    /// Another row of the table has the same key in a unique index. Nothing was written.
    #[error(
        "another row of the table `{table}` has the same key in the unique index `{index}`; give \
         this one another, or remove that row first"
    )]
    NotUnique {
        /// The name of the table.
        table: String,
        /// The name of the index.
        index: String,
    },
    /// The indexes that a handle declares are not those of the table. A write without one of them
    /// would make it incomplete.
    #[error(
        "the table `{table}` has the indexes {stored}, and the handle declares {declared}; open it \
         with all of them by `TableSpec`, or drop those that are not used by `Store::drop_index`"
    )]
    IndexMismatch {
        /// The name of the table.
        table: String,
        /// The indexes of the table, in words.
        stored: String,
        /// The declared indexes, in words.
        declared: String,
    },
    /// The table has no such index, or it is not complete.
    #[error(
        "the table `{table}` has no complete index `{index}` of {keys}; declare it with \
         `TableSpec`, which builds it"
    )]
    NoIndex {
        /// The name of the table.
        table: String,
        /// The name of the index.
        index: String,
        /// The kind of the requested keys.
        keys: String,
    },
    /// A batch cannot write a table with indexes, because it cannot read the earlier values, from
    /// which the changes of the indexes follow.
    #[error(
        "a batch cannot write the table `{table}`, because it has indexes; use \
         `Store::transaction`"
    )]
    NeedsTransaction {
        /// The name of the table.
        table: String,
    },
    /// A record that describes a table was not written by this build or an older one.
    #[error("this build cannot read the record of the table `{table}`; use a newer build")]
    Catalogue {
        /// The name of the table, empty if the record is that of the ids of tables.
        table: String,
    },
    /// A stored key of a table does not decode as the type of its keys.
    #[error(
        "a key of {key_len} bytes does not decode as {type_name}: {why}; open the table with the \
         type of keys with which it was written"
    )]
    DecodeKey {
        /// The type of the keys.
        type_name: &'static str,
        /// The length of the stored key, in bytes.
        key_len: usize,
        /// The reason of the decoder.
        why: &'static str,
    },
    /// A backup, or a copy of one, could not be made, read or restored.
    #[error("{0}")]
    Backup(std::sync::Arc<codex_backup::Error>),
    /// The last backup failed, and the options require backups. Writes are refused until a backup
    /// succeeds.
    #[error(
        "{path}: writes are refused until a backup succeeds; the last one failed: {why}; correct \
         the cause, then write again or call `back_up`"
    )]
    BackupRequired {
        /// The store.
        path: PathBuf,
        /// The error text of the last backup.
        why: String,
    },
    /// A commit has waited too long for the archive, which the options require.
    #[error(
        "{path}: writes are refused until the archive has all commits; one has waited for over \
         {after:?}: {why}; correct the cause, then write again"
    )]
    ArchiveBehind {
        /// The store.
        path: PathBuf,
        /// The longest wait that the options allow.
        after: std::time::Duration,
        /// The error text of the last attempt.
        why: String,
    },
    /// The handle was used in a process that `fork` created, which has no locks and threads of it.
    #[error(
        "{path} was opened by process {opened_by} and is used in its forked child {used_by}; \
         open the store after forking"
    )]
    ForkedChild {
        /// The store.
        path: PathBuf,
        /// The id of the process that opened the store.
        opened_by: u32,
        /// The id of the process that used the handle.
        used_by: u32,
    },
}

codex_storage::debug_as_display!(
    Error: Encode, Decode, RawValue, UnknownCodec, UpdatesItself, Contended, Backlog,
    TableName, NoTable, TableExists, TableKey, NotUnique, IndexMismatch, NoIndex,
    NeedsTransaction, Catalogue, DecodeKey, BackupRequired, ArchiveBehind, ForkedChild;
    Storage, Backup
);

/// The kind is that of the cause: `NotFound`, `WouldBlock` for a store that is open elsewhere,
/// `StorageFull`, `PermissionDenied` for a wrong key or a read-only store, `InvalidData` for damage
/// and for a value of another type; never `Interrupted`. [`io::Error::get_ref`] returns the error.
///
/// ```
/// fn titles() -> std::io::Result<usize> {
///     let store = codex_core::Store::in_memory()?;
///     Ok(store.prefix("title/").count())
/// }
/// # titles().unwrap();
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            Error::Storage(source) => source.io_kind(),
            Error::Backup(source) => source.io_kind(),
            Error::Encode { .. }
            | Error::UpdatesItself { .. }
            | Error::TableName { .. }
            | Error::TableKey { .. }
            | Error::IndexMismatch { .. }
            | Error::NeedsTransaction { .. } => Kind::InvalidInput,
            Error::Decode { .. }
            | Error::RawValue { .. }
            | Error::UnknownCodec { .. }
            | Error::Catalogue { .. }
            | Error::DecodeKey { .. } => Kind::InvalidData,
            Error::NoTable { .. } | Error::NoIndex { .. } => Kind::NotFound,
            Error::NotUnique { .. } | Error::TableExists { .. } => Kind::AlreadyExists,
            Error::Contended { .. } | Error::Backlog { .. } => Kind::ResourceBusy,
            Error::BackupRequired { .. }
            | Error::ArchiveBehind { .. }
            | Error::ForkedChild { .. } => Kind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<codex_backup::Error> for Error {
    fn from(error: codex_backup::Error) -> Self {
        Self::Backup(std::sync::Arc::new(error))
    }
}

impl Error {
    /// Returns true if the write may or may not be on the disk. Recovery decides when the store is
    /// opened again; on a shared store, the next write decides before it begins.
    ///
    /// After any other error the write is not on the disk, and never will be.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_in_doubt())
    }

    /// Returns true if an earlier error makes the store refuse writes until it is opened again.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::Poisoned { .. }))
    }

    /// Returns true if the store was closed.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.close()?;
    /// assert!(store.set("a", &1).is_err_and(|error| error.is_closed()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::Closed { .. }))
    }

    /// Returns true if another handle has the store open. The error text names the process that
    /// holds it, if it is a writer: see [`LockHolder`](crate::vfs::LockHolder).
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// let error = Store::open(&path).expect_err("the store is open");
    /// assert!(error.is_locked());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::Locked { .. }))
    }

    /// Returns true if there is no store at the path, or no folder for it. If there are backups of
    /// a store, [`Backups::restore`](crate::Backups::restore) puts one in its place. Also true if a
    /// requested backup does not exist.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let error = Store::options().create(false).open(&path).expect_err("there is no store");
    /// assert!(error.is_not_found());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_not_found(&self) -> bool {
        use codex_storage::Error as E;
        match self {
            Self::Storage(E::NotFound { .. } | E::OnlyBackups { .. } | E::NoFolder { .. }) => true,
            Self::Backup(error) => matches!(**error, codex_backup::Error::Missing { .. }),
            _ => false,
        }
    }

    /// Returns true if the store or backup is encrypted under another key or passphrase than the
    /// given one.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::crypto::Key;
    /// Store::options().key(Key::raw(&[1; 32])?).open(&path)?.close()?;
    /// let opened = Store::options().key(Key::raw(&[2; 32])?).open(&path);
    /// assert!(opened.is_err_and(|error| error.is_wrong_key()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_wrong_key(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::WrongKey { .. }))
    }

    /// Returns true if the store was opened for reading only, or if it is a backup or a file whose
    /// mode forbids writing.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// Store::open(&path)?.close()?;
    /// let store = Store::options().read_only(true).open(&path)?;
    /// assert!(store.set("a", &1).is_err_and(|error| error.is_read_only()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_read_only(&self) -> bool {
        use codex_storage::Error as E;
        matches!(
            self,
            Self::Storage(E::ReadOnly { .. } | E::FileReadOnly { .. } | E::IsBackup { .. })
        )
    }

    /// Returns true if the disk is full, or the log of a shared store. Nothing was changed.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_no_space())
    }

    /// Returns true if a key, a value or a batch exceeds its limit.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// let key = vec![0; 70_000];
    /// assert!(store.set(key, &1).is_err_and(|error| error.is_too_large()));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn is_too_large(&self) -> bool {
        use codex_storage::RecordError::{BatchTooLarge, KeyTooLong};
        matches!(
            self,
            Self::Storage(codex_storage::Error::Record {
                source: KeyTooLong { .. } | BatchTooLarge { .. },
                ..
            })
        )
    }

    /// Returns true if files are damaged or incomplete, or were changed by another program.
    pub fn is_damage(&self) -> bool {
        use codex_storage::Error as E;
        matches!(
            self,
            Self::Storage(
                E::Damaged { .. }
                    | E::TailSuspect { .. }
                    | E::LogMissing { .. }
                    | E::ImageMissing { .. }
                    | E::Gap { .. }
                    | E::ForeignLog { .. }
                    | E::EmptyFile { .. }
                    | E::NotADatabase { .. }
                    | E::Tampered { .. }
                    | E::AnchorMismatch { .. }
            )
        )
    }
}
