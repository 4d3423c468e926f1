//! Tests of the wait for the members of the last group.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use codex_storage::vfs::{Clock, SimClock, Vfs};

use super::*;
use crate::Store;

const SECOND: Duration = Duration::from_secs(1);

/// Returns what is known after a group of `members` with `waiting` others behind it.
fn after(members: usize, waiting: usize) -> Gather {
    let mut gather = Gather::default();
    gather.made(members, waiting);
    gather
}

/// A clock by which each group takes long: an hour passes whenever it is read.
#[derive(Debug)]
struct Ticking(SimClock);

impl Clock for Ticking {
    fn now_us(&self) -> i64 {
        self.0.now_us()
    }

    fn monotonic(&self) -> Duration {
        self.0.advance(Duration::from_secs(3600));
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        self.0.sleep(duration);
    }
}

#[test]
fn a_leader_waits_only_while_members_are_away() {
    // Three were made and two wait: the leader is one of the five.
    assert!(after(3, 2).begin(4, SECOND).is_none());
    assert_eq!(after(3, 2).begin(3, SECOND), Some(LIMIT));
    // A writer that was alone has nobody to wait for.
    assert!(after(1, 0).begin(0, SECOND).is_none());
}

#[test]
fn a_leader_waits_for_a_part_of_the_last_group_if_that_is_enough_for_all() {
    let took = Duration::from_millis(1);
    assert_eq!(after(4, 0).begin(0, took), Some(took / PART));
    assert!(after(4, 0).begin(0, RETURN * PART * 3).is_some());
    assert!(after(5, 0).begin(0, RETURN * PART * 3).is_none());
    assert!(after(4, 0).begin(0, Duration::ZERO).is_none());
}

#[test]
fn waits_become_rare_where_members_do_not_come_back_and_end_to_be_rare_where_they_do() {
    let mut gather = after(4, 0);
    let mut waits = Vec::new();
    for group in 0..300 {
        if gather.begin(0, SECOND).is_some() {
            waits.push(group);
            // One of three is less than a half.
            gather.end(0, 1);
        }
    }
    assert_eq!(waits, [0, 2, 6, 14, 30, 62, 126, 190, 254]);
    while gather.begin(0, SECOND).is_none() {}
    gather.end(0, 2);
    assert!(gather.begin(0, SECOND).is_some(), "two of three are a half, and end the pauses");
}

#[test]
fn the_members_of_a_group_make_the_next_one_together() {
    let vfs = Vfs { clock: Arc::new(Ticking(SimClock::new())), ..Vfs::mem(1) };
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    let engine = &store.inner.engine;
    // The leader waits until all are back, however slow this machine is.
    engine.queue.lock().gather.limit = Duration::from_secs(3600);
    let groups = || engine.stats().storage.groups;
    let before = groups();
    thread::scope(|scope| {
        // The first group waits for the disk until all three are in it.
        let disk = engine.locks.persist();
        for writer in 0..3 {
            let (store, groups) = (store.clone(), &groups);
            scope.spawn(move || {
                store.set(format!("first {writer}"), &1).unwrap();
                // The first thread leads the second group, and the others come while it waits.
                while writer > 0
                    && !store.inner.engine.queue.lock().gather.is_waiting
                    && groups() == before + 1
                {
                    thread::yield_now();
                }
                store.set(format!("second {writer}"), &2).unwrap();
            });
        }
        while engine.waiting() < 2 {
            thread::yield_now();
        }
        drop(disk);
    });
    assert_eq!(groups(), before + 2, "three commits are one group, twice");
}
