//! Logs on the disk in memory: a reader returns exactly the groups that were appended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

#[path = "../../tests/common/golden.rs"]
#[allow(unreachable_pub, reason = "its other users see it as a crate of their own")]
mod golden;

use super::*;
use crate::batch::{Group, Item, Op};
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::frame::{FrameHeader, GROUP, finish, padded};
use crate::header::{FileKind, Found};
use crate::seal::{Keys, Seal};
use crate::storage::Durability;
use crate::toy_seal::ToyKeys;
use crate::vfs::{File, Open, Vfs};

/// Returns a place for a log, plain or encrypted, and the header of its first segment.
struct Setup {
    place: LogPlace,
    header: Header,
}

type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;
type Commits = Vec<(Seq, Changes)>;

impl Setup {
    fn new(sealed: bool, form: Form, durability: Durability) -> Self {
        let vfs = Vfs::mem(7);
        let path = Path::new("log");
        let mut header = Header {
            generation: 1,
            base_seq: 10,
            ..Header::new(&vfs, path, FileKind::Log, form).unwrap()
        };
        if header.is_ledger() {
            (header.oldest_seq, header.named_seq) = (10, 10);
        }
        let mut seal: Option<Arc<dyn Seal>> = None;
        if sealed {
            let keys: Arc<dyn Keys> = ToyKeys::new("key", Arc::clone(&vfs.entropy));
            let (envelope, fresh) = keys.create(&header.store_id, None, None).unwrap();
            header.cipher = fresh.cipher_id();
            header.root_id = fresh.root_id();
            header.envelope = (form == Form::Ledger).then_some(envelope);
            seal = Some(fresh);
        }
        Self { place: LogPlace { vfs, name: "log".to_owned(), seal, durability }, header }
    }

    fn create(&self) -> LogWriter {
        let new = NewLog::write(self.place.clone(), self.header.clone(), "log.tmp.x".to_owned(), 0);
        new.unwrap().publish().unwrap()
    }

    fn file(&self) -> Arc<dyn File> {
        self.place.vfs.dir.open("log", Open::Write).unwrap()
    }

    fn read(&self) -> Result<(Commits, LogState)> {
        self.read_proven(0)
    }

    /// Reads the log while another file proves the commits up to `proven`.
    fn read_proven(&self, proven: Seq) -> Result<(Commits, LogState)> {
        let file = self.file();
        let found = Found::read(&*file, &self.place.path())?;
        let header = found.authenticate(self.place.seal.as_deref(), &self.place.path())?;
        let seal = self.place.seal.clone();
        let path = self.place.path();
        let mut reader = LogReader::new(file, &path, &header, seal, proven, OnDamage::Refuse)?;
        let mut commits = Commits::new();
        while let Some(group) = reader.next()? {
            let mut ops = Vec::new();
            group.for_each_commit(&mut |commit| {
                ops.clear();
                for op in commit.batch.ops() {
                    match op.unwrap() {
                        Op::Set(Item { key, value, .. }) => {
                            ops.push((key.to_vec(), Some(value.to_vec())));
                        }
                        Op::Remove { key, .. } => ops.push((key.to_vec(), None)),
                        Op::Clear { .. } => {}
                    }
                }
                commits.push((commit.seq, ops.clone()));
                Ok(())
            })?;
        }
        Ok((commits, reader.finish()))
    }

    fn reopen(&self) -> (Commits, LogWriter) {
        let (commits, state) = self.read().unwrap();
        let writer = recover(self.place.clone(), self.file(), &self.header, &state).unwrap();
        (commits, writer)
    }
}

fn fill(group: &mut Group, batches: &[&[(&str, Option<&str>)]]) {
    group.reset();
    for batch in batches {
        for (key, value) in *batch {
            let key = key.as_bytes();
            let op = match value {
                Some(value) => Op::set(key, value.as_bytes()),
                None => Op::remove(key),
            };
            group.push(op).unwrap();
        }
        group.finish();
    }
}

fn put(writer: &mut LogWriter, key: &str, value: &str) {
    let mut group = writer.group();
    fill(&mut group, &[&[(key, Some(value))]]);
    writer.append(&mut group).unwrap();
}

fn commit(seq: Seq, key: &str, value: &str) -> (Seq, Changes) {
    (seq, vec![(key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))])
}

fn every_setup() -> impl Iterator<Item = Setup> {
    let forms = [Form::Wal, Form::Ledger];
    let levels = [Durability::Sync, Durability::Os];
    forms.into_iter().flat_map(move |form| {
        levels.into_iter().flat_map(move |level| {
            [false, true].into_iter().map(move |sealed| Setup::new(sealed, form, level))
        })
    })
}

#[test]
fn each_group_that_is_appended_paces_the_long_writes_beside_it() {
    for setup in every_setup() {
        let mut writer = setup.create();
        let count = || setup.place.vfs.waited_for.count();
        let before = count();
        put(&mut writer, "a", "1");
        put(&mut writer, "b", "2");
        assert_eq!(count(), before + 2);
        writer.append(&mut writer.group()).unwrap();
        assert_eq!(count(), before + 2, "an empty group writes nothing");
    }
}

#[test]
fn what_was_appended_is_read_over_several_openings() {
    for setup in every_setup() {
        let mut writer = setup.create();
        let mut group = writer.group();
        fill(&mut group, &[&[("a", Some("1")), ("b", None)], &[]]);
        assert_eq!(writer.append(&mut group).unwrap(), 11..13);
        put(&mut writer, "c", "3");
        writer.close().unwrap();
        let len = setup.file().len().unwrap();
        assert_eq!(len, writer.end().offset, "the space ahead is cut off at a close");
        drop(writer);
        let (commits, mut writer) = setup.reopen();
        let ab = vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)];
        let mut expected = vec![(11, ab), (12, vec![]), commit(13, "c", "3")];
        assert_eq!(commits, expected);
        put(&mut writer, "d", "4");
        let mut end = *writer.end();
        drop(writer);
        let (commits, state) = setup.read().unwrap();
        expected.push(commit(14, "d", "4"));
        assert_eq!(commits, expected);
        if setup.header.form == Form::Wal {
            // The writer leaves the digest to the history of the Wal.
            end.digest = state.end.digest;
        }
        assert_eq!(state.end, end);
        assert_eq!(state.tail_end, None);
        assert!(!state.end.closed);
    }
}

#[test]
fn a_torn_last_frame_is_crossed_after_recovery() {
    for setup in every_setup() {
        let mut writer = setup.create();
        put(&mut writer, "a", "1");
        let end = *writer.end();
        put(&mut writer, "b", &"2".repeat(700));
        drop(writer);
        // The sector after the frame header was not written.
        let hole = end.offset.next_multiple_of(512);
        setup.file().write_all_at(&[0; 512], hole).unwrap();
        for value in ["3", "4"] {
            let (commits, mut writer) = setup.reopen();
            assert_eq!(commits[0], commit(11, "a", "1"));
            assert_eq!(commits.len(), if value == "3" { 1 } else { 2 });
            put(&mut writer, "c", value);
        }
        let (commits, _) = setup.read().unwrap();
        let expected = [commit(11, "a", "1"), commit(12, "c", "3"), commit(13, "c", "4")];
        assert_eq!(commits, expected);
    }
}

#[test]
fn a_damaged_frame_that_a_later_one_proves_is_an_error() {
    for setup in every_setup().filter(|setup| setup.place.durability == Durability::Sync) {
        let mut writer = setup.create();
        put(&mut writer, "a", "1");
        let first = crate::header::BODY_OFFSET;
        put(&mut writer, "b", "2");
        let end = padded(writer.end().offset);
        drop(writer);
        let mut byte = [0];
        let half = first + (end - first) / 2;
        for at in first..half {
            setup.file().read_exact_at(&mut byte, at).unwrap();
            setup.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
            let refused = setup.read().unwrap_err();
            assert!(matches!(refused, Error::Damaged { offset, .. } if offset == first), "{at}");
            setup.file().write_all_at(&byte, at).unwrap();
        }
    }
}

#[test]
fn what_another_file_proves_is_never_cut() {
    for setup in every_setup() {
        let mut writer = setup.create();
        put(&mut writer, "a", "1");
        let first_end = writer.end().offset;
        put(&mut writer, "b", "2");
        let end = writer.end().offset;
        drop(writer);
        assert_eq!(setup.read_proven(12).unwrap().1.end.seq, 12);
        let beyond = setup.read_proven(13).map(|_| ());
        let beyond = beyond.expect_err("a proven commit was cut");
        assert!(matches!(beyond, Error::Damaged { offset, .. } if offset == end), "{beyond}");
        // Torn, set to zeros, or cut off: each would be a valid tail if nothing proved the commit.
        for len in [1, 70, end - first_end] {
            let zeros = vec![0; usize::try_from(len).unwrap()];
            setup.file().write_all_at(&zeros, end - len).unwrap();
            let refused = setup.read_proven(12).map(|_| ());
            let is_whole = len == 1;
            match refused {
                Ok(()) => assert!(is_whole, "{len} bytes: a proven commit was cut"),
                Err(e) => {
                    assert!(matches!(e, Error::Damaged { offset, .. } if offset == first_end));
                }
            }
            assert_eq!(setup.read_proven(11).unwrap().0.len(), if is_whole { 2 } else { 1 });
        }
    }
}

/// The frame that the document of the format shows in hexadecimal.
#[test]
fn the_frame_in_the_document_is_what_this_build_makes() {
    let mut group = Group::new(layout(Form::Wal, false));
    fill(&mut group, &[&[("key", Some("value"))]]);
    let payload = group.payload();
    let header = FrameHeader {
        kind: GROUP,
        flags: 0,
        seq: 1,
        durable: 0,
        epoch: *b"EPOCH..8",
        counter: 1,
        previous: 0,
        batches: 1,
        payload_len: u32::try_from(payload.len()).unwrap(),
    };
    let log = LogId { file_id: std::array::from_fn(|n| u8::try_from(n).unwrap()), generation: 1 };
    let (head, _) = header.encode(&log, 512, crc32c::crc32c(payload));
    let mut frame = [head.as_slice(), payload, &[0xA5]].concat();
    frame.resize(128, 0);
    let shown = include_str!("../../FORMAT.md").lines().filter_map(|line| {
        let (at, bytes) = line.split_once(": ")?;
        (at.len() == 2 && at.ends_with('0')).then_some(bytes)
    });
    let shown: Vec<u8> = shown
        .flat_map(str::split_ascii_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    assert_eq!(frame, shown, "{frame:02x?}");
}

#[test]
fn a_segment_of_version_1_is_made_and_read_as_ever() {
    let setup = Setup::new(false, Form::Wal, Durability::Sync);
    let mut writer = setup.create();
    let mut group = writer.group();
    fill(&mut group, &[&[("a", Some("1")), ("b", None)], &[]]);
    writer.append(&mut group).unwrap();
    drop(writer);
    let (_, mut writer) = setup.reopen();
    put(&mut writer, "c", "3");
    writer.close().unwrap();
    let len = usize::try_from(setup.file().len().unwrap()).unwrap();
    let mut made = vec![0; len];
    setup.file().read_exact_at(&mut made, 0).unwrap();
    let file = golden::check("segment.log", &made);
    setup.file().write_all_at(&file, 0).unwrap();
    let (commits, state) = setup.read().unwrap();
    assert_eq!(commits.last(), Some(&commit(13, "c", "3")));
    assert!(state.end.closed && state.tail_end.is_none());
}

#[test]
fn a_group_of_another_layout_stops_the_writer_before_a_byte_is_written() {
    for sealed in [false, true] {
        let setup = Setup::new(sealed, Form::Wal, Durability::Sync);
        let mut writer = setup.create();
        let written = |setup: &Setup| {
            let mut bytes = vec![0; 64 << 10];
            setup.file().read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let before = written(&setup);
        for layout in [Layout::default(), layout(Form::Ledger, sealed), layout(Form::Wal, !sealed)]
        {
            let mut group = Group::new(layout);
            group.push(Op::set(b"key", &[7; 500])).unwrap();
            group.finish();
            let append = AssertUnwindSafe(|| writer.append(&mut group));
            let panicked = catch_unwind(append).unwrap_err();
            let words = panicked.downcast_ref::<String>().unwrap();
            assert!(words.contains("a group has the layout of the log"), "{words}");
            assert!(written(&setup) == before, "nothing was written");
        }
        assert_eq!((writer.end().seq, writer.durable()), (10, 10));
    }
}

#[test]
fn a_frame_whose_header_tells_another_length_is_not_finished() {
    let log = LogId { file_id: [1; 16], generation: 1 };
    let header = |payload_len| FrameHeader {
        kind: GROUP,
        flags: 0,
        seq: 1,
        durable: 0,
        epoch: [0; 8],
        counter: 1,
        previous: 0,
        batches: 1,
        payload_len,
    };
    let finish = |payload_len, start| {
        let mut buf = vec![7; FRAME_HEAD + 100];
        catch_unwind(move || finish(&header(payload_len), &log, 512, &mut buf, start))
    };
    assert!(finish(100, 0).is_ok());
    for (payload_len, start) in [(99, 0), (101, 0), (100, 1), (100, 40), (100, 200)] {
        assert!(finish(payload_len, start).is_err(), "{payload_len} bytes from {start}");
    }
}
