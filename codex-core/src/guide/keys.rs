//! Keys: numbers, several parts, prefixes.
//!
//! A key is a sequence of at most 65,535 bytes. A method accepts any type that has bytes: `&str`,
//! `String`, `[u8; 8]`, `&[u8]`, `Vec<u8>`. Keys are ordered by their bytes, as the strings of a
//! dictionary are. `range`, `prefix` and the iterators follow this order, so the encoding of a key
//! decides which keys are neighbours.
//!
//! There is one space of keys and no tables. A prefix serves as a table: `user/`, `session/`.
//! [`prefix`](crate::Store::prefix) reads one, and
//! [`remove_prefix`](crate::Store::remove_prefix) removes one in a single commit.
//!
//! # Prefixes end with a separator
//!
//! `user/1` is also the beginning of `user/10`. If the prefix ends with the separator, and no part
//! of a key contains the separator, a prefix selects one subject and no other:
//!
//! ```
//! # let store = codex_core::Store::in_memory()?;
//! for key in ["user/1/name", "user/1/mail", "user/10/name"] {
//!     store.set(key, "")?;
//! }
//! assert_eq!(store.prefix("user/1").count(), 3); // too many
//! assert_eq!(store.prefix("user/1/").count(), 2);
//! # Ok::<(), codex_core::Error>(())
//! ```
//!
//! # Numbers are big-endian, or padded
//!
//! The text of numbers is not in the order of the numbers: `"10"` is less than `"9"`. Two encodings
//! are: the big-endian bytes, which are short, and decimal digits padded with zeros to a fixed
//! width, which a person can read. `to_le_bytes` and `to_ne_bytes` are not in order.
//!
//! ```
//! # let store = codex_core::Store::in_memory()?;
//! for number in [9_u64, 10, 300] {
//!     store.set(number.to_be_bytes(), &number)?;
//!     store.set(format!("line/{number:020}"), &number)?;
//! }
//! let in_order = |prefix: &[u8]| -> codex_core::Result<Vec<u64>> {
//!     store.prefix(prefix).map(|entry| entry.value()).collect()
//! };
//! assert_eq!(in_order(&[0])?, [9, 10, 300]);
//! assert_eq!(in_order(b"line/")?, [9, 10, 300]);
//!
//! // The number of a key, again.
//! let entry = store.prefix([0]).next().expect("there are three");
//! let number = u64::from_be_bytes(entry.key().try_into()?);
//! assert_eq!(number, 9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Three variations:
//!
//! - Signed numbers: flip the sign bit first, because two's complement puts -1 after all positive
//!   numbers: `(number.cast_unsigned() ^ (1 << 63)).to_be_bytes()` for an `i64`.
//! - Newest first: store `!number`, so that a plain scan begins with the largest. It is seldom
//!   needed, because `.rev()` of an iterator costs the same as going forward.
//! - Times: a count of units since 1970 as a `u64`, in seconds, milliseconds or microseconds. The
//!   clock of a computer can go back and two events can have the same time, so a key needs a second
//!   part that makes it unique.
//!
//! # Keys of several parts
//!
//! The keys of a [`Table`](crate::Table) may be tuples:
//! `store.table::<(String, u64), f64>("readings")`. Outside tables, join the bytes of the parts.
//! Keys are then ordered by the first part, then by the second, if each part but the last has a
//! fixed length or ends with a byte that the part cannot contain:
//!
//! ```
//! # let store = codex_core::Store::in_memory()?;
//! /// (sensor, time): a name that contains no zero byte, then a number of fixed length.
//! fn reading_key(sensor: &str, time: u64) -> Vec<u8> {
//!     [sensor.as_bytes(), &[0], &time.to_be_bytes()].concat()
//! }
//!
//! store.set(reading_key("roof", 1_000), &21.5_f64)?;
//! store.set(reading_key("roof", 2_000), &23.0_f64)?;
//! store.set(reading_key("roof2", 1_500), &17.0_f64)?;
//!
//! // One sensor.
//! assert_eq!(store.prefix(b"roof\0").count(), 2);
//! // The newest reading of one sensor.
//! let newest = store.prefix(b"roof\0").next_back().expect("there are two");
//! assert_eq!(newest.value::<f64>()?, 23.0);
//! // One sensor from one time on, and before another time.
//! let later = store.range(reading_key("roof", 1_500)..reading_key("roof", 9_000));
//! assert_eq!(later.count(), 1);
//! # Ok::<(), codex_core::Error>(())
//! ```
//!
//! Without the zero byte, `roof` at one time and `roof2` at another would lie between each other.
//!
//! Put the part by which you search first. To search by two parts, keep a second key whose value is
//! the first key, and write both in one [batch](crate::Store::batch): see the secondary index in
//! the [cookbook](super::cookbook).
//!
//! # Bytes of a user in a key
//!
//! If a part comes from a user, it may contain the separator: `user/a/b` is `b` of the user `a`, or
//! the user `a/b`. Refuse such a part, or put it last. An empty part and an empty key are allowed.
