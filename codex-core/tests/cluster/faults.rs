//! Faults of members beside clients on three nodes: nothing that was acknowledged is lost, nothing
//! is made twice, and all nodes have one order.

use std::time::Duration;

use crate::common::{shared, until};
use crate::load::Load;
use crate::members::Cluster;

const SMALL: Load = Load { seed: 1, writers: 2, write_timeout: Duration::from_secs(20) };

/// Runs clients beside one fault of the member that `of` chooses. It is there until each node has
/// written beside it.
fn beside(prefix: &str, of: fn(&Cluster) -> usize, fault: impl FnOnce(&mut Cluster, usize)) {
    let Some(mut cluster) = shared() else { return };
    SMALL.run(&mut cluster, prefix, |cluster, running| {
        running.wait_for_writes(20);
        let member = of(cluster);
        fault(cluster, member);
        running.wait_for_writes(20);
    });
}

fn leader(cluster: &Cluster) -> usize {
    let mut leader = None;
    until("there is a leader", || {
        leader = cluster.leader();
        leader.is_some()
    });
    leader.unwrap()
}

fn follower(cluster: &Cluster) -> usize {
    (leader(cluster) + 1) % cluster.len()
}

#[test]
fn no_write_is_lost_or_doubled_when_the_leader_is_killed() {
    beside("leader killed", leader, Cluster::kill);
}

#[test]
fn no_write_is_lost_or_doubled_when_the_leader_is_stopped() {
    beside("leader stopped", leader, |cluster, member| cluster.stop(member));
}

#[test]
fn no_write_is_lost_or_doubled_when_the_leader_is_cut_off() {
    beside("leader cut off", leader, |cluster, member| cluster.cut(member));
}

#[test]
fn no_write_is_lost_or_doubled_when_a_follower_is_cut_off() {
    beside("follower cut off", follower, |cluster, member| cluster.cut(member));
}
