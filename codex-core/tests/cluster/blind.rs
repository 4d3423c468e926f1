//! The same histories, judged key by key by a checker that knows no numbers of commits: is there an
//! order of the operations, within their times, in which each result is right?

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::history::{Commits, Kind, Operation};

/// A key that is read, set, and set on a condition.
struct Register;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Act {
    Read(Option<u64>),
    Set(u64),
    Exchange { was: Option<u64>, now: u64, made: bool },
}

impl Specification for Register {
    type State = Option<u64>;
    type Operation = Act;

    fn init() -> Self::State {
        None
    }

    fn apply(act: &Act, state: &Self::State) -> (bool, Self::State) {
        match *act {
            Act::Read(seen) => (seen == *state, *state),
            Act::Set(now) => (true, Some(now)),
            Act::Exchange { was, now, made } => {
                let holds = was == *state;
                (holds == made, if holds { Some(now) } else { *state })
            }
        }
    }
}

/// Above these the checker may take minutes.
const CLIENTS_MAX: usize = 8;
pub(crate) const OPERATIONS_MAX: usize = 3000;

/// Judges the operations on a key. Those in doubt are settled by the commits.
pub(crate) fn is_linearizable(operations: &[Operation], key: u64, commits: &Commits) -> bool {
    let of_key: Vec<_> = operations.iter().filter(|op| op.key == key).collect();
    let clients = of_key.iter().map(|op| op.client).max().map_or(0, |last| last + 1);
    assert!(clients <= CLIENTS_MAX && of_key.len() <= OPERATIONS_MAX, "{}", of_key.len());
    let mut actions = Vec::new();
    for (n, operation) in of_key.iter().enumerate() {
        let in_doubt = operation.back == u64::MAX;
        let act = match operation.kind {
            // It may be old, so it is no operation of this order.
            Kind::Read { latest: false, .. } | Kind::Failed(_) => continue,
            Kind::Read { seen, .. } => Act::Read(seen),
            Kind::Set(now) | Kind::Exchange { now, .. } if in_doubt && !commits.has(now) => {
                continue;
            }
            Kind::Set(now) => Act::Set(now),
            Kind::Exchange { was, now, made } => {
                Act::Exchange { was, now, made: made.unwrap_or(true) }
            }
        };
        // The client of one in doubt went on, so the operation has a client of its own.
        let client = if in_doubt { clients + n } else { operation.client };
        actions.push((operation.call, client, Action::Call(act)));
        actions.push((operation.back, client, Action::Response(act)));
    }
    // Of one time the calls come first, which allows more orders.
    actions.sort_by_key(|(time, _, action)| (*time, matches!(action, Action::Response(_))));
    let actions = actions.into_iter().map(|(_, client, action)| (client, action)).collect();
    WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
}
