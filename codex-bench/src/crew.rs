//! Threads that share numbered work, and stop at the first error.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Runs `work(worker, number)` for each number below `count`, on `workers` threads. Returns the
/// elapsed time.
///
/// # Errors
/// The first error of a worker. The other workers stop at their next number.
pub fn share_out(
    workers: usize,
    count: u64,
    work: impl Fn(usize, u64) -> Outcome + Sync,
) -> Outcome<Duration> {
    let next = AtomicU64::new(0);
    each(workers, |worker| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            if let Err(error) = work(worker, number) {
                next.store(count, Ordering::Relaxed);
                return Err(error);
            }
        }
    })
}

/// Runs `work(worker)` on `workers` threads at the same time. Returns the elapsed time until the
/// last one ends.
///
/// # Errors
/// The first error of a worker.
pub fn each(workers: usize, work: impl Fn(usize) -> Outcome + Sync) -> Outcome<Duration> {
    let failure = Mutex::new(None);
    let start = Instant::now();
    crossbeam_utils::thread::scope(|scope| {
        for worker in 0..workers {
            let (work, failure) = (&work, &failure);
            scope.spawn(move |_| {
                if let Err(error) = work(worker)
                    && let Ok(mut first) = failure.lock()
                {
                    first.get_or_insert(error);
                }
            });
        }
    })
    .map_err(|_| "a worker panicked")?;
    let elapsed = start.elapsed();
    match failure.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(elapsed),
    }
}

/// Calls `work(worker, n)` on `workers` threads for `time`; `n` counts the calls of the worker from
/// 0 on. Each worker makes at least one call. Returns the calls per second of all.
///
/// # Errors
/// The first error of a worker.
pub fn rate(
    workers: usize,
    time: Duration,
    work: impl Fn(usize, u64) -> Outcome + Sync,
) -> Outcome<f64> {
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let elapsed = each(workers + 1, |worker| {
        if worker == workers {
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let mut count = 0;
        // A worker that starts after the time is over has made one call too, so the outcome does
        // not depend on how fast threads start.
        loop {
            work(worker, count)?;
            count += 1;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        calls.fetch_add(count, Ordering::Relaxed);
        Ok(())
    })?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(calls.into_inner() as f64 / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn every_number_is_worked_once_and_an_error_stops_the_crew() {
        let sum = AtomicU64::new(0);
        share_out(4, 100, |_, n| {
            sum.fetch_add(n, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 4950);
        let done = AtomicU64::new(0);
        let error = share_out(2, 1_000_000, |_, n| {
            done.fetch_add(1, Ordering::Relaxed);
            if n == 10 { Err("stop".into()) } else { Ok(()) }
        });
        assert_eq!(error.unwrap_err().to_string(), "stop");
        assert!(done.into_inner() < 1_000_000);
    }
    #[test]
    fn each_worker_counts_its_calls_and_an_error_is_returned() {
        let seen = Mutex::new([0; 2]);
        let made = rate(2, Duration::from_millis(5), |worker, n| {
            let mut seen = seen.lock().unwrap();
            let next = seen.get_mut(worker).ok_or("a third worker")?;
            if *next == n {
                *next += 1;
            } else {
                return Err("a number is left out".into());
            }
            Ok(())
        });
        assert!(made.unwrap() > 0.0);
        let error = rate(1, Duration::ZERO, |_, _| Err("stop".into()));
        assert_eq!(error.unwrap_err().to_string(), "stop");
    }
}
