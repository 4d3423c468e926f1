//! Nodes that are processes: one is stopped until its lease has ended, one is killed.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use codex_core::Store;

use crate::common::{LONG, engine, node, scratch, shared, until};
use crate::members::{Cluster, Kept, range, text_of};

/// The role of a child: its name, the prefix of the store, and the addresses of the members.
const NODE: &str = "CODEX_TEST_NODE";

/// A process that writes the numbers from 0 on, and prints each after it was acknowledged.
struct Child {
    process: Kept,
    log: PathBuf,
}

impl Child {
    /// Starts this program again, in the test `test`.
    fn start(cluster: &Cluster, test: &str, prefix: &str, name: &str) -> Self {
        let log = scratch().join(format!("{prefix}-{name}.log"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]);
        command.env(NODE, format!("{name} {prefix} {}", cluster.endpoints().join(" ")));
        Self { process: Kept::start(&command, &log).unwrap(), log }
    }

    /// Returns the number of writes that were acknowledged.
    fn acknowledged(&self) -> u64 {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut numbers = whole.lines().filter_map(|line| line.strip_prefix("acknowledged "));
        numbers.next_back().map_or(0, |last| last.parse::<u64>().unwrap() + 1)
    }

    fn wait_for(&self, more: u64) -> u64 {
        let due = self.acknowledged() + more;
        until("a process writes", || self.acknowledged() >= due);
        self.acknowledged()
    }
}

fn wait_for_all(children: &[Child]) {
    for child in children {
        child.wait_for(20);
    }
}

/// Runs the child, if this process is one.
fn is_child() -> bool {
    let Ok(role) = std::env::var(NODE) else { return false };
    let mut words = role.split(' ').map(str::to_owned);
    let (name, prefix) = (words.next().unwrap(), words.next().unwrap());
    let log = engine(words.collect(), &prefix).lease(Duration::from_secs(5));
    let store = Store::options().write_timeout(LONG).shared(log).unwrap();
    for n in 0_u64.. {
        store.set(format!("{name}/{n:08}"), &n).unwrap();
        println!("acknowledged {n}");
    }
    true
}

/// Returns the revision of the cluster, and the keys of a prefix: with the revision of each.
fn keys(cluster: &Cluster, prefix: &str) -> (u64, Vec<(String, u64)>) {
    let [from, to] = range(prefix);
    let body = format!(r#"{{"key": "{from}", "range_end": "{to}", "keys_only": true}}"#);
    let body = cluster.ask(0, "kv/range", &body).unwrap().body;
    let number = |text: &str, name| text_of(text, name).unwrap().parse().unwrap();
    let kvs = body.split("\"key\":").skip(1);
    let kvs = kvs.map(|kv| {
        let kv = format!("\"key\":{kv}");
        (text_of(&kv, "key").unwrap(), number(&kv, "mod_revision"))
    });
    (number(&body, "revision"), kvs.collect())
}

#[test]
fn a_node_that_was_stopped_until_its_lease_ended_goes_on_in_a_new_session() {
    const TEST: &str =
        "processes::a_node_that_was_stopped_until_its_lease_ended_goes_on_in_a_new_session";
    if is_child() {
        return;
    }
    let Some(cluster) = shared() else { return };
    let child = Child::start(&cluster, TEST, "lease", "one");
    child.wait_for(50);
    let (_, before) = keys(&cluster, "lease/session/");
    assert_eq!(before.len(), 1, "{before:?}");
    child.process.signal("STOP");
    until("the lease ends", || keys(&cluster, "lease/session/").1.is_empty());
    let (ended, of_old) = keys(&cluster, "lease/log/");
    let other = node(&cluster, "lease", 1);
    other.set("beside", &1).unwrap();
    let at_end = child.acknowledged();
    child.process.signal("CONT");
    let acknowledged = child.wait_for(50);
    let (_, after) = keys(&cluster, "lease/session/");
    assert!(!after.iter().any(|(key, _)| *key == before[0].0), "the old session is back");
    // Nothing of the old session has come after its end: its keys are those of then.
    let (_, log) = keys(&cluster, "lease/log/");
    let old: Vec<_> = log.iter().filter(|(_, revision)| *revision <= ended).collect();
    assert_eq!(old.len(), of_old.len());
    let of_session = |key: &str| key[..24].to_owned();
    let mut sessions: Vec<_> = of_old.iter().map(|(key, _)| of_session(key)).collect();
    sessions.dedup();
    let late = log.iter().filter(|(key, at)| *at > ended && sessions.contains(&of_session(key)));
    assert_eq!(late.count(), 0, "a part of the old session landed after its end");
    other.read_latest(LONG).unwrap();
    let found = (0..acknowledged).filter(|n| other.contains_key(format!("one/{n:08}")));
    assert_eq!(found.count() as u64, acknowledged);
    assert!(acknowledged > at_end);
}

#[test]
fn what_a_killed_process_had_acknowledged_is_there_and_the_others_go_on() {
    const TEST: &str =
        "processes::what_a_killed_process_had_acknowledged_is_there_and_the_others_go_on";
    if is_child() {
        return;
    }
    let Some(mut cluster) = shared() else { return };
    let names = ["one", "two", "three"];
    let children = names.map(|name| Child::start(&cluster, TEST, "killed", name));
    wait_for_all(&children);
    // One process and one member of three.
    children[0].process.signal("KILL");
    let leader = cluster.leader().unwrap();
    cluster.kill(leader);
    wait_for_all(&children[1..]);
    for child in &children[1..] {
        child.process.signal("KILL");
    }
    cluster.heal().unwrap();
    let store = node(&cluster, "killed", 0);
    store.set("on", &1).unwrap();
    for (child, name) in children.iter().zip(names) {
        let found = store.prefix(format!("{name}/")).map(|entry| entry.value::<u64>().unwrap());
        let (found, acknowledged) = (found.collect::<Vec<_>>(), child.acknowledged());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "{name}");
        // One write may have been made whose answer was not printed.
        let count = found.len() as u64;
        assert!(count == acknowledged || count == acknowledged + 1, "{count} of {acknowledged}");
    }
}
