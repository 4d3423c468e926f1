//! The archive outside of the machine: pieces of logs, what they lead to, and who may send them.

use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::{
    ArchiveWriter, Fault, LogEnd, LogId, LogStart, Memory, Mishap, Moment, Reached, Remote,
};
use codex_backup::vfs::{File, Vfs};
use codex_backup::{Depth, Error, Facts, Inspect, InspectError, Reading, unwatched};

use crate::common::{THEIRS, card};
use crate::remote::{file, listed, remote_at, version};

/// The number of bytes in a piece of the tests. It is no multiple of the length of a frame.
const PIECE: usize = 37;

/// A log of one line of history: a header of 10 bytes, then a frame for each commit.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) id: LogId,
    pub(crate) bytes: Vec<u8>,
    /// The offset at which each commit after the base ends.
    ends: Vec<usize>,
}

impl Log {
    pub(crate) fn new(base_seq: u64, name: u8, follows: u8) -> Self {
        let id = LogId { base_seq, file_id: [name; 16], follows: [follows; 16] };
        Self { id, bytes: vec![name; 10], ends: Vec::new() }
    }

    /// Returns the log that is written after this one.
    pub(crate) fn next(&self, name: u8) -> Self {
        Self::new(self.last(), name, self.id.file_id[0])
    }

    pub(crate) fn last(&self) -> u64 {
        self.id.base_seq + self.ends.len() as u64
    }

    pub(crate) fn commit_upto(&mut self, seq: u64) {
        while self.last() < seq {
            let seq = self.last() + 1;
            self.bytes.extend(frame(self.id.file_id[0], seq));
            self.ends.push(self.bytes.len());
        }
    }

    pub(crate) fn end_of(&self, seq: u64) -> usize {
        let at = usize::try_from(seq - self.id.base_seq).unwrap();
        at.checked_sub(1).map_or(10, |at| self.ends[at])
    }

    /// Takes the commits after `seq` away.
    pub(crate) fn cut_to(&mut self, seq: u64) {
        self.bytes.truncate(self.end_of(seq));
        self.ends.truncate(usize::try_from(seq - self.id.base_seq).unwrap());
    }

    /// Sends what is not there yet, up to the end of the commit `seq`.
    pub(crate) fn send(&self, remote: &Remote, from: u64, seq: u64) -> Result<u64, Error> {
        let end = self.end_of(seq);
        let mut at = from;
        while at < end as u64 {
            let begin = usize::try_from(at).unwrap();
            let upto = end.min(begin + PIECE);
            let whole = self.ends.iter().filter(|frame| **frame <= upto).count() as u64;
            let whole = self.id.base_seq + whole;
            at = remote.put_piece(&self.id, at, &self.bytes[begin..upto], whole, time(whole))?;
        }
        Ok(at)
    }
}

/// Returns the frame of a commit. That of each log has other bytes.
pub(crate) fn frame(name: u8, seq: u64) -> Vec<u8> {
    let len = 12 + usize::try_from(seq * 7 % 23).unwrap();
    let mut frame = vec![name ^ u8::try_from(seq % 256).unwrap(); len];
    frame[..8].copy_from_slice(&seq.to_le_bytes());
    frame
}

/// Returns the time of a commit, which is that of the card with it.
pub(crate) fn time(seq: u64) -> i64 {
    i64::try_from(seq).unwrap()
}

pub(crate) fn start(log: &Log) -> LogStart {
    LogStart { log: log.id, from: 0 }
}

pub(crate) fn put_image(
    remote: &Remote,
    writer: &ArchiveWriter,
    seq: u64,
    log: impl Into<Option<LogStart>>,
) -> bool {
    remote.put_image(writer, &version(seq), log.into(), &mut unwatched).unwrap().is_new
}

pub(crate) fn read(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap_or_else(|error| panic!("{error}"));
    bytes
}

/// Returns the frames behind the image up to the commit, from one log to the next.
pub(crate) fn frames(reached: &Reached) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut seq = reached.image.facts.seq;
    for (log, path) in &reached.logs {
        let bytes = read(&**log);
        let mut rest = &bytes[10.min(bytes.len())..];
        while seq < reached.seq {
            let expected = frame(bytes[0], seq + 1);
            // A frame that is cut ends a log, and the next one goes on with another commit.
            let Some((found, later)) = rest.split_at_checked(expected.len()) else { break };
            assert_eq!(found, expected, "{seq} {}", path.display());
            frames.push(found.to_vec());
            (rest, seq) = (later, seq + 1);
        }
    }
    assert_eq!(seq, reached.seq);
    frames
}

pub(crate) fn reach(remote: &Remote, moment: Moment) -> Result<Reached, Fault> {
    remote.reach(moment).map_err(|error| match error {
        Error::Remote { fault, .. } => fault,
        other => panic!("{other}"),
    })
}

/// Asserts that the moment is that of the commit `seq`, which is reached from an image with the
/// commit `from`, and that the frames are those of `logs`.
fn leads(remote: &Remote, moment: Moment, from: u64, seq: u64, logs: &[&Log]) {
    let reached = reach(remote, moment).unwrap_or_else(|fault| panic!("{fault} {moment:?}"));
    assert_eq!((reached.image.facts.seq, reached.seq), (from, seq), "{moment:?}");
    let expected: Vec<Vec<u8>> = (from + 1..=seq)
        .map(|seq| {
            let log = logs.iter().rfind(|log| log.id.base_seq < seq && seq <= log.last()).unwrap();
            frame(log.id.file_id[0], seq)
        })
        .collect();
    assert_eq!(frames(&reached), expected, "{moment:?}");
}

pub(crate) struct Place {
    pub(crate) memory: Arc<Memory>,
    pub(crate) remote: Remote,
    pub(crate) writer: ArchiveWriter,
}

/// Returns a place at which an archive has begun.
pub(crate) fn begun() -> Place {
    let memory = Arc::new(Memory::new());
    let remote = remote_at(Arc::clone(&memory) as _, &Vfs::mem(3));
    let writer = remote.begin_archive(&version(0)).unwrap();
    Place { memory, remote, writer }
}

/// Returns a place with the image 0, its log with the commits 1 to 6, the log after it with 7 to
/// 12, and the image of the commit 6.
fn two_logs() -> (Place, Log, Log) {
    let place = begun();
    let mut a = Log::new(0, 0xa1, 0);
    put_image(&place.remote, &place.writer, 0, start(&a));
    a.commit_upto(6);
    a.send(&place.remote, 0, 6).unwrap();
    let mut b = a.next(0xb1);
    b.commit_upto(12);
    b.send(&place.remote, 0, 12).unwrap();
    put_image(&place.remote, &place.writer, 6, start(&b));
    (place, a, b)
}

#[test]
fn each_commit_and_time_of_a_chain_of_logs_is_reached() {
    let (Place { remote, memory, .. }, a, b) = two_logs();
    for seq in 0..=12 {
        let from = if seq < 6 { 0 } else { 6 };
        leads(&remote, Moment::Seq(seq), from, seq, &[&a, &b]);
    }
    leads(&remote, Moment::Latest, 6, 12, &[&a, &b]);
    assert!(reach(&remote, Moment::Latest).unwrap().damage.is_none());
    // Of the commits within a piece only the last one has a time.
    for at in 0..=12 {
        let reached = reach(&remote, Moment::TimeUs(time(at))).unwrap();
        assert!(reached.seq <= at && reached.seq + 3 > at, "{at} {}", reached.seq);
        leads(&remote, Moment::TimeUs(time(at)), reached.image.facts.seq, reached.seq, &[&a, &b]);
    }
    // Without the newer image, the chain leads through both logs.
    let image = remote.list().unwrap().images.remove(0);
    memory.damage(&image.name, None);
    for seq in 0..=12 {
        leads(&remote, Moment::Seq(seq), 0, seq, &[&a, &b]);
    }
    leads(&remote, Moment::Latest, 0, 12, &[&a, &b]);
}

#[test]
fn a_moment_that_is_not_reached_names_the_last_commit_that_is() {
    let Place { remote, writer, .. } = begun();
    assert!(matches!(reach(&remote, Moment::Latest), Err(Fault::NoImages)));
    let mut a = Log::new(3, 0xa1, 0);
    put_image(&remote, &writer, 3, start(&a));
    for moment in [Moment::Seq(2), Moment::TimeUs(2)] {
        let fault = reach(&remote, moment).unwrap_err();
        assert!(matches!(fault, Fault::Before { seq: 3, time_us: 3 }), "{fault}");
    }
    a.commit_upto(9);
    a.send(&remote, 0, 9).unwrap();
    for moment in [Moment::Seq(10), Moment::TimeUs(10), Moment::TimeUs(i64::MAX)] {
        let fault = reach(&remote, moment).unwrap_err();
        let text = fault.to_string();
        assert!(
            matches!(fault, Fault::NotReached { seq: 9, time_us: 9, damage: None })
                && text.contains("nothing was restored")
                && text.contains("is 9 (1970-01-01 00:00:00.000009 UTC)"),
            "{text}"
        );
    }
    leads(&remote, Moment::Latest, 3, 9, &[&a]);
}

#[test]
fn an_image_gets_its_log_and_is_uploaded_again_for_another_one() {
    let Place { remote, writer, .. } = begun();
    let (a, b) = (Log::new(4, 0xa1, 0), Log::new(4, 0xb1, 0));
    remote.put(&version(4), &mut unwatched).unwrap();
    let log = || remote.list().unwrap().images[0].log;
    assert_eq!(log(), None);
    assert!(!put_image(&remote, &writer, 4, start(&a)));
    assert_eq!(log(), Some(start(&a)));
    for same in [Some(start(&a)), None] {
        assert!(!put_image(&remote, &writer, 4, same));
        assert_eq!((listed(&remote).as_slice(), log()), (&[4][..], Some(start(&a))));
    }
    assert!(put_image(&remote, &writer, 4, start(&b)));
    assert_eq!((listed(&remote).as_slice(), log()), (&[4, 4][..], Some(start(&b))));
    // A tool changes neither.
    assert!(!remote.put(&version(4), &mut unwatched).unwrap().is_new);
    assert_eq!((listed(&remote).as_slice(), log()), (&[4, 4][..], Some(start(&b))));
    remote.check_writer(&writer).unwrap();
    let wrong = remote.put_image(&writer, &version(5), Some(start(&b)), &mut unwatched);
    assert!(matches!(wrong, Err(Error::Invalid { .. })), "{wrong:?}");
}

#[test]
fn an_archive_that_another_one_has_replaced_lists_no_image() {
    let Place { remote, writer, .. } = begun();
    put_image(&remote, &writer, 1, None);
    let second = remote.begin_archive(&version(0)).unwrap();
    remote.check_writer(&second).unwrap();
    let fenced = |result: Result<(), Error>| match result {
        Err(Error::Remote { fault: fault @ Fault::Fenced, .. }) => {
            assert!(fault.to_string().contains("end one of the two"), "{fault}");
        }
        other => panic!("{other:?}"),
    };
    fenced(remote.check_writer(&writer));
    fenced(remote.put_image(&writer, &version(2), None, &mut unwatched).map(drop));
    fenced(remote.put_image(&writer, &version(1), None, &mut unwatched).map(drop));
    assert_eq!(listed(&remote), [1]);
    put_image(&remote, &second, 2, None);
    // Neither a tool nor the archive of another file takes the place.
    remote.put(&version(3), &mut unwatched).unwrap();
    remote.prune(2, &mut unwatched).unwrap();
    let other = remote.begin_archive(&file(&card(THEIRS, 1, 700)));
    assert!(matches!(other, Err(Error::Remote { fault: Fault::OtherFile, .. })), "{other:?}");
    remote.check_writer(&second).unwrap();
    assert_eq!(listed(&remote), [3, 2]);
}

#[test]
fn a_piece_that_is_there_is_ours_as_far_as_its_bytes_are() {
    let Place { remote, memory, .. } = begun();
    let mut log = Log::new(0, 0xa1, 0);
    log.commit_upto(4);
    let put = |from: usize, upto: usize| {
        let bytes = &log.bytes[from..upto];
        remote.put_piece(&log.id, from as u64, bytes, 1, 1).map_err(|error| match error {
            Error::Remote { fault, .. } => fault,
            other => panic!("{other}"),
        })
    };
    memory.fail(memory.calls(), Mishap::AnswerLost);
    assert!(matches!(put(0, 20), Err(Fault::Io { .. })));
    // The one whose answer was lost has fewer bytes than are to be sent now.
    assert_eq!(put(0, 50).unwrap(), 20);
    assert_eq!(put(20, 50).unwrap(), 50);
    // It has more: this log was put back to an earlier state.
    assert!(matches!(put(20, 40), Err(Fault::Fenced)));
    let other = Log { bytes: vec![7; 90], ..log.clone() };
    let fenced = remote.put_piece(&other.id, 20, &other.bytes, 1, 1);
    assert!(matches!(fenced, Err(Error::Remote { fault: Fault::Fenced, .. })), "{fenced:?}");

    let end = |file: &Arc<dyn File>| remote.log_end(&log.id, 0, &**file).unwrap();
    let at = |file: &Arc<dyn File>| end(file).map(|end| end.offset);
    assert_eq!(at(&file(&log.bytes)), Some(50));
    assert_eq!(at(&file(&log.bytes[..50])), Some(50));
    assert_eq!(at(&file(&log.bytes[..49])), None);
    assert_eq!(at(&file(&other.bytes)), None);
    let base = LogEnd { offset: 50, seq: log.id.base_seq };
    assert_eq!(remote.log_end(&log.id, 50, &*file(&log.bytes)).unwrap(), Some(base));
    for bytes in [&[][..], &vec![0; (4 << 20) + 1]] {
        let refused = remote.put_piece(&log.id, 50, bytes, 1, 1);
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
}

#[test]
fn a_piece_that_is_not_what_was_sent_does_not_count_and_is_not_replaced() {
    for (mishap, is_cut) in [(Mishap::Truncated, true), (Mishap::Altered, false)] {
        let Place { remote, memory, writer } = begun();
        let mut log = Log::new(0, 0xa1, 0);
        put_image(&remote, &writer, 0, start(&log));
        log.commit_upto(9);
        let at = log.send(&remote, 0, 4).unwrap();
        memory.fail(memory.calls(), mishap);
        for _ in 0..2 {
            let fault = match log.send(&remote, at, 9) {
                Err(Error::Remote { fault, .. }) => fault,
                other => panic!("{other:?}"),
            };
            let is_it = if is_cut {
                matches!(fault, Fault::Truncated { .. } | Fault::Altered)
            } else {
                matches!(fault, Fault::Altered)
            };
            assert!(is_it, "{fault}");
        }
        assert_eq!(remote.log_end(&log.id, 0, &*file(&log.bytes)).unwrap(), None);
        // A new image and a new log go on.
        let mut next = log.next(0xb1);
        put_image(&remote, &writer, 9, start(&next));
        next.commit_upto(12);
        next.send(&remote, 0, 12).unwrap();
        for seq in [0, 2, 4] {
            leads(&remote, Moment::Seq(seq), 0, seq, &[&log]);
        }
        for seq in 9..=12 {
            leads(&remote, Moment::Seq(seq), 9, seq, &[&next]);
        }
        let fault = reach(&remote, Moment::Seq(7)).unwrap_err();
        assert!(matches!(fault, Fault::NotReached { seq: 4, .. }), "{fault}");
    }
}

/// An inspector of tapes: files that grow. A tape has 10 bytes, then frames as a [`Log`] has.
#[derive(Debug)]
struct Tape;

impl Inspect for Tape {
    fn identity(&self, _file: &Arc<dyn File>) -> Result<Vec<u8>, InspectError> {
        Ok(vec![1])
    }

    fn facts(&self, file: &Arc<dyn File>, _: &mut Reading<'_>) -> Result<Facts, InspectError> {
        let bytes = read(&**file);
        let (mut rest, mut seq) = (&bytes[10..], 0);
        while let Some(later) = rest.strip_prefix(frame(bytes[0], seq + 1).as_slice()) {
            (rest, seq) = (later, seq + 1);
        }
        let mut facts = Facts::new([1], seq);
        facts.time_us = Some(0);
        facts.size = bytes.len() as u64;
        Ok(facts)
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        _depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        self.facts(file, reading)
    }
}

/// Puts the image of a tape up to a commit, which ends with zeros as that of a ledger does.
/// Returns the log that continues it.
fn put_tape(remote: &Remote, writer: &ArchiveWriter, tape: &Log, seq: u64) -> (Log, u64) {
    let from = tape.end_of(seq) as u64;
    let image = [&tape.bytes[..tape.end_of(seq)], &[0; 9]].concat();
    let log = LogId { base_seq: seq, file_id: tape.id.file_id, follows: writer.id() };
    let start = LogStart { log, from };
    remote.put_image(writer, &file(&image), Some(start), &mut unwatched).unwrap();
    (Log { id: log, bytes: tape.bytes.clone(), ends: tape.ends.clone() }, from)
}

/// Sends the bytes of a tape from `from` to the end of a commit.
fn send_tape(remote: &Remote, tape: &Log, from: u64, seq: u64) -> u64 {
    let (mut at, end) =
        (usize::try_from(from).unwrap(), tape.ends[usize::try_from(seq - 1).unwrap()]);
    while at < end {
        let upto = end.min(at + PIECE);
        let whole = tape.ends.iter().filter(|frame| **frame <= upto).count() as u64;
        let put = remote.put_piece(&tape.id, at as u64, &tape.bytes[at..upto], whole, time(whole));
        at = usize::try_from(put.unwrap()).unwrap();
    }
    at as u64
}

#[test]
fn a_ledger_is_its_image_and_the_pieces_behind_it_as_one_file() {
    let (memory, vfs) = (Arc::new(Memory::new()), Vfs::mem(3));
    let remote = Remote::new(Arc::clone(&memory) as _, Arc::new(Tape), &vfs).plain_objects(true);
    let mut tape = Log::new(0, 0xa1, 0);
    tape.commit_upto(12);
    let writer = remote.begin_archive(&file(&tape.bytes)).unwrap();
    let (sent, from) = put_tape(&remote, &writer, &tape, 4);
    let is = |moment, tape: &Log, seq, upto: usize| {
        let reached = reach(&remote, moment).unwrap_or_else(|fault| panic!("{fault} {moment:?}"));
        let found = read(&*reached.logs[0].0);
        assert_eq!((reached.logs.len(), reached.seq), (1, seq), "{moment:?}");
        assert!(found.len() >= upto && found[..upto] == tape.bytes[..upto], "{moment:?}");
    };
    is(Moment::Latest, &tape, 4, tape.end_of(4));
    let end = send_tape(&remote, &sent, from, 9);
    let found = remote.log_end(&sent.id, from, &*file(&tape.bytes)).unwrap();
    assert_eq!(found.map(|found| found.offset), Some(end));
    for seq in 1..=9 {
        is(Moment::Seq(seq), &tape, seq, tape.end_of(seq));
    }
    is(Moment::Latest, &tape, 9, tape.end_of(9));
    // Its own times tell the commit, so all that is there may be read.
    is(Moment::TimeUs(5), &tape, 9, tape.end_of(9));
    is(Moment::TimeUs(i64::from(u16::MAX)), &tape, 9, tape.end_of(9));
    let fault = reach(&remote, Moment::TimeUs(i64::MAX)).unwrap_err();
    assert!(matches!(fault, Fault::NotReached { seq: 9, .. }), "{fault}");

    // It is restored to commit 6, and goes on with other commits under the same file id.
    let mut other = tape.clone();
    other.bytes.truncate(tape.end_of(6));
    other.ends.truncate(6);
    for seq in 7..=8 {
        let mut frame = frame(0xa1, seq);
        frame.push(0xff);
        other.bytes.extend(frame);
        other.ends.push(other.bytes.len());
    }
    assert_eq!(remote.log_end(&sent.id, from, &*file(&other.bytes)).unwrap(), None);
    let writer = remote.begin_archive(&file(&other.bytes)).unwrap();
    let (sent, from) = put_tape(&remote, &writer, &other, 6);
    send_tape(&remote, &sent, from, 8);
    for seq in 1..=8 {
        is(Moment::Seq(seq), &other, seq, other.end_of(seq));
    }
    is(Moment::Latest, &other, 8, other.end_of(8));
    let fault = reach(&remote, Moment::Seq(9)).unwrap_err();
    assert!(matches!(fault, Fault::NotReached { seq: 8, .. }), "{fault}");
    // A prune that keeps one image removes the pieces of the line that was given up.
    let remote = remote.orphans_after(Duration::ZERO);
    let pruned = remote.prune(1, &mut unwatched).unwrap();
    assert!(pruned.removed.len() == 1 && pruned.pieces > 2, "{pruned:?}");
    assert_eq!(read(&*reach(&remote, Moment::Latest).unwrap().logs[0].0), other.bytes);
}

#[test]
fn a_line_of_history_that_a_restore_gave_up_leads_nowhere() {
    let (Place { remote, writer, .. }, a, b) = two_logs();
    // Back to commit 4, and on from there with other commits.
    let mut c = Log::new(4, 0xc1, 0);
    put_image(&remote, &writer, 4, start(&c));
    c.commit_upto(9);
    c.send(&remote, 0, 9).unwrap();
    for seq in 0..=9 {
        let from = if seq < 4 { 0 } else { 4 };
        leads(&remote, Moment::Seq(seq), from, seq, &[&a, &c]);
    }
    leads(&remote, Moment::Latest, 4, 9, &[&c]);
    for seq in [10, 12] {
        let fault = reach(&remote, Moment::Seq(seq)).unwrap_err();
        assert!(matches!(fault, Fault::NotReached { seq: 9, .. }), "{fault}");
    }
    // An image without a log does not tell its line, but an older one with a greater commit does.
    remote.put(&version(3), &mut unwatched).unwrap();
    leads(&remote, Moment::Latest, 3, 3, &[]);
    for seq in 0..=3 {
        leads(&remote, Moment::Seq(seq), if seq < 3 { 0 } else { 3 }, seq, &[&a]);
    }
    let fault = reach(&remote, Moment::Seq(4)).unwrap_err();
    assert!(matches!(fault, Fault::NotReached { seq: 3, .. }), "{fault}");
    drop(b);
}

#[test]
fn of_two_logs_behind_one_the_one_of_the_newer_image_counts() {
    let (Place { remote, writer, memory }, a, b) = two_logs();
    // The machine is put back to the time before the checkpoint, which is made again.
    let mut c = a.next(0xc1);
    put_image(&remote, &writer, 6, start(&c));
    c.commit_upto(10);
    c.send(&remote, 0, 10).unwrap();
    for image in &remote.list().unwrap().images[..2] {
        memory.damage(&image.name, None);
    }
    for seq in 0..=10 {
        leads(&remote, Moment::Seq(seq), 0, seq, &[&a, &c]);
    }
    leads(&remote, Moment::Latest, 0, 10, &[&a, &c]);
    assert!(b.last() > c.last());
}

#[test]
fn a_gap_in_the_pieces_ends_a_log() {
    let (Place { remote, memory, .. }, a, b) = two_logs();
    let image = remote.list().unwrap().images.remove(0);
    memory.damage(&image.name, None);
    let pieces = |log: &Log| -> Vec<String> {
        let folder = format!("-{}-", format!("{:02x}", log.id.file_id[0]).repeat(16));
        memory.objects().into_keys().filter(|name| name.contains(&folder)).collect()
    };
    let last = |log: &Log, upto: usize| log.ends.iter().filter(|end| **end <= upto).count() as u64;
    // A piece in the middle of the second log is lost.
    let lost = pieces(&b).remove(1);
    memory.damage(&lost, None);
    let damage = reach(&remote, Moment::Latest).unwrap().damage.unwrap();
    assert!(matches!(damage.fault, Fault::Missing), "{}", damage.fault);
    assert!(damage.path.to_string_lossy().ends_with(&lost), "{}", damage.path.display());
    let reaches = 6 + last(&b, PIECE);
    let ends_at = |reaches: u64| {
        for seq in 0..=12 {
            if seq <= reaches {
                leads(&remote, Moment::Seq(seq), 0, seq, &[&a, &b]);
            } else {
                let fault = reach(&remote, Moment::Seq(seq)).unwrap_err();
                let is_it = matches!(fault, Fault::NotReached { seq, .. } if seq == reaches);
                assert!(is_it, "{seq} {fault}");
            }
        }
        leads(&remote, Moment::Latest, 0, reaches, &[&a, &b]);
        let fault = reach(&remote, Moment::TimeUs(12)).unwrap_err();
        assert!(matches!(fault, Fault::NotReached { .. }), "{fault}");
    };
    ends_at(reaches);
    // The end of the first log is lost, so the second one is not reached.
    memory.damage(pieces(&a).last().unwrap(), None);
    ends_at(last(&a, (pieces(&a).len()) * PIECE));
    memory.damage(&pieces(&a)[0], None);
    ends_at(0);
}

#[test]
fn a_piece_that_is_cut_altered_or_of_a_newer_version_has_an_error_of_its_own() {
    type Damage = fn(&mut Vec<u8>);
    type IsIt = fn(&Fault) -> bool;
    let cases: [(Damage, IsIt); 5] = [
        (|bytes| bytes.truncate(80), |fault| matches!(fault, Fault::Truncated { found: 80, .. })),
        (|bytes| bytes.truncate(30), |fault| matches!(fault, Fault::Truncated { .. })),
        (|bytes| bytes[25] ^= 1, |fault| matches!(fault, Fault::Altered)),
        (|bytes| bytes[4] = 2, |fault| matches!(fault, Fault::NewerFormat)),
        (|bytes| bytes.clear(), |fault| matches!(fault, Fault::Truncated { .. })),
    ];
    for (damage, is_it) in cases {
        let (Place { remote, memory, .. }, a, b) = two_logs();
        let names: Vec<String> =
            memory.objects().into_keys().filter(|name| name.contains("-b1b1")).collect();
        let damaged = names[2].clone();
        let mut bytes = memory.objects().remove(&damaged).unwrap();
        damage(&mut bytes);
        memory.damage(&damaged, Some(bytes));
        let mut not_reached = 0;
        for seq in 6..=12 {
            match reach(&remote, Moment::Seq(seq)) {
                Err(Fault::NotReached { seq: last, damage, .. }) => {
                    not_reached += 1;
                    leads(&remote, Moment::Seq(last), 6, last, &[&a, &b]);
                    let damage = damage.unwrap_or_else(|| panic!("no reason"));
                    assert!(is_it(&damage.fault), "{}", damage.fault);
                    assert!(damage.path.to_string_lossy().ends_with(&damaged));
                }
                Ok(reached) => {
                    let Some((log, _)) = reached.logs.first() else { continue };
                    let mut bytes = vec![0; usize::try_from(log.len().unwrap()).unwrap()];
                    // If the search did not come by the piece, reading it tells.
                    let Err(error) = log.read_exact_at(&mut bytes, 0) else {
                        leads(&remote, Moment::Seq(seq), 6, seq, &[&a, &b]);
                        continue;
                    };
                    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
                    assert!(fault.is_some_and(is_it), "{error}");
                    not_reached += 1;
                }
                Err(fault) => panic!("{fault}"),
            }
        }
        assert!(not_reached == 4, "{not_reached}");
        let latest = reach(&remote, Moment::Latest).unwrap();
        // If the damage is behind the last header that the search read, only reading tells it.
        assert!(latest.seq == 12 || latest.damage.is_some_and(|damage| is_it(&damage.fault)));
    }
    // Of a changed byte behind the header only reading tells.
    let (Place { remote, memory, .. }, ..) = two_logs();
    let name = memory.objects().into_keys().find(|name| name.contains("-b1b1")).unwrap();
    let mut bytes = memory.objects().remove(&name).unwrap();
    bytes[70] ^= 1;
    memory.damage(&name, Some(bytes));
    let log = reach(&remote, Moment::Latest).unwrap().logs.remove(0).0;
    let error = log.read_exact_at(&mut [0; 20], 0).unwrap_err();
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
    assert!(matches!(fault, Some(Fault::Altered)), "{error}");
}

#[test]
fn images_alone_lead_to_their_commits_and_to_the_times_between_them() {
    let Place { remote, writer, .. } = begun();
    for seq in [3, 5, 8] {
        put_image(&remote, &writer, seq, None);
    }
    for (at, seq) in [(3, 3), (4, 3), (5, 5), (7, 5), (8, 8)] {
        leads(&remote, Moment::TimeUs(at), seq, seq, &[]);
    }
    for moment in [Moment::TimeUs(9), Moment::Seq(9)] {
        let fault = reach(&remote, moment).unwrap_err();
        assert!(matches!(fault, Fault::NotReached { seq: 8, .. }), "{fault}");
    }
    let fault = reach(&remote, Moment::Seq(4)).unwrap_err();
    assert!(matches!(fault, Fault::NotReached { seq: 3, .. }), "{fault}");
}
