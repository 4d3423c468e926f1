//! The names this crate gives to files, and the exact grammar by which it knows them again.
//!
//! For a file `NAME`: backups `NAME.bak.<n>` (decimal, from 1, no leading zero), the lock
//! `NAME.bak.lock`, the record of a restore `NAME.bak.restore`, and temporaries
//! `NAME.bak.<stem>-<16 lower-case hex digits>`. What a restore replaced is `NAME.replaced.<n>`.

use codex_storage::vfs::Vfs;

use crate::error::{Error, Named, Result};

/// What a temporary is for; the stem says what a crash leaves of it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stem {
    /// A backup in the making: worth nothing.
    Making,
    /// A backup that was synced and verified: the next rotation or open adopts it.
    Ready,
    /// What a restore is about to put in place: belongs to the record of the restore, if any.
    Staged,
    /// A copy in the making at its destination: worth nothing.
    Copying,
}

impl Stem {
    const ALL: [Self; 4] = [Self::Making, Self::Ready, Self::Staged, Self::Copying];

    const fn word(self) -> &'static str {
        match self {
            Self::Making => "tmp",
            Self::Ready => "new",
            Self::Staged => "stage",
            Self::Copying => "copy",
        }
    }
}

/// The name of the backup with this index of `name`: `NAME.bak.<index>`.
pub fn backup_name(name: &str, index: u32) -> String {
    format!("{name}.bak.{index}")
}

/// The index of `candidate` among the backups of `name`, if that is exactly what it is by name.
pub fn backup_index(name: &str, candidate: &str) -> Option<u32> {
    let digits = candidate.strip_prefix(name)?.strip_prefix(".bak.")?;
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if canonical { digits.parse().ok() } else { None }
}

/// Whether `candidate` is a name that this crate gives to files of `name` (or of a file whose
/// name is of that kind itself): such a file is restored, not opened for writing.
pub fn is_reserved(candidate: &str) -> bool {
    candidate.match_indices(".bak.").any(|(at, mark)| {
        let (name, tail) = (&candidate.get(..at), candidate.get(at + mark.len()..));
        let (Some(name), Some(tail)) = (name, tail) else { return false };
        !name.is_empty()
            && (backup_index(name, candidate).is_some()
                || stem_of(name, candidate).is_some()
                || tail == "lock"
                || tail == "restore")
    })
}

pub(crate) fn lock_name(name: &str) -> String {
    format!("{name}.bak.lock")
}

pub(crate) fn intent_name(name: &str) -> String {
    format!("{name}.bak.restore")
}

/// The name under which `file` is kept when the `n`-th restore of `name` replaces it. A side file
/// keeps its ending, so that the store it belongs to still opens under its new name.
pub(crate) fn replaced_name(name: &str, n: u32, file: &str) -> String {
    match file.strip_prefix(name) {
        Some(ending) => format!("{name}.replaced.{n}{ending}"),
        None => format!("{name}.replaced.{n}.{file}"),
    }
}

/// The stem of `candidate`, if it is a temporary of `name`.
pub(crate) fn stem_of(name: &str, candidate: &str) -> Option<Stem> {
    let rest = candidate.strip_prefix(name)?.strip_prefix(".bak.")?;
    let (word, digits) = rest.split_once('-')?;
    let hex = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    Stem::ALL.into_iter().find(|stem| hex && stem.word() == word)
}

/// A fresh temporary name.
pub(crate) fn temporary(vfs: &Vfs, name: &str, stem: Stem) -> Result<String> {
    let mut bytes = [0; 8];
    vfs.entropy.fill(&mut bytes).named("draw a random name for", &*vfs.dir, name)?;
    Ok(format!("{name}.bak.{}-{:016x}", stem.word(), u64::from_le_bytes(bytes)))
}

/// The same temporary under another stem.
pub(crate) fn with_stem(name: &str, temporary: &str, stem: Stem) -> String {
    let digits = temporary.rsplit_once('-').map_or("", |(_, digits)| digits);
    format!("{name}.bak.{}-{digits}", stem.word())
}

/// Refuses what is no plain file name.
pub(crate) fn check(name: &str) -> Result<()> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain {
        return Ok(());
    }
    let why = "is not a plain file name; give the name alone and its folder apart";
    Err(Error::Invalid { value: format!("{name:?}"), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_a_canonical_number_and_nothing_else() {
        assert_eq!(backup_index("a.db", "a.db.bak.1"), Some(1));
        assert_eq!(backup_index("a.db", "a.db.bak.4294967295"), Some(u32::MAX));
        for other in ["0", "01", "+1", "1 ", "", "1.bak.1", "4294967296", "lock", "x", "１"] {
            assert_eq!(backup_index("a.db", &format!("a.db.bak.{other}")), None, "{other}");
        }
        assert_eq!(backup_index("a.db", "ba.db.bak.1"), None);
        assert_eq!(backup_index("a", "a.db.bak.1"), None);
    }

    #[test]
    fn a_name_that_is_a_prefix_of_another_claims_nothing_of_it() {
        assert_eq!(backup_index("a.db", "a.db.bak.1.bak.1"), None);
        assert_eq!(backup_index("a.db.bak.1", "a.db.bak.1.bak.1"), Some(1));
        assert_eq!(stem_of("a.db", "a.db.bak.1.bak.tmp-0123456789abcdef"), None);
        assert_eq!(stem_of("a.db", "a.db.bak.tmp-0123456789abcdef"), Some(Stem::Making));
        assert_eq!(stem_of("a.db", "a.db.bak.new-0123456789abcdeF"), None);
        assert_eq!(stem_of("a.db", "a.db.bak.new-0123456789abcde"), None);
    }

    #[test]
    fn reserved_names_are_recognised_at_any_depth() {
        for name in ["a.bak.1", "a.bak.1.bak.2", "a.bak.lock", "a.bak.restore"] {
            assert!(is_reserved(name), "{name}");
        }
        assert!(is_reserved("a.bak.tmp-0123456789abcdef"));
        for name in ["a.db", "a.bak", ".bak.1", "a.bak.x", "a.bak.01", "a.replaced.1"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn a_replaced_side_file_keeps_its_ending() {
        assert_eq!(replaced_name("a.db", 2, "a.db"), "a.db.replaced.2");
        assert_eq!(replaced_name("a.db", 2, "a.db.wal.007"), "a.db.replaced.2.wal.007");
        assert_eq!(replaced_name("a.db", 2, "other"), "a.db.replaced.2.other");
    }

    #[test]
    fn paths_are_not_names() {
        for bad in ["", ".", "..", "a/b", "/a", "a\0"] {
            assert!(matches!(check(bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
        assert!(check("..a").is_ok());
    }
}
