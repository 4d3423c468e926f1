//! Entries of tables: their keys are not those of the store, and no command hides that they exist.

use codex_storage::batch::{Item, Op, TableId};
use codex_storage::storage::Form;
use codex_storage::vfs::Vfs;
use codex_storage::{Config, open};
use serde_json::Value;

use crate::common::{Folder, field};
use crate::view::Shown;

/// Returns a folder with a store of one key, and of two tables with two and one entries. The first
/// commit sets the key, the second those of the tables.
fn folder(form: Form) -> Folder {
    let folder = Folder::new();
    let mut config = Config::new(Vfs::os(folder.path("")).unwrap(), "app.db");
    config.form = Some(form);
    let (mut storage, _) = open(&config, &mut |_| Ok(())).unwrap();
    let set = |id: u32, key: &'static [u8]| {
        Op::Set(Item { table: TableId::new(id), key, value: b"\0value", expires_us: None })
    };
    for ops in [&[set(0, b"a/b")][..], &[set(16, b"k"), set(16, b"l"), set(17, b"k")]] {
        let mut group = storage.group();
        for op in ops {
            group.push(*op).unwrap();
        }
        group.finish();
        storage.commit(&mut group, None).unwrap();
    }
    folder
}

#[test]
fn no_command_hides_the_entries_of_tables() {
    let folder = folder(Form::Wal);
    let info = folder.ok(&["info", "app.db"]);
    let found = ["keys  ", "tables", "keys in tables"].map(|name| field(&info, name));
    assert_eq!(found, ["1", "2", "3"]);
    let stats: Value = serde_json::from_str(&folder.ok(&["stats", "app.db", "--json"])).unwrap();
    assert_eq!(stats["keys"], 1);
    assert_eq!((&stats["keys_in_tables"], &stats["bytes_in_tables"]), (&3.into(), &18.into()));
    let du = folder.ok(&["du", "app.db"]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = du.lines().map(words).collect();
    assert_eq!(rows[1][..3], ["8", "B", "1"]);
    assert_eq!(rows[2][..3], ["12", "B", "2"]);
    assert!(du.contains("(table 16)\n") && du.contains("(table 17)\n"), "{du}");
    assert_eq!(rows[4][..3], ["26", "B", "4"], "all of them");
    let du = folder.ok(&["du", "app.db", "--json"]);
    assert!(du.contains(r#"{"bytes":6,"keys":1,"table":17}"#), "{du}");
    // The keys are those outside tables, as in the library.
    assert_eq!(folder.ok(&["keys", "app.db"]), "a/b\n");
    let export = folder.run(&["export", "app.db"]);
    assert_eq!((export.code, export.stdout.lines().count()), (Some(0), 1));
    let note = "note: 3 entries in 2 tables are not exported";
    assert!(export.stderr.starts_with(note), "{export:?}");
    let diff = folder.run(&["diff", "app.db", "app.db"]);
    assert!(diff.stderr.contains("3 entries in 2 tables are not compared"), "{diff:?}");
}

#[test]
fn the_page_shows_the_sizes_of_tables_at_any_commit() {
    let folder = folder(Form::Ledger);
    let shown = Shown::enter(&folder, &["app.db"]);
    let tree = shown.json("tree");
    let table = |id: u32, keys: u64, bytes: u64| serde_json::json!({ "id": id, "keys": keys, "bytes": bytes });
    assert_eq!(tree["tables"], Value::from(vec![table(16, 2, 12), table(17, 1, 6)]));
    assert_eq!((&tree["keys"], &tree["bytes"]), (&4.into(), &26.into()));
    assert_eq!(shown.json("tree?at=1")["tables"], Value::from(Vec::<Value>::new()));
    assert_eq!(shown.json("tree?prefix=a")["bytes"], 8, "a table has no part in a prefix");
    let moment = |at: u64| shown.json(&format!("moment?at={at}"))["in_tables"].clone();
    assert_eq!([moment(1), moment(2)], [0, 3]);
}
