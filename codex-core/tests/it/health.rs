//! Tests of the health of a store, and of the words of its options and statistics.

use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{BackupPolicy, Codec, Durability, Form, Store, Writes};

use crate::common::seed;

#[test]
fn the_health_of_a_store_is_that_of_its_writes_images_and_backups() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let options = Store::options().backups(BackupPolicy::keep(2)).require_backups(true);
    let store = options.open_in(&vfs, "a.db").unwrap();
    store.set("k", "v").unwrap();
    let health = store.health();
    assert!(health.is_writable() && health.is_well());
    assert_eq!(health.to_string(), "writable");

    let failing = |calls: Calls| disk.fail_on(calls, 1, Fault::Eio, Lasting::Sticky, Side::Before);
    failing(Calls::of(CallKind::Write).on("a.db.tmp.image"));
    store.checkpoint().unwrap_err();
    let health = store.health();
    assert!(health.is_writable() && !health.is_well());
    assert!(health.to_string().starts_with("writable; the last image failed: "), "{health}");
    disk.clear_plan();
    store.checkpoint().unwrap();
    assert!(store.health().is_well());

    failing(Calls::of(CallKind::Write).on("a.db.bak.tmp"));
    store.set("k", "w").unwrap();
    store.back_up().unwrap_err();
    let health = store.health();
    assert_eq!(health.writes, Writes::BackupRequired);
    assert!(health.backup_error.is_some() && !health.is_writable());
    disk.clear_plan();
    store.back_up().unwrap();
    assert!(store.health().is_well());

    failing(Calls::of(CallKind::Sync));
    store.set("k", "x").unwrap_err();
    let health = store.health();
    let Writes::Poisoned { reason } = &health.writes else { panic!("{health}") };
    assert_eq!(Some(reason), store.poisoned().as_ref());
    assert_eq!(health.to_string(), format!("poisoned: {reason}"));
    assert!(!health.is_well());
}

#[test]
fn a_reader_and_a_closed_store_are_not_writable() {
    let vfs = Vfs::mem(seed());
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.close().unwrap();
    assert_eq!(store.health().writes, Writes::Closed);
    assert!(!store.health().is_well());
    let reader = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
    assert_eq!(reader.health().writes, Writes::ReadOnly);
    assert!(!reader.health().is_writable() && reader.health().is_well());
}

#[cfg(feature = "json")]
#[test]
fn options_are_their_words_in_a_configuration_file() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Config {
        form: Form,
        durability: Durability,
        codec: Codec,
    }

    let durability = Durability::Interval(std::time::Duration::from_millis(100));
    let config = Config { form: Form::Ledger, durability, codec: Codec::Json };
    let text = r#"{"form":"ledger","durability":"interval:100ms","codec":"json"}"#;
    assert_eq!(serde_json::to_string(&config).unwrap(), text);
    assert_eq!(serde_json::from_str::<Config>(text).unwrap(), config);
    assert_eq!("bincode".parse::<Codec>().unwrap(), Codec::Bincode);
    let error = "JSON".parse::<Codec>().unwrap_err();
    assert_eq!(error.to_string(), r#""JSON" is no codec; known: bincode, json"#);
    let error = serde_json::from_str::<Form>(r#""rows""#).unwrap_err().to_string();
    assert!(error.starts_with(r#""rows" is no form; known: wal, snapshot, ledger"#), "{error}");

    let store = Store::options().open_in(&Vfs::mem(seed()), "a.db").unwrap();
    store.set("k", "v").unwrap();
    let anchor = store.anchor().unwrap();
    assert_eq!(anchor.to_string().parse(), Ok(anchor));
    let written = serde_json::to_value(anchor).unwrap();
    assert_eq!(serde_json::from_value::<codex_core::Anchor>(written).unwrap(), anchor);
}

#[cfg(feature = "json")]
#[test]
fn statistics_are_serialized_and_shown_in_one_line() {
    let store = Store::options().open_in(&Vfs::mem(seed()), "a.db").unwrap();
    store.set("k", "v").unwrap();
    let stats = serde_json::to_value(store.stats()).unwrap();
    assert_eq!((&stats["commits"], &stats["storage"]["seq"]), (&1.into(), &1.into()));
    assert_eq!(stats["backups"]["last_error"], serde_json::Value::Null);
    let line = store.stats().to_string();
    assert!(line.starts_with("seq=1 durable=1 groups=1 syncs=1 "), "{line}");
    assert!(!line.contains('\n') && !line.contains("error"), "{line}");
}
