//! Clients on three nodes, beside faults: what they asked and got is recorded, and judged at the
//! end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use codex_core::{Change, Error, Notice, Result, Store, Watch};

use crate::blind;
use crate::common::{Draw, LONG, node, on, until};
use crate::history::{Commits, Counts, Kind, Operation};
use crate::members::{Bare, Cluster};

/// The size of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    /// Threads of each node that only write, each its own keys.
    pub(crate) writers: usize,
    /// The longest wait of a write. After it the write is in doubt.
    pub(crate) write_timeout: Duration,
}

/// The nodes of a load, and the clients on each whose keys are judged blind too.
pub(crate) const NODES: usize = 3;
const CLIENTS: usize = 2 * NODES;
/// The keys of these clients at one time.
const KEYS: u64 = 4;
/// The operations of a client until all of them go on to new keys. Six clients make about 2,300
/// operations a key, and the checker takes at most [`blind::OPERATIONS_MAX`].
const OPERATIONS: u64 = 1_500;
/// Above the keys that are judged blind.
const WRITERS_KEYS: u64 = 1 << 32;
/// The key whose commit is the last one.
const LAST: u64 = u64::MAX;

/// What the faults of a load may look at.
#[derive(Debug)]
pub(crate) struct Running {
    /// The writes that each node has acknowledged.
    acknowledged: Vec<AtomicU64>,
    is_over: AtomicBool,
    start: Instant,
}

/// The figures of a load without a violation.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    pub(crate) judged_blind: usize,
    /// The longest time between two acknowledged writes of one of the clients that only write.
    pub(crate) longest: Duration,
    /// The longest put without the store, tried again with the next member after a second.
    pub(crate) longest_bare: Duration,
}

impl Running {
    /// Waits until each node has acknowledged `more` writes from now on.
    pub(crate) fn wait_for_writes(&self, more: u64) {
        for node in &self.acknowledged {
            let due = node.load(Ordering::Relaxed) + more;
            until("a node writes", || node.load(Ordering::Relaxed) >= due);
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|node| node.load(Ordering::Relaxed)).sum()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap()
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Runs clients until `faults` returns. Panics if the history has a violation.
    pub(crate) fn run(
        self,
        cluster: &mut Cluster,
        prefix: &str,
        faults: impl FnOnce(&mut Cluster, &Running),
    ) -> Report {
        let open = |n| {
            let mut endpoints = cluster.endpoints();
            endpoints.rotate_left(n);
            on(endpoints, prefix, self.write_timeout)
        };
        let stores: Vec<_> = (0..NODES).map(open).collect();
        let witness = node(cluster, prefix, 0);
        // Order: the watch begins before the first write.
        let watch = witness.watch("").unwrap().changes_max(1 << 20).bytes_max(1 << 30);
        let bare = cluster.bare();
        let running = &Running {
            acknowledged: (0..NODES).map(|_| AtomicU64::new(0)).collect(),
            is_over: AtomicBool::new(false),
            start: Instant::now(),
        };
        let (operations, commits, longest_bare) = thread::scope(|scope| {
            let watching = scope.spawn(|| watch_all(watch));
            let putting = scope.spawn(|| longest_put(&bare, running));
            let clients: Vec<_> = (0..CLIENTS + self.writers * NODES)
                .map(|n| Client::new(n, &stores[n % NODES], running, self.seed))
                .map(|client| scope.spawn(move || client.run()))
                .collect();
            // A fault that panics ends the clients too.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                faults(cluster, running);
                cluster.heal().unwrap();
                running.wait_for_writes(1);
            }));
            running.is_over.store(true, Ordering::Relaxed);
            let operations: Vec<_> = clients.into_iter().map(|c| c.join().unwrap()).collect();
            settle(&stores);
            let commits = watching.join().unwrap();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (operations, commits, putting.join().unwrap())
        });
        let longest = operations.iter().map(|(_, longest)| *longest).max().unwrap();
        let operations: Vec<_> = operations.into_iter().flat_map(|(all, _)| all).collect();
        let counts = commits.judge(&operations).unwrap_or_else(|violation| panic!("{violation}"));
        let judged_blind = judge_blind(&operations, &commits);
        let report = Report { counts, judged_blind, longest, longest_bare };
        report.print(prefix);
        report
    }
}

impl Report {
    fn print(&self, what: &str) {
        let Counts { writes, reads, refused, doubts, doubts_made } = self.counts;
        println!(
            "  {what}: {writes} acknowledged writes, 0 lost, 0 doubled; {refused} refused, {reads} \
             reads; {doubts} in doubt, of which {doubts_made} made; {} judged blind; the longest \
             write {:.2} s, without the store {:.2} s",
            self.judged_blind,
            self.longest.as_secs_f64(),
            self.longest_bare.as_secs_f64(),
        );
    }
}

/// Ends the doubts of each node, then makes the last commit.
fn settle(stores: &[Store]) {
    for (store, n) in stores.iter().zip(1..) {
        until("a doubt is settled", || write(store, LAST - n, LAST - n).is_ok());
    }
    until("the last write is made", || write(&stores[0], LAST, LAST).is_ok());
}

/// Watches all commits up to the last one.
fn watch_all(mut watch: Watch) -> Commits {
    let mut commits = Commits::default();
    loop {
        let Some(notice) = watch.next_timeout(LONG) else { panic!("the watch ended: {watch:?}") };
        let Notice::Commit(commit) = notice else { panic!("the witness lags: {notice:?}") };
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let sets = commit.changes().iter().map(|change| match change {
            Change::Set(entry) => (number(entry.key()), entry.value::<u64>().unwrap()),
            other => panic!("{other:?}"),
        });
        let sets: Vec<_> = sets.collect();
        let is_last = sets.iter().any(|(key, _)| *key == LAST);
        assert!(commits.sets.insert(commit.seq(), sets).is_none(), "{commit:?} comes twice");
        if is_last {
            return commits;
        }
    }
}

/// Puts a key again and again without the store. Returns the longest time that one put took.
fn longest_put(bare: &Bare, running: &Running) -> Duration {
    let (mut longest, mut n) = (Duration::ZERO, 0);
    while running.goes_on() {
        let start = Instant::now();
        while !bare.put(n, "bare", "value", Duration::from_secs(1)) && running.goes_on() {
            n += 1;
        }
        longest = longest.max(start.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    longest
}

/// Judges each key that few clients use. Returns the number of operations.
fn judge_blind(operations: &[Operation], commits: &Commits) -> usize {
    let few: Vec<_> = operations.iter().filter(|op| op.key < WRITERS_KEYS).cloned().collect();
    let end = few.iter().map(|op| op.key + 1).max().unwrap_or_default();
    for key in 0..end {
        assert!(blind::is_linearizable(&few, key, commits), "no order explains key {key}");
    }
    // The checker sees what is false: a read of the first state, late.
    let read =
        few.iter().rfind(|op| matches!(op.kind, Kind::Read { seen: Some(_), latest: true, .. }));
    if let Some(read) = read {
        let call = operations.iter().map(|op| op.call).max().unwrap() + 1;
        let kind = Kind::Read { seen: None, at: 0, latest: true };
        let stale = Operation { call, back: call + 1, kind, ..read.clone() };
        let key: Vec<_> = few.iter().filter(|op| op.key == read.key).cloned().collect();
        let key = [&key[..], &[stale]].concat();
        assert!(!blind::is_linearizable(&key, read.key, commits), "a false read was not found");
    }
    few.len()
}

fn write(store: &Store, key: u64, value: u64) -> Result<()> {
    store.set(key.to_le_bytes(), &value)
}

struct Client<'a> {
    n: usize,
    store: &'a Store,
    running: &'a Running,
    draw: Draw,
    /// The number of writes that were begun, which makes their values different.
    begun: u64,
    operations: Vec<Operation>,
    longest: Duration,
}

impl<'a> Client<'a> {
    fn new(n: usize, store: &'a Store, running: &'a Running, seed: u64) -> Self {
        let draw = Draw(seed << 16 | u64::try_from(n).unwrap());
        let longest = Duration::ZERO;
        Self { n, store, running, draw, begun: 0, operations: Vec::new(), longest }
    }

    fn run(mut self) -> (Vec<Operation>, Duration) {
        let mut last = Instant::now();
        let mut rounds = 0;
        while self.running.goes_on() {
            let wrote = if self.n < CLIENTS {
                self.any(rounds / OPERATIONS * KEYS)
            } else {
                let key = u64::try_from(self.n).unwrap() << 8 | self.draw.below(16);
                self.set(WRITERS_KEYS | key)
            };
            if wrote {
                self.running.acknowledged[self.n % NODES].fetch_add(1, Ordering::Relaxed);
                // The others wait for reads too.
                if self.n >= CLIENTS {
                    self.longest = self.longest.max(last.elapsed());
                }
                last = Instant::now();
            }
            rounds += 1;
        }
        (self.operations, self.longest)
    }

    /// Makes any operation on one of the keys after `keys`. Returns whether it was a write that
    /// was acknowledged.
    fn any(&mut self, keys: u64) -> bool {
        let key = keys + self.draw.below(KEYS);
        match self.draw.below(100) {
            0..25 => self.set(key),
            25..50 => self.exchange(key),
            drawn => {
                self.read(key, drawn < 85);
                // A write takes longer, and there are to be enough of them.
                thread::sleep(Duration::from_millis(2));
                false
            }
        }
    }

    fn set(&mut self, key: u64) -> bool {
        let (call, value) = (self.running.now(), self.value());
        let done = write(self.store, key, value);
        let kind = if is_absent(&done) { Kind::Failed(value) } else { Kind::Set(value) };
        self.record(key, call, &done, kind);
        done.is_ok()
    }

    fn exchange(&mut self, key: u64) -> bool {
        let at = key.to_le_bytes();
        let was = self.store.get::<u64>(at).unwrap();
        let (call, now) = (self.running.now(), self.value());
        let done = self.store.compare_exchange(at, was.as_ref(), Some(&now));
        let made = done.as_ref().ok().copied();
        let kind = Kind::Exchange { was, now, made };
        self.record(key, call, &done, if is_absent(&done) { Kind::Failed(now) } else { kind });
        done.is_ok()
    }

    fn read(&mut self, key: u64, latest: bool) {
        let call = self.running.now();
        if latest && self.store.read_latest(Duration::from_secs(3)).is_err() {
            return;
        }
        let snapshot = self.store.snapshot();
        let seen = snapshot.get::<u64>(key.to_le_bytes()).unwrap();
        let kind = Kind::Read { seen, at: snapshot.seq(), latest };
        self.record(key, call, &Ok(()), kind);
    }

    fn value(&mut self) -> u64 {
        self.begun += 1;
        u64::try_from(self.n).unwrap() << 40 | self.begun
    }

    fn record<T>(&mut self, key: u64, call: u64, done: &Result<T>, kind: Kind) {
        let in_doubt = done.as_ref().is_err_and(Error::is_in_doubt);
        let back = if in_doubt { u64::MAX } else { self.running.now() };
        self.operations.push(Operation {
            client: self.n,
            node: self.n % NODES,
            key,
            call,
            back,
            kind,
        });
    }
}

/// Whether the error says that nothing was written.
fn is_absent<T>(done: &Result<T>) -> bool {
    done.as_ref().is_err_and(|error| !error.is_in_doubt())
}
