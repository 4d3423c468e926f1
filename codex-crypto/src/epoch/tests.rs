//! Tests of the limits of an epoch, reached by setting its counters.

use super::*;
use crate::cipher::Cipher;

#[test]
fn the_last_nonce_is_the_limit_and_none_follows() {
    let sealer = sealer();
    sealer.messages.store(MESSAGES_MAX - 1, Ordering::Relaxed);
    assert_eq!(sealer.next_nonce().unwrap().counter(), MESSAGES_MAX);
    for _ in 0..3 {
        assert_eq!(sealer.next_nonce().unwrap_err(), Error::Exhausted);
    }
    assert_eq!(sealer.messages.load(Ordering::Relaxed), MESSAGES_MAX);
}

#[test]
fn a_counter_at_the_end_of_its_type_does_not_wrap() {
    let sealer = sealer();
    sealer.messages.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(sealer.next_nonce().unwrap_err(), Error::Exhausted);
}

#[test]
fn bytes_are_counted_with_associated_data_and_tag_and_end_at_the_limit() {
    let sealer = sealer();
    let mut buf = vec![7; 100];
    sealer.seal(sealer.next_nonce().unwrap(), &[0; 20], &mut buf, 10).unwrap();
    assert_eq!(sealer.bytes.load(Ordering::Relaxed), 90 + 20 + 16);

    sealer.bytes.store(SEALED_BYTES_MAX - 17, Ordering::Relaxed);
    let mut buf = vec![7; 2];
    let refused = sealer.seal(sealer.next_nonce().unwrap(), &[], &mut buf, 0);
    assert_eq!(refused, Err(Error::Exhausted));
    assert_eq!(buf, [7; 2], "what was not sealed is as it was");
    let mut buf = vec![7; 1];
    sealer.seal(sealer.next_nonce().unwrap(), &[], &mut buf, 0).unwrap();
    assert_eq!(sealer.bytes.load(Ordering::Relaxed), SEALED_BYTES_MAX);
}

#[test]
fn a_sealer_says_that_it_is_worn_at_half_of_either_limit() {
    let sealer = sealer();
    assert!(!sealer.is_worn());
    sealer.messages.store(MESSAGES_MAX / 2 - 1, Ordering::Relaxed);
    assert!(!sealer.is_worn());
    sealer.next_nonce().unwrap();
    assert!(sealer.is_worn());

    let sealer = self::sealer();
    sealer.bytes.store(SEALED_BYTES_MAX / 2, Ordering::Relaxed);
    assert!(sealer.is_worn());
}

#[test]
fn the_counter_is_the_last_eight_bytes_of_the_nonce() {
    assert_eq!(nonce_bytes(0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
}

fn sealer() -> Sealer {
    Sealer::new(Aead::new(Cipher::Aes256Gcm, &[1; 32]), EpochSalt([2; 32]))
}
