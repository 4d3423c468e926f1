//! Random histories of a store that is archived, restored and put back, compared with a model: the
//! logs of its newest line of history, and how much of each was sent.

use std::sync::Arc;

use codex_backup::remote::{ArchiveWriter, Fault, Image, Memory, Moment, Remote};
use codex_backup::unwatched;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::archive::{Log, begun, frames, put_image, reach, start};
use crate::common::sim;
use crate::remote::{file, version};

#[derive(Debug, Clone, Copy)]
enum Step {
    Commit(u64),
    /// The archive sends all logs, the last one up to some part of it, in 256ths.
    Send(u8),
    /// The archive sends all logs to their ends.
    SendAll,
    /// The store writes an image in place, and goes on with a new log.
    Checkpoint,
    /// The archive puts the image in place. What was not sent of the logs before it is lost.
    Put,
    /// A tool puts an image of the last commit.
    PutByTool,
    Prune(usize),
    /// The store is restored to some commit that is reached, and archived on.
    Restore(u8),
    /// The machine is put back to an earlier state of it: to some part of the last log or of one of
    /// those before it.
    GoBack(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u64).prop_map(Step::Commit),
        4 => any::<u8>().prop_map(Step::Send),
        4 => Just(Step::SendAll),
        3 => Just(Step::Checkpoint),
        3 => Just(Step::Put),
        1 => Just(Step::PutByTool),
        1 => (1..4_usize).prop_map(Step::Prune),
        1 => any::<u8>().prop_map(Step::Restore),
        1 => (0..3_usize, any::<u8>()).prop_map(|(logs, share)| Step::GoBack(logs, share)),
    ]
}

/// A log of the newest line.
#[derive(Debug)]
struct Part {
    log: Log,
    /// The offset up to which it was sent.
    sent: u64,
    /// The last commit that is of the line.
    limit: u64,
    /// Whether the next log names this one as the one before it, at the commit with which it ends.
    is_followed: bool,
}

impl Part {
    fn new(log: Log) -> Self {
        Self { log, sent: 0, limit: u64::MAX, is_followed: false }
    }

    /// Returns the last commit that was sent whole.
    fn last_sent(&self) -> u64 {
        let mut seqs = (self.log.id.base_seq..=self.log.last()).rev();
        seqs.find(|seq| self.log.end_of(*seq) as u64 <= self.sent).unwrap_or(self.log.id.base_seq)
    }
}

struct World {
    memory: Arc<Memory>,
    remote: Remote,
    writer: ArchiveWriter,
    /// The log of each commit of the line, from the first on.
    line: Vec<u8>,
    parts: Vec<Part>,
    /// The part that continues the image in place.
    first: usize,
    /// The part that continues the image that the archive put last.
    archived: usize,
    names: u8,
}

impl World {
    fn new() -> Self {
        let place = begun();
        let log = Log::new(0, 1, 0);
        put_image(&place.remote, &place.writer, 0, start(&log));
        let (memory, remote, writer) = (place.memory, place.remote, place.writer);
        let parts = vec![Part::new(log)];
        Self { memory, remote, writer, line: Vec::new(), parts, first: 0, archived: 0, names: 1 }
    }

    fn last(&self) -> u64 {
        self.line.len() as u64
    }

    fn now(&mut self) -> &mut Part {
        self.parts.last_mut().unwrap()
    }

    fn begin(&mut self, log: Log) {
        self.parts.push(Part::new(log));
        self.first = self.parts.len() - 1;
    }

    fn name(&mut self) -> u8 {
        self.names += 1;
        self.names
    }

    /// Sends the logs in order, the last one up to the commit `seq`.
    fn send_upto(&mut self, seq: u64) {
        for part in &mut self.parts[self.archived..] {
            let upto = seq.min(part.log.last());
            if part.log.end_of(upto) as u64 > part.sent {
                part.sent = part.log.send(&self.remote, part.sent, upto).unwrap();
            }
        }
    }

    fn put(&mut self) {
        let log = &self.parts[self.first].log;
        put_image(&self.remote, &self.writer, log.id.base_seq, start(log));
        self.archived = self.first;
    }

    /// Goes on from the commit `seq` with `log`, under a new archive.
    fn fork(&mut self, seq: u64, log: Log) {
        self.line.truncate(usize::try_from(seq).unwrap());
        self.begin(log);
        self.writer = self.remote.begin_archive(&version(seq)).unwrap();
        self.put();
    }

    fn make(&mut self, step: Step) {
        match step {
            Step::Commit(count) => {
                let log = &mut self.parts.last_mut().unwrap().log;
                log.commit_upto(log.last() + count);
                self.line.resize(usize::try_from(log.last()).unwrap(), log.id.file_id[0]);
            }
            Step::Send(share) => {
                let log = &self.now().log;
                let base = log.id.base_seq;
                let seq = base + (log.last() - base) * u64::from(share) / 256;
                self.send_upto(seq);
            }
            Step::SendAll => self.send_upto(self.last()),
            Step::Checkpoint => {
                let name = self.name();
                let next = self.now().log.next(name);
                self.now().is_followed = true;
                self.begin(next);
            }
            Step::Put => self.put(),
            Step::PutByTool => {
                _ = self.remote.put(&version(self.last()), &mut unwatched).unwrap();
            }
            Step::Prune(keep) => {
                self.remote.prune(keep, &mut unwatched).unwrap();
                let objects = self.memory.objects();
                for part in &mut self.parts {
                    let name = format!("{:02x}", part.log.id.file_id[0]).repeat(16);
                    let first = format!("log/{:020}-{name}-", part.log.id.base_seq);
                    if !objects.keys().any(|object| object.starts_with(&first)) {
                        part.sent = 0;
                    }
                }
            }
            Step::Restore(part) => {
                let seqs: Vec<u64> = (0..=self.last()).filter(|seq| self.expects(*seq)).collect();
                let seq = seqs[seqs.len() * usize::from(part) / 256];
                self.parts.retain(|part| part.log.id.base_seq < seq);
                if let Some(part) = self.parts.last_mut() {
                    (part.limit, part.is_followed) = (seq.min(part.limit), false);
                }
                let name = self.name();
                self.fork(seq, Log::new(seq, name, 0));
            }
            Step::GoBack(logs, share) => self.go_back(logs, share),
        }
    }

    fn go_back(&mut self, logs: usize, share: u8) {
        // The logs before a restore are not there any more.
        let there = self.parts.iter().rev().take_while(|part| part.limit == u64::MAX).count();
        let at = self.parts.len() - 1 - logs.min(there - 1);
        let images = self.remote.list().unwrap().images;
        let is_named = |part: &Part| images.iter().any(|image| image.log == Some(start(&part.log)));
        // Nothing tells that a log was given up before an image was put that it continues.
        if self.parts.get(at + 1).is_some_and(|next| next.sent > 0 && !is_named(next)) {
            return;
        }
        self.parts.truncate(at + 1);
        (self.first, self.archived) = (at, at);
        let part = self.now();
        part.is_followed = false;
        let base = part.log.id.base_seq;
        let seq = base + (part.log.last() - base) * u64::from(share) / 256;
        let mut earlier = part.log.clone();
        earlier.cut_to(seq);
        let (id, bytes) = (part.log.id, earlier.bytes.clone());
        // The archive begins again with the image in place.
        self.writer = self.remote.begin_archive(&version(seq)).unwrap();
        self.put();
        let end = self.remote.log_end(&id, 0, &*file(&bytes)).unwrap();
        if let Some(sent) = end.map(|end| end.offset) {
            assert_eq!(sent, self.now().sent);
            self.now().log = earlier;
            self.line.truncate(usize::try_from(seq).unwrap());
            return;
        }
        let part = self.now();
        (part.limit, part.is_followed) = (seq, part.last_sent() == seq);
        let name = self.name();
        self.fork(seq, Log::new(seq, name, id.file_id[0]));
    }

    /// Returns whether the commit is to be reached.
    fn expects(&self, seq: u64) -> bool {
        let mut least = u64::MAX;
        let images = self.remote.list().unwrap().images;
        images.iter().any(|image| {
            let is_of_line = image.facts.seq <= least;
            least = least.min(image.facts.seq);
            is_of_line && image.facts.seq <= seq && self.leads_to(image) >= seq
        })
    }

    /// Returns the last commit that an image of the line leads to.
    fn leads_to(&self, image: &Image) -> u64 {
        let mut last = image.facts.seq;
        let of_image = |part: &&Part| image.log != Some(start(&part.log));
        for part in self.parts.iter().skip_while(of_image) {
            if part.sent == 0 {
                break;
            }
            last = last.max(part.last_sent().min(part.limit));
            let is_whole = part.last_sent() == part.log.last() || part.limit == part.last_sent();
            if !(is_whole && part.is_followed) {
                break;
            }
        }
        last
    }

    fn check(&self) {
        let mut latest = 0;
        // Of a line that was given up there may be more commits.
        for seq in 0..self.last() + 9 {
            let is_expected = self.expects(seq);
            match reach(&self.remote, Moment::Seq(seq)) {
                Ok(reached) => {
                    assert!(is_expected && reached.seq == seq, "{seq}");
                    let from = usize::try_from(reached.image.facts.seq).unwrap();
                    let names = &self.line[from..usize::try_from(seq).unwrap()];
                    let expected: Vec<_> = (reached.image.facts.seq + 1..)
                        .zip(names)
                        .map(|(seq, name)| crate::archive::frame(*name, seq))
                        .collect();
                    assert_eq!(frames(&reached), expected, "{seq}");
                    latest = seq;
                }
                Err(Fault::NotReached { seq: last, .. }) => {
                    assert!(!is_expected && last < seq && self.expects(last), "{seq} {last}");
                }
                Err(Fault::Before { seq: first, .. }) => {
                    assert!(!is_expected && seq < first && self.expects(first), "{seq} {first}");
                }
                Err(fault) => panic!("{seq} {fault}"),
            }
        }
        assert_eq!(reach(&self.remote, Moment::Latest).unwrap().seq, latest);
        // The time of a commit is its number, so no later one is shown for it.
        for at in 0..i64::try_from(self.last()).unwrap() {
            if let Ok(reached) = reach(&self.remote, Moment::TimeUs(at)) {
                assert!(i64::try_from(reached.seq).unwrap() <= at && self.expects(reached.seq));
            }
        }
    }
}

#[test]
fn any_history_of_an_archive_leads_to_the_commits_that_were_sent_of_the_newest_line() {
    let config = ProptestConfig {
        cases: u32::try_from(sim::count_of(400.0)).unwrap(),
        rng_seed: RngSeed::Fixed(sim::seed()),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&vec(step(), 1..30), |steps| {
            let mut world = World::new();
            for step in steps {
                world.make(step);
            }
            world.check();
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("CODEX_SEED={}: {failure}", sim::seed()));
}
