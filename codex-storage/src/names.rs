//! The names of the files of a store: derived from its own name, matched exactly.

use std::path::Path;

use crate::error::{Error, Result};

/// The names that belong to the store `base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    base: String,
}

/// What a file name in the folder of a store is to that store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The image or the ledger.
    Main,
    /// A log segment of this generation.
    Segment(u64),
    /// The file that carries the advisory lock.
    Lock,
    /// A backup, from 1, the newest.
    Backup(u32),
    /// A file being written; the next open for writing removes it.
    Temporary,
    /// A backup being written; the next rotation or open adopts or removes it.
    BackupTemporary,
}

impl Names {
    /// The names around the store `base`, whose path is `path` in messages.
    ///
    /// # Errors
    /// `BadPath` for what is no plain file name, for a name without room for the longest suffix,
    /// and for the name of a lock, a segment or a temporary file of a store.
    pub(crate) fn new(base: &str, path: &Path) -> Result<Self> {
        let bad = |why| Err(Error::BadPath { path: path.to_owned(), why });
        if matches!(base, "" | "." | "..") || base.contains(['/', '\0']) {
            return bad("this is no file name; name a file in an existing folder");
        }
        if base.len() > BASE_LEN_MAX {
            return bad("the file name is too long; use at most 220 bytes");
        }
        match companion(base) {
            None | Some(Role::Main | Role::Backup(_)) => Ok(Self { base: base.to_owned() }),
            Some(Role::Segment(_)) => bad("this is a log segment; open the store it belongs to"),
            Some(Role::Lock) => bad("this is a lock file; open the store it belongs to"),
            Some(Role::Temporary | Role::BackupTemporary) => {
                bad("this is a temporary file of a store; open the store it belongs to")
            }
        }
    }

    /// The names around a file that is being made under a temporary name.
    pub(crate) fn staged(base: &str) -> Self {
        Self { base: base.to_owned() }
    }

    /// The image or the ledger: the store's own name.
    pub(crate) fn main(&self) -> &str {
        &self.base
    }

    /// The log segment `generation`.
    pub(crate) fn segment(&self, generation: u64) -> String {
        format!("{}{SEGMENT}{generation:020}", self.base)
    }

    /// The file that carries the advisory lock.
    pub(crate) fn lock(&self) -> String {
        format!("{}{LOCK}", self.base)
    }

    /// The temporary name of a file that will be a `what`, as `image`.
    pub(crate) fn temporary(&self, what: &str) -> String {
        format!("{}{TEMPORARY}{what}", self.base)
    }

    /// Whether the store's own name is that of a backup, which is only ever read.
    pub(crate) fn is_backup(&self) -> bool {
        matches!(companion(&self.base), Some(Role::Backup(_)))
    }

    /// What the file `name` is to this store; `None` for what does not belong to it.
    pub(crate) fn role(&self, name: &str) -> Option<Role> {
        suffix_role(name.strip_prefix(self.base.as_str())?)
    }
}

/// What `name` would be to the store that it derives from, whichever that is.
fn companion(name: &str) -> Option<Role> {
    // A name can hold several dots: each could end the name of the store.
    name.match_indices('.').filter(|&(at, _)| at > 0).find_map(|(at, _)| {
        let (_, suffix) = name.split_at(at);
        suffix_role(suffix)
    })
}

/// What a file is whose name continues that of its store with `suffix`.
fn suffix_role(suffix: &str) -> Option<Role> {
    if suffix.is_empty() {
        return Some(Role::Main);
    }
    if suffix == LOCK {
        return Some(Role::Lock);
    }
    if let Some(digits) = suffix.strip_prefix(SEGMENT) {
        let generation: u64 = decimal(digits)?;
        return (digits.len() == 20 && generation > 0).then_some(Role::Segment(generation));
    }
    if let Some(digits) = suffix.strip_prefix(BACKUP) {
        if is_backup_temporary(digits) {
            return Some(Role::BackupTemporary);
        }
        let number: u32 = decimal(digits)?;
        return (number > 0 && !digits.starts_with('0')).then_some(Role::Backup(number));
    }
    let what = suffix.strip_prefix(TEMPORARY)?;
    (!what.is_empty()).then_some(Role::Temporary)
}

/// Whether `tail` is what rotation puts behind [`BACKUP`] for what it has in the making.
fn is_backup_temporary(tail: &str) -> bool {
    let Some((word, hex)) = tail.split_once('-') else { return false };
    let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    ["tmp", "new", "stage", "copy"].contains(&word) && hex.len() == 16 && hex.bytes().all(is_hex)
}

/// `str::parse` takes a sign, which no name of ours has.
fn decimal<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

const LOCK: &str = ".lock";
const SEGMENT: &str = ".wal.";
const BACKUP: &str = ".bak.";
const TEMPORARY: &str = ".tmp.";
/// The longest name of a file, less the longest suffix with room to spare.
const BASE_LEN_MAX: usize = 220;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(base: &str) -> Names {
        Names::new(base, Path::new(base)).unwrap()
    }

    #[test]
    fn names_derive_from_the_store_and_are_recognised_exactly() {
        let names = names("app.db");
        assert_eq!(names.segment(7), "app.db.wal.00000000000000000007");
        let mine = [
            ("app.db".to_owned(), Role::Main),
            (names.segment(7), Role::Segment(7)),
            (names.segment(u64::MAX), Role::Segment(u64::MAX)),
            (names.lock(), Role::Lock),
            ("app.db.bak.1".to_owned(), Role::Backup(1)),
            ("app.db.bak.120".to_owned(), Role::Backup(120)),
            (names.temporary("image"), Role::Temporary),
            ("app.db.bak.tmp-0123456789abcdef".to_owned(), Role::BackupTemporary),
            ("app.db.bak.new-0123456789abcdef".to_owned(), Role::BackupTemporary),
            ("app.db.bak.stage-0123456789abcdef".to_owned(), Role::BackupTemporary),
            ("app.db.bak.copy-0123456789abcdef".to_owned(), Role::BackupTemporary),
        ];
        for (name, role) in mine {
            assert_eq!(names.role(&name), Some(role), "{name}");
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
            "app.db.tmp.",
            "app.db.bak.tmp.3",
            "app.db.bak.tmp-0123456789abcdeF",
            "app.db.bak.old-0123456789abcdef",
            "app.db.locked",
            "app.db.tmp",
            "",
        ];
        for name in others {
            assert_eq!(names.role(name), None, "{name}");
        }
    }

    #[test]
    fn a_companion_of_a_store_is_no_store_and_a_backup_is_known() {
        for name in ["a.lock", "a.wal.00000000000000000001", "a.tmp.x", "", ".."] {
            let refused = Names::new(name, Path::new(name));
            assert!(matches!(refused, Err(Error::BadPath { .. })), "{name}");
        }
        assert!(names("app.db.bak.3").is_backup());
        assert!(!names("app.db").is_backup());
        assert!(!names("app.bak.3x").is_backup());
        assert!(!names(".lock").is_backup(), "a store may have no more than a suffix as its name");
        assert!(Names::new(&"n".repeat(221), Path::new("n")).is_err());
    }
}
