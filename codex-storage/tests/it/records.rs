//! The bytes of records: the flags, the fields that they add, and the answers to unknown ones.

use codex_storage::batch::{Item, Op, Records, TableId, encode_record, record_len};
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::{SimClock, Vfs};
use codex_storage::{Access, Error, RecordError};
use sha2::{Digest as _, Sha256};

use crate::common::format::{frames, is_log, resum_frame, resum_image, u32_at};
use crate::common::store::Store;
use crate::common::{Bed, NAME, bytes, files, golden, put};

/// Decodes one record.
fn read(record: &[u8]) -> Result<Op<'_>, RecordError> {
    let mut records = Records::new(record, 1);
    let op = records.next().unwrap();
    op.and_then(|op| records.next().map_or(Ok(op), |rest| rest))
}

fn written(op: Op<'_>) -> Vec<u8> {
    let mut buf = Vec::new();
    encode_record(op, &mut buf).unwrap();
    assert_eq!(buf.len(), record_len(op));
    buf
}

#[test]
fn the_expiry_stands_between_the_head_and_the_key() {
    let item = Item { table: None, key: b"key", value: b"value", expires_us: Some(-2) };
    let bytes = b"\x01\x01\x03\0\x05\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xffkeyvalue";
    assert_eq!(written(Op::Set(item)), bytes);
    assert!(read(bytes) == Ok(Op::Set(item)));
    assert_eq!(written(Op::set(b"key", b"value")), b"\x01\0\x03\0\x05\0\0\0keyvalue");
}

#[test]
fn the_table_stands_after_the_expiry_and_zero_is_no_table() {
    let item =
        Item { table: TableId::new(0x0403_0201), key: b"key", value: b"value", expires_us: None };
    let both = Item { expires_us: Some(-2), ..item };
    let (table, key) = (item.table, item.key);
    for (op, bytes) in [
        (Op::Set(item), &b"\x01\x02\x03\0\x05\0\0\0\x01\x02\x03\x04keyvalue"[..]),
        (
            Op::Set(both),
            b"\x01\x03\x03\0\x05\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04keyvalue",
        ),
        (Op::Remove { table, key }, b"\x02\x02\x03\0\0\0\0\0\x01\x02\x03\x04key"),
        (Op::Clear { table }, b"\x03\x02\0\0\0\0\0\0\x01\x02\x03\x04"),
    ] {
        assert_eq!(written(op), bytes);
        assert!(read(bytes) == Ok(op));
        let at = bytes.windows(4).position(|window| window == [1, 2, 3, 4]).unwrap();
        let zero = [&bytes[..at], &[0; 4], &bytes[at + 4..]].concat();
        assert_eq!(read(&zero).err(), Some(RecordError::Malformed("a table has the id 0")));
    }
}

#[test]
fn each_flag_and_each_cut_has_its_answer() {
    for kind in 1..=4_u8 {
        for flags in 0..=255_u8 {
            let expiry = &[0; 8][..usize::from(flags & 1) * 8];
            let table = &[1, 0, 0, 0][..usize::from(flags & 2) * 2];
            let record = [&[kind, flags, 0, 0, 0, 0, 0, 0], expiry, table];
            let found = read(&record.concat()).map(|_| ());
            let expected = match (kind, flags) {
                (_, 4..) => Err(RecordError::UnknownFlags(flags & !3)),
                (2 | 3, 1 | 3) => Err(RecordError::Malformed("a removal has an expiry")),
                (4, _) => Err(RecordError::UnknownKind(4)),
                _ => Ok(()),
            };
            assert_eq!(found, expected, "kind {kind}, flags {flags:#04x}");
        }
    }
    let item = Item { table: Some(TableId::MIN), key: b"k", value: b"v", expires_us: Some(7) };
    let whole = written(Op::Set(item));
    for len in 0..whole.len() {
        assert!(matches!(read(&whole[..len]), Err(RecordError::Malformed(_))), "{len} bytes");
    }
}

/// The record decoder of a build that knows no flag, kept as it was.
fn read_as_an_older_build(record: &[u8]) -> Result<(), RecordError> {
    let (head, _) = record.split_first_chunk::<8>().unwrap();
    let [_, flags, ..] = *head;
    if flags != 0 {
        return Err(RecordError::UnknownFlags(flags));
    }
    Ok(())
}

/// Corrects the digest of the first batch of a ledger, at `at`.
fn redigest(ledger: &mut [u8], at: usize) {
    let (count, len) = (u32_at(ledger, at).to_le_bytes(), u32_at(ledger, at + 4) as usize);
    let (time, records) = (&ledger[at + 8..at + 16], &ledger[at + 48..at + 48 + len]);
    let seq = 1_u64.to_le_bytes();
    let parts = [&b"codexdb ledger 1"[..], &ledger[96..128], &seq, time, &count, records];
    let digest = Sha256::digest(parts.concat());
    ledger[at + 16..at + 48].copy_from_slice(&digest);
}

/// Files with flags that this build does not know: a typed error, and no byte is changed.
#[test]
fn an_unknown_flag_in_a_file_is_named_and_the_file_is_left_as_it_is() {
    let table = Some(TableId::MIN);
    let item = Item { table, key: b"key", value: b"value", expires_us: Some(1) };
    assert_eq!(read_as_an_older_build(&written(Op::Set(item))), Err(RecordError::UnknownFlags(3)));
    let mut count = 0;
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let bed = Bed::mem(form, false);
        let mut config = bed.config();
        config.checkpoint.close_into_image_bytes_max = 0;
        let mut store = Store::open(config).unwrap();
        store.commit(&[&[Op::Set(item)]]).unwrap();
        store.close().unwrap();
        for (name, mut file) in files(&bed.vfs) {
            let at = file.windows(8).position(|window| window == &written(Op::Set(item))[..8]);
            let Some(at) = at else { continue };
            file[at + 1] |= 0x80;
            if is_log(&file) {
                let (frame, _) = frames(&file)[0];
                if form == Form::Ledger {
                    redigest(&mut file, frame + 64);
                }
                resum_frame(&mut file, frame);
            } else {
                resum_image(&mut file);
            }
            let bed = bed.copy();
            put(&bed.vfs, &name, &file);
            let before = files(&bed.vfs);
            let refused = Store::open(bed.config()).unwrap_err();
            let source = RecordError::UnknownFlags(0x80);
            assert!(
                matches!(&refused, Error::Record { source: found, .. } if *found == source),
                "{form}, {name}: {refused:?}"
            );
            assert_eq!(files(&bed.vfs), before, "{form}, {name}");
            count += 1;
        }
    }
    assert_eq!(count, 3, "a segment, an image, a ledger");
}

/// A file of each form whose records have expiries, and one whose records have tables. This build
/// writes the same bytes, and reads them.
#[test]
fn a_golden_file_with_flags_is_made_and_read_the_same() {
    let item = |key, expires_us| Item { table: None, key, value: b"value", expires_us };
    let expiring = [
        item(b"before 1970", Some(-1)),
        item(b"never", None),
        item(b"the last moment", Some(i64::MAX)),
    ];
    let [_, plain, last] = expiring;
    let tabled = [
        Item { table: Some(TableId::MIN), ..plain },
        Item { table: Some(TableId::MAX), ..last },
        plain,
    ];
    for (name, form, items) in [
        ("wal-expiry.segment-1.log", Form::Wal, expiring),
        ("snapshot-expiry.db", Form::Snapshot, expiring),
        ("ledger-expiry.db", Form::Ledger, expiring),
        ("wal-table.segment-1.log", Form::Wal, tabled),
        ("snapshot-table.db", Form::Snapshot, tabled),
        ("ledger-table.db", Form::Ledger, tabled),
    ] {
        let clock = SimClock::new();
        let vfs = Vfs { clock: std::sync::Arc::new(clock), ..Vfs::mem(4_001) };
        let bed = Bed::new(vfs, form, false);
        let mut config = bed.at(Durability::Sync);
        config.checkpoint.close_into_image_bytes_max = 0;
        let mut store = Store::open(config).unwrap();
        store.commit(&[&items.map(Op::Set)]).unwrap();
        let map = store.map.clone();
        store.close().unwrap();
        let file =
            if form == Form::Wal { format!("{NAME}.wal.{:020}", 1) } else { NAME.to_owned() };
        let golden = golden::check(name, &bytes(&bed.vfs, &file));
        put(&bed.vfs, &file, &golden);
        let mut config = bed.config();
        config.access = Access::ReadOnly;
        assert_eq!(Store::open(config).unwrap().map, map, "{name}");
    }
}
