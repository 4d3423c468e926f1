//! A small file format with an identity, a version and a checksum, and stores made of it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

pub mod sim;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use codex_backup::vfs::{Dir, File, Mode, Open, Vfs};
use codex_backup::{
    Backups, Depth, Error, Facts, Inspect, InspectError, Options, Prefix, Reading, Source, Trust,
    unwatched,
};

/// The inspector of a card: `CARD`, id 4 bytes, seq u64, body length u32, body, CRC-32C of all.
#[derive(Debug, Clone, Copy)]
pub struct Card;

/// The id of the store that most tests use.
pub const OURS: [u8; 4] = *b"ours";
pub const THEIRS: [u8; 4] = *b"them";

/// Returns the bytes of a card. The body differs between versions, in every sector.
pub fn card(id: [u8; 4], seq: u64, body_len: usize) -> Vec<u8> {
    let mut bytes = b"CARD".to_vec();
    bytes.extend(id);
    bytes.extend(seq.to_le_bytes());
    bytes.extend(u32::try_from(body_len).unwrap().to_le_bytes());
    bytes.extend(
        (0..body_len).map(|at| u8::try_from((at as u64 * 31 + seq * 7) % 251).unwrap() | 1),
    );
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

impl Inspect for Card {
    fn identity(&self, file: &Arc<dyn File>) -> Result<Vec<u8>, InspectError> {
        let mut head = [0; 8];
        if file.len()? < 8 {
            return Err(InspectError::UnknownFormat { what: "too short for a card".to_owned() });
        }
        file.read_exact_at(&mut head, 0)?;
        if !head.starts_with(b"CARD") {
            return Err(InspectError::UnknownFormat { what: "no card".to_owned() });
        }
        Ok(head[4..].to_vec())
    }

    fn facts(
        &self,
        file: &Arc<dyn File>,
        _reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        let id = self.identity(file)?;
        let size = file.len()?;
        let damaged = |offset, what: &str| InspectError::Damaged { offset, what: what.to_owned() };
        if size < 24 {
            return Err(damaged(size, "cut short"));
        }
        let mut rest = [0; 12];
        file.read_exact_at(&mut rest, 8)?;
        let seq = u64::from_le_bytes(rest[..8].try_into().unwrap());
        let body = u64::from(u32::from_le_bytes(rest[8..].try_into().unwrap()));
        if size != 24 + body {
            return Err(damaged(size, "of the wrong length"));
        }
        let mut sum = [0; 4];
        file.read_exact_at(&mut sum, size - 4)?;
        let mut facts = Facts::new(id, seq);
        facts.mark = sum.to_vec();
        facts.time_us = Some(i64::try_from(seq).unwrap_or(0));
        "card".clone_into(&mut facts.form);
        facts.frozen = true;
        facts.size = size;
        Ok(facts)
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        _depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        let facts = self.facts(file, reading)?;
        let mut bytes = vec![0; usize::try_from(facts.size).unwrap()];
        let mut read = 0;
        for chunk in bytes.chunks_mut(256 << 10) {
            file.read_exact_at(chunk, read)?;
            read += chunk.len() as u64;
            if reading(read).is_break() {
                return Err(InspectError::Stopped);
            }
        }
        let (body, sum) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(body).to_le_bytes() != sum {
            return Err(InspectError::Damaged { offset: 0, what: "checksum".to_owned() });
        }
        Ok(facts)
    }
}

/// An inspector with a key. Cards with a `seq` of 1,000 or more are not authentic under it.
#[derive(Debug, Default)]
pub struct Keyed {
    /// The depths of all verifications so far.
    pub verified: Mutex<Vec<Depth>>,
}

impl Inspect for Keyed {
    fn identity(&self, file: &Arc<dyn File>) -> Result<Vec<u8>, InspectError> {
        Card.identity(file)
    }

    fn trust(&self, file: &Arc<dyn File>) -> Result<Trust, InspectError> {
        let seq = Card.facts(file, &mut |_| ControlFlow::Continue(()))?.seq;
        Ok(if seq < 1_000 { Trust::Authentic } else { Trust::Plain })
    }

    fn facts(
        &self,
        file: &Arc<dyn File>,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        Card.facts(file, reading)
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        if !self.trust(file)?.counts() {
            return Err(InspectError::Unauthentic { what: "planted".to_owned() });
        }
        self.verified.lock().unwrap().push(depth);
        Card.verify(file, depth, reading)
    }

    fn deepest(&self) -> Depth {
        Depth::Full
    }
}

/// Writes a complete, durable file under a name, replacing the file that has it.
pub fn put(dir: &dyn Dir, name: &str, bytes: &[u8]) {
    if dir.metadata(name).unwrap().is_some() {
        dir.remove(name).unwrap();
    }
    let file = dir.open(name, Open::CreateNew(Mode::Frozen)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    dir.sync().unwrap();
}

/// Replaces a file in the way a store replaces its image.
pub fn replace(dir: &dyn Dir, name: &str, bytes: &[u8]) {
    put(dir, "image.next", bytes);
    dir.rename("image.next", name).unwrap();
    dir.sync().unwrap();
}

pub fn bytes(dir: &dyn Dir, name: &str) -> Vec<u8> {
    let file = dir.open(name, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub fn names(dir: &dyn Dir) -> Vec<String> {
    let mut names = dir.list().unwrap();
    names.sort();
    names
}

pub fn options(keep: u32) -> Options {
    Options { keep, ..Options::default() }
}

pub fn backups(vfs: &Vfs, name: &str, keep: u32) -> Backups {
    Backups::new(vfs.clone(), name, Arc::new(Card), options(keep)).unwrap()
}

/// Returns the live file as a source.
pub fn main_of<'a>(vfs: &Vfs, name: &'a str) -> Source<'a> {
    Source::open(vfs, name).unwrap()
}

/// Returns the first `len` bytes of a file that may change in place as a source.
pub fn prefix_of<'a>(vfs: &Vfs, name: &'a str, len: u64) -> Source<'a> {
    let file = vfs.dir.open(name, Open::Read).unwrap();
    Source::File { name, file: Arc::new(Prefix::new(file, len)) }
}

/// Gives the store a new version, then rotates.
pub fn advance(backups: &Backups, vfs: &Vfs, seq: u64) -> Result<codex_backup::Rotated, Error> {
    replace(&*vfs.dir, backups.name(), &card(OURS, seq, 40));
    backups.rotate(main_of(vfs, backups.name()), None, &mut unwatched)
}

/// Returns the versions of the complete backups with their index, newest first.
pub fn versions(vfs: &Vfs, name: &str) -> Vec<(u32, u64)> {
    let mut found: Vec<(u32, u64)> = names(&*vfs.dir)
        .iter()
        .filter_map(|file| Some((codex_backup::backup_index(name, file)?, file)))
        .filter_map(|(index, file)| {
            let file = vfs.dir.open(file, Open::Read).ok()?;
            Some((
                index,
                Card.verify(&file, Depth::Full, &mut |_| ControlFlow::Continue(())).ok()?.seq,
            ))
        })
        .collect();
    found.sort_unstable();
    found
}
