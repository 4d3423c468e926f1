//! Entries of tables: their keys are not those of the store, and no command hides that they exist.

use codex_core::{Store, TableSpec};
use codex_storage::batch::{Item, Op, TableId};
use codex_storage::storage::Form;
use codex_storage::vfs::Vfs;
use codex_storage::{Config, open};
use serde_json::{Value, json};

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
    assert!(du.contains(r#"{"bytes":6,"keys":1,"table":17,"name":"table 17"}"#), "{du}");
    // The keys are those outside tables, as in the library.
    assert_eq!(folder.ok(&["keys", "app.db"]), "a/b\n");
    let diff = folder.run(&["diff", "app.db", "app.db"]);
    assert!(diff.stderr.contains("3 entries in 2 tables are not compared"), "{diff:?}");
}

#[test]
fn an_export_of_tables_is_imported_into_a_store_without_any() {
    let folder = folder(Form::Wal);
    let export = folder.ok(&["export", "app.db"]);
    let lines: Vec<&str> = export.lines().collect();
    assert_eq!(lines[0], r#"{"key":"a/b","codec":"raw","text":"value"}"#);
    assert_eq!(lines[3], r#"{"table":17,"key":"k","codec":"raw","text":"value"}"#);
    assert_eq!(lines.len(), 4);
    // A codec and an expiry of an entry of a table come back too.
    let more =
        r#"{"table":17,"key":"\\xff","expires_us":4000000000000000,"codec":"json","value":1.50}"#;
    let export = format!("{export}{more}\n");
    let run = folder.run_with(&["import", "new.db", "--create"], export.as_bytes());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "imported 5 keys\n"), "{run:?}");
    assert_eq!(folder.ok(&["export", "new.db"]), export);
    // A checkpoint and an opening later as well.
    folder.ok(&["checkpoint", "new.db"]);
    assert_eq!(folder.ok(&["export", "new.db"]), export);
    // The ids of two exports can be the same, so a second one is refused, with nothing written.
    let run = folder.run_with(&["import", "new.db"], export.as_bytes());
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("line 2: the store has tables"), "{run:?}");
    let none = r#"{"table":0,"key":"k","codec":"raw","text":""}"#;
    assert_eq!(folder.run_with(&["import", "new.db"], none.as_bytes()).code, Some(2));
}

#[test]
fn the_page_shows_the_sizes_of_tables_at_any_commit() {
    let folder = folder(Form::Ledger);
    let shown = Shown::enter(&folder, &["app.db"]);
    let tree = shown.json("tree");
    let table = |id: u32, keys: u64, bytes: u64| {
        let name = format!("table {id}");
        json!({"id": id, "table": name, "keys": keys, "bytes": bytes})
    };
    assert_eq!(tree["tables"], Value::from(vec![table(16, 2, 12), table(17, 1, 6)]));
    assert_eq!((&tree["keys"], &tree["bytes"]), (&4.into(), &26.into()));
    assert_eq!(shown.json("tree?at=1")["tables"], Value::from(Vec::<Value>::new()));
    assert_eq!(shown.json("tree?prefix=a")["bytes"], 8, "a table has no part in a prefix");
    let moment = |at: u64| shown.json(&format!("moment?at={at}"))["in_tables"].clone();
    assert_eq!([moment(1), moment(2)], [0, 3]);
}

#[test]
fn tables_and_indexes_have_their_names_and_an_import_has_all_of_them() {
    let folder = Folder::new();
    let spec = || {
        TableSpec::<u64, String>::new("users")
            .unique::<String>("by_name", |name, keys| keys.add(name))
    };
    let store = Store::open(folder.path("app.db")).unwrap();
    spec().open(&store).unwrap().set(7, &"Ada".into()).unwrap();
    store.close().unwrap();
    let names = ["catalogue", "table users", "index by_name of users"];
    let du = folder.ok(&["du", "app.db"]);
    assert!(names.iter().all(|name| du.contains(&format!("({name})\n"))), "{du}");
    let tree = Shown::enter(&folder, &["app.db"]).json("tree");
    let tables = tree["tables"].as_array().unwrap();
    assert!(tables.iter().map(|table| table["table"].as_str().unwrap()).eq(names), "{tree}");
    let export = folder.ok(&["export", "app.db"]);
    let run = folder.run_with(&["import", "new.db", "--create"], export.as_bytes());
    assert_eq!(run.code, Some(0), "{run:?}");
    let store = Store::open(folder.path("new.db")).unwrap();
    let users = spec().open(&store).unwrap();
    assert!(users.verify_indexes().unwrap().is_ok());
    let found = users.index::<String>("by_name").unwrap().get("Ada").unwrap();
    assert_eq!(found, Some((7, "Ada".to_owned())));
}

#[test]
fn the_keys_of_a_table_are_typed_and_shown_by_their_kind() {
    let folder = Folder::new();
    let store = Store::options().form(Form::Ledger).open(folder.path("app.db")).unwrap();
    store.set("plain", &1).unwrap();
    let users = TableSpec::<u64, String>::new("users")
        .unique::<String>("by_name", |name, keys| keys.add(name))
        .open(&store)
        .unwrap();
    for (id, name) in [(7, "Ada"), (300, "Bo"), (300, "Bob")] {
        users.set(id, &name.into()).unwrap();
    }
    let visits = store.table::<(String, i32), Vec<u8>>("visits").unwrap();
    for key in [("home", -1), ("home", 2), ("shop", 1)] {
        visits.set(key, &Vec::new()).unwrap();
    }
    let names = store.table::<String, u8>("names").unwrap();
    names.set("a b\\", &5).unwrap();
    store.close().unwrap();

    let tables = folder.ok(&["tables", "app.db"]);
    let row = tables.lines().find(|line| line.starts_with("users")).unwrap();
    assert!(row.contains("u64") && row.contains("by_name (string, unique)"), "{tables}");
    let tables = folder.ok(&["tables", "app.db", "--json"]);
    let rows: Vec<Value> = tables.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |row: &Value| (row["table"].clone(), row["keys"].clone(), row["kind_of_keys"].clone());
    assert_eq!(of(&rows[1]), ("users".into(), 2.into(), "u64".into()));
    assert_eq!(of(&rows[2]), ("visits".into(), 3.into(), "(string, i32)".into()));
    let index = json!({
        "name": "by_name", "keys": 2, "kind_of_keys": "string", "unique": true, "building": false,
    });
    assert_eq!(rows[1]["indexes"], json!([index]));

    let of = |args: &[&str]| folder.ok(&[&args[..1], &["app.db"], &args[1..]].concat());
    assert_eq!(of(&["get", "300", "--table", "users", "--as", "str"]), "\"Bob\"\n");
    assert_eq!(of(&["keys", "--table", "users"]), "7\n300\n");
    assert_eq!(of(&["keys", "--table", "users", "--from", "8"]), "300\n");
    assert_eq!(of(&["count", "--table", "users", "--to", "300"]), "1\n");
    let found = of(&["keys", "--table", "visits", "--reverse", "--json"]);
    let keys = ["[\"shop\",1]", "[\"home\",2]", "[\"home\",-1]"];
    assert_eq!(found, keys.map(|key| format!("{{\"key\":{key}}}\n")).concat());
    assert_eq!(of(&["count", "--table", "visits", "--prefix", "[\"home\"]"]), "2\n");
    // Strings are typed and shown as keys outside tables.
    assert_eq!(of(&["keys", "--table", "names"]), "a b\\\\\n");
    assert_eq!(of(&["scan", "--table", "names", "--as", "u8"]), "a b\\\\\t5\n");
    assert_eq!(of(&["get", "a b\\\\", "--table", "names", "--as", "u8"]), "5\n");
    let history = of(&["history", "300", "--table", "users", "--as", "str"]);
    assert!(history.contains("\"Bo\"") && history.contains("\"Bob\""), "{history}");
    assert_eq!(of(&["keys"]), "plain\n", "without the option, the keys outside tables");

    for (args, code, told) in [
        (&["get", "app.db", "8", "--table", "users"][..], 1, "no such key: 8"),
        (&["get", "app.db", "Ada", "--table", "users"], 2, "Ada is no key of the kind u64"),
        (&["keys", "app.db", "--table", "orders"], 2, "there is no table orders"),
        (&["keys", "app.db", "--table", "users", "--prefix", "3"], 2, "first parts of a tuple"),
    ] {
        let run = folder.run(args);
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains(told), "{run:?}");
    }
    let lines = b"tables\nkeys --table users\nbegin\nget 7 --table users --as str\ncommit\n";
    let run = folder.run_with(&["shell", "app.db"], lines);
    assert!(run.stdout.ends_with("7\n300\n\"Ada\"\n"), "{run:?}");
}

#[test]
fn the_page_lists_the_keys_of_a_table_at_any_commit() {
    let folder = Folder::new();
    let store = Store::options().form(Form::Ledger).open(folder.path("app.db")).unwrap();
    store.set("plain", &1).unwrap();
    let before = store.stats().storage.seq;
    let visits = TableSpec::<(String, i32), String>::new("visits")
        .index::<String>("by_who", |who, keys| keys.add(who))
        .open(&store)
        .unwrap();
    for (page, day, who) in [("home", -1, "Ada"), ("home", 2, "Bo"), ("shop", 1, "Ada")] {
        visits.set((page, day), &who.into()).unwrap();
    }
    let last = store.stats().storage.seq;
    visits.set(("home", 2), &"Eve".into()).unwrap();
    store.close().unwrap();
    let shown = Shown::enter(&folder, &["app.db"]);
    let tables = shown.json("tables");
    let index = json!({"name": "by_who", "kind": "string", "unique": false, "building": false});
    let (name, kind) = ("visits", "(string, i32)");
    let table = json!({"name": name, "kind": kind, "keys": 3, "indexes": [index]});
    assert_eq!(tables, json!([table]));
    assert_eq!(shown.json(&format!("tables?at={before}")), json!([]));

    let keys = |query: &str| {
        let list = shown.json(&format!("list?{query}"));
        let page = shown.json(&format!("page?list={}", list["list"]));
        let rows = page["rows"].as_array().unwrap().iter();
        rows.map(|row| row["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let [first, second, third] = [r#"["home",-1]"#, r#"["home",2]"#, r#"["shop",1]"#];
    assert_eq!(keys("table=visits"), [first, second, third]);
    assert_eq!(keys("table=visits&prefix=%5B%22home%22%5D"), [first, second]);
    assert_eq!(keys("table=visits&filter=,2%5D"), [second], "the filter is part of the text");
    assert_eq!(keys("table=visits&from=%5B%22home%22,0%5D"), [second, third]);
    assert_eq!(keys(""), ["plain"]);
    let list = shown.json("list?table=visits&key=%5B%22shop%22,1%5D");
    assert_eq!(list["pos"], 2);

    let value = |at: u64| shown.json(&format!("value?table=visits&key=%5B%22home%22,2%5D&at={at}"));
    assert_eq!(
        (&value(last)["key"], &value(last)["read"]["json"]),
        (&second.into(), &"\"Bo\"".into())
    );
    assert_eq!(value(last + 1)["read"]["json"], "\"Eve\"");
    let history = shown.json("history?table=visits&key=%5B%22home%22,2%5D");
    assert_eq!((&history["total"], &history["rows"][0]["preview"]), (&2.into(), &"\"Bo\"".into()));
    for (query, told) in [
        ("value?table=visits&key=home".to_owned(), "no key of the kind (string, i32)"),
        ("list?table=orders".to_owned(), "no such table"),
        (format!("list?table=visits&at={before}"), "no such table at this commit"),
        ("list?table=visits&prefix=home".to_owned(), "first parts of a tuple"),
    ] {
        let reply = shown.api(&query);
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
        assert!(reply.body.contains(told), "{query}: {reply:?}");
    }
}

#[test]
fn the_compression_of_a_store_is_told() {
    let folder = Folder::new();
    folder.ok(&["init", "plain.db"]);
    folder.ok(&["init", "packed.db", "--compression", "lz4"]);
    for (name, found) in [("plain.db", "none"), ("packed.db", "lz4")] {
        assert_eq!(field(&folder.ok(&["info", name]), "compression"), found);
    }
}
