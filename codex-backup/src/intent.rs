//! The record of a restore in progress: the version that is restored, and the names under which the
//! replaced files are kept. The record is written completely, synced and renamed to its final name
//! before the first file is moved.
//!
//! The record is text, so that a person can read it: a line for each field, as `docs/FORMAT.md`
//! has them. The last one is the CRC-32C of the same text without the digits of it. A record with
//! the same contents in another layout is refused.
//!
//! The names in a record are used on the disk, so [`Intent::decode`] checks each name against the
//! grammar of [`codex_storage::names`]: a forged record moves no file that a restore would not
//! move.

use std::collections::BTreeSet;
use std::mem;

use codex_storage::names::{BackupTemporary, Names, Role};

use crate::inspect::Facts;
use crate::text::{hex, unhex};

/// A restore that has been decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    /// The name of the file that is restored.
    pub(crate) main: String,
    /// The name of the backup it is restored from; empty if the caller produced the bytes.
    pub(crate) origin: String,
    /// The version that is restored.
    pub(crate) facts: Facts,
    /// The files to move away, as old name and new name: log segments first, the file itself last.
    pub(crate) moves: Vec<(String, String)>,
}

impl Intent {
    /// Returns the bytes of the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let facts = &self.facts;
        let mut text = format!(
            "{FORMAT}\nrestoring {}\nfrom {}\nseq {}\nid {}\nmark {}\nread_only {}\n",
            escaped(&self.main),
            escaped(&self.origin),
            facts.seq,
            hex(&facts.id),
            hex(&facts.mark),
            facts.frozen,
        );
        for (from, to) in &self.moves {
            text.extend(["move ", &escaped(from), "\nto ", &escaped(to), "\n"]);
        }
        text += "crc32c ";
        let crc32c = crc32c::crc32c_append(crc32c::crc32c(text.as_bytes()), b"\n");
        [text.as_bytes(), format!("{crc32c:08x}\n").as_bytes()].concat()
    }

    /// Decodes the record of a restore of `names.main()`. The error is the reason for a refusal, in
    /// words.
    pub(crate) fn decode(names: &Names, bytes: &[u8]) -> Result<Self, &'static str> {
        let text = str::from_utf8(bytes).map_err(|_| MALFORMED)?;
        let (version, fields) = text.split_once('\n').ok_or(MALFORMED)?;
        if version != FORMAT {
            return Err("its record is of an unknown version");
        }
        let intent = Self::parse(fields).ok_or(MALFORMED)?;
        // Encoding is deterministic, so equal bytes prove the checksum and the layout.
        if intent.encode() != bytes {
            return Err("its record fails its checksum");
        }
        if intent.is_sane(names) { Ok(intent) } else { Err(FOREIGN) }
    }

    /// Parses the fields. They are not checked, and what follows them is not parsed.
    fn parse(fields: &str) -> Option<Self> {
        let mut fields = Fields(fields.split('\n'));
        let (main, origin) = (fields.file("restoring")?, fields.file("from")?);
        let seq = fields.next("seq")?.parse().ok()?;
        let (id, mark) = (unhex(fields.next("id")?)?, unhex(fields.next("mark")?)?);
        let frozen = fields.next("read_only")?.parse().ok()?;
        let mut moves = Vec::new();
        while let Some(from) = fields.file("move") {
            moves.push((from, fields.file("to")?));
        }
        let facts = Facts { mark, frozen, ..Facts::new(id, seq) };
        Some(Self { main, origin, facts, moves })
    }

    /// Returns whether the record touches only names that a restore of this file touches.
    fn is_sane(&self, names: &Names) -> bool {
        let is_origin = self.origin.is_empty() || is_backup(names, &self.origin);
        self.main == names.main()
            && is_origin
            && self.facts.seq <= SEQ_MAX
            && self.moves.len() <= MOVES_MAX
            && self.moves_each_once(names)
    }

    /// Returns whether the record moves only log segments and then the file itself, each once, and
    /// all to the names that one restore gives them.
    fn moves_each_once(&self, names: &Names) -> bool {
        let (mut seen, mut number) = (BTreeSet::new(), None);
        self.moves.iter().enumerate().all(|(at, (from, to))| {
            // Only log segments, and the file itself as the last entry.
            let is_ours = match names.role(from) {
                Some(Role::Segment(_)) => true,
                Some(Role::Main) => at + 1 == self.moves.len(),
                _ => false,
            };
            // All new names have the same number, and each is the one for its old name.
            let Some(Role::Replaced(n)) = names.role(to) else { return false };
            let is_kept = names.replaced(n, from).as_ref() == Some(to);
            is_ours && is_kept && *number.get_or_insert(n) == n && seen.insert(from)
        })
    }
}

/// Returns whether `name` is the name of a numbered or adoptable backup.
pub(crate) fn is_backup(names: &Names, name: &str) -> bool {
    matches!(
        names.role(name),
        Some(Role::Backup(_) | Role::BackupTemporary(BackupTemporary::Ready))
    )
}

/// The fields of a record, in their order.
struct Fields<'a>(std::str::Split<'a, char>);

impl<'a> Fields<'a> {
    /// Returns the value of the next field if that has the name `name`.
    fn next(&mut self, name: &str) -> Option<&'a str> {
        let field = self.0.clone().next()?.strip_prefix(name)?.strip_prefix(' ')?;
        self.0.next();
        Some(field)
    }

    /// Returns the next field, which is the name of a file.
    fn file(&mut self, name: &str) -> Option<String> {
        let mut escapes = false;
        let chars = self.next(name)?.chars().filter_map(|c| match (mem::take(&mut escapes), c) {
            (false, '\\') => {
                escapes = true;
                None
            }
            (true, 'n') => Some('\n'),
            _ => Some(c),
        });
        Some(chars.collect())
    }
}

/// Returns the name of a file without line breaks.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\n', "\\n")
}

const FORMAT: &str = "codexdb restore 1";
const MALFORMED: &str = "its record is malformed";
const FOREIGN: &str = "its record names other files";
/// The largest version: the maximum number of commits of a store.
const SEQ_MAX: u64 = 1 << 62;
/// The maximum number of files that one restore moves.
pub(crate) const MOVES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn names(name: &str) -> Names {
        Names::new(name, Path::new(name)).unwrap()
    }

    const SEGMENT: &str = "a.db.wal.00000000000000000001";
    const KEPT: &str = "a.db.replaced.1.wal.00000000000000000001";

    fn intent() -> Intent {
        Intent {
            main: "a.db".to_owned(),
            origin: "a.db.bak.2".to_owned(),
            facts: Facts { mark: vec![9; 32], frozen: true, ..Facts::new([1, 2], 77) },
            moves: vec![
                (SEGMENT.to_owned(), KEPT.to_owned()),
                ("a.db".to_owned(), "a.db.replaced.1".to_owned()),
            ],
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        assert_eq!(Intent::decode(&names("a.db"), &intent().encode()), Ok(intent()));
    }

    #[test]
    fn a_record_has_the_names_of_its_files_with_any_character() {
        for name in ["a b", "a\nto b\nmove c", "\\", "a\\nb\n\\", "to x", " "] {
            let main = format!("{name}.db");
            let intent = Intent {
                origin: format!("{main}.bak.1"),
                moves: vec![(main.clone(), format!("{main}.replaced.1"))],
                main,
                ..intent()
            };
            assert_eq!(Intent::decode(&names(&intent.main), &intent.encode()), Ok(intent));
        }
    }

    #[test]
    fn a_record_that_is_cut_or_flipped_anywhere_is_refused() {
        let bytes = intent().encode();
        for at in 0..bytes.len() {
            assert!(Intent::decode(&names("a.db"), &bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Intent::decode(&names("a.db"), &flipped).is_err(), "bit {bit} of {at}");
            }
        }
    }

    #[test]
    fn a_record_that_would_touch_other_files_is_refused() {
        assert!(Intent::decode(&names("b.db"), &intent().encode()).is_err());
        let main = ("a.db", "a.db.replaced.1");
        let forged: &[&[(&str, &str)]] = &[
            &[("../x", "a.db.replaced.1")],
            &[("a.db", "b.db")],
            &[("a.db", "../a.db.replaced.1")],
            &[("a.db", "a.db.replaced.01")],
            &[("a.db", "a.db.replaced.1.x")],
            &[("a.db./x", "a.db.replaced.1./x")],
            &[("a.db.bak.1", "a.db.replaced.1.bak.1"), main],
            // The lock of the file, and the rotation lock.
            &[("a.db.lock", "a.db.replaced.1.lock"), main],
            &[("a.db.bak.lock", "a.db.replaced.1.bak.lock"), main],
            &[("a.db.bak.restore", "a.db.replaced.1.bak.restore"), main],
            &[("a.db.bak.stage", "a.db.replaced.1.bak.stage"), main],
            &[("a.db.tmp.image", "a.db.replaced.1.tmp.image"), main],
            // A file that an earlier restore kept.
            &[("a.db.replaced.1", "a.db.replaced.2.replaced.1"), main],
            // Unrelated files, and another store with its segment.
            &[("a.db.notes", "a.db.replaced.1.notes"), main],
            &[("a.db.wal.1", "a.db.replaced.1.wal.1"), main],
            &[("a.db.x", "a.db.replaced.1.x"), main],
            &[("a.db.x.wal.00000000000000000001", "a.db.replaced.1.x.wal.00000000000000000001")],
            &[("b.db.wal.00000000000000000001", KEPT), main],
            // Moved twice, to two numbers, or in another order.
            &[main, main],
            &[(SEGMENT, KEPT), (SEGMENT, KEPT), main],
            &[(SEGMENT, "a.db.replaced.2.wal.00000000000000000001"), main],
            &[main, (SEGMENT, KEPT)],
        ];
        for moves in forged {
            let own = |(from, to): &(&str, &str)| ((*from).to_owned(), (*to).to_owned());
            let bad = Intent { moves: moves.iter().map(own).collect(), ..intent() };
            assert_refused(&bad, &format!("{moves:?}"));
        }
    }

    #[test]
    fn a_record_of_anything_but_a_backup_or_beyond_what_is_counted_is_refused() {
        for origin in
            ["../other", "a.db", "a.db.lock", "b.db.bak.1", "a.db.bak.stage", "a.db.bak.x"]
        {
            assert_refused(&Intent { origin: origin.to_owned(), ..intent() }, origin);
        }
        for origin in ["", "a.db.bak.1", "a.db.bak.new"] {
            let fair = Intent { origin: origin.to_owned(), ..intent() };
            assert_eq!(Intent::decode(&names("a.db"), &fair.encode()), Ok(fair));
        }
        let mut far = intent();
        far.facts.seq = SEQ_MAX;
        assert_eq!(Intent::decode(&names("a.db"), &far.encode()), Ok(far.clone()));
        far.facts.seq = SEQ_MAX + 1;
        assert_refused(&far, "seq");
        let segment = |n| (names("a.db").segment(n), format!("a.db.replaced.1.wal.{n:020}"));
        let moves = |count: usize| (1..=count as u64).map(segment).collect();
        let most = Intent { moves: moves(MOVES_MAX), ..intent() };
        assert!(Intent::decode(&names("a.db"), &most.encode()).is_ok_and(|read| read == most));
        assert_refused(&Intent { moves: moves(MOVES_MAX + 1), ..intent() }, "moves");
    }

    fn assert_refused(bad: &Intent, what: &str) {
        assert_eq!(Intent::decode(&names("a.db"), &bad.encode()), Err(FOREIGN), "{what}");
    }
}
