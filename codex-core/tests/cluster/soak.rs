//! One fault after another, beside many writers, for as long as `CODEX_SECONDS` says.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Draw, THREE, start, until};
use crate::load::{Load, Running};
use crate::members::Cluster;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn soak_of_one_fault_after_another() {
    let Some(mut cluster) = start("soak", THREE) else { return };
    let (seed, seconds) = (number("CODEX_SEED", 1), number("CODEX_SECONDS", 60));
    let load = Load { seed, writers: 32, write_timeout: Duration::from_secs(2) };
    let mut draw = Draw(seed);
    let mut faults = 0;
    load.run(&mut cluster, "soak", |cluster, running| {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            faults += 1;
            let fault = one(cluster, &mut draw);
            // Some faults end before all nodes have written beside them.
            thread::sleep(Duration::from_millis(500 + draw.below(4_000)));
            cluster.heal().unwrap();
            let before = running.acknowledged();
            thread::sleep(Duration::from_millis(500 + draw.below(1_500)));
            println!("  {fault}; {before} acknowledged at its end");
            goes_on(running);
        }
    });
    println!("  {faults} faults");
}

/// Begins a fault. Returns its name.
fn one(cluster: &mut Cluster, draw: &mut Draw) -> String {
    let mut leader = None;
    until("there is a leader", || {
        leader = cluster.leader();
        leader.is_some()
    });
    let members = cluster.len();
    let (fault, leader) = (draw.below(7), leader.unwrap());
    let other = (leader + 1) % members;
    match fault {
        0 => cluster.kill(leader),
        1 => cluster.stop(leader),
        2 => cluster.cut(leader),
        3 => cluster.cut(other),
        4 => cluster.kill(other),
        5 => (0..members).for_each(|n| cluster.cut(n)),
        _ => {
            cluster.kill(leader);
            cluster.stop(other);
        }
    }
    let names = [
        "leader killed",
        "leader stopped",
        "leader cut off",
        "follower cut off",
        "follower killed",
        "all cut off",
        "leader killed and follower stopped",
    ];
    names[usize::try_from(fault).unwrap()].to_owned()
}

fn goes_on(running: &Running) {
    running.wait_for_writes(1);
}
