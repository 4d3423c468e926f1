//! The errors of the command line: their texts, the next step, and their exit codes.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

use codex_core::remote::Fault;
use codex_core::{BackupError, Error, Form, StorageError};

/// The exit code if the answer is yes, or the work is done.
pub(crate) const YES: u8 = 0;
/// The exit code if the answer is no.
pub(crate) const NO: u8 = 1;
/// The exit code of a command line that cannot be understood.
pub(crate) const USAGE: u8 = 2;
const OTHER: u8 = 3;
const MISSING: u8 = 4;
const LOCKED: u8 = 5;
const KEY: u8 = 6;
const DAMAGE: u8 = 7;
const NEWER: u8 = 8;
const NO_SPACE: u8 = 9;
const IN_DOUBT: u8 = 10;
/// 128 and the number of the signal `SIGPIPE`, as a shell reports a program that it ended.
const CLOSED_PIPE: u8 = 141;
/// 128 and the number of the signal `SIGINT`.
const INTERRUPTED: u8 = 130;

/// The exit codes, for the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  yes, or done
    1  no: there is no such key, or nothing to remove
    2  the command line cannot be understood, or a value is not JSON
    3  another error, such as one of the disk
    4  there is no store, or no such backup
    5  the store is open elsewhere
    6  the key or passphrase is missing, wrong, or not needed
    7  the files are damaged, or are not of a store
    8  the files need a newer version of this program
    9  the disk is full; nothing was changed
   10  the change may or may not be on the disk: open the store again and look
  130  interrupted by Ctrl-C
  141  the reader of the output was closed";

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, or a value on it, cannot be understood.
    Usage(String),
    /// The key or passphrase cannot be read or used.
    Key(String),
    /// A file that is not one of a store is damaged.
    Damage(String),
    /// A file that is not one of a store is open elsewhere.
    Locked(String),
    /// A file of the user, which is not one of a store, cannot be read or written.
    File { what: String, source: io::Error },
    /// The reader of the output was closed.
    ClosedPipe,
    /// The user pressed Ctrl-C at a prompt, or while a command of the shell ran.
    Interrupted,
    /// A transaction of the shell has read something that was changed before its commit.
    Conflict,
    /// A line of a script failed.
    Line { number: u64, failure: Box<Failure> },
    /// An error of the store.
    Store(Box<Error>),
}

impl Failure {
    /// Returns the error of reading or writing `what`.
    pub(crate) fn file(what: impl fmt::Display, source: io::Error) -> Self {
        Self::File { what: what.to_string(), source }
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Key(_) => KEY,
            Self::Damage(_) => DAMAGE,
            Self::Locked(_) => LOCKED,
            Self::File { .. } | Self::Conflict => OTHER,
            Self::Line { failure, .. } => failure.code(),
            Self::ClosedPipe => CLOSED_PIPE,
            Self::Interrupted => INTERRUPTED,
            Self::Store(error) if error.is_damage() => DAMAGE,
            Self::Store(error) => match &**error {
                Error::Storage(error) => storage_code(error),
                Error::Backup(error) => backup_code(error),
                _ => OTHER,
            },
        }
    }

    /// Returns true if the file at the path is no store.
    pub(crate) fn is_no_store(&self) -> bool {
        use StorageError as E;
        let Self::Store(error) = self else { return false };
        matches!(
            &**error,
            Error::Storage(E::NotADatabase { .. } | E::NotAFile { .. } | E::IsBackup { .. })
        )
    }

    /// Prints the error to stderr: the text of the library, then the command that helps.
    pub(crate) fn print(&self) {
        if matches!(self, Self::ClosedPipe | Self::Interrupted) {
            return;
        }
        let mut stderr = io::stderr().lock();
        // Nobody can be told that stderr is closed.
        let _ = writeln!(stderr, "codexdb: {self}");
        if let Some(next) = self.next_step() {
            let _ = writeln!(stderr, "next: {next}");
        }
    }

    /// Returns the next step in words of the command line, which the library does not know.
    pub(crate) fn next_step(&self) -> Option<&'static str> {
        use StorageError as E;
        let error = match self {
            Self::Store(error) => error,
            Self::Line { failure, .. } => return failure.next_step(),
            _ => return None,
        };
        if let Error::Backup(error) = &**error {
            return match &**error {
                BackupError::Missing { .. } => Some("`codexdb backup list STORE`"),
                BackupError::NeedsKey { .. } => Some(GIVE_KEY),
                BackupError::Remote { fault, .. } => match fault {
                    Fault::Plain => Some("`--plain-objects` allows it"),
                    Fault::Missing => Some("`codexdb backup remote list STORE PLACE`"),
                    Fault::Credentials(_) => {
                        Some("`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or `--keys-file`")
                    }
                    Fault::NoBucket(_) => Some("`--region` and `--endpoint`"),
                    Fault::NoImages => Some("check the place and its prefix"),
                    Fault::NotReached { .. } | Fault::Before { .. } => {
                        Some("`--at COMMIT`, or no `--at` for the last commit")
                    }
                    _ => None,
                },
                _ => None,
            };
        }
        let is_damage = error.is_damage();
        let Error::Storage(error) = &**error else { return None };
        Some(match error {
            E::NotFound { .. } => "check the path, or make a store with `codexdb init STORE`",
            E::OnlyBackups { .. } => "`codexdb backup list STORE` and `codexdb backup restore`",
            E::NoFolder { .. } => "check the path, or `codexdb init --create-folder STORE`",
            E::Locked { .. } => "wait for it with `--wait SECONDS`",
            E::KeyRequired { .. } => GIVE_KEY,
            E::WrongKey { .. } => "check `--passphrase` or `--key`",
            E::NotEncrypted { .. } => "leave out `--passphrase` and `--key`",
            E::RestorePending { .. } => "`codexdb checkpoint STORE` finishes the restore",
            E::NotADatabase { .. } => "check the path: the file is of another program",
            E::WrongForm { wanted: Form::Ledger, .. } => {
                "only a ledger keeps its past; `codexdb convert STORE --form ledger` begins one"
            }
            E::IsBackup { .. } => {
                "`codexdb verify` checks a backup, and `codexdb backup restore` takes it back"
            }
            E::AnchorMismatch { .. } => return None,
            _ if is_damage => {
                "`codexdb backup list STORE` shows the backups to restore, and `codexdb repair \
                 STORE NEW` writes what is intact to a new store"
            }
            _ => return None,
        })
    }
}

/// The next step if a key is missing.
const GIVE_KEY: &str = "`--passphrase ask`, or `--key file:PATH`; see `codexdb help get`";

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Key(text) | Self::Damage(text) | Self::Locked(text) => {
                f.write_str(text)
            }
            Self::File { what, source } => write!(f, "{what}: {source}"),
            Self::ClosedPipe => f.write_str("the reader of the output was closed"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Conflict => f.write_str(
                "something that the transaction has read was changed; nothing was written: read \
                 it again in a new transaction",
            ),
            Self::Line { number, failure } => write!(f, "line {number}: {failure}"),
            Self::Store(error) => match &**error {
                // The text of the library names options of its own.
                Error::Storage(StorageError::NotFound { path }) => {
                    write!(f, "{}: there is no store", path.display())
                }
                error => error.fmt(f),
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Error::from(error).into()
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Error::from(error).into()
    }
}

/// The errors of writing to stdout. All other files have their own errors.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::file("stdout", error),
        }
    }
}

fn storage_code(error: &StorageError) -> u8 {
    use StorageError as E;
    match error {
        E::NotFound { .. } | E::OnlyBackups { .. } | E::NoFolder { .. } => MISSING,
        E::Locked { .. } => LOCKED,
        E::KeyRequired { .. } | E::NotEncrypted { .. } | E::WrongKey { .. } | E::Seal { .. } => KEY,
        E::NewerVersion { .. } | E::Unsupported { .. } => NEWER,
        E::NoSpace { .. } => NO_SPACE,
        E::InDoubt { .. } | E::Poisoned { .. } => IN_DOUBT,
        E::Contradiction(_) | E::BadPath { .. } | E::NotInHistory { .. } => USAGE,
        _ => OTHER,
    }
}

fn backup_code(error: &BackupError) -> u8 {
    use BackupError as E;
    match error {
        E::Missing { .. } => MISSING,
        E::Busy { .. } => LOCKED,
        E::NeedsKey { .. } | E::Unauthentic { .. } => KEY,
        E::Damaged { .. } | E::UnknownFormat { .. } => DAMAGE,
        E::NoSpace { .. } => NO_SPACE,
        E::Remote { fault, .. } => remote_code(fault),
        _ => OTHER,
    }
}

fn remote_code(fault: &Fault) -> u8 {
    match fault {
        Fault::Missing | Fault::NoBucket(_) | Fault::NoImages => MISSING,
        Fault::Truncated { .. }
        | Fault::Altered
        | Fault::BadManifest(_)
        | Fault::NotReached { damage: Some(_), .. } => DAMAGE,
        Fault::NewerFormat => NEWER,
        Fault::Plain
        | Fault::OtherFile
        | Fault::Invalid(_)
        | Fault::NotReached { .. }
        | Fault::Before { .. } => USAGE,
        _ => OTHER,
    }
}
