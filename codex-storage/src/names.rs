//! The names of all files of a store and of its backups. They follow one grammar and are matched
//! exactly.
//!
//! Each name is the name of the store, followed by one of these endings:
//!
//! ```text
//! (none)                          the image or the ledger
//! .lock                           the advisory lock
//! .wal.<20 digits>                a log segment, by its generation, from 1
//! .tmp.<word>                     a temporary file, see `Temporary`
//! .bak.<n>                        a backup; 1 is the newest
//! .bak.lock                       the lock of rotations, restores and copies to this name
//! .bak.restore                    the record of a restore that was decided
//! .bak.tmp .new .stage .copy      a temporary file of backups, see `BackupTemporary`
//! .replaced.<n>                   a store that a restore replaced, under a name of its own
//! .replaced.<n>.wal.<20 digits>   a log segment of a replaced store
//! ```
//!
//! Numbers are decimal, without a sign and, except for the 20 digits, without leading zeros. A file
//! whose name only resembles one of these does not belong to the store and is never touched.

use std::path::Path;

use crate::error::{Error, Result};

/// The names of the files of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    base: String,
}

/// The role of a file in the folder of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The image or the ledger.
    Main,
    /// A log segment of this generation.
    Segment(u64),
    /// The file that carries the advisory lock.
    Lock,
    /// A file that was not completed. The next open for writing removes it.
    Temporary(Temporary),
    /// The backup with this index; 1 is the newest.
    Backup(u32),
    /// The file that carries the lock of rotations, restores and copies to this name.
    BackupLock,
    /// The record of a restore that was decided. The next open for writing finishes the restore.
    RestoreRecord,
    /// A backup that was not completed. The next rotation or open adopts or removes it.
    BackupTemporary(BackupTemporary),
    /// A file that the restore with this number replaced. The main file and the segments of one
    /// restore are a store under a name of its own.
    Replaced(u32),
}

/// A temporary file of the store. Each kind has one name, which the lock of the store protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Temporary {
    /// An image.
    Image,
    /// A ledger.
    Ledger,
    /// A log segment.
    Segment,
    /// A log that is sealed again under a new root key.
    Rekey,
    /// The result of a conversion.
    Convert,
    /// A ledger that ends at an earlier point.
    Earlier,
}

/// A temporary file of backups. Each kind has one name, which the lock of rotations protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupTemporary {
    /// A backup or a record that is being written. It is removed after a crash.
    Making,
    /// A backup that was synced and verified. The next rotation or open adopts it.
    Ready,
    /// A file that a restore is about to rename into place. It belongs to the record of the
    /// restore, if there is one.
    Staged,
    /// A copy to this name that is being written. It is removed after a crash.
    Copying,
}

impl Temporary {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Image, Self::Ledger, Self::Segment, Self::Rekey, Self::Convert, Self::Earlier];

    const fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Ledger => "ledger",
            Self::Segment => "segment",
            Self::Rekey => "rekey",
            Self::Convert => "convert",
            Self::Earlier => "earlier",
        }
    }
}

impl BackupTemporary {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Making, Self::Ready, Self::Staged, Self::Copying];

    const fn word(self) -> &'static str {
        match self {
            Self::Making => "tmp",
            Self::Ready => "new",
            Self::Staged => "stage",
            Self::Copying => "copy",
        }
    }
}

impl Names {
    /// Returns the names for the store `base`; `path` is its path in error texts. `base` may be the
    /// name of a backup ([`is_backup`](Self::is_backup)), which is never written.
    ///
    /// # Errors
    /// `BadPath` if `base` is not a plain file name, if it is too long for the longest ending, if
    /// it is the name of a lock, a segment or a temporary file of a store, or if files of this
    /// store could be mistaken for files of another one.
    pub fn new(base: &str, path: &Path) -> Result<Self> {
        let bad = |why| Err(Error::BadPath { path: path.to_owned(), why });
        if matches!(base, "" | "." | "..") || base.contains(['/', '\0']) {
            return bad("this is no file name; name a file in an existing folder");
        }
        if base.len() > BASE_LEN_MAX {
            return bad("the file name is too long; use at most 210 bytes");
        }
        if let Some(why) = endings(base).find_map(refusal) {
            return bad(why);
        }
        Ok(Self { base: base.to_owned() })
    }

    /// Returns the names for a file that is written under a temporary name, without the checks of
    /// [`new`](Self::new).
    pub(crate) fn staged(base: &str) -> Self {
        Self { base: base.to_owned() }
    }

    /// Returns the name of the image or the ledger, which is the name of the store.
    pub fn main(&self) -> &str {
        &self.base
    }

    /// Returns the name of the log segment `generation`.
    pub fn segment(&self, generation: u64) -> String {
        format!("{}.wal.{generation:020}", self.base)
    }

    /// Returns the name of the file that carries the advisory lock.
    pub fn lock(&self) -> String {
        format!("{}.lock", self.base)
    }

    /// Returns the name of a temporary file of the store.
    pub fn temporary(&self, what: Temporary) -> String {
        format!("{}.tmp.{}", self.base, what.word())
    }

    /// Returns the name of the backup with this index; 1 is the newest.
    pub fn backup(&self, index: u32) -> String {
        format!("{}.bak.{index}", self.base)
    }

    /// Returns the name of the file that carries the lock of rotations, restores and copies to this
    /// name.
    pub fn backup_lock(&self) -> String {
        format!("{}.bak.lock", self.base)
    }

    /// Returns the name of the record of a restore that was decided.
    pub fn restore_record(&self) -> String {
        format!("{}.bak.restore", self.base)
    }

    /// Returns the name of a temporary file of backups.
    pub fn backup_temporary(&self, what: BackupTemporary) -> String {
        format!("{}.bak.{}", self.base, what.word())
    }

    /// Returns the name under which `file` is kept if the `n`-th restore replaces it. The ending of
    /// `file` is kept, so that the replaced store can be opened under its new name. Returns `None`
    /// if `file` is not the name of the store, or that name followed by an ending.
    pub fn replaced(&self, n: u32, file: &str) -> Option<String> {
        let ending = file.strip_prefix(self.base.as_str())?;
        let is_ours = ending.is_empty() || ending.starts_with('.');
        is_ours.then(|| format!("{}.replaced.{n}{ending}", self.base))
    }

    /// Returns true if the name of the store is that of a backup, which is never written.
    pub fn is_backup(&self) -> bool {
        self.of_backup().is_some()
    }

    /// Returns the names of the store to which this backup belongs, or `None` if this is not a
    /// backup.
    pub(crate) fn of_backup(&self) -> Option<Self> {
        let mut endings = endings(&self.base);
        let ending = endings.find(|ending| matches!(role_of(ending), Some(Role::Backup(_))))?;
        Some(Self { base: self.base.strip_suffix(ending)?.to_owned() })
    }

    /// Returns the role of the file `name` for this store, or `None` if the file does not belong to
    /// it.
    pub fn role(&self, name: &str) -> Option<Role> {
        role_of(name.strip_prefix(self.base.as_str())?)
    }
}

/// Returns the index of `candidate` among the backups of `name`, or `None` if `candidate` is not
/// exactly the name of a backup.
pub fn backup_index(name: &str, candidate: &str) -> Option<u32> {
    match role_of(candidate.strip_prefix(name)?) {
        Some(Role::Backup(index)) => Some(index),
        _ => None,
    }
}

/// Returns the endings with which `name` could continue the name of another store.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    // A name can contain several dots, and each of them can begin an ending.
    let dots = name.match_indices('.').filter(|&(at, _)| at > 0);
    dots.map(|(at, _)| name.split_at(at).1)
}

/// Returns the reason for which a store must not have a name that continues the name of another
/// store with `ending`, or `None` if the name is allowed.
fn refusal(ending: &str) -> Option<&'static str> {
    match role_of(ending) {
        Some(Role::Segment(_)) => Some("this is a log segment; open the store it belongs to"),
        Some(Role::Lock | Role::BackupLock) => {
            Some("this is a lock file; open the store it belongs to")
        }
        Some(Role::Temporary(_) | Role::BackupTemporary(_)) => {
            Some("this is a temporary file of a store; open the store it belongs to")
        }
        Some(Role::RestoreRecord) => {
            Some("this is the record of a restore; open the store it belongs to")
        }
        Some(Role::Main | Role::Backup(_) | Role::Replaced(_)) => None,
        None => {
            // Compares one name of each rule: if this store's lock, for example, had a role for the
            // other store, then the files of both could not be distinguished.
            let clashes = |own: &&str| role_of(&format!("{ending}{own}")).is_some();
            ENDINGS.iter().any(clashes).then_some(
                "files of a store of this name would be taken for files of the store without the \
                 ending (as `app.db.bak.lock`); choose a name with another ending",
            )
        }
    }
}

/// Returns the role of a file whose name continues that of its store with `ending`.
fn role_of(ending: &str) -> Option<Role> {
    if ending.is_empty() {
        return Some(Role::Main);
    }
    // All other endings begin with a dot. The one without a second part is the lock.
    let rest = ending.strip_prefix('.')?;
    if rest == "lock" {
        return Some(Role::Lock);
    }
    let (kind, tail) = rest.split_once('.')?;
    match kind {
        "wal" => generation(tail).map(Role::Segment),
        "tmp" => Temporary::ALL.into_iter().find(|what| what.word() == tail).map(Role::Temporary),
        "bak" => match tail {
            "lock" => Some(Role::BackupLock),
            "restore" => Some(Role::RestoreRecord),
            _ => {
                let words = BackupTemporary::ALL.into_iter();
                let part = words.map(|what| (what, what.word())).find(|(_, word)| *word == tail);
                part.map(|(what, _)| Role::BackupTemporary(what))
                    .or_else(|| number(tail).map(Role::Backup))
            }
        },
        // A replaced segment has both numbers; they are checked like those of other names.
        "replaced" => match tail.split_once(".wal.") {
            Some((n, digits)) => generation(digits).and(number(n)).map(Role::Replaced),
            None => number(tail).map(Role::Replaced),
        },
        _ => None,
    }
}

/// Parses the generation of a log segment: 20 digits, from 1.
fn generation(digits: &str) -> Option<u64> {
    let generation = decimal(digits)?;
    (digits.len() == 20 && generation > 0).then_some(generation)
}

/// Parses a number from 1 without a leading zero.
fn number(digits: &str) -> Option<u32> {
    decimal(digits).filter(|_| !digits.starts_with('0'))
}

/// Parses digits only. `str::parse` would also accept a sign.
fn decimal<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// One ending for each rule of the grammar.
const ENDINGS: [&str; 9] = [
    ".lock",
    ".wal.00000000000000000001",
    ".tmp.image",
    ".bak.1",
    ".bak.lock",
    ".bak.restore",
    ".bak.tmp",
    ".replaced.1",
    ".replaced.1.wal.00000000000000000001",
];
/// The maximum length of the name of a store, in bytes: that of a file name on common file systems,
/// less the longest ending.
const BASE_LEN_MAX: usize = 255 - ".replaced.4294967295.wal.18446744073709551615".len();

#[cfg(test)]
mod tests {
    use super::*;

    fn names(base: &str) -> Names {
        Names::new(base, Path::new(base)).unwrap()
    }

    fn refused(base: &str) -> &'static str {
        match Names::new(base, Path::new(base)) {
            Err(Error::BadPath { why, .. }) => why,
            other => panic!("{base}: {other:?}"),
        }
    }

    /// Returns a name of each kind, each as long as it can be.
    fn all(names: &Names) -> Vec<(String, Role)> {
        let segment = names.segment(u64::MAX);
        let replaced = |file| names.replaced(u32::MAX, file).unwrap();
        let mut all = vec![
            (names.main().to_owned(), Role::Main),
            (segment.clone(), Role::Segment(u64::MAX)),
            (names.lock(), Role::Lock),
            (names.backup(u32::MAX), Role::Backup(u32::MAX)),
            (names.backup_lock(), Role::BackupLock),
            (names.restore_record(), Role::RestoreRecord),
            (replaced(names.main()), Role::Replaced(u32::MAX)),
            (replaced(&segment), Role::Replaced(u32::MAX)),
        ];
        all.extend(Temporary::ALL.map(|it| (names.temporary(it), Role::Temporary(it))));
        let of_backups = BackupTemporary::ALL;
        all.extend(of_backups.map(|it| (names.backup_temporary(it), Role::BackupTemporary(it))));
        all
    }

    #[test]
    fn every_name_of_the_longest_store_fits_and_is_recognised_as_what_it_is() {
        let longest = names(&"n".repeat(210));
        let all_names = all(&longest);
        for (name, role) in &all_names {
            assert!(name.len() <= 255, "{name}");
            assert_eq!(longest.role(name), Some(*role), "{name}");
        }
        assert_eq!(all_names.iter().map(|(name, _)| name.len()).max(), Some(255));
        assert!(refused(&"n".repeat(211)).contains("210 bytes"));
        let short = names("app.db");
        assert_eq!(short.segment(7), "app.db.wal.00000000000000000007");
        for (name, role) in all(&short) {
            assert_eq!(short.role(&name), Some(role), "{name}");
        }
    }

    #[test]
    fn names_that_only_resemble_ours_are_left_alone() {
        let names = names("app.db");
        let others = [
            "app.dbx",
            "app.db2.lock",
            "my.app.db",
            "app.db.wal.7",
            "app.db.wal.000000000000000000007",
            "app.db.wal.00000000000000000000",
            "app.db.wal.0000000000000000000a",
            "app.db.wal.+0000000000000000007",
            "app.db.wal.99999999999999999999",
            "app.db.bak.0",
            "app.db.bak.01",
            "app.db.bak.",
            "app.db.bak.1.old",
            "app.db.bak.+1",
            "app.db.bak.4294967296",
            "app.db.bak.１",
            "app.db.bak.1.bak.1",
            "app.db.bak.tmp.3",
            "app.db.bak.tmp-0123456789abcdef",
            "app.db.bak.copy-notes",
            "app.db.bak.new.1",
            "app.db.replaced.0",
            "app.db.replaced.1.lock",
            "app.db.replaced.1.wal.7",
            "app.db.tmp.",
            "app.db.tmp.notes",
            "app.db.tmp.image2",
            "app.db.locked",
            "app.db.lock.",
            "app.db.tmp",
            "",
        ];
        for name in others {
            assert_eq!(names.role(name), None, "{name}");
        }
        assert_eq!(backup_index("a", "a.db.bak.1"), None);
        assert_eq!(backup_index("a.db", "ba.db.bak.1"), None);
        assert_eq!(backup_index("a.db", "a.db.bak.4294967295"), Some(u32::MAX));
    }

    #[test]
    fn a_companion_of_a_store_is_no_store_and_a_backup_is_known() {
        for (name, role) in all(&names("a.b")) {
            let is_store =
                matches!(role, Role::Main | Role::Backup(_)) || name == "a.b.replaced.4294967295";
            assert_eq!(Names::new(&name, Path::new(&name)).is_ok(), is_store, "{name}");
        }
        for name in ["", "..", "a/b", "a.wal.00000000000000000001", "a.b.bak.restore"] {
            refused(name);
        }
        assert!(names("app.db.bak.3").is_backup());
        assert!(!names("app.db").is_backup());
        assert!(!names("app.bak.3x").is_backup());
        assert!(!names(".lock").is_backup(), "a store may have no more than an ending as its name");
    }

    #[test]
    fn no_file_of_a_store_can_be_taken_for_a_file_of_another() {
        let ends = ["", ".lock", ".wal", ".tmp", ".bak", ".replaced", ".image", ".1", ".new"];
        let mut stores = Vec::new();
        for (one, two) in ends.iter().flat_map(|one| ends.map(|two| (one, two))) {
            let name = format!("a{one}{two}");
            stores.extend(Names::new(&name, Path::new(&name)).ok().filter(|it| !it.is_backup()));
        }
        assert!(stores.len() > 30, "{}", stores.len());
        for (one, two) in stores.iter().flat_map(|one| stores.iter().map(move |two| (one, two))) {
            for (name, role) in all(one) {
                let theirs = two.role(&name).filter(|_| one != two);
                // A replaced store is a store of its own, whose name continues that of the old
                // store.
                let is_replaced = matches!(theirs, Some(Role::Replaced(_)));
                assert!(theirs.is_none() || is_replaced, "{name}: {role:?} and {theirs:?}");
            }
        }
        assert!(refused("app.db.bak").contains("another ending"));
    }

    #[test]
    fn a_replaced_side_file_keeps_its_ending() {
        let names = names("a.db");
        assert_eq!(names.replaced(2, "a.db").unwrap(), "a.db.replaced.2");
        assert_eq!(names.replaced(2, "a.db.wal.007").unwrap(), "a.db.replaced.2.wal.007");
        assert_eq!(names.replaced(2, "a.dbx"), None);
        assert_eq!(names.replaced(2, "other"), None);
    }
}
