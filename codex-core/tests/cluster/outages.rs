//! What a node does while the cluster does not take its writes, and what it finds after that.

use std::thread;
use std::time::Duration;

use codex_core::shared::SharedError;

use crate::common::{LONG, ONE, node, of_log, on, shared, start, state, until};
use crate::members::{Cluster, Flow, Proxy, Setup, range, text_of};

#[test]
fn without_a_majority_reads_go_on_and_a_doubt_is_settled_by_the_next_write() {
    let Some(mut cluster) = shared() else { return };
    let store = on(cluster.endpoints(), "majority", Duration::from_secs(2));
    let other = node(&cluster, "majority", 1);
    store.set("k", &1).unwrap();
    for n in 0..cluster.len() {
        cluster.cut(n);
    }
    // A leader that has lost its majority may still take a write, which it never acknowledges.
    let doubt = store.set("doubt", &1).unwrap_err();
    assert!(doubt.is_in_doubt(), "{doubt}");
    assert!(matches!(of_log(doubt), SharedError::Unanswered { .. }));
    let unsettled = store.set("later", &1).unwrap_err();
    assert!(!unsettled.is_in_doubt(), "{unsettled}");
    assert!(matches!(of_log(unsettled), SharedError::Unsettled { .. }));
    assert_eq!(store.get::<i32>("k").unwrap(), Some(1));
    let away = of_log(store.read_latest(Duration::from_millis(300)).unwrap_err());
    assert!(matches!(away, SharedError::Away { .. }), "{away}");
    until("the lag tells it", || !store.lag().unwrap().connected);
    let lag = store.lag().unwrap();
    assert!(lag.last_error.is_some(), "{lag:?}");
    cluster.heal().unwrap();
    store.set("settled", &1).unwrap();
    let made = store.contains_key("doubt");
    until("the lag tells it", || store.lag().unwrap().connected);
    // What the next write has settled stays so.
    thread::sleep(Duration::from_secs(1));
    other.set("last", &1).unwrap();
    assert_eq!(state(&store), state(&other));
    assert_eq!(other.contains_key("doubt"), made);
    assert!(!other.contains_key("later"));
}

#[test]
fn a_doubt_whose_part_was_made_is_found_by_its_slot() {
    let Some(cluster) = shared() else { return };
    let links = cluster.client_links().unwrap();
    let through = links.iter().map(|link| format!("http://{}", link.address())).collect();
    let store = on(through, "answers", Duration::from_secs(2));
    store.set("k", &1).unwrap();
    set(&links, Flow::NoAnswers);
    let doubt = store.set("doubt", &1).unwrap_err();
    assert!(doubt.is_in_doubt(), "{doubt}");
    set(&links, Flow::Open);
    store.set("settled", &1).unwrap();
    assert_eq!(store.get::<i32>("doubt").unwrap(), Some(1));
    assert_eq!(store.lag().unwrap().seq, 3, "a write that is tried again is made once");
    assert_eq!(state(&store), state(&node(&cluster, "answers", 0)));
}

#[test]
fn a_full_cluster_refuses_writes_and_takes_them_again_after_its_operator_made_room() {
    let setup = Setup { quota: Some(16 << 20), ..ONE };
    let Some(cluster) = start("quota", setup) else { return };
    let store = node(&cluster, "quota", 0);
    let value = vec![7_u8; 256 << 10];
    let full = (0..200).find_map(|n| store.set_bytes(format!("{n}"), &value).err());
    let full = full.expect("16 MiB are full before 50 MiB are written");
    assert!(!full.is_in_doubt(), "{full}");
    assert!(matches!(of_log(full), SharedError::Full { .. }));
    let count = store.len();
    assert!(store.set("absent", &1).is_err());
    assert_eq!(store.len(), count);
    assert_eq!(store.get_bytes("0").unwrap().as_ref(), value);
    // The operator removes what is not of this store, or raises the limit. This test gives up the
    // first entry of the log, and opens no node on it.
    make_room(&cluster, "quota/log/");
    store.set("room", &1).unwrap();
    assert_eq!(store.len(), count + 1);
    assert!(!store.contains_key("absent"));
}

fn set(links: &[Proxy], flow: Flow) {
    for link in links {
        link.set(flow);
    }
}

/// Removes the keys of a prefix, except the last one, as an operator would any others.
fn make_room(cluster: &Cluster, prefix: &str) {
    let [key, end] = range(prefix);
    let ask = |path: &str, body: &str| cluster.ask(0, path, body).unwrap().body;
    let all = format!(r#""key": "{key}", "range_end": "{end}""#);
    let newest = format!(r#"{{{all}, "limit": 1, "sort_order": "DESCEND", "sort_target": "MOD"}}"#);
    let newest = text_of(&ask("kv/range", &newest), "key").unwrap();
    ask("kv/deleterange", &format!(r#"{{"key": "{key}", "range_end": "{newest}"}}"#));
    let status = ask("maintenance/status", "{}");
    let [revision, member] = ["revision", "member_id"].map(|name| text_of(&status, name).unwrap());
    ask("kv/compaction", &format!(r#"{{"revision": "{revision}", "physical": true}}"#));
    ask("maintenance/defragment", "{}");
    let alarm = format!(r#""memberID": "{member}", "alarm": "NOSPACE""#);
    ask("maintenance/alarm", &format!(r#"{{"action": "DEACTIVATE", {alarm}}}"#));
}

#[test]
fn a_slow_reader_that_a_compaction_has_overtaken_reads_on_without_a_gap() {
    let Some(cluster) = shared() else { return };
    let links = cluster.client_links().unwrap();
    let through = links.iter().map(|link| format!("http://{}", link.address())).collect();
    let slow = on(through, "compaction", LONG);
    let store = node(&cluster, "compaction", 0);
    store.set("first", &0).unwrap();
    slow.read_latest(LONG).unwrap();
    set(&links, Flow::Cut);
    (0..300).for_each(|n| store.set(format!("{}", n % 100), &n).unwrap());
    let head = cluster.ask(0, "maintenance/status", "{}").unwrap().body;
    let revision = text_of(&head, "revision").unwrap();
    for n in 0..cluster.len() {
        let body = format!(r#"{{"revision": "{revision}", "physical": true}}"#);
        let _ = cluster.ask(n, "kv/compaction", &body);
    }
    assert_eq!(slow.len(), 1);
    set(&links, Flow::Open);
    assert_eq!(state(&slow), state(&store));
    assert_eq!(slow.lag().unwrap().seq, store.lag().unwrap().seq);
    slow.set("on", &1).unwrap();
    assert_eq!(state(&slow), state(&store));
}

#[test]
fn members_that_were_restored_from_an_older_state_are_refused_and_reads_go_on() {
    let Some(mut cluster) = start("restored", ONE) else { return };
    let store = on(cluster.endpoints(), "restored", Duration::from_secs(5));
    store.set("old", &1).unwrap();
    cluster.save().unwrap();
    cluster.heal().unwrap();
    (0..20).for_each(|n| store.set("lost", &n).unwrap());
    cluster.put_back().unwrap();
    cluster.heal().unwrap();
    // The first one is in doubt: its part is in a log that this node does not know.
    until("writes are refused", || store.set("new", &1).is_err_and(|e| e.is_poisoned()));
    let refused = store.set("new", &1).unwrap_err().to_string();
    assert!(refused.contains("restored from an older state"), "{refused}");
    let latest = of_log(store.read_latest(LONG).unwrap_err());
    assert!(matches!(latest, SharedError::RolledBack { .. }), "{latest}");
    assert_eq!(store.get::<i32>("lost").unwrap(), Some(19));
    // Opened again, it shows what is left.
    let opened = node(&cluster, "restored", 0);
    assert!(opened.contains_key("old") && !opened.contains_key("lost"));
    opened.set("new", &1).unwrap();
}
