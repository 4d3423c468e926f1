//! The record `meta` of a shared log: it is made once, and a node finds out if it is another one.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use codex_storage::batch::Item;
use codex_storage::seal::Keys;
use codex_storage::shared::{
    Client, Follower, Frame, Mark, Memory, Meta, Order, Orders, Position, RecordName, SharedError,
    SharedLog, WriteFault,
};
use codex_storage::storage::Form;
use codex_storage::vfs::{Mode, Open, SeededEntropy, SimClock, Vfs};
use codex_storage::{Error, Result};

use crate::common::seal::ToyKeys;
use crate::common::store::Store;
use crate::common::{Bed, NAME, golden};

const TIMEOUT: Duration = Duration::from_secs(5);

fn keys(passphrase: &str, seed: u64) -> Arc<dyn Keys> {
    ToyKeys::new(passphrase, Arc::new(SeededEntropy::new(seed)))
}

fn open(client: &Client, keys: Option<&dyn Keys>, seed: u64) -> Result<Meta> {
    Meta::open(client, keys, &SeededEntropy::new(seed), &SimClock::new(), TIMEOUT)
}

fn record(client: &Client) -> Vec<u8> {
    client.record(RecordName::Meta, TIMEOUT).unwrap().unwrap().bytes
}

fn follower(client: &Client, meta: Meta) -> Follower {
    Follower::new(Arc::new(client.clone()), Arc::new(SimClock::new()), Arc::new(meta))
}

fn write(follower: &mut Follower) -> Result<()> {
    let mut frame = Orders::new(1 << 10);
    let item = Item { table: None, key: b"a", value: b"1", expires_us: None };
    frame.push(Order::Set(item)).unwrap();
    frame.finish();
    let mark = follower.mark();
    let next = Mark { seq: mark.seq + 1, ..mark };
    follower.write(&frame, 0, TIMEOUT, &mut |_| Ok(next))
}

#[test]
fn of_several_nodes_one_makes_the_store() {
    for seed in 0..100 {
        let memory = Memory::new();
        let is_sealed = seed % 2 == 0;
        let ids: Vec<_> = thread::scope(|scope| {
            let nodes: Vec<_> = (0..4)
                .map(|node| {
                    let client = memory.client();
                    let seed = seed * 4 + node;
                    for fault in [WriteFault::Lost, WriteFault::AnswerLost, WriteFault::Late] {
                        if SeededEntropy::new(seed).below(2) == 0 {
                            client.fail_write(fault);
                        }
                    }
                    scope.spawn(move || {
                        let keys = is_sealed.then(|| keys("key", seed));
                        let meta = open(&client, keys.as_deref(), seed).unwrap();
                        let root = meta.seal().map(|seal| seal.root_id());
                        (*meta.store_id(), root, meta.storage().anchor().value)
                    })
                })
                .collect();
            nodes.into_iter().map(|node| node.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "seed {seed}: {ids:?}");
    }
}

#[test]
fn the_store_of_a_log_stays_the_same_and_another_log_has_another() {
    let (memory, other) = (Memory::new(), Memory::new());
    let first = open(&memory.client(), None, 1).unwrap();
    let again = open(&memory.client(), None, 2).unwrap();
    let second = open(&other.client(), None, 2).unwrap();
    assert_eq!(first.store_id(), again.store_id());
    assert_eq!(first.storage().anchor(), again.storage().anchor());
    assert_ne!(first.store_id(), second.store_id());
    assert_ne!(first.storage().anchor().value, second.storage().anchor().value);
}

#[test]
fn a_log_without_an_answer_makes_no_store_twice() {
    let memory = Memory::new();
    let client = memory.client();
    (0..2_000).for_each(|_| client.fail_write(WriteFault::Lost));
    let away = open(&client, None, 1).unwrap_err();
    assert!(matches!(away, Error::Shared(SharedError::Away { .. })), "{away}");
    client.heal();
    client.cut(true);
    assert!(matches!(open(&client, None, 1), Err(Error::Shared(SharedError::Away { .. }))));
    client.cut(false);
    open(&client, None, 1).unwrap();
}

#[test]
fn a_log_with_entries_and_no_record_is_refused() {
    let memory = Memory::new();
    let client = memory.client();
    let mut node = follower(&client, open(&client, None, 1).unwrap());
    write(&mut node).unwrap();
    memory.forge_record(RecordName::Meta, None);
    let no_meta = |memory: &Memory| {
        let error = open(&memory.client(), None, 2).unwrap_err();
        assert!(matches!(error, Error::Shared(SharedError::NoMeta)), "{error}");
        assert!(memory.client().record(RecordName::Meta, TIMEOUT).unwrap().is_none());
    };
    no_meta(&memory);
    memory.trim(memory.end());
    no_meta(&memory);
    let memory = Memory::new();
    memory.forge_record(RecordName::Image, Some(b"image"));
    no_meta(&memory);
    // A session by itself is no entry.
    let memory = Memory::new();
    memory.client().begin_session(TIMEOUT).unwrap();
    open(&memory.client(), None, 1).unwrap();
}

#[test]
fn a_record_that_was_replaced_is_found_out_by_the_next_session() {
    let other = Memory::new();
    open(&other.client(), None, 7).unwrap();
    let other = record(&other.client());
    for (forged, what) in [
        (None, "is gone"),
        (Some(&other[..]), "names another store"),
        (Some(&other[..511]), "cannot be read"),
    ] {
        let memory = Memory::new();
        let client = memory.client();
        let mut node = follower(&client, open(&client, None, 1).unwrap());
        let mut reader = follower(&memory.client(), open(&memory.client(), None, 1).unwrap());
        write(&mut node).unwrap();
        memory.forge_record(RecordName::Meta, forged);
        write(&mut node).unwrap();
        memory.fence();
        let error = write(&mut node).unwrap_err();
        let expected = SharedError::MetaChanged { what };
        assert!(matches!(&error, Error::Shared(error) if *error == expected), "{error}");
        assert!(expected.is_final() && node.failed() == Some(&expected));
        assert!(matches!(write(&mut node), Err(Error::Shared(SharedError::MetaChanged { .. }))));
        assert_eq!(memory.end(), Position(2), "nothing was written");
        let mut mark = reader.mark();
        let mut sink = |_: Frame<'_>| {
            mark.seq += 1;
            Ok(mark)
        };
        reader.deliver(&mut sink).unwrap();
    }
}

#[test]
fn a_wrong_key_has_the_errors_of_files() {
    let (plain, sealed) = (Memory::new(), Memory::new());
    open(&plain.client(), None, 1).unwrap();
    open(&sealed.client(), Some(&*keys("key", 1)), 1).unwrap();
    let with = |memory: &Memory, key: Option<&str>| {
        let keys = key.map(|key| keys(key, 2));
        open(&memory.client(), keys.as_deref(), 2).map(drop)
    };
    assert!(matches!(with(&plain, Some("key")), Err(Error::NotEncrypted { .. })));
    assert!(matches!(with(&sealed, None), Err(Error::KeyRequired { .. })));
    assert!(matches!(with(&sealed, Some("other")), Err(Error::WrongKey { .. })));
    with(&sealed, Some("key")).unwrap();
    let bytes = record(&sealed.client());
    // The store id is bound by the envelope, the time of creation by the tag.
    for (at, expected) in [(16, "WrongKey"), (64, "Tampered"), (96, "Tampered"), (480, "Tampered")]
    {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let crc = crc32c::crc32c(&forged[..508]);
        forged[508..].copy_from_slice(&crc.to_le_bytes());
        sealed.forge_record(RecordName::Meta, Some(&forged));
        let found = match with(&sealed, Some("key")).unwrap_err() {
            Error::WrongKey { .. } => "WrongKey",
            Error::Tampered { .. } => "Tampered",
            error => panic!("{at}: {error}"),
        };
        assert_eq!(found, expected, "byte {at}");
    }
}

#[test]
fn a_record_that_is_none_is_named_and_left_as_it_is() {
    let memory = Memory::new();
    open(&memory.client(), None, 1).unwrap();
    let bytes = record(&memory.client());
    let forge = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut forged = bytes.clone();
        change(&mut forged);
        if forged.len() >= 512 {
            let crc = crc32c::crc32c(&forged[..508]);
            forged[508..512].copy_from_slice(&crc.to_le_bytes());
        }
        memory.forge_record(RecordName::Meta, Some(&forged));
        let error = open(&memory.client(), None, 1).unwrap_err();
        assert_eq!(record(&memory.client()), forged);
        error
    };
    assert!(matches!(forge(&|bytes| bytes.clear()), Error::EmptyFile { .. }));
    assert!(matches!(forge(&|bytes| bytes[0] = 0), Error::NotADatabase { .. }));
    assert!(matches!(forge(&|bytes| bytes[8] = 2), Error::NewerVersion { found: 2, .. }));
    assert!(matches!(forge(&|bytes| bytes[13] = 2), Error::Unsupported { .. }));
    for (at, value) in [(10, 1), (10, 4), (11, 2), (48, 1), (56, 1), (72, 1), (88, 1), (160, 1)] {
        let error = forge(&|bytes| bytes[at] = value);
        assert!(matches!(error, Error::Damaged { .. }), "byte {at}: {error}");
    }
    assert!(matches!(forge(&|bytes| bytes.truncate(511)), Error::Damaged { .. }));
    assert!(matches!(forge(&|bytes| bytes.push(0)), Error::Damaged { .. }));
    // In the place of a file it is named too.
    let bed = Bed::new(Vfs::mem(1), Form::Wal, false);
    let file = bed.vfs.dir.open(NAME, Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    drop(file);
    let error = Store::open(bed.config()).map(drop).unwrap_err();
    assert!(matches!(&error, Error::BadPath { why, .. } if why.contains("shared log")), "{error}");
}

/// The record of a plain store, and of one under the cipher of these tests.
#[test]
fn a_record_of_version_1_is_made_and_read_as_ever() {
    for (name, is_sealed) in [("shared-meta.bin", false), ("shared-meta-toy-seal.bin", true)] {
        let memory = Memory::new();
        let keys = is_sealed.then(|| keys("golden", 3_001));
        let made = open(&memory.client(), keys.as_deref(), 3_002).unwrap();
        let golden = golden::check(name, &record(&memory.client()));
        memory.forge_record(RecordName::Meta, Some(&golden));
        let read = open(&memory.client(), keys.as_deref(), 1).unwrap();
        assert_eq!(read.store_id(), made.store_id());
        assert_eq!(read.storage().anchor(), made.storage().anchor());
    }
}
