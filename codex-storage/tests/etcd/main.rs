//! The log on etcd against a server whose answers the tests give. The tests against etcd itself are
//! those of `cargo xtask cluster`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "tests use std")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests panic")]

mod server;

use std::time::Duration;

use codex_storage::Error;
use codex_storage::shared::{
    AppendError, Buried, EngineFault, Entry, Etcd, Position, Session, SharedError, SharedLog, Slot,
};
use serde_json::{Value, json};
use server::{Asked, Reply, header, server, text};

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

fn log(address: &str) -> Etcd {
    Etcd::new([address]).prefix("log")
}

/// The answer to a transaction whose comparisons held, or not.
fn txn(revision: u64, succeeded: bool, found: &[Value]) -> Reply {
    let responses: Vec<_> = found
        .iter()
        .map(|found| match found {
            Value::Null => json!({"response_range": {}}),
            found => json!({"response_range": {"kvs": [found]}}),
        })
        .collect();
    let answer =
        json!({"header": header(revision), "succeeded": succeeded, "responses": responses});
    Reply::Answer(200, answer)
}

fn refused(status: u16, message: &str, code: u32) -> Reply {
    Reply::Answer(status, json!({"error": message, "message": message, "code": code}))
}

fn key(session: Session, n: u64) -> String {
    text(&format!("log/log/{:016x}/{n:016x}", session.0))
}

/// Begins a session and appends to its first slot.
fn append(log: &Etcd, timeout: Duration) -> Result<Position, AppendError> {
    let session = log.begin_session(LONG).unwrap();
    log.append(Slot { session, n: 0 }, b"part", timeout)
}

fn kind(error: Error) -> SharedError {
    match error {
        Error::Shared(error) => error,
        other => panic!("{other}"),
    }
}

fn paths(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
}

/// Positions and parts.
type Entries = Vec<(u64, Vec<u8>)>;

/// Returns the entries after a position, and the position up to which they are all.
fn read(log: &Etcd, after: u64) -> Result<(Entries, u64), SharedError> {
    let mut found = Vec::new();
    let upto = log.read(Position(after), &mut |Entry { position, part, .. }| {
        found.push((position.0, part.to_vec()));
        Ok(())
    });
    upto.map(|upto| (found, upto.0)).map_err(kind)
}

#[test]
fn an_append_compares_the_slot_and_the_session_and_is_sent_again_as_it_was() {
    let (address, asked) = server(|n, _, _| match n {
        0 => Reply::Nothing,
        // The lost request was done.
        _ => txn(12, false, &[json!({"create_revision": "11", "mod_revision": "11"})]),
    });
    let log = log(&address);
    assert_eq!(append(&log, LONG).unwrap(), Position(11));
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0], asked[1]);
    let compare = &asked[0].1["compare"];
    assert_eq!(
        (&compare[0]["target"], &compare[0]["create_revision"]),
        (&json!("CREATE"), &json!("0"))
    );
    assert_eq!(
        (&compare[1]["target"], &compare[1]["create_revision"]),
        (&json!("CREATE"), &json!("10"))
    );
    assert_eq!(asked[0].1["success"][1]["request_put"]["value"], text("part"));
    assert_eq!(asked[0].1["success"][2]["request_put"]["key"], text("log/head"));
}

#[test]
fn a_free_slot_of_a_session_that_has_ended_is_fenced() {
    let (address, _) = server(|_, _, _| txn(12, false, &[Value::Null]));
    assert!(matches!(append(&log(&address), LONG), Err(AppendError::Fenced)));
}

#[test]
fn a_refusal_after_a_lost_answer_does_not_say_that_the_part_is_absent() {
    let full = || refused(429, "etcdserver: mvcc: database space exceeded", 8);
    let denied = || refused(403, "etcdserver: permission denied", 7);
    let (address, _) = server(move |n, _, _| if n == 0 { Reply::Nothing } else { denied() });
    assert!(matches!(append(&log(&address), LONG), Err(AppendError::Unanswered)));
    let (address, _) = server(move |_, _, _| denied());
    assert!(matches!(append(&log(&address), LONG), Err(AppendError::Absent(_))));
    // It is looked up whether the slot is free.
    let free = || Reply::Answer(200, json!({"header": header(12)}));
    let (address, _) = server(move |n, _, _| if n == 0 { full() } else { free() });
    match append(&log(&address), LONG) {
        Err(AppendError::Absent(error)) => {
            let error = kind(error);
            assert!(matches!(error, SharedError::Full { .. }), "{error}");
            assert!(error.to_string().contains("alarm disarm"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_part_with_which_a_member_became_full_was_written() {
    let (address, asked) = server(|n, _, _| {
        if n == 0 {
            return refused(429, "etcdserver: mvcc: database space exceeded", 8);
        }
        let kv = json!({"create_revision": "11", "mod_revision": "11"});
        Reply::Answer(200, json!({"header": header(12), "kvs": [kv]}))
    });
    let log = log(&address);
    assert_eq!(append(&log, LONG).unwrap(), Position(11));
    assert_eq!(paths(&asked), ["/v3/kv/txn", "/v3/kv/range"]);
}

#[test]
fn a_part_follows_the_one_before_it() {
    let (address, asked) = server(|_, _, _| txn(12, false, &[Value::Null]));
    let log = log(&address);
    let slot = Slot { session: log.begin_session(LONG).unwrap(), n: 7 };
    // The one before it is missing: it was trimmed, or the cluster was restored.
    assert!(matches!(log.append(slot, b"part", LONG), Err(AppendError::Fenced)));
    let asked = asked.lock().unwrap();
    let before = &asked[0].1["compare"][2];
    assert_eq!((&before["target"], &before["result"]), (&json!("CREATE"), &json!("GREATER")));
    assert_eq!(before["create_revision"], json!("0"));
}

#[test]
fn a_member_without_majority_leaves_a_part_in_doubt() {
    let (address, asked) = server(|_, _, _| refused(500, "context deadline exceeded", 2));
    assert!(matches!(append(&log(&address), SHORT), Err(AppendError::Unanswered)));
    assert!(paths(&asked).len() > 1, "it is asked again");
}

#[test]
fn what_was_buried_before_counts_as_absent_and_a_part_as_committed() {
    let (address, _) = server(|n, _, _| {
        let value = if n == 0 { "" } else { "part" };
        txn(12, false, &[json!({"create_revision": "11", "value": text(value)})])
    });
    let log = log(&address);
    let slot = Slot { session: log.begin_session(LONG).unwrap(), n: 0 };
    assert_eq!(log.bury(slot, LONG).unwrap(), Buried::Absent);
    assert_eq!(log.bury(slot, LONG).unwrap(), Buried::Committed(Position(11)));
}

#[test]
fn a_token_that_a_member_forgot_is_asked_for_again() {
    let (address, asked) = server(|n, path, _| match path {
        "/v3/auth/authenticate" => Reply::Answer(200, json!({"token": format!("t{n}")})),
        _ if n < 3 => refused(401, "etcdserver: invalid auth token", 16),
        _ => Reply::Answer(200, json!({"header": header(10)})),
    });
    let log = log(&address).user("app", "hidden");
    assert_eq!(log.head(LONG).unwrap(), Position(0));
    let all = ["/v3/auth/authenticate", "/v3/kv/range", "/v3/auth/authenticate", "/v3/kv/range"];
    assert_eq!(paths(&asked), all);
    assert!(!format!("{log:?}").contains("hidden"), "{log:?}");
}

#[test]
fn an_answer_of_an_older_state_or_another_cluster_ends_this_node() {
    for header in
        [json!({"cluster_id": "1", "revision": "9"}), json!({"cluster_id": "2", "revision": "11"})]
    {
        let (address, _) = server(move |_, _, _| Reply::Answer(200, json!({ "header": header })));
        let error = kind(log(&address).head(LONG).unwrap_err());
        assert!(matches!(error, SharedError::RolledBack { .. }), "{error}");
    }
}

/// Answers the reading of a log which has no entries at the revision 10.
fn empty_log(path: &str, body: &Value) -> Option<Reply> {
    match path {
        "/v3/kv/txn" if body.get("compare").is_none() => {
            Some(txn(10, true, &[Value::Null, Value::Null]))
        }
        "/v3/kv/range" => Some(Reply::Answer(200, json!({"header": header(10)}))),
        _ => None,
    }
}

#[test]
fn a_lone_writer_sees_its_entry_without_another_request() {
    // In the second case, the entry before the append is one that this node has not read.
    for (before, is_there) in [("7", true), ("11", false)] {
        let (address, _) = server(move |_, path, body| {
            empty_log(path, body).unwrap_or_else(|| match path {
                "/v3/watch" => Reply::Stream(vec![]),
                _ => txn(12, true, &[json!({"mod_revision": before})]),
            })
        });
        let log = log(&address);
        assert_eq!(read(&log, 0), Ok((vec![], 10)));
        assert_eq!(append(&log, LONG).unwrap(), Position(12));
        let found = read(&log, 10).unwrap();
        assert_eq!(found.0.len(), usize::from(is_there), "{found:?}");
        assert_eq!(log.wait(Position(10), Duration::ZERO).unwrap(), is_there);
    }
}

#[test]
fn a_watch_brings_entries_and_its_removals_count_for_nothing() {
    let slot = |n| key(Session(1), n);
    let (address, _) = server(move |_, path, body| {
        empty_log(path, body).unwrap_or_else(|| {
            assert_eq!(path, "/v3/watch");
            assert_eq!(body["create_request"]["start_revision"], "11");
            let event = |n: u64, revision: &str| {
                json!({"kv": {"key": slot(n), "mod_revision": revision, "value": text("part")}})
            };
            let mut removal = event(0, "12");
            removal["type"] = json!("DELETE");
            let events = json!([event(0, "11"), removal, event(1, "13")]);
            Reply::Stream(vec![
                json!({"result": {"header": header(12), "created": true}}),
                json!({"result": {"header": header(13), "events": events}}),
            ])
        })
    });
    let log = log(&address);
    assert_eq!(read(&log, 0), Ok((vec![], 10)));
    while read(&log, 10).unwrap().1 < 13 {
        assert!(log.wait(Position(10), LONG).unwrap());
    }
    let part = b"part".to_vec();
    assert_eq!(read(&log, 10), Ok((vec![(11, part.clone()), (13, part)], 13)));
}

#[test]
fn after_a_watch_that_was_canceled_the_log_is_read() {
    let (address, asked) = server(move |_, path, body| {
        empty_log(path, body).unwrap_or_else(|| {
            Reply::Stream(vec![json!({"result": {"canceled": true, "compact_revision": "40"}})])
        })
    });
    let log = log(&address);
    assert_eq!(read(&log, 0), Ok((vec![], 10)));
    while !paths(&asked).iter().any(|path| path == "/v3/watch") {
        std::thread::yield_now();
    }
    assert!(log.wait(Position(10), LONG).unwrap(), "there may be something");
    let before = paths(&asked).iter().filter(|path| *path == "/v3/kv/txn").count();
    assert_eq!(read(&log, 10), Ok((vec![], 10)));
    assert_eq!(paths(&asked).iter().filter(|path| *path == "/v3/kv/txn").count(), before + 1);
}

#[test]
fn a_silent_watch_begins_again_behind_a_look_at_the_head() {
    let (address, asked) =
        server(move |_, path, body| empty_log(path, body).unwrap_or_else(|| Reply::Stream(vec![])));
    let log = log(&address);
    assert_eq!(read(&log, 0), Ok((vec![], 10)));
    let mut looks = 0;
    while paths(&asked).iter().filter(|path| *path == "/v3/watch").count() < 2 {
        looks += 1;
        assert!(looks < 100, "the watch waits for ever");
        assert!(!log.wait(Position(10), SHORT).unwrap());
    }
    let all = ["/v3/kv/txn", "/v3/kv/range", "/v3/watch", "/v3/kv/range", "/v3/watch"];
    assert_eq!(paths(&asked), all);
}

#[test]
fn closing_ends_the_session_and_the_threads_and_waits_for_no_silent_member() {
    let (address, asked) =
        server(move |_, path, body| empty_log(path, body).unwrap_or_else(|| Reply::Stream(vec![])));
    let log = log(&address);
    assert_eq!(read(&log, 0), Ok((vec![], 10)));
    log.begin_session(LONG).unwrap();
    // It would not return if it waited for the watch, which never ends.
    drop(log);
    assert!(paths(&asked).iter().any(|path| path == "/v3/lease/revoke"));
    // The watch ends with its silence, after three seconds.
    let silence = Duration::from_millis(3_500);
    std::thread::sleep(silence);
    let before = paths(&asked).len();
    std::thread::sleep(silence);
    assert_eq!(paths(&asked).len(), before, "a thread goes on");
}

#[test]
fn a_reader_behind_a_trim_is_told() {
    let (address, _) =
        server(|_, _, _| txn(50, true, &[json!({"value": text("30")}), Value::Null]));
    let trimmed = SharedError::Trimmed { applied: Position(20), trimmed: Position(30) };
    assert_eq!(read(&log(&address), 20), Err(trimmed));
    assert_eq!(read(&log(&address), 30), Ok((vec![], 50)));
}

#[test]
fn a_trim_is_recorded_before_it_removes_and_removes_nothing_later() {
    let (address, asked) = server(|n, _, _| match n {
        0 => txn(50, true, &[Value::Null]),
        1 => txn(51, true, &[]),
        // The second one is too new.
        2 => {
            let kv = |n, revision| json!({"key": key(Session(1), n), "mod_revision": revision});
            let range = json!({"response_range": {"kvs": [kv(0, "20"), kv(1, "31")]}});
            let answer = json!({"header": header(51), "succeeded": true, "responses": [range]});
            Reply::Answer(200, answer)
        }
        3 => txn(52, true, &[]),
        _ => txn(52, true, &[Value::Null]),
    });
    log(&address).trim(Position(30), LONG).unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked[1].1["success"][0]["request_put"]["key"], text("log/trimmed"));
    assert_eq!(asked[1].1["success"][0]["request_put"]["value"], text("30"));
    assert_eq!(asked[2].1["success"][0]["request_range"]["max_mod_revision"], "30");
    let removed = &asked[3].1;
    assert_eq!(removed["success"].as_array().unwrap().len(), 1);
    assert_eq!(removed["success"][0]["request_delete_range"]["key"], key(Session(1), 0));
    assert_eq!(removed["compare"][0]["mod_revision"], "20");
}

#[test]
fn writes_are_refused_from_60_percent_of_the_quota_on() {
    let (address, asked) = server(|_, _, _| txn(12, true, &[Value::Null]));
    // The server tells 1,000 bytes in use.
    let log = Etcd::new([&*address]).prefix("log").quota(1_600);
    let usage = log.usage(LONG).unwrap();
    assert_eq!((usage.used, usage.limit), (1_000, 960));
    assert!(matches!(append(&log, LONG), Err(AppendError::Absent(error))
        if matches!(kind(error.clone()), SharedError::Full { used: 1_000, limit: 960, .. })));
    assert!(paths(&asked).is_empty(), "nothing is sent");
}

#[test]
fn a_record_whose_exchange_is_sent_twice_is_exchanged_once() {
    for (now, outcome) in [("new", Some(true)), ("other", None)] {
        let (address, _) = server(move |n, _, _| match n {
            0 => Reply::Nothing,
            _ => txn(12, false, &[json!({"value": text(now), "mod_revision": "12"})]),
        });
        let name = codex_storage::shared::RecordName::Image;
        let set = log(&address).set_record(name, Some(3), b"new", LONG);
        assert_eq!(set.ok(), outcome, "{now}");
    }
}

#[test]
fn wrong_options_are_told_when_the_log_is_first_used() {
    let fault = |log: Etcd| match kind(log.head(SHORT).unwrap_err()) {
        SharedError::Engine { fault, .. } => fault,
        other => panic!("{other}"),
    };
    for endpoint in ["10.0.0.1:2379", "ftp://10.0.0.1", "https://10.0.0.1/v3", "https://a:b@c", ""]
    {
        assert_eq!(fault(Etcd::new([endpoint])), EngineFault::Option, "{endpoint}");
    }
    assert_eq!(fault(Etcd::new([""; 0])), EngineFault::Option);
    let here = "http://127.0.0.1:1";
    assert_eq!(fault(Etcd::new(["http://10.0.0.1:2379"])), EngineFault::Option);
    assert_eq!(fault(Etcd::new([here]).prefix("a/")), EngineFault::Option);
    assert_eq!(fault(Etcd::new([here]).lease(Duration::from_secs(4))), EngineFault::Option);
    assert_eq!(fault(Etcd::new([here])), EngineFault::Unreachable);
}
