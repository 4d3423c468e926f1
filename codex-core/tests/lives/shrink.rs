//! Shortens a failing history: removes each step without which it still fails.

use crate::counts::Counts;
use crate::run::{Broken, Run};
use crate::step::Plan;

/// Runs a history, and returns the promise that it broke, if any.
pub fn judge(plan: &Plan, counts: &mut Counts, log: Option<&mut Vec<String>>) -> Option<Broken> {
    let asked = log.is_some();
    let mut run = Run::new(plan, counts, asked);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.run()));
    if let (Some(log), Some(lines)) = (log, run.log.take()) {
        *log = lines;
    }
    match result {
        Ok(held) => held.err(),
        Err(panic) => {
            // The rest of the history may be half-done, and a handle that cannot close must not end
            // the test.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(run)));
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Broken { promise: "nothing panics", what: what.unwrap_or_default() })
        }
    }
}

/// Returns the shortest history found that breaks the same promise.
pub fn shrink(plan: &Plan, broken: &Broken) -> Plan {
    let mut best = plan.clone();
    let mut size = best.steps.len().div_ceil(2).max(1);
    let mut left = RUNS_MAX;
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() && left > 0 {
            left -= 1;
            let mut tried = best.clone();
            tried.steps.drain(at..(at + size).min(best.steps.len()));
            let found = judge(&tried, &mut Counts::default(), None);
            if found.is_some_and(|found| found.promise == broken.promise) {
                best = tried;
                shorter = true;
            } else {
                at += size;
            }
        }
        if left == 0 || (size == 1 && !shorter) {
            return best;
        }
        if !shorter {
            size = size.div_ceil(2);
        }
    }
}

const RUNS_MAX: u32 = 2_000;
