//! The keys, values, sizes and counters of a store.

use codex_core::Store;
use codexdb::view::View;
use serde_json::Value;

use crate::common::Folder;
use crate::view::{Shown, entries};

#[test]
fn a_value_is_read_as_a_type_or_as_a_guess() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    store.set("user", &("Ada", 5_u32)).unwrap();
    store.set_bytes("raw", [1, 0]).unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    let guess = shown.json("value?key=user")["read"].clone();
    let expected = (&"[\"Ada\",5]".into(), &"(str, u32)".into(), &true.into());
    assert_eq!((&guess["json"], &guess["type"], &guess["guess"]), expected);
    let typed = shown.json("value?key=user&as=%7Bname%3A+str%2C+stars%3A+u32%7D")["read"].clone();
    let expected = (&r#"{"name":"Ada","stars":5}"#.into(), &false.into());
    assert_eq!((&typed["json"], &typed["guess"]), expected);
    assert_eq!(shown.json("value?key=raw")["read"], Value::Null);
    assert_eq!(shown.json("value?key=raw&as=u16")["read"]["json"], "1");
    for of in ["u64", "u", "%5B%28%29%3B+4000000000%5D"] {
        let found = shown.json(&format!("value?key=raw&as={of}"));
        assert!(found["read"].is_null() && found["unread"].is_string(), "{of}: {found}");
    }
    assert_eq!(entries(&shown, "")[1].1, "[\"Ada\",5]");
}

#[test]
fn a_list_has_pages_and_a_filter() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for number in 0..1000 {
        batch.set_bytes(format!("key/{number:04}"), b"v").unwrap();
    }
    batch.set_bytes("other", b"v").unwrap();
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    let first = |query: &str| {
        let made = shown.json(&format!("list?{query}"));
        let page = shown.json(&format!("page?list={}&count=1", made["list"]));
        (made["total"].clone(), page["rows"][0]["key"].clone(), made["pos"].clone())
    };
    assert_eq!(first(""), (1001.into(), "key/0000".into(), 0.into()));
    assert_eq!(first("prefix=key%2F09&key=key%2F0950"), (100.into(), "key/0900".into(), 50.into()));
    assert_eq!(first("from=key%2F0500&to=other"), (500.into(), "key/0500".into(), 0.into()));
    assert_eq!(first("filter=Y%2F000"), (10.into(), "key/0000".into(), 0.into()));
    assert_eq!(first("filter=none"), (0.into(), Value::Null, 0.into()));
    let list = shown.json("list?filter=5")["list"].clone();
    // The keys with a 5, of which each page has the next ones.
    let with_five: Vec<String> =
        (0..1000).map(|n| format!("key/{n:04}")).filter(|key| key.contains('5')).collect();
    for start in [0, 255, 256, 260, 270] {
        let page = shown.json(&format!("page?list={list}&start={start}&count=3"));
        let keys: Vec<&str> = page["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["key"].as_str().unwrap())
            .collect();
        assert_eq!(keys, with_five[start..].iter().take(3).collect::<Vec<_>>(), "{start}");
    }
    // The last lists are kept, and no others.
    for _ in 0..8 {
        shown.json("list");
    }
    assert_eq!(shown.api(&format!("page?list={list}")).status, 410);
}

#[test]
fn the_map_has_the_largest_parts_and_the_sum_of_the_others() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for number in 0..200 {
        batch.set_bytes(format!("many/{number:03}"), vec![0; number]).unwrap();
    }
    batch.set_bytes("few/a/b", b"12345").unwrap().set_bytes("few/c", b"").unwrap();
    batch.set_bytes("alone", b"1").unwrap();
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("store")["separator"], "/");
    let children = |found: &Value| {
        let rows = found["children"].as_array().unwrap().clone();
        let row = |row: &Value| format!("{} {} {}", row["name"], row["keys"], row["bytes"]);
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let top = shown.json("tree?separator=%2F");
    let many = (0..200).sum::<u64>() + 200 * 8;
    let expected =
        [format!("\"many/\" 200 {many}"), "\"few/\" 2 17".into(), "\"alone\" 1 6".into()];
    assert_eq!(children(&top), expected);
    assert_eq!((&top["keys"], &top["bytes"]), (&203.into(), &(many + 23).into()));
    let few = shown.json("tree?separator=%2F&prefix=few%2F");
    assert_eq!(children(&few), ["\"few/a/\" 1 12", "\"few/c\" 1 5"]);
    assert_eq!(few["children"][1]["isLeaf"], true);
    let inside = shown.json("tree?separator=%2F&prefix=many%2F");
    assert_eq!(inside["children"].as_array().unwrap().len(), 80);
    assert_eq!(children(&inside)[0], "\"many/199\" 1 207");
    assert_eq!(inside["rest"]["keys"], 120);
    let shown_bytes: u64 = inside["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(inside["rest"]["bytes"].as_u64().unwrap() + shown_bytes, many);
    assert_eq!(shown.json("tree")["children"].as_array().unwrap().len(), 80, "no separator");
}

#[test]
fn the_health_has_the_counters_and_the_backups() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    folder.ok(&["backup", "create", "app.db"]);
    let shown = Shown::enter(&folder, &["app.db"]);
    let health = shown.json("health");
    assert_eq!((&health["writes"], &health["is_well"]), (&"read-only".into(), &true.into()));
    assert_eq!((&health["keys"], &health["seq"]), (&1.into(), &1.into()));
    assert_eq!(health["backups"][0]["seq"], 1);
    assert_eq!(health["backups"][0]["error"], Value::Null);
    drop(shown);
    let store = Store::in_memory().unwrap();
    let server = View::new(&store).serve().unwrap();
    let shown = Shown::of(&server);
    store.set("a", &1).unwrap();
    let health = shown.json("health");
    assert_eq!((&health["writes"], &health["commits"]), (&"accepts writes".into(), &1.into()));
    assert!(health["data_hold_ns_max"].as_u64().unwrap() > 0);
    assert_eq!(health["backups"].as_array().unwrap().len(), 0);
}
