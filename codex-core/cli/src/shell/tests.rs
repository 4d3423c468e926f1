//! The tests of lines, transactions and completions, without a terminal.

use std::collections::VecDeque;
use std::path::Path;

use codex_core::{Codec, Store};

use super::complete::Completions;
use super::*;

/// A line, and the work of others before it.
type Line<'a> = (&'a str, Box<dyn FnOnce() + 'a>);

/// Lines, with the work of others on the store before each of them.
struct Typed<'a> {
    lines: VecDeque<Line<'a>>,
    failures: Vec<String>,
    remembered: Vec<String>,
    prompts: Vec<bool>,
}

impl<'a> Typed<'a> {
    fn new(lines: &[&'a str]) -> Self {
        let lines = lines.iter().map(|line| (*line, Box::new(|| {}) as Box<dyn FnOnce() + 'a>));
        let lines = lines.collect();
        Self { lines, failures: Vec::new(), remembered: Vec::new(), prompts: Vec::new() }
    }

    /// Does `act` before the line number `at`.
    fn before(mut self, at: usize, act: impl FnOnce() + 'a) -> Self {
        self.lines[at].1 = Box::new(act);
        self
    }

    fn run(&mut self, store: &Store) -> Outcome<()> {
        let mut out = Out::new(false);
        let mut session = Session {
            store,
            reader: Reader::new(Path::new("app.db")),
            input: self,
            out: &mut out,
            json: false,
            is_interrupted: Arc::default(),
        };
        session.lines(None).map(|_| ())
    }
}

impl Input for Typed<'_> {
    fn next(&mut self, is_in_transaction: bool) -> Outcome<Option<String>> {
        self.prompts.push(is_in_transaction);
        Ok(self.lines.pop_front().map(|(line, act)| {
            act();
            line.to_owned()
        }))
    }

    fn remember(&mut self, _: &str, kept: &str) {
        self.remembered.push(kept.to_owned());
    }

    fn refuse(&mut self, failure: Failure) -> Outcome<()> {
        self.failures.push(failure.to_string());
        Ok(())
    }
}

fn text(store: &Store, key: &str) -> Option<String> {
    store.get_bytes(key).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_transaction_is_one_commit() {
    let store = Store::in_memory().unwrap();
    store.set("old", &1).unwrap();
    let seq = || store.stats().storage.seq;
    let before = seq();
    let lines = ["begin", "set a 1", "set b 2 --expires-in 1h", "remove old", "commit", "set c 3"];
    let mut typed = Typed::new(&lines).before(4, || assert!(!store.contains_key("a")));
    typed.run(&store).unwrap();
    assert_eq!(typed.failures, [""; 0]);
    assert_eq!(typed.prompts, [false, true, true, true, true, false, false]);
    assert_eq!((seq(), store.contains_key("old")), (before + 2, false));
    assert_eq!((text(&store, "a"), text(&store, "b")), (Some("1".into()), Some("2".into())));
    assert_eq!(store.get_bytes("a").unwrap().codec(), Some(Codec::Json));
    assert!(store.expires_at("b").is_some());
}

#[test]
fn a_transaction_whose_reads_have_changed_writes_nothing() {
    let store = Store::in_memory().unwrap();
    for read in ["get a", "scan", "count --prefix a", "keys --from a", "remove a"] {
        store.set("a", &1).unwrap();
        let lines = ["begin", read, "set b 1", "commit", "set c 1", "exit"];
        let mut typed = Typed::new(&lines).before(3, || store.set("a", &2).unwrap());
        typed.run(&store).unwrap();
        assert_eq!(typed.failures.len(), 1, "{read}: {:?}", typed.failures);
        assert!(typed.failures[0].contains("was changed; nothing was written"), "{read}");
        assert!(!store.contains_key("b") && store.contains_key("a"), "{read}");
        // The shell goes on, outside of the transaction.
        assert_eq!(typed.prompts, [false, true, true, true, false, false], "{read}");
        assert!(store.contains_key("c"), "{read}");
        store.clear().unwrap();
    }
    // A key that was not read may change.
    let lines = ["begin", "get other", "set b 1", "commit"];
    let mut typed = Typed::new(&lines).before(3, || store.set("a", &2).unwrap());
    typed.run(&store).unwrap();
    assert!(typed.failures.is_empty() && store.contains_key("b"));
}

#[test]
fn a_transaction_that_is_given_up_writes_nothing() {
    let store = Store::in_memory().unwrap();
    for end in ["rollback", "exit", "quit"] {
        Typed::new(&["begin", "set a 1", end]).run(&store).unwrap();
    }
    Typed::new(&["begin", "set a 1"]).run(&store).unwrap();
    assert!(store.is_empty());
    // `exit` ends the shell too.
    let mut typed = Typed::new(&["begin", "exit", "set a 1"]);
    typed.run(&store).unwrap();
    assert_eq!((typed.lines.len(), store.len()), (1, 0));
}

#[test]
fn a_failed_line_leaves_its_transaction_open() {
    let store = Store::in_memory().unwrap();
    let lines = [
        "begin",
        "set a 1",
        "set b nonsense",
        "begin",
        "checkpoint",
        "get a --at 1",
        "clear --yes",
        "commit",
        "commit",
        "rollback",
    ];
    let mut typed = Typed::new(&lines);
    typed.run(&store).unwrap();
    let found: Vec<&str> = typed.failures.iter().map(|text| text.get(..22).unwrap()).collect();
    let (part, none) = ("only get, keys, scan, ", "no transaction has beg");
    assert_eq!(
        found,
        ["the value is not JSON:", "a transaction has begu", part, part, part, none, none]
    );
    assert_eq!(text(&store, "a").as_deref(), Some("1"));
}

#[test]
fn values_are_json_as_they_are_typed() {
    let store = Store::in_memory().unwrap();
    let lines = [
        r#"set a "hello world""#,
        r#"set b '"quoted twice"'"#,
        r#"set c {"name": "Ada", "stars": [1, 2]}"#,
        r#"set d --raw "hello world""#,
        r#"set "e e" "e e""#,
        r"set f\x20\\ 1",
        r#"set g {"name": "Ada", "stars": 5} --as {name: str, stars: u32}"#,
        r#"set h "\"""#,
        "# set i 1",
        "",
    ];
    let mut typed = Typed::new(&lines);
    typed.run(&store).unwrap();
    assert_eq!(typed.failures, [""; 0]);
    let found: Vec<Option<String>> =
        ["a", "b", "c", "d", "e e", "f \\", "h"].map(|key| text(&store, key)).into();
    let expected = [
        r#""hello world""#,
        r#""quoted twice""#,
        r#"{"name":"Ada","stars":[1,2]}"#,
        "hello world",
        r#""e e""#,
        "1",
        r#""\"""#,
    ];
    assert_eq!(found, expected.map(|text| Some(text.to_owned())));
    assert_eq!(store.get_bytes("g").unwrap().codec(), Some(Codec::Bincode));
    assert_eq!(store.len(), 8);
}

#[test]
fn the_history_has_no_values() {
    let store = Store::in_memory().unwrap();
    let lines = ["set 'a b' 1", "set b 'secret", "set b secret", "get b", "begin"];
    let mut typed = Typed::new(&lines);
    typed.run(&store).unwrap();
    assert_eq!(typed.remembered, ["set 'a b'", "", "set b", "get b", "begin"]);
}

#[test]
fn commands_options_and_keys_are_completed() {
    let store = Store::in_memory().unwrap();
    for key in ["users/ada", "users/bob", "users/a b", "v", "vv", "it's/1", "\u{1}"] {
        store.set(key, &1).unwrap();
    }
    let completions = Completions::new(&store);
    let of = |line| completions.of(line);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(of("c"), (0, words(&["count ", "clear ", "checkpoint ", "commit "])));
    assert_eq!(of("help ro"), (5, words(&["rollback "])));
    assert_eq!(of("keys --pre"), (5, words(&["--prefix "])));
    assert_eq!(of("get --p"), (4, words(&[])));
    assert_eq!(of("get "), (4, words(&["\\x01 ", "it\\'s/", "users/", "v ", "vv "])));
    assert_eq!(of("get users/"), (4, words(&["'users/a b' ", "users/ada ", "users/bob "])));
    assert_eq!(of("get 'users/a "), (4, words(&["'users/a b' "])));
    assert_eq!(of("get users/b"), (4, words(&["users/bob "])));
    assert_eq!(of("get \\x0"), (4, words(&["\\x01 ", "it\\'s/", "users/", "v ", "vv "])));
    assert_eq!(of("get nothing"), (4, words(&[])));
    assert_eq!(of("remove v v"), (9, words(&["v ", "vv "])));
    assert_eq!(of("set v v"), (6, words(&[])));
    assert_eq!(of("set --as u64 v"), (13, words(&["v ", "vv "])));
    assert_eq!(of("scan --from v"), (12, words(&["v ", "vv "])));
    assert_eq!(of("scan v"), (5, words(&[])));
    assert_eq!(of("frobnicate v"), (11, words(&[])));
}

#[test]
fn the_keys_of_a_large_store_are_completed_by_few_words() {
    let store = Store::in_memory().unwrap();
    let mut batch = store.batch();
    for n in 0..1_000 {
        batch.set(format!("k{n:03}"), &n).unwrap();
        batch.set(format!("orders/{n:03}"), &n).unwrap();
    }
    batch.commit().unwrap();
    let completions = Completions::new(&store);
    assert_eq!(completions.of("get o").1, ["orders/"]);
    let (_, words) = completions.of("get k");
    assert_eq!((words.len(), words[0].as_str(), words[100].as_str()), (101, "k000 ", "k999 "));
}
