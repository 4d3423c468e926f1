//! The record of a restore that is under way: what is put in place, and where what it replaces is
//! kept. Written whole, synced and named before the first name moves.
//!
//! Layout, little-endian: `CDXRSTR1`, the body, CRC-32C of all before it. The body: main
//! and origin as strings (length u32, UTF-8), id and mark as byte strings (length u32), seq u64,
//! frozen u8, number of moves u32, for each the old and the new name as strings.
//!
//! The names in a record are used on the disk, so [`Intent::decode`] holds each against the grammar
//! of [`codex_storage::names`]: a forged record moves nothing that a restore would not move.

use std::collections::BTreeSet;

use codex_storage::names::{BackupTemporary, Names, Role};

use crate::inspect::Facts;

/// A restore that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    /// The file being restored.
    pub(crate) main: String,
    /// The backup it is a copy of; empty where it was written by its caller.
    pub(crate) origin: String,
    /// Its version.
    pub(crate) facts: Facts,
    /// What is moved out of the way, old name and new, side files first, the file itself last.
    pub(crate) moves: Vec<(String, String)>,
}

impl Intent {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for text in [&self.main, &self.origin] {
            put(&mut out, text.as_bytes());
        }
        put(&mut out, &self.facts.id);
        put(&mut out, &self.facts.mark);
        out.extend(self.facts.seq.to_le_bytes());
        out.push(u8::from(self.facts.frozen));
        out.extend(length(self.moves.len()).to_le_bytes());
        for (from, to) in &self.moves {
            put(&mut out, from.as_bytes());
            put(&mut out, to.as_bytes());
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the record of a restore of `main`; `Err` says in words what is wrong with it.
    pub(crate) fn decode(names: &Names, bytes: &[u8]) -> Result<Self, &'static str> {
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or("its record is cut short")?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return Err("its record fails its checksum");
        }
        let rest = body.strip_prefix(MAGIC).ok_or("its record is of an unknown version")?;
        let intent = Reader(rest).intent().ok_or("its record is malformed")?;
        if intent.is_sane(names) { Ok(intent) } else { Err(FOREIGN) }
    }

    /// Whether the record touches only names that a restore of this file touches.
    fn is_sane(&self, names: &Names) -> bool {
        let is_origin = self.origin.is_empty() || is_backup(names, &self.origin);
        self.main == names.main()
            && is_origin
            && self.facts.seq <= SEQ_MAX
            && self.moves.len() <= MOVES_MAX
            && self.moves_each_once(names)
    }

    /// Whether only log segments and, last, the file itself are moved, each once, and all to the
    /// names that one restore gives them.
    fn moves_each_once(&self, names: &Names) -> bool {
        let (mut seen, mut number) = (BTreeSet::new(), None);
        self.moves.iter().enumerate().all(|(at, (from, to))| {
            let is_ours = match names.role(from) {
                Some(Role::Segment(_)) => true,
                Some(Role::Main) => at + 1 == self.moves.len(),
                _ => false,
            };
            let Some(Role::Replaced(n)) = names.role(to) else { return false };
            let is_kept = names.replaced(n, from).as_ref() == Some(to);
            is_ours && is_kept && *number.get_or_insert(n) == n && seen.insert(from)
        })
    }
}

/// Whether `name` is that of a backup, numbered or about to be.
pub(crate) fn is_backup(names: &Names, name: &str) -> bool {
    matches!(
        names.role(name),
        Some(Role::Backup(_) | Role::BackupTemporary(BackupTemporary::Ready))
    )
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn intent(mut self) -> Option<Intent> {
        let (main, origin) = (self.text()?, self.text()?);
        let (id, mark) = (self.bytes()?.to_vec(), self.bytes()?.to_vec());
        let seq = u64::from_le_bytes(self.fixed()?);
        let [frozen] = self.fixed()?;
        let count = u32::from_le_bytes(self.fixed()?);
        let mut moves = Vec::new();
        for _ in 0..count {
            // A count that is too high ends the text before it costs anything.
            moves.push((self.text()?, self.text()?));
        }
        let facts = Facts { mark, frozen: frozen != 0, ..Facts::new(id, seq) };
        self.0.is_empty().then_some(Intent { main, origin, facts, moves })
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(u32::from_le_bytes(self.fixed()?)).ok()?;
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(length(bytes.len()).to_le_bytes());
    out.extend(bytes);
}

/// Names and ids are short; a longer one would make a record that does not read back, which the
/// writer finds before anything depends on it.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

const MAGIC: &[u8; 8] = b"CDXRSTR1";
const FOREIGN: &str = "its record names other files";
/// The largest version: as many commits as a store counts.
const SEQ_MAX: u64 = 1 << 62;
/// The most files that one restore moves.
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
            // The lock that is held, and the one of rotations.
            &[("a.db.lock", "a.db.replaced.1.lock"), main],
            &[("a.db.bak.lock", "a.db.replaced.1.bak.lock"), main],
            &[("a.db.bak.restore", "a.db.replaced.1.bak.restore"), main],
            &[("a.db.bak.stage", "a.db.replaced.1.bak.stage"), main],
            &[("a.db.tmp.image", "a.db.replaced.1.tmp.image"), main],
            // What an earlier restore has kept.
            &[("a.db.replaced.1", "a.db.replaced.2.replaced.1"), main],
            // Somebody's file, and another store with its segment.
            &[("a.db.notes", "a.db.replaced.1.notes"), main],
            &[("a.db.wal.1", "a.db.replaced.1.wal.1"), main],
            &[("a.db.x", "a.db.replaced.1.x"), main],
            &[("a.db.x.wal.00000000000000000001", "a.db.replaced.1.x.wal.00000000000000000001")],
            &[("b.db.wal.00000000000000000001", KEPT), main],
            // Twice, under two numbers, in another order.
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
        far.facts.seq = SEQ_MAX + 1;
        assert_refused(&far, "seq");
        let segment = |n| (names("a.db").segment(n), format!("a.db.replaced.1.wal.{n:020}"));
        let many = Intent { moves: (1..=MOVES_MAX as u64 + 1).map(segment).collect(), ..intent() };
        assert_refused(&many, "moves");
    }

    fn assert_refused(bad: &Intent, what: &str) {
        assert_eq!(Intent::decode(&names("a.db"), &bad.encode()), Err(FOREIGN), "{what}");
    }
}
