//! A sealed log that someone has changed who controls the servers and has no key; and the counters
//! under which parts are sealed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use codex_storage::seal::{
    ENVELOPE_LEN, Envelope, HEADER_TAG_LEN, Keys, Opener, Seal, SealError, Sealer,
};
use codex_storage::shared::{Memory, RecordName, SharedError, SharedLog, Slot, WriteFault};
use codex_storage::vfs::SeededEntropy;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::common::seal::ToyKeys;
use crate::shared_sealed::{Node, with_short_parts, write_with_random_faults};

fn keys(seed: u64) -> Arc<dyn Keys> {
    ToyKeys::new("key", Arc::new(SeededEntropy::new(seed)))
}

type Entries = Vec<(Slot, Vec<u8>)>;

/// One change of a log.
#[derive(Debug, Clone)]
enum Forgery {
    /// Another byte, with the checksum of its part made right.
    Byte(Index, Index, u8),
    /// Two entries change places.
    Swap(Index, Index),
    /// The parts of two entries change places.
    SwapParts(Index, Index),
    Drop(Index),
    /// The entries after a place are gone.
    Cut(Index),
    /// An entry again, at another place.
    Replay(Index, Index),
    /// A part in the next slot of another session.
    Move(Index, Index),
    /// A part that is buried.
    Bury(Index),
    /// An empty part before another one in its slot.
    BuryBefore(Index),
    /// A part of another store under the same key of the user.
    Splice(Index, Index),
    /// A part that is not sealed.
    Plain(Index, Index),
}

fn forgery() -> impl Strategy<Value = Forgery> {
    use Forgery::{
        Bury, BuryBefore, Byte, Cut, Drop, Move, Plain, Replay, Splice, Swap, SwapParts,
    };
    let two = || (any::<Index>(), any::<Index>());
    prop_oneof![
        4 => (any::<Index>(), any::<Index>(), 1..=u8::MAX).prop_map(|(a, b, c)| Byte(a, b, c)),
        2 => two().prop_map(|(a, b)| Swap(a, b)),
        1 => two().prop_map(|(a, b)| SwapParts(a, b)),
        2 => any::<Index>().prop_map(Drop),
        1 => any::<Index>().prop_map(Cut),
        2 => two().prop_map(|(a, b)| Replay(a, b)),
        1 => two().prop_map(|(a, b)| Move(a, b)),
        1 => any::<Index>().prop_map(Bury),
        1 => any::<Index>().prop_map(BuryBefore),
        1 => two().prop_map(|(a, b)| Splice(a, b)),
        1 => two().prop_map(|(a, b)| Plain(a, b)),
    ]
}

/// Makes the checksum of a part right.
fn sum(part: &mut [u8]) {
    if part.len() >= 64 {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&part[..60]), &part[64..]);
        part[60..64].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Gives a part the session and the number of `slot`.
fn address(part: &mut [u8], slot: Slot) {
    if part.len() >= 64 {
        part[8..16].copy_from_slice(&slot.session.0.to_le_bytes());
        part[16..24].copy_from_slice(&slot.n.to_le_bytes());
        sum(part);
    }
}

fn forge(log: &mut Entries, forgery: &Forgery, other: &Entries, plain: &Entries) {
    if log.is_empty() {
        return;
    }
    let len = log.len();
    match forgery {
        Forgery::Byte(at, byte, change) => {
            let (_, part) = &mut log[at.index(len)];
            if !part.is_empty() {
                let byte = byte.index(part.len());
                part[byte] ^= change;
                sum(part);
            }
        }
        Forgery::Swap(a, b) => log.swap(a.index(len), b.index(len)),
        Forgery::SwapParts(a, b) => {
            let (a, b) = (a.index(len), b.index(len));
            let (at, mut one) = log[a].clone();
            let (to, mut two) = log[b].clone();
            address(&mut one, to);
            address(&mut two, at);
            (log[a].1, log[b].1) = (two, one);
        }
        Forgery::Drop(at) => drop(log.remove(at.index(len))),
        Forgery::Cut(at) => log.truncate(at.index(len)),
        Forgery::Replay(at, to) => {
            let entry = log[at.index(len)].clone();
            log.insert(to.index(len + 1), entry);
        }
        Forgery::Move(at, to) => {
            let (_, mut part) = log[at.index(len)].clone();
            let session = log[to.index(len)].0.session;
            let own = log.iter().filter(|(slot, _)| slot.session == session);
            let n = own.map(|(slot, _)| slot.n + 1).max().unwrap_or(0);
            address(&mut part, Slot { session, n });
            log.push((Slot { session, n }, part));
        }
        Forgery::Bury(at) => log[at.index(len)].1.clear(),
        Forgery::BuryBefore(at) => {
            let at = at.index(len);
            log.insert(at, (log[at].0, Vec::new()));
        }
        Forgery::Splice(at, from) => {
            let slot = log[at.index(len)].0;
            let same = other.iter().find(|(other, _)| *other == slot);
            let (_, mut part) = same.unwrap_or(&other[from.index(other.len())]).clone();
            address(&mut part, slot);
            log[at.index(len)].1 = part;
        }
        Forgery::Plain(at, from) => {
            let slot = log[at.index(len)].0;
            let (_, mut part) = plain[from.index(plain.len())].clone();
            address(&mut part, slot);
            log[at.index(len)].1 = part;
        }
    }
}

/// A log to which nodes have written one after the other, each after it had read all. Some of
/// their sessions ended, and some of their slots are buried.
fn honest(writes: &[(usize, u8, bool, u8)], keys: Option<&dyn Keys>) -> (Memory, Node) {
    let memory = with_short_parts();
    let new = || keys.map_or_else(|| Node::plain(&memory), |keys| Node::with_key(&memory, keys));
    let mut nodes: Vec<_> = (0..3).map(|_| new()).collect();
    for (node, key, is_long, fault) in writes {
        let node = &mut nodes[*node];
        match fault {
            0 => memory.fence(),
            1 => node.fail_until_in_doubt(WriteFault::Late),
            2 => node.fail_until_in_doubt(WriteFault::AnswerLost),
            _ => {}
        }
        let value = [*key; 80];
        let _ = node.set(&format!("key {key}"), if *is_long { &value } else { &value[..5] });
        node.heal();
        for node in &mut nodes {
            node.catch_up().unwrap();
        }
    }
    (memory.clone(), new())
}

/// Returns the commits of a node, in order.
fn made(node: &Node) -> Vec<Vec<u8>> {
    let made = node.state.verdicts.iter().filter(|(_, is_set)| *is_set);
    made.map(|(key, _)| key.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 1_500,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_forged_log_shows_no_state_that_the_store_did_not_have(
        writes in vec((0..3_usize, 0..12_u8, any::<bool>(), 0..12_u8), 4..20),
        forgeries in vec(forgery(), 1..4),
        read in any::<Index>(),
    ) {
        let key = keys(1);
        let (memory, mut model) = honest(&writes, Some(&*key));
        let (other, _) = honest(&writes, Some(&*keys(2)));
        let (plain, _) = honest(&writes, None);
        model.catch_up().unwrap();
        let expected = made(&model);

        let mut log = memory.entries();
        // One node has read a part of the log before it was forged.
        let mut early = Node::with_key(&memory, &*key);
        let whole = log.clone();
        memory.forge(&whole[..read.index(whole.len() + 1)]);
        early.catch_up().unwrap();
        for forgery in &forgeries {
            forge(&mut log, forgery, &other.entries(), &plain.entries());
        }
        memory.forge(&log);
        for mut node in [Node::with_key(&memory, &*key), early] {
            let ended = node.catch_up();
            let made = made(&node);
            prop_assert!(expected.starts_with(&made), "{ended:?} {made:?}, not {expected:?}");
            prop_assert!(made.iter().all(|key| model.state.values[key] == node.state.values[key]));
            if let Err(error) = ended {
                prop_assert!(error.is_final(), "{error}");
                prop_assert!(node.set("more", b"1").is_err(), "it goes on after {error}");
            }
        }
    }
}

#[test]
fn each_byte_of_a_sealed_part_is_authenticated() {
    let key = keys(1);
    let writes = [(0, 1, false, 9), (0, 2, false, 9), (0, 2, false, 9), (0, 3, false, 9)];
    let (memory, _) = honest(&writes, Some(&*key));
    let log = memory.entries();
    for part in 0..2 {
        for byte in (0..60).chain(64..log[part].1.len()) {
            let mut forged = log.clone();
            forged[part].1[byte] ^= 1;
            sum(&mut forged[part].1);
            memory.forge(&forged);
            let mut node = Node::with_key(&memory, &*key);
            let error = node.catch_up().unwrap_err();
            let is_named =
                matches!(error, SharedError::BadFrame { .. } | SharedError::Tampered { .. });
            assert!(is_named, "byte {byte}: {error}");
            assert_eq!(made(&node).len(), part);
        }
    }
    // A part is bound to the one before it, even if that has changed nothing.
    let mut forged = log.clone();
    forged[2].1.clear();
    memory.forge(&forged);
    let error = Node::with_key(&memory, &*key).catch_up().unwrap_err();
    assert!(matches!(error, SharedError::Tampered { slot } if slot.n == 3), "{error}");
}

#[test]
fn a_part_without_a_seal_is_refused_in_a_sealed_log_and_the_other_way() {
    let (sealed, plain) =
        (honest(&[(0, 1, false, 9)], Some(&*keys(1))), honest(&[(0, 1, false, 9)], None));
    let (of_sealed, of_plain) = (sealed.0.entries(), plain.0.entries());
    sealed.0.forge(&of_plain);
    plain.0.forge(&of_sealed);
    for (mut node, what) in [(sealed.1, "not sealed"), (plain.1, "not encrypted")] {
        let error = node.catch_up().unwrap_err();
        assert!(matches!(error, SharedError::BadFrame { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// What was sealed: by the key of a session, and the counter, the text with its associated data.
type Sealed = Arc<Mutex<HashMap<(Vec<u8>, u64), Vec<u8>>>>;

/// Keys that record what is sealed under them.
#[derive(Debug)]
struct Recording(Arc<dyn Keys>, Sealed);

#[derive(Debug)]
struct RecordingSeal(Arc<dyn Seal>, Sealed);

#[derive(Debug)]
struct RecordingSealer {
    sealer: Box<dyn Sealer>,
    key: Vec<u8>,
    sealed: Sealed,
}

impl Keys for Recording {
    fn create(
        &self,
        store_id: &[u8; 16],
        cipher: Option<u8>,
        old: Option<&Envelope>,
    ) -> Result<(Envelope, Arc<dyn Seal>), SealError> {
        let (envelope, seal) = self.0.create(store_id, cipher, old)?;
        Ok((envelope, Arc::new(RecordingSeal(seal, Arc::clone(&self.1)))))
    }

    fn wrap(
        &self,
        _store_id: &[u8; 16],
        _root: &dyn Seal,
        _old: &Envelope,
    ) -> Result<Envelope, SealError> {
        Err(SealError::Refused("no key is changed".to_owned()))
    }

    fn unlock(
        &self,
        store_id: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn Seal>, SealError> {
        let seal = self.0.unlock(store_id, envelope)?;
        Ok(Arc::new(RecordingSeal(seal, Arc::clone(&self.1))))
    }
}

impl Seal for RecordingSeal {
    fn cipher_id(&self) -> u8 {
        self.0.cipher_id()
    }

    fn root_id(&self) -> [u8; 16] {
        self.0.root_id()
    }

    fn header_tag(&self, header: &[u8]) -> [u8; HEADER_TAG_LEN] {
        self.0.header_tag(header)
    }

    fn digest_pad(&self, file_id: &[u8; 16]) -> [u8; 32] {
        self.0.digest_pad(file_id)
    }

    fn verify_header(&self, header: &[u8], tag: &[u8; HEADER_TAG_LEN]) -> Result<(), SealError> {
        self.0.verify_header(header, tag)
    }

    fn sealer(&self, info: &[u8]) -> Result<Box<dyn Sealer>, SealError> {
        let sealer = self.0.sealer(info)?;
        let key = [info, &sealer.salt()].concat();
        Ok(Box::new(RecordingSealer { sealer, key, sealed: Arc::clone(&self.1) }))
    }

    fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Result<Box<dyn Opener>, SealError> {
        self.0.opener(salt, info)
    }
}

impl Sealer for RecordingSealer {
    fn salt(&self) -> [u8; 32] {
        self.sealer.salt()
    }

    fn next_counter(&mut self) -> Result<u64, SealError> {
        self.sealer.next_counter()
    }

    fn is_worn(&self) -> bool {
        self.sealer.is_worn()
    }

    fn seal(
        &mut self,
        counter: u64,
        aad: &[u8],
        buf: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError> {
        let text = [aad, &buf[from..]].concat();
        let before = self.sealed.lock().unwrap().insert((self.key.clone(), counter), text);
        assert!(before.is_none(), "counter {counter} was used before");
        self.sealer.seal(counter, aad, buf, from)
    }
}

#[test]
fn no_counter_seals_two_texts_whatever_goes_wrong() {
    let sealed = Sealed::default();
    let recording = Recording(keys(1), Arc::clone(&sealed));
    let mut parts = 0;
    for seed in 0..100 {
        let memory = write_with_random_faults(seed, &|memory| Node::with_key(memory, &recording));
        // What is in the log was sealed, each part under a counter of its own.
        parts += memory.entries().iter().filter(|(_, part)| !part.is_empty()).count();
    }
    let sealed = sealed.lock().unwrap().len();
    assert!(sealed > parts && parts > 1_000, "{parts} of {sealed}");
}

#[test]
fn a_counter_of_a_part_that_was_refused_is_not_used_again() {
    let sealed = Sealed::default();
    let recording = Recording(keys(1), Arc::clone(&sealed));
    let memory = Memory::new();
    let mut node = Node::with_key(&memory, &recording);
    let refuse = |node: &mut Node| {
        memory.set_quota(0);
        for _ in 0..2 {
            assert!(matches!(node.set("b", b"2"), Err(SharedError::Full { .. })));
        }
        memory.set_quota(u64::MAX);
    };
    refuse(&mut node);
    assert_eq!(node.set("a", b"1"), Ok(true), "with the salt, which the refused parts had too");
    refuse(&mut node);
    // The slot of the refused parts takes another one, and what follows continues that.
    assert_eq!(node.set("c", b"3"), Ok(true));
    assert_eq!(node.set("d", b"4"), Ok(true));
    assert_eq!(memory.slots().len(), 3);
    assert_eq!(sealed.lock().unwrap().len(), 7);
    let mut new = Node::with_key(&memory, &recording);
    new.catch_up().unwrap();
    assert_eq!(made(&new).len(), 3);
}

#[test]
fn a_key_that_is_worn_ends_its_session() {
    let memory = Memory::new();
    let keys = ToyKeys::limited("key", Arc::new(SeededEntropy::new(1)), 10);
    let mut node = Node::with_key(&memory, &*keys);
    for n in 0..30 {
        assert_eq!(node.set(&n.to_string(), b"1"), Ok(true));
    }
    let sessions: Vec<_> = memory.slots().iter().map(|(slot, _)| slot.session).collect();
    assert!(sessions.chunk_by(|a, b| a == b).count() >= 6, "{sessions:?}");
    let mut new = Node::with_key(&memory, &*keys);
    new.catch_up().unwrap();
    assert_eq!(made(&new).len(), 30);
}

/// A part of an old session under the record of the store cannot begin a session again.
#[test]
fn a_session_begins_once() {
    let key = keys(1);
    let (memory, _) = honest(&[(0, 1, false, 9), (0, 2, false, 9), (0, 3, false, 9)], Some(&*key));
    let log = memory.entries();
    // Without the first part, the second one has no salt, and the third one continues nothing.
    memory.forge(&log[1..]);
    assert!(matches!(Node::with_key(&memory, &*key).catch_up(), Err(SharedError::Gap { .. })));
    let mut forged = log[1..].to_vec();
    for (n, (slot, part)) in (0..).zip(&mut forged) {
        slot.n = n;
        address(part, *slot);
    }
    memory.forge(&forged);
    let error = Node::with_key(&memory, &*key).catch_up().unwrap_err();
    assert!(matches!(error, SharedError::Tampered { .. }), "{error}");
    // The whole log of another store, under its own record, is another store.
    let (other, _) = honest(&[(0, 1, false, 9)], Some(&*keys(2)));
    let meta = other.client().record(RecordName::Meta, std::time::Duration::ZERO).unwrap().unwrap();
    memory.forge(&log);
    memory.forge_record(RecordName::Meta, Some(&meta.bytes));
    let error = Node::with_key(&memory, &*key).catch_up().unwrap_err();
    assert!(matches!(error, SharedError::Tampered { .. }), "{error}");
}
