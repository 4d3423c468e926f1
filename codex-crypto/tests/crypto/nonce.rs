//! No pair of key and nonce is used twice, across files, threads and failed attempts.

use std::collections::HashSet;

use codex_crypto::{Error, MESSAGE_LEN_MAX, Sealer};

use crate::common::{CIPHERS, CONTEXT, INFO, root, scaled, sealed, sealer, seed, seeded};

#[test]
fn counters_begin_at_one_and_only_go_up() {
    let sealer = sealer(&root(CIPHERS[0]), 1);
    for expected in 1..=1000 {
        assert_eq!(sealer.next_nonce().unwrap().counter(), expected);
    }
}

#[test]
fn threads_that_share_a_sealer_never_get_one_counter_twice() {
    let sealer = sealer(&root(CIPHERS[0]), 1);
    let each = scaled(10_000);
    let counters: Vec<u64> = std::thread::scope(|scope| {
        let draw = || (0..each).map(|_| sealer.next_nonce().unwrap().counter()).collect();
        let threads = [(); 4].map(|()| scope.spawn(draw));
        threads.into_iter().flat_map(|thread| -> Vec<u64> { thread.join().unwrap() }).collect()
    });
    let distinct: HashSet<&u64> = counters.iter().collect();
    assert_eq!(distinct.len(), counters.len());
}

#[test]
fn an_attempt_that_fails_uses_its_nonce_up() {
    let sealer = sealer(&root(CIPHERS[0]), 1);
    let nonce = sealer.next_nonce().unwrap();
    assert_eq!(nonce.counter(), 1);
    assert!(sealer.seal(nonce, b"", &mut vec![], 1).is_err());
    sealer.next_nonce().unwrap();
    assert_eq!(sealed(&sealer, b"", b"text").0, 3);
}

#[test]
fn a_nonce_of_another_sealer_is_refused_and_nothing_is_sealed() {
    let root = root(CIPHERS[0]);
    let (one, two) = (sealer(&root, 1), sealer(&root, 1));
    let mut buf = b"text".to_vec();
    let outcome = one.seal(two.next_nonce().unwrap(), b"", &mut buf, 0);
    assert_eq!(outcome, Err(Error::ForeignNonce));
    assert_eq!(buf, b"text");
}

#[test]
fn a_message_that_is_too_long_is_refused_before_it_is_touched() {
    let sealer = sealer(&root(CIPHERS[0]), 1);
    let aad = vec![0; usize::try_from(MESSAGE_LEN_MAX).unwrap()];
    let mut buf = b"1".to_vec();
    let outcome = sealer.seal(sealer.next_nonce().unwrap(), &aad, &mut buf, 0);
    assert_eq!(outcome, Err(Error::MessageTooLong { len: MESSAGE_LEN_MAX + 1 }));
    assert_eq!(buf, b"1");
}

#[test]
fn one_text_never_looks_the_same_twice() {
    for cipher in CIPHERS {
        let root = root(cipher);
        let sealers: Vec<Sealer> = (0..50).map(|seed| sealer(&root, seed)).collect();
        let mut seen = HashSet::new();
        for _ in 0..50 {
            for sealer in &sealers {
                let (_, bytes) = sealed(sealer, b"header", b"the same sixteen bytes or more");
                assert!(seen.insert(bytes));
            }
        }
    }
}

/// A store that is opened, writes, loses an attempt, crashes, is rolled back or copied, and is
/// opened again. Its file is older than the messages that were sealed, and the store has no other
/// record of them.
#[test]
fn no_pair_repeats_across_crashes_rollbacks_and_copies() {
    let mut entropy = seeded(seed());
    let key = crate::common::raw_key();
    let (envelope, _) =
        codex_crypto::Envelope::create(&key, CIPHERS[0], CONTEXT, &mut entropy).unwrap();
    let mut pairs = HashSet::new();
    for cycle in 0..scaled(10_000) {
        // Two copies of the same file are opened and written to at the same time.
        for _copy in 0..2 {
            let root = envelope.open(&key, CONTEXT).unwrap();
            let salt = codex_crypto::EpochSalt::draw(&mut entropy).unwrap();
            let sealer = root.sealer(salt, INFO);
            for attempt in 0..4 {
                let nonce = sealer.next_nonce().unwrap();
                let pair = (*sealer.salt(), nonce.counter());
                assert!(pairs.insert(pair), "CODEX_SEED={} cycle {cycle}", seed());
                if attempt % 2 == 0 {
                    sealer.seal(nonce, b"", &mut vec![1; 8], 0).unwrap();
                }
            }
        }
    }
}

#[test]
fn one_opener_serves_several_threads() {
    for cipher in CIPHERS {
        let root = root(cipher);
        let sealer = sealer(&root, 1);
        let messages: Vec<(u64, Vec<u8>)> =
            (0_u32..400).map(|n| sealed(&sealer, b"header", &n.to_le_bytes())).collect();
        let opener = root.opener(sealer.salt(), INFO);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for ((counter, message), n) in messages.iter().zip(0_u32..) {
                        let mut buf = message.clone();
                        opener.open(*counter, b"header", &mut buf, 0).unwrap();
                        assert_eq!(buf, n.to_le_bytes());
                    }
                });
            }
        });
    }
}
