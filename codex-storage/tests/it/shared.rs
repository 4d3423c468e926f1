//! The shared log: orders and parts in their encoded form, and nodes on the log in memory, with
//! faults.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::{Batches, Item, TableId};
use codex_storage::seal::Keys;
use codex_storage::shared::{
    Client, Digests, Follower, Frame, KeyRange, Limits, Mark, Memory, Meta, Order, Orders,
    Position, ReadFault, RecordName, Seen, SeenEntries, SharedError, SharedLog, Slot, WriteFault,
    digest_of_value, orders,
};
use codex_storage::vfs::{Clock, SeededEntropy, SimClock};
use codex_storage::{Error, RecordError};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::golden;
use crate::common::seal::ToyKeys;

/// A node whose state is the value of each key. A commit is one key with a value, which is set if
/// the key is absent.
pub(crate) struct Node {
    follower: Follower,
    client: Client,
    clock: SimClock,
    pub(crate) state: State,
}

#[derive(Default, Clone)]
pub(crate) struct State {
    pub(crate) values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Each key that an order was about, with whether it was set, in the order of the log.
    pub(crate) verdicts: Vec<(Vec<u8>, bool)>,
    mark: Mark,
    /// The last time of a frame.
    time_us: i64,
    /// The verdict of the awaited frame.
    own: Option<bool>,
}

impl State {
    fn apply(&mut self, frame: &Frame<'_>) -> Mark {
        assert!(frame.time_us >= self.time_us, "the time went back");
        self.time_us = frame.time_us;
        for commit in frame.commits() {
            for order in orders(&commit.unwrap()) {
                let Order::Set(Item { key, value, .. }) = order.unwrap() else { panic!("a set") };
                let is_set = !self.values.contains_key(key);
                if is_set {
                    self.values.insert(key.to_vec(), value.to_vec());
                    self.mark.seq += 1;
                    let history = [&self.mark.digest, key, value].concat();
                    self.mark.digest.copy_from_slice(&digest_of_value(&history)[..16]);
                }
                self.verdicts.push((key.to_vec(), is_set));
                if frame.is_awaited {
                    self.own = Some(is_set);
                }
            }
        }
        self.mark
    }
}

/// Whether these tests are those of encrypted stores.
fn is_sealed() -> bool {
    module_path!().ends_with("sealed")
}

fn follower(client: &Client, clock: &(impl Clock + Clone + 'static)) -> Follower {
    let keys = ToyKeys::new("key", Arc::new(SeededEntropy::new(1)));
    follower_with(client, clock, is_sealed().then_some(&*keys))
}

fn follower_with(
    client: &Client,
    clock: &(impl Clock + Clone + 'static),
    keys: Option<&dyn Keys>,
) -> Follower {
    let (entropy, timeout) = (SeededEntropy::new(1), Duration::from_secs(5));
    let meta = Meta::open(client, keys, &entropy, clock, timeout).unwrap();
    Follower::new(Arc::new(client.clone()), Arc::new(clock.clone()), Arc::new(meta))
}

impl Node {
    fn new(memory: &Memory) -> Self {
        let keys = ToyKeys::new("key", Arc::new(SeededEntropy::new(1)));
        if is_sealed() { Self::with_key(memory, &*keys) } else { Self::plain(memory) }
    }

    pub(crate) fn plain(memory: &Memory) -> Self {
        Self::of(memory, |client, clock| follower_with(client, clock, None))
    }

    pub(crate) fn with_key(memory: &Memory, keys: &dyn Keys) -> Self {
        Self::of(memory, |client, clock| follower_with(client, clock, Some(keys)))
    }

    fn of(memory: &Memory, follower: impl FnOnce(&Client, &SimClock) -> Follower) -> Self {
        let (client, clock) = (memory.client(), SimClock::new());
        let follower = follower(&client, &clock);
        let state = State { mark: follower.mark(), ..State::default() };
        Self { follower, client, clock, state }
    }

    /// Sets `key` if it is absent. Returns whether it was.
    pub(crate) fn set(&mut self, key: &str, value: &[u8]) -> Result<bool, SharedError> {
        let mut frame = Orders::new(self.client.limits().commit_max);
        let (table, key) = (None, key.as_bytes());
        frame.push(Order::Set(Item { table, key, value, expires_us: None })).unwrap();
        frame.finish();
        self.state.own = None;
        let state = &mut self.state;
        let timeout = Duration::from_secs(5);
        let written = self
            .follower
            .write(&frame, self.clock.now_us(), timeout, &mut |frame| Ok(state.apply(&frame)));
        written.map_err(shared)?;
        Ok(self.state.own.take().expect("the own frame was delivered"))
    }

    /// Makes the next write be in doubt: its part is lost in the given way.
    pub(crate) fn fail_until_in_doubt(&self, fault: WriteFault) {
        self.client.fail_write(fault);
        (0..2_000).for_each(|_| self.client.fail_write(WriteFault::Lost));
        (0..2_000).for_each(|_| self.client.fail_read(ReadFault::Lost));
    }

    pub(crate) fn heal(&self) {
        self.client.heal();
    }

    /// Delivers all that the log has.
    pub(crate) fn catch_up(&mut self) -> Result<(), SharedError> {
        let state = &mut self.state;
        let sink = &mut |frame: Frame<'_>| Ok(state.apply(&frame));
        loop {
            let before = self.follower.applied();
            if self.follower.deliver(sink).map_err(shared)? == before {
                return Ok(());
            }
        }
    }
}

fn shared(error: Error) -> SharedError {
    match error {
        Error::Shared(error) => error,
        error => panic!("{error}"),
    }
}

fn two() -> (Memory, Node, Node) {
    let memory = Memory::new();
    let nodes = (Node::new(&memory), Node::new(&memory));
    (memory, nodes.0, nodes.1)
}

/// A log whose parts have room for 36 bytes.
pub(crate) fn with_short_parts() -> Memory {
    Memory::with_limits(Limits { part_max: part_max(), frame_target: 1 << 10, commit_max: 1 << 10 })
}

fn part_max() -> usize {
    if is_sealed() { 156 } else { 100 }
}

fn agree(one: &mut Node, other: &mut Node) {
    one.catch_up().unwrap();
    other.catch_up().unwrap();
    assert_eq!(one.state.verdicts, other.state.verdicts);
    assert!(one.state.mark == other.state.mark && one.state.values == other.state.values);
}

#[test]
fn nodes_decide_the_same_commits_in_the_order_of_the_log() {
    let (_, mut one, mut other) = two();
    assert_eq!(one.set("a", b"1"), Ok(true));
    assert_eq!(other.set("a", b"2"), Ok(false), "decided after the frame of the other node");
    assert_eq!(other.set("b", b"2"), Ok(true));
    assert_eq!(one.set("b", b"1"), Ok(false));
    agree(&mut one, &mut other);
    assert_eq!(one.state.mark.seq, 2);
}

#[test]
fn a_long_frame_travels_in_parts_among_those_of_others() {
    let memory = with_short_parts();
    let (mut one, mut other) = (Node::new(&memory), Node::new(&memory));
    let long = [7; 300];
    // The second part is lost once. Its parts are appended by themselves.
    one.client.fail_write(WriteFault::AnswerLost);
    assert_eq!(one.set("long", &long), Ok(true));
    assert_eq!(other.set("short", b"1"), Ok(true));
    assert_eq!(other.set("long", &long), Ok(false));
    agree(&mut one, &mut other);
    assert!(memory.slots().len() > 18, "{:?}", memory.slots());
    assert!(memory.slots().iter().all(|(_, len)| *len <= part_max()));
}

#[test]
fn a_commit_whose_answers_are_lost_is_made_once() {
    let (memory, mut one, mut other) = two();
    for faults in [
        &[WriteFault::AnswerLost][..],
        &[WriteFault::Lost],
        &[WriteFault::Lost, WriteFault::AnswerLost, WriteFault::Lost],
        &[WriteFault::Late, WriteFault::Late],
    ] {
        for fault in faults {
            one.client.fail_write(*fault);
        }
        let key = format!("{faults:?}");
        assert_eq!(one.set(&key, b"1"), Ok(true), "{faults:?}");
        memory.land();
        agree(&mut one, &mut other);
    }
    assert_eq!(memory.slots().len(), 4, "each commit takes one slot, however often it is sent");
}

#[test]
fn a_doubt_is_settled_before_the_next_write_and_nothing_comes_late() {
    for is_committed in [false, true] {
        let (memory, mut one, mut other) = two();
        assert_eq!(one.set("before", b"1"), Ok(true));
        let fault = if is_committed { WriteFault::AnswerLost } else { WriteFault::Late };
        one.fail_until_in_doubt(fault);
        let doubt = one.set("doubt", b"1").unwrap_err();
        let waited = Duration::from_secs(5);
        assert!(matches!(doubt, SharedError::Unanswered { waited: w, .. } if w >= waited));
        // While there is no answer, the next write is not sent.
        let unsettled = one.set("no", b"1").unwrap_err();
        assert!(matches!(unsettled, SharedError::Unsettled { .. }), "{unsettled}");
        one.heal();
        assert_eq!(one.set("after", b"1"), Ok(true));
        assert_eq!(one.state.values.contains_key(&b"doubt"[..]), is_committed);
        memory.land();
        agree(&mut one, &mut other);
        assert_eq!(other.state.values.contains_key(&b"doubt"[..]), is_committed);
        assert!(!other.state.values.contains_key(&b"no"[..]));
        // A doubt that was settled is not settled again.
        assert_eq!(one.set("later", b"1"), Ok(true));
    }
}

#[test]
fn a_frame_of_which_one_part_is_in_doubt_is_there_whole_or_never() {
    for in_doubt in 0..4 {
        let memory = with_short_parts();
        let (mut one, mut other) = (Node::new(&memory), Node::new(&memory));
        let lost = if in_doubt % 2 == 0 { WriteFault::Lost } else { WriteFault::AnswerLost };
        one.fail_until_in_doubt(lost);
        assert!(one.set("long", &[7; 80]).is_err());
        one.heal();
        assert_eq!(one.set("next", &[8; 80]), Ok(true));
        agree(&mut one, &mut other);
        assert!(!one.state.values.contains_key(&b"long"[..]), "its last part was never sent");
    }
}

/// A clock that ends all sessions when the node pauses between two calls.
#[derive(Debug, Clone)]
struct Fencing(SimClock, Memory);

impl Clock for Fencing {
    fn now_us(&self) -> i64 {
        self.0.now_us()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        self.1.fence();
        self.1.land();
        self.0.sleep(duration);
    }
}

#[test]
fn after_the_end_of_its_session_a_node_goes_on_in_a_new_one() {
    use WriteFault::{AnswerLost, Late, Lost};
    let cases = [&[][..], &[Lost], &[AnswerLost], &[Late], &[Late, AnswerLost]];
    for (faults, is_read) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let (memory, mut one, mut other) = two();
        assert_eq!(one.set("before", b"1"), Ok(true));
        if faults.is_empty() {
            memory.fence();
        }
        // The session ends between two calls. What the first has done may show only after that.
        let clock = Fencing(one.clock.clone(), memory.clone());
        one.follower = follower(&one.client, &clock);
        one.state = State { mark: one.follower.mark(), ..State::default() };
        one.catch_up().unwrap();
        for fault in faults {
            one.client.fail_write(*fault);
        }
        if !is_read {
            (0..faults.len()).for_each(|_| one.client.fail_read(ReadFault::Lost));
        }
        assert_eq!(one.set("fenced", b"1"), Ok(true), "{faults:?}");
        assert_eq!(memory.land(), 0, "nothing of an ended session comes late");
        assert_eq!(one.set("after", b"1"), Ok(true));
        agree(&mut one, &mut other);
        assert_eq!(one.state.verdicts.len(), 3, "{faults:?}: each is made once");
    }
}

#[test]
fn a_doubt_of_an_ended_session_is_settled_too() {
    for is_committed in [false, true] {
        let (memory, mut one, mut other) = two();
        assert_eq!(one.set("before", b"1"), Ok(true));
        let fault = if is_committed { WriteFault::AnswerLost } else { WriteFault::Late };
        one.fail_until_in_doubt(fault);
        assert!(one.set("doubt", b"1").is_err());
        one.heal();
        memory.fence();
        memory.land();
        assert_eq!(one.set("after", b"1"), Ok(true));
        agree(&mut one, &mut other);
        assert_eq!(one.state.values.contains_key(&b"doubt"[..]), is_committed);
    }
}

#[test]
fn a_full_log_refuses_and_changes_nothing() {
    let (memory, mut one, mut other) = two();
    assert_eq!(one.set("a", b"1"), Ok(true));
    memory.set_quota(200);
    let full = one.set("b", &[0; 200]).unwrap_err();
    assert!(matches!(full, SharedError::Full { limit: 200, .. }), "{full}");
    memory.set_quota(1 << 20);
    agree(&mut one, &mut other);
    assert_eq!(one.set("b", b"2"), Ok(true));
    // A refusal after a lost request leaves a doubt: the first request may still be done.
    one.client.fail_write(WriteFault::Late);
    memory.set_quota(0);
    let doubt = one.set("c", b"1").unwrap_err();
    assert!(matches!(doubt, SharedError::Unanswered { .. }), "{doubt}");
    memory.set_quota(1 << 20);
    assert_eq!(one.set("d", b"1"), Ok(true));
    memory.land();
    agree(&mut one, &mut other);
    assert!(!one.state.values.contains_key(&b"c"[..]));
}

#[test]
fn a_reader_that_was_overtaken_by_a_trim_keeps_its_state_and_stops() {
    let (memory, mut one, mut slow) = two();
    assert_eq!(one.set("a", b"1"), Ok(true));
    slow.catch_up().unwrap();
    assert_eq!(one.set("b", b"1"), Ok(true));
    memory.trim(Position(1));
    slow.catch_up().unwrap();
    assert_eq!(one.set("c", b"1"), Ok(true));
    memory.trim(memory.end());
    let trimmed = SharedError::Trimmed { applied: Position(2), trimmed: Position(3) };
    assert_eq!(slow.catch_up(), Err(trimmed.clone()));
    assert_eq!(slow.set("d", b"1"), Err(trimmed), "it writes no more");
    assert_eq!(slow.state.values.len(), 2);
    assert_eq!(one.set("d", b"1"), Ok(true));
}

#[test]
fn a_log_that_was_rolled_back_is_found_out() {
    let (memory, mut one, mut other) = two();
    for key in ["a", "b", "c"] {
        assert_eq!(one.set(key, b"1"), Ok(true));
    }
    other.catch_up().unwrap();
    memory.roll_back(Position(1));
    let rolled_back = SharedError::RolledBack { applied: Position(3), head: Position(1) };
    assert_eq!(one.catch_up(), Err(rolled_back.clone()));
    assert!(matches!(one.set("d", b"1"), Err(SharedError::RolledBack { .. })));
    // A node that has missed the moment finds it out by the state of another node.
    let mut new = Node::new(&memory);
    for key in ["x", "y", "z"] {
        new.catch_up().unwrap();
        assert_eq!(new.set(key, b"1"), Ok(true));
    }
    let diverged = other.catch_up().unwrap_err();
    assert!(matches!(diverged, SharedError::Diverged { .. } | SharedError::Gap { .. }));
}

#[test]
fn parts_that_come_twice_or_one_by_one_are_delivered_once() {
    let (_, mut one, mut other) = two();
    for n in 0..20 {
        let fault = if n % 2 == 0 { ReadFault::Twice } else { ReadFault::Short };
        other.client.fail_read(fault);
        assert_eq!(one.set(&n.to_string(), b"1"), Ok(true));
        assert_eq!(other.set(&format!("other {n}"), b"1"), Ok(true));
    }
    agree(&mut one, &mut other);
}

#[test]
fn a_part_that_was_left_out_is_read_again_or_found_out() {
    let (_, mut one, mut other) = two();
    for key in ["a", "b"] {
        assert_eq!(one.set(key, b"1"), Ok(true));
    }
    // The next part of the same session shows the gap before anything is decided.
    other.client.fail_read(ReadFault::Skip);
    agree(&mut one, &mut other);
    // A part of another session does not: the state of its sender shows it.
    let memory = Memory::new();
    let (mut one, mut two, mut reader) =
        (Node::new(&memory), Node::new(&memory), Node::new(&memory));
    assert_eq!(one.set("a", b"1"), Ok(true));
    two.catch_up().unwrap();
    assert_eq!(two.set("b", b"1"), Ok(true));
    reader.client.fail_read(ReadFault::Skip);
    let diverged = reader.catch_up().unwrap_err();
    assert!(matches!(diverged, SharedError::Diverged { seq: 1, .. }), "{diverged}");
    assert_eq!(reader.set("c", b"1"), Err(diverged));
    assert!(reader.state.values.is_empty(), "nothing was shown in the wrong order");
}

#[test]
fn a_node_that_decides_differently_is_found_out() {
    let (_, mut one, mut other) = two();
    assert_eq!(one.set("a", b"1"), Ok(true));
    other.catch_up().unwrap();
    other.state.values.clear();
    assert_eq!(one.set("a", b"2"), Ok(false));
    assert_eq!(other.set("b", b"1"), Ok(true), "it has not applied more when it begins the frame");
    one.catch_up().unwrap();
    assert_eq!(other.set("c", b"1"), Ok(true), "and does not know that it is wrong");
    let diverged = one.catch_up().unwrap_err();
    assert!(matches!(diverged, SharedError::Diverged { seq: 3, .. }), "{diverged}");
}

#[test]
fn a_damaged_part_is_not_decided() {
    let (memory, mut one, mut other) = two();
    assert_eq!(one.set("a", b"1"), Ok(true));
    for (part, what) in [
        (&b"CDXO"[..], "shorter than a header"),
        (&[0; 80], "signature"),
        (b"CDXO\x02\x00".as_slice(), "shorter"),
    ] {
        memory.replace(Position(1), part);
        let mut new = Node::new(&memory);
        let bad = new.catch_up().unwrap_err();
        assert!(bad.to_string().contains(what), "{bad}");
        assert!(new.state.verdicts.is_empty());
    }
    assert!(other.catch_up().is_err());
}

#[test]
fn nodes_with_random_faults_lose_nothing_and_double_nothing() {
    for seed in 0..200 {
        write_with_random_faults(seed, &Node::new);
    }
}

/// Writes to a log with random faults and checks what the nodes have of it. Returns the log.
pub(crate) fn write_with_random_faults(seed: u64, new: &dyn Fn(&Memory) -> Node) -> Memory {
    let memory = if seed.is_multiple_of(2) { Memory::new() } else { with_short_parts() };
    let mut nodes: Vec<_> = (0..3).map(|_| new(&memory)).collect();
    let entropy = SeededEntropy::new(seed);
    let (mut done, mut absent) = (Vec::new(), Vec::new());
    for (n, node) in (0..).zip(&nodes) {
        node.client.fail_at_random(seed * 3 + n, 30);
    }
    for n in 0..60 {
        let node = &mut nodes[usize::try_from(entropy.below(3)).unwrap()];
        let is_cut = entropy.below(10) == 0;
        node.client.cut(is_cut);
        let key = format!("{n}");
        match node.set(&key, &[7; 50]) {
            Ok(is_set) => {
                assert!(is_set);
                done.push(key);
            }
            Err(SharedError::Unanswered { .. }) => {}
            Err(error) => {
                assert!(!error.is_final(), "seed {seed}: {error}");
                absent.push(key);
            }
        }
        node.client.cut(false);
        match entropy.below(20) {
            0 => memory.fence(),
            1..5 => _ = memory.land(),
            _ => {}
        }
    }
    for (n, node) in nodes.iter_mut().enumerate() {
        node.client.heal();
        assert_eq!(node.set(&format!("end {n}"), b"1"), Ok(true), "seed {seed}");
    }
    memory.land();
    let [one, two, three] = &mut nodes[..] else { panic!("three nodes") };
    agree(one, two);
    agree(two, three);
    for (key, is_set) in &one.state.verdicts {
        assert!(is_set, "seed {seed}: {} was made twice", String::from_utf8_lossy(key));
    }
    let is_there = |key: &String| one.state.values.contains_key(key.as_bytes());
    assert!(done.iter().all(is_there), "seed {seed}: an acknowledged commit was lost");
    assert!(!absent.iter().any(is_there), "seed {seed}: a refused commit is there");
    memory
}

/// At each place of a log with unfinished frames and buried slots, after which the log is trimmed.
#[test]
fn a_node_that_goes_on_at_a_place_has_the_state_of_one_that_read_all() {
    let mut open = 0;
    for seed in 0..40 {
        let memory = write_with_random_faults(seed, &Node::new);
        let mut whole = Node::new(&memory);
        whole.catch_up().unwrap();
        let meta = whole.client.record(RecordName::Meta, Duration::ZERO).unwrap().unwrap();
        let mut reader = Node::new(&memory);
        while reader.follower.applied() < memory.end() {
            reader.client.fail_read(ReadFault::Short);
            let state = &mut reader.state;
            reader.follower.deliver(&mut |frame| Ok(state.apply(&frame))).unwrap();
            let (place, from) = (reader.follower.place(), reader.follower.resumes_after());
            open += u32::from(from < reader.follower.applied());
            let trimmed = Memory::with_limits(reader.client.limits());
            trimmed.forge_record(RecordName::Meta, Some(&meta.bytes));
            trimmed.forge(&memory.entries());
            trimmed.trim(from);
            let mut node = Node::new(&trimmed);
            node.follower.resume(&place).unwrap();
            assert!(node.follower.mark() == reader.follower.mark());
            assert_eq!(node.follower.place(), place);
            node.state = reader.state.clone();
            node.catch_up().unwrap();
            assert_eq!(node.state.verdicts, whole.state.verdicts, "seed {seed}, after {from:?}");
            assert!(node.state.mark == whole.state.mark);
            assert_eq!(node.follower.place(), whole.follower.place());
        }
    }
    assert!(open > 40, "places within frames: {open}");
}

/// Adds entries of another session, in which nothing is written.
fn fill(memory: &Memory, count: u64) {
    let client = memory.client();
    let session = client.begin_session(Duration::ZERO).unwrap();
    for n in 0..count {
        client.bury(Slot { session, n }, Duration::ZERO).unwrap();
    }
}

#[test]
fn an_unfinished_frame_of_a_node_that_ended_is_given_up() {
    let memory = with_short_parts();
    let (mut one, mut other) = (Node::new(&memory), Node::new(&memory));
    assert_eq!(other.set("a", b"1"), Ok(true));
    one.fail_until_in_doubt(WriteFault::AnswerLost);
    assert!(one.set("long", &[7; 80]).is_err());
    fill(&memory, 65_535);
    other.catch_up().unwrap();
    assert_eq!(other.follower.resumes_after(), Position(1), "the first part may be continued");
    fill(&memory, 1);
    other.catch_up().unwrap();
    assert_eq!(other.follower.resumes_after(), memory.end());
    // The node itself has not ended, and goes on.
    one.heal();
    assert_eq!(one.set("long", &[8; 80]), Ok(true));
    agree(&mut one, &mut other);
}

/// A clock with which many entries of other nodes come while a node pauses between two calls.
#[derive(Debug, Clone)]
struct Filling(SimClock, Memory, u64);

impl Clock for Filling {
    fn now_us(&self) -> i64 {
        self.0.now_us()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        fill(&self.1, self.2);
        self.0.sleep(duration);
    }
}

#[test]
fn a_frame_that_was_given_up_is_absent_for_its_node_too() {
    // The node pauses once after the first part is in the log, before the next one.
    for (between, is_there) in [(65_534, true), (65_535, false)] {
        let memory = with_short_parts();
        let (mut one, mut other) = (Node::new(&memory), Node::new(&memory));
        let clock = Filling(one.clock.clone(), memory.clone(), between);
        one.follower = follower(&one.client, &clock);
        one.client.fail_write(WriteFault::AnswerLost);
        one.client.fail_read(ReadFault::Lost);
        let written = one.set("long", &[7; 20]);
        if is_there {
            assert_eq!(written, Ok(true));
        } else {
            let absent = written.unwrap_err();
            assert!(matches!(absent, SharedError::Away { .. }), "{absent}");
            assert_eq!(one.set("next", b"1"), Ok(true));
        }
        agree(&mut one, &mut other);
        assert_eq!(other.state.values.contains_key(&b"long"[..]), is_there);
    }
}

#[test]
fn bytes_that_are_no_place_are_refused() {
    let (memory, mut one, _) = two();
    assert_eq!(one.set("a", b"1"), Ok(true));
    let place = one.follower.place();
    for len in 0..place.len() {
        let refused = Node::new(&memory).follower.resume(&place[..len]);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{len}");
    }
    let mut many = place.clone();
    many[40..48].fill(0xff);
    assert!(Node::new(&memory).follower.resume(&many).is_err());
    Node::new(&memory).follower.resume(&place).unwrap();
}

/// The parts of a plain store, and of one under the cipher of these tests.
#[test]
fn parts_of_version_1_are_made_and_read_as_ever() {
    let (memory, mut one, _) = two();
    assert_eq!(one.set("a", b"1"), Ok(true));
    assert_eq!(one.set("key", b"value"), Ok(true));
    let mut made = memory.entries();
    let name = if is_sealed() { "shared-parts-toy-seal.bin" } else { "shared-parts.bin" };
    let parts: Vec<_> = made.iter().map(|(_, part)| &part[..]).collect();
    let golden = golden::check(name, &parts.concat());
    let (first, second) = golden.split_at(parts[0].len());
    (made[0].1, made[1].1) = (first.to_vec(), second.to_vec());
    memory.forge(&made);
    let mut new = Node::new(&memory);
    new.catch_up().unwrap();
    assert_eq!(new.state.values, one.state.values);
}

#[test]
fn a_commit_over_its_limit_leaves_no_trace_in_its_frame() {
    let mut frame = Orders::new(100);
    let key = Order::Remove { table: None, key: &[1; 80] };
    frame.push(key).unwrap();
    assert_eq!(frame.push(key), Err(RecordError::BatchTooLarge { limit: 100 }));
    frame.abandon();
    assert!(frame.is_empty());
    let long = vec![0; 65_536];
    let mut frame = Orders::new(1 << 20);
    let too_long = RecordError::KeyTooLong { len: 65_536, limit: 65_535 };
    assert_eq!(frame.push(Order::Remove { table: None, key: &long }), Err(too_long));
    // An end of a range may be longer than any key.
    let range = KeyRange { table: None, lower: Bound::Included(&long), upper: Bound::Unbounded };
    frame.push(Order::RemoveRange(range)).unwrap();
}

#[derive(Debug, Clone)]
struct Drawn {
    kind: u8,
    table: Option<TableId>,
    key: Vec<u8>,
    value: Vec<u8>,
    expires_us: Option<i64>,
    ends: (u8, u8),
    digest: [u8; 32],
    count: u64,
}

impl Drawn {
    fn order(&self) -> Order<'_> {
        let (table, key) = (self.table, &*self.key);
        let end = |kind, key| match kind {
            0 => Bound::Unbounded,
            1 => Bound::Included(key),
            _ => Bound::Excluded(key),
        };
        let (lower, upper) = (end(self.ends.0, key), end(self.ends.1, &*self.value));
        let range = KeyRange { table, lower, upper };
        let expect = |seen| Order::Expect { table, key, seen };
        match self.kind {
            0 => Order::Set(Item { table, key, value: &self.value, expires_us: self.expires_us }),
            1 => Order::Remove { table, key },
            2 => Order::Clear { table },
            3 => Order::RemoveRange(range),
            4 => Order::PopFirst(range),
            5 => Order::PopLast(range),
            6 => Order::Sweep { table, key },
            7 => expect(Seen::Absent),
            8 => expect(Seen::Value(self.digest)),
            9 => expect(Seen::Entry(self.digest)),
            _ => {
                let seen = SeenEntries { count: self.count, digest: self.digest };
                Order::ExpectRange(range, seen)
            }
        }
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let table = proptest::option::of(1..9_u32)
        .prop_map(|id| id.map(|id| TableId::new(id).expect("above zero")));
    let bytes = || vec(any::<u8>(), 0..40);
    let ends = (0..3_u8, 0..3_u8);
    let seen = (any::<[u8; 32]>(), any::<u64>());
    let all = (0..11_u8, table, bytes(), bytes(), any::<Option<i64>>(), ends, seen);
    all.prop_map(|(kind, table, key, value, expires_us, ends, (digest, count))| Drawn {
        kind,
        table,
        key,
        value,
        expires_us,
        ends,
        digest,
        count,
    })
}

/// Writes a frame of one commit per element of `commits`, and passes it to `look` as it is read.
fn through_a_log(commits: &[Vec<Drawn>], mut look: impl FnMut(&Frame<'_>)) {
    let mut frame = Orders::new(1 << 20);
    for commit in commits {
        for order in commit {
            frame.push(order.order()).unwrap();
        }
        frame.finish();
    }
    let mut node = Node::new(&Memory::new());
    let sink = &mut |frame: Frame<'_>| {
        look(&frame);
        Ok(Mark::default())
    };
    node.follower.write(&frame, 0, Duration::from_secs(1), sink).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn orders_are_read_as_they_were_written(commits in vec(vec(drawn(), 0..5), 1..5)) {
        let mut found = 0;
        through_a_log(&commits, |frame| {
            for (commit, drawn) in frame.commits().zip(&commits) {
                let commit = commit.unwrap();
                let read: Vec<_> = orders(&commit).map(|order| order.unwrap()).collect();
                let written: Vec<_> = drawn.iter().map(Drawn::order).collect();
                assert!(read == written, "{read:?} {written:?}");
                found += 1;
            }
        });
        assert_eq!(found, commits.len());
    }

    #[test]
    fn any_bytes_are_orders_or_a_typed_error(
        order in drawn(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut payload = Vec::new();
        through_a_log(&[vec![order]], |frame| {
            for commit in frame.commits() {
                let commit = commit.unwrap();
                payload.extend_from_slice(&commit.count().to_le_bytes());
                let len = u32::try_from(commit.records.len()).unwrap();
                payload.extend_from_slice(&len.to_le_bytes());
                payload.extend_from_slice(commit.records);
            }
        });
        let changed = at.index(payload.len());
        payload[changed] = byte;
        payload.truncate(cut.index(payload.len()) + 1);
        for commit in Batches::new(&payload, 0) {
            let Ok(commit) = commit else { break };
            // An order that is read takes as many bytes when it is written again.
            let read: Result<Vec<_>, _> = orders(&commit).collect();
            if let Ok(read) = read {
                let mut again = Orders::new(1 << 20);
                for order in read {
                    again.push(order).unwrap();
                }
                again.finish();
                let len = format!("Orders(1 commits, {} bytes)", 8 + commit.records.len());
                assert_eq!(format!("{again:?}"), len);
            }
        }
    }

    #[test]
    fn a_digest_tells_entries_apart(
        one in vec((vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..4), any::<Option<i64>>()), 0..4),
        other in vec((vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..4), any::<Option<i64>>()), 0..4),
    ) {
        let digest = |entries: &[(Vec<u8>, Vec<u8>, Option<i64>)]| {
            let mut digest = Digests::new();
            for (key, value, expires_us) in entries {
                let item = Item { table: None, key, value, expires_us: *expires_us };
                digest.add(item).unwrap();
            }
            digest.finish()
        };
        assert_eq!(digest(&one) == digest(&other), one == other);
    }
}
