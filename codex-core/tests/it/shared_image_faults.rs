//! Images of a store on a shared log while the log, the connection and the nodes fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use codex_core::internals::without_threads;
use codex_core::shared::{
    AppendError, Buried, Client, Limits, Memory, PartSink, Position, RecordName, Session,
    SharedError, SharedLog, Slot, Usage, Versioned, WriteFault,
};
use codex_core::{Change, Error, Notice, OpenOptions, StorageError, Store, Watch};
use proptest::collection::vec;
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(60);
/// One commit may have several parts, and an image several pieces.
const LIMITS: Limits = Limits { part_max: 6_000, frame_target: 20_000, commit_max: 100_000 };

type Answer<T> = Result<T, StorageError>;
type Script = dyn FnMut(usize, &'static str) -> Option<WriteFault> + Send;

/// A connection that asks a script before each call, by the number and the name of the call.
#[derive(Clone)]
struct Wire {
    client: Client,
    script: Arc<Mutex<(usize, Box<Script>)>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn new(log: &Memory) -> Self {
        let none: Box<Script> = Box::new(|_, _| None);
        Self { client: log.client(), script: Arc::new(Mutex::new((0, none))) }
    }

    /// Begins another script, of which the first call has the number 0.
    fn play(&self, script: impl FnMut(usize, &'static str) -> Option<WriteFault> + Send + 'static) {
        *self.script.lock().unwrap() = (0, Box::new(script));
    }

    /// Ends the script. Returns the number of calls.
    fn end(&self) -> usize {
        let none: Box<Script> = Box::new(|_, _| None);
        std::mem::replace(&mut *self.script.lock().unwrap(), (0, none)).0
    }

    fn call<T, E>(
        &self,
        name: &'static str,
        away: impl FnOnce() -> E,
        work: impl FnOnce(&Client) -> Result<T, E>,
    ) -> Result<T, E> {
        let fault = {
            let (n, script) = &mut *self.script.lock().unwrap();
            *n += 1;
            script(*n - 1, name)
        };
        match fault {
            None => work(&self.client),
            Some(WriteFault::AnswerLost) => {
                drop(work(&self.client));
                Err(away())
            }
            Some(_) => Err(away()),
        }
    }
}

fn away() -> StorageError {
    SharedError::Away { what: "answer", waited: Duration::ZERO }.into()
}

fn unanswered() -> AppendError {
    AppendError::Unanswered
}

impl SharedLog for Wire {
    fn limits(&self) -> Limits {
        self.client.limits()
    }

    fn begin_session(&self, timeout: Duration) -> Answer<Session> {
        self.call("begin_session", away, |client| client.begin_session(timeout))
    }

    fn append(&self, slot: Slot, part: &[u8], t: Duration) -> Result<Position, AppendError> {
        self.call("append", unanswered, |client| client.append(slot, part, t))
    }

    fn bury(&self, slot: Slot, timeout: Duration) -> Result<Buried, AppendError> {
        self.call("bury", unanswered, |client| client.bury(slot, timeout))
    }

    fn read(&self, after: Position, sink: &mut PartSink<'_>) -> Answer<Position> {
        self.call("read", away, |client| client.read(after, sink))
    }

    fn wait(&self, after: Position, timeout: Duration) -> Answer<bool> {
        self.call("wait", away, |client| client.wait(after, timeout))
    }

    fn head(&self, timeout: Duration) -> Answer<Position> {
        self.call("head", away, |client| client.head(timeout))
    }

    fn trim(&self, upto: Position, timeout: Duration) -> Answer<()> {
        self.call("trim", away, |client| client.trim(upto, timeout))
    }

    fn usage(&self, timeout: Duration) -> Answer<Usage> {
        self.call("usage", away, |client| client.usage(timeout))
    }

    fn record(&self, name: RecordName, timeout: Duration) -> Answer<Option<Versioned>> {
        self.call("record", away, |client| client.record(name, timeout))
    }

    fn set_record(
        &self,
        name: RecordName,
        was: Option<u64>,
        bytes: &[u8],
        timeout: Duration,
    ) -> Answer<bool> {
        self.call("set_record", away, |client| client.set_record(name, was, bytes, timeout))
    }

    fn put_piece(&self, object: &str, n: u32, bytes: &[u8], timeout: Duration) -> Answer<()> {
        self.call("put_piece", away, |client| client.put_piece(object, n, bytes, timeout))
    }

    fn piece(&self, object: &str, n: u32, timeout: Duration) -> Answer<Option<Vec<u8>>> {
        self.call("piece", away, |client| client.piece(object, n, timeout))
    }

    fn objects(&self, timeout: Duration) -> Answer<Vec<String>> {
        self.call("objects", away, |client| client.objects(timeout))
    }

    fn remove_object(&self, object: &str, timeout: Duration) -> Answer<()> {
        self.call("remove_object", away, |client| client.remove_object(object, timeout))
    }
}

/// Returns the options of a node without threads.
fn options(is_sealed: bool, timeout: Duration) -> OpenOptions {
    let options = without_threads(Store::options()).write_timeout(timeout);
    #[cfg(feature = "crypto")]
    if is_sealed {
        return options.key(codex_core::crypto::Key::raw(&[7; 32]).unwrap());
    }
    let _ = is_sealed;
    options
}

fn open(log: impl SharedLog + 'static) -> Store {
    options(false, LONG).shared(log).unwrap()
}

fn contents(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    store.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect()
}

/// The states are the same, and so are the histories.
fn agree(one: &Store, other: &Store) {
    one.read_latest(LONG).unwrap();
    other.read_latest(LONG).unwrap();
    assert_eq!(contents(one), contents(other));
    assert_eq!(one.anchor().unwrap(), other.anchor().unwrap());
}

fn fill(store: &Store, from: u64, to: u64) {
    for n in from..to {
        store.set(format!("key/{:02}", n % 20), &(n, "a".repeat(200))).unwrap();
    }
}

fn image_seq(store: &Store) -> Option<u64> {
    store.lag().unwrap().image_seq
}

/// A commit, known by its number. It has the number in the entries that it sets.
#[derive(Debug, Clone)]
enum Op {
    Set {
        key: u8,
        len: u16,
    },
    Remove {
        key: u8,
    },
    Batch {
        keys: Vec<u8>,
        len: u16,
    },
    /// Exchanges what the node shows, or what is not there.
    Exchange {
        key: u8,
        is_right: bool,
    },
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, Op),
    Image(usize),
    Look(usize),
    /// Ends a node, and opens it again.
    Again(usize),
    /// Cuts the connection after this number of calls.
    Cut(usize, usize),
    Heal(usize),
    Land,
    Fence,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = || prop_oneof![4 => 0..200_u16, 1 => 5_000..15_000_u16];
    let op = prop_oneof![
        3 => (0..8_u8, len()).prop_map(|(key, len)| Op::Set { key, len }),
        1 => (0..8_u8).prop_map(|key| Op::Remove { key }),
        1 => (vec(0..8_u8, 1..4), len()).prop_map(|(keys, len)| Op::Batch { keys, len }),
        2 => (0..8_u8, any::<bool>()).prop_map(|(key, is_right)| Op::Exchange { key, is_right }),
    ];
    let node = || 0..3_usize;
    let step = prop_oneof![
        20 => (node(), op).prop_map(|(node, op)| Step::Write(node, op)),
        6 => node().prop_map(Step::Image),
        2 => node().prop_map(Step::Look),
        2 => node().prop_map(Step::Again),
        2 => (node(), 0..30_usize).prop_map(|(node, calls)| Step::Cut(node, calls)),
        3 => node().prop_map(Step::Heal),
        1 => Just(Step::Land),
        1 => Just(Step::Fence),
    ];
    vec(step, 1..60)
}

type Value = (u64, String);

fn name(key: u8) -> String {
    format!("key/{key}")
}

/// Makes the commit `n`. Returns whether it was made.
fn make(store: &Store, n: u64, op: &Op, was: Option<&Value>) -> Result<bool, Error> {
    let value = |len: u16| (n, "x".repeat(len.into()));
    match op {
        Op::Set { key, len } => store.set(name(*key), &value(*len)).map(|()| true),
        Op::Remove { key } => {
            let mut batch = store.batch();
            batch.remove(name(*key))?.set("mark", &value(0))?;
            batch.commit().map(|_| true)
        }
        Op::Batch { keys, len } => {
            let mut batch = store.batch();
            for key in keys {
                batch.set(name(*key), &value(*len))?;
            }
            batch.commit().map(|_| true)
        }
        Op::Exchange { key, .. } => store.compare_exchange(name(*key), was, Some(&value(1))),
    }
}

/// A local store that gets the commits in the order in which a node without faults sees them.
struct Model {
    witness: Store,
    watch: Watch,
    local: Store,
    ops: BTreeMap<u64, (Op, Option<Value>)>,
    made: BTreeSet<u64>,
    /// The commits of which an outcome says that they were not made.
    never: BTreeSet<u64>,
}

impl Model {
    fn new(log: &Memory, is_sealed: bool) -> Self {
        let witness = options(is_sealed, LONG).shared(log.client()).unwrap();
        let (watch, local) = (witness.watch("").unwrap(), Store::in_memory().unwrap());
        let (ops, made, never) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { witness, watch, local, ops, made, never }
    }

    fn follow(&mut self) {
        self.witness.read_latest(LONG).unwrap();
        while let Some(notice) = self.watch.try_next() {
            let Notice::Commit(commit) = notice else { panic!("{notice:?}") };
            let set = commit.changes().iter().find_map(|change| match change {
                Change::Set(entry) => Some(entry.value::<Value>().unwrap().0),
                _ => None,
            });
            let n = set.unwrap();
            assert!(self.made.insert(n), "commit {n} was made twice");
            assert!(!self.never.contains(&n), "commit {n} was refused, and made");
            let (op, was) = &self.ops[&n];
            assert!(make(&self.local, n, op, was.as_ref()).unwrap(), "commit {n} is right");
        }
    }

    fn write(&mut self, node: &Store, op: Op) {
        let n = self.ops.len() as u64;
        let was = match &op {
            Op::Exchange { key, is_right: true } => node.get::<Value>(name(*key)).unwrap(),
            _ => None,
        };
        self.ops.insert(n, (op.clone(), was.clone()));
        let done = make(node, n, &op, was.as_ref());
        self.follow();
        match done {
            Ok(true) => assert!(self.made.contains(&n), "commit {n} was acknowledged and lost"),
            Ok(false) => {
                let Op::Exchange { key, .. } = op else { panic!("{op:?}") };
                assert_ne!(self.local.get::<Value>(name(key)).unwrap(), was);
                self.never.insert(n);
            }
            Err(error) if error.is_in_doubt() => {}
            Err(_) => _ = self.never.insert(n),
        }
        assert!(self.never.is_disjoint(&self.made));
    }
}

/// A node, or `None` if it could not be opened.
type Node = (Wire, Option<Store>);

fn reopen((wire, store): &mut Node, is_sealed: bool) {
    *store = None;
    *store = options(is_sealed, Duration::from_millis(40)).shared(wire.clone()).ok();
}

fn run(steps: Vec<Step>, faults: Option<u64>, is_sealed: bool) {
    let log = Memory::with_limits(LIMITS);
    let mut model = Model::new(&log, is_sealed);
    let mut nodes: Vec<Node> = (0..3).map(|_| (Wire::new(&log), None)).collect();
    for node in &mut nodes {
        reopen(node, is_sealed);
    }
    let begin_faults = |n: usize, wire: &Wire| {
        if let Some(seed) = faults {
            wire.client.fail_at_random(seed ^ n as u64, 5);
        }
    };
    for (n, (wire, _)) in nodes.iter().enumerate() {
        begin_faults(n, wire);
    }
    for step in steps {
        match step {
            Step::Write(n, op) => {
                if let Some(store) = &nodes[n].1 {
                    model.write(store, op);
                }
            }
            // Under random faults it may fail, and leave what it has stored.
            Step::Image(n) => _ = nodes[n].1.as_ref().map(Store::checkpoint),
            Step::Look(n) => {
                _ = nodes[n].1.as_ref().map(|store| store.read_latest(Duration::from_millis(20)));
            }
            Step::Again(n) => reopen(&mut nodes[n], is_sealed),
            Step::Cut(n, calls) => {
                nodes[n].0.play(move |call, _| (call >= calls).then_some(WriteFault::Lost));
            }
            Step::Heal(n) => {
                let wire = &nodes[n].0;
                wire.end();
                wire.client.heal();
                begin_faults(n, wire);
                // A node that was overtaken begins again.
                if nodes[n].1.as_ref().is_none_or(|store| store.read_latest(LONG).is_err()) {
                    reopen(&mut nodes[n], is_sealed);
                }
            }
            Step::Land => _ = log.land(),
            Step::Fence => log.fence(),
        }
        model.follow();
    }
    log.land();
    model.follow();
    let fresh = options(is_sealed, LONG).shared(log.client()).unwrap();
    agree(&model.witness, &fresh);
    assert_eq!(contents(&fresh), contents(&model.local));
    for (wire, store) in &mut nodes {
        wire.end();
        wire.client.heal();
        let Some(store) = store else { continue };
        match store.read_latest(LONG) {
            Ok(_) => agree(&fresh, store),
            Err(Error::Storage(StorageError::Shared(SharedError::Trimmed { .. }))) => {
                // A commit in doubt of a node that has ended is in the log, or comes never.
                reopen(&mut (wire.clone(), None), is_sealed);
            }
            Err(error) => panic!("{error}"),
        }
    }
    // Every node goes on.
    fresh.checkpoint().unwrap();
    let last = options(is_sealed, LONG).shared(log.client()).unwrap();
    fill(&last, 0, 3);
    agree(&last, &fresh);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 40,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nodes_that_begin_with_images_are_one_local_store(
        steps in steps(),
        faults in proptest::option::of(any::<u64>()),
        is_sealed in any::<bool>(),
    ) {
        run(steps, faults, is_sealed);
    }
}

/// A store with two images and commits after them, of which the next image has objects to remove.
fn written() -> (Memory, Wire, Store) {
    let log = Memory::with_limits(LIMITS);
    let wire = Wire::new(&log);
    let store = open(wire.clone());
    for n in 0..4 {
        fill(&store, n * 10, n * 10 + 10);
        store.checkpoint().unwrap();
    }
    fill(&store, 40, 50);
    (log, wire, store)
}

/// At each call of an image, one answer is lost, or the connection for good.
#[test]
fn an_image_that_fails_at_any_call_leaves_a_store_that_nodes_open() {
    let (_, wire, store) = written();
    wire.play(|_, _| None);
    store.checkpoint().unwrap();
    let calls = wire.end();
    assert!(calls > 15, "{calls} calls");
    for at in 0..calls {
        for (fault, is_cut) in [
            (WriteFault::Lost, false),
            (WriteFault::AnswerLost, false),
            (WriteFault::Lost, true),
            (WriteFault::AnswerLost, true),
        ] {
            let (log, wire, store) = written();
            wire.play(move |n, _| match n {
                n if n == at => Some(fault),
                n if n > at && is_cut => Some(WriteFault::Lost),
                _ => None,
            });
            let done = store.checkpoint();
            assert!(done.is_err() || !is_cut || at + 1 == calls, "call {at}");
            assert_eq!(store.stats().image_error.is_some(), done.is_err());
            wire.end();
            let fresh = open(log.client());
            agree(&store, &fresh);
            fill(&fresh, 50, 52);
            store.checkpoint().unwrap();
            assert_eq!(store.stats().image_error, None);
            agree(&open(log.client()), &fresh);
            assert_eq!(image_seq(&store), Some(50), "call {at}");
        }
    }
}

/// Whatever an image has done so far, a node can begin.
#[test]
fn a_node_opens_between_any_two_calls_of_an_image() {
    let (log, wire, store) = written();
    let expected = contents(&store);
    wire.play(move |_, _| {
        let (client, expected) = (log.client(), expected.clone());
        let opens = thread::spawn(move || assert_eq!(contents(&open(client)), expected));
        opens.join().unwrap();
        None
    });
    store.checkpoint().unwrap();
    assert!(wire.end() > 15);
}

#[test]
fn of_two_images_at_once_the_later_one_is_that_of_the_record() {
    for before in ["put_piece", "record", "set_record", "trim", "objects"] {
        let log = Memory::with_limits(LIMITS);
        let wire = Wire::new(&log);
        let (one, other) = (open(log.client()), open(wire.clone()));
        fill(&one, 0, 20);
        one.checkpoint().unwrap();
        other.read_latest(LONG).unwrap();
        fill(&one, 20, 25);
        other.read_latest(LONG).unwrap();
        fill(&one, 25, 30);
        // The image of the node that is behind has begun, and then the later one is written.
        let (later, mut is_done, mut has_begun) = (one.clone(), false, false);
        wire.play(move |_, call| {
            has_begun |= call == "put_piece";
            if has_begun && call == before && !is_done {
                is_done = true;
                let later = later.clone();
                thread::spawn(move || later.checkpoint().unwrap()).join().unwrap();
            }
            None
        });
        other.checkpoint().unwrap();
        wire.end();
        let fresh = open(log.client());
        assert_eq!(image_seq(&fresh), Some(30), "before {before}");
        agree(&one, &fresh);
        agree(&one, &other);
    }
    // With two threads, and no order.
    for round in 0..5 {
        let log = Memory::with_limits(LIMITS);
        let (one, other) = (open(log.client()), open(log.client()));
        fill(&one, 0, 20);
        other.read_latest(LONG).unwrap();
        fill(&one, 20, 20 + round % 2);
        thread::scope(|scope| {
            for store in [&one, &other] {
                scope.spawn(|| store.checkpoint().unwrap());
            }
        });
        let fresh = open(log.client());
        assert_eq!(image_seq(&fresh), Some(20 + round % 2));
        agree(&one, &fresh);
    }
}

/// An image by a node that has read the first parts of a commit, before the other parts come.
#[test]
fn an_image_between_the_parts_of_a_commit_keeps_the_parts() {
    for is_sealed in [false, true] {
        let log = Memory::with_limits(LIMITS);
        let wire = Wire::new(&log);
        let one = options(is_sealed, LONG).shared(wire.clone()).unwrap();
        let other = options(is_sealed, LONG).shared(log.client()).unwrap();
        fill(&one, 0, 10);
        let (mut appends, writer) = (0, other.clone());
        wire.play(move |_, call| {
            appends += usize::from(call == "append");
            if call == "append" && appends == 3 {
                let writer = writer.clone();
                let images = move || {
                    for n in 10..14 {
                        fill(&writer, n, n + 1);
                        writer.checkpoint().unwrap();
                    }
                };
                thread::spawn(images).join().unwrap();
            }
            None
        });
        one.set("long", &(99, "y".repeat(15_000))).unwrap();
        wire.end();
        let fresh = options(is_sealed, LONG).shared(log.client()).unwrap();
        assert!(fresh.contains_key("long") && image_seq(&fresh) >= Some(13));
        agree(&one, &fresh);
        agree(&other, &fresh);
    }
}

/// The images that were stored last are not the one of the record.
#[test]
fn the_image_of_the_record_outlives_later_ones_that_have_failed() {
    let log = Memory::with_limits(LIMITS);
    let wire = Wire::new(&log);
    let (one, other) = (open(wire.clone()), open(log.client()));
    fill(&one, 0, 10);
    one.checkpoint().unwrap();
    other.read_latest(LONG).unwrap();
    wire.play(|_, call| (call == "set_record").then_some(WriteFault::Lost));
    for n in 10..15 {
        fill(&one, n, n + 1);
        one.checkpoint().unwrap_err();
    }
    assert_eq!(one.stats().checkpoint_failures, 5);
    // This node has the state of the record, and removes old images.
    other.checkpoint().unwrap();
    agree(&one, &open(log.client()));
    wire.end();
    one.checkpoint().unwrap();
    agree(&one, &open(log.client()));
    let images = || {
        let objects = log.client().objects(LONG).unwrap();
        objects.iter().filter(|name| name.starts_with("image")).count()
    };
    assert_eq!(images(), 2, "those that have failed are removed later");
}

/// The slot of a commit is free again because it was read by all others and trimmed.
#[test]
fn a_commit_whose_entry_was_trimmed_is_in_doubt_and_not_made_again() {
    let log = Memory::with_limits(LIMITS);
    let wire = Wire::new(&log);
    let (one, other) = (open(wire.clone()), open(log.client()));
    fill(&one, 0, 5);
    other.read_latest(LONG).unwrap();
    let seq = other.anchor().unwrap().seq;
    let (mut appends, writer, memory) = (0, other.clone(), log.clone());
    wire.play(move |_, call| {
        appends += usize::from(call == "append");
        match (call, appends) {
            ("append", 1) => Some(WriteFault::AnswerLost),
            ("read", 1) => Some(WriteFault::Lost),
            ("append", 2) => {
                let (writer, memory) = (writer.clone(), memory.clone());
                let overtake = move || {
                    writer.read_latest(LONG).unwrap();
                    for _ in 0..3 {
                        fill(&writer, 5, 6);
                        writer.checkpoint().unwrap();
                    }
                    memory.fence();
                };
                thread::spawn(overtake).join().unwrap();
                None
            }
            _ => None,
        }
    });
    let error = one.set("once", &1).unwrap_err();
    assert!(error.is_in_doubt(), "{error}");
    assert!(error.to_string().contains("was trimmed up to"), "{error}");
    assert!(one.set("no", &1).unwrap_err().is_poisoned());
    other.read_latest(LONG).unwrap();
    assert_eq!(other.anchor().unwrap().seq, seq + 4, "it was made once");
    agree(&other, &open(log.client()));
}
