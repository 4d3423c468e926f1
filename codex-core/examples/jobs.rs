//! A job queue for several workers. The job of a worker that dies is given to another one.
use codex_core::{Result, Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    task: String,
    /// The time until which one worker has the job; 0 if none has.
    leased_until: u64,
}

/// The time that a worker has for a job, in seconds.
const LEASE: u64 = 60;

#[derive(Clone)]
struct Queue(Store);

impl Queue {
    fn add(&self, task: &str) -> Result<()> {
        let id = self.0.next_id("last job")?;
        // Padded, so that the oldest job is the first key.
        self.0.set(format!("job/{id:020}"), &Job { task: task.into(), leased_until: 0 })
    }

    /// Leases the oldest job that no worker has, and returns its key.
    fn lease(&self, now: u64) -> Result<Option<(Vec<u8>, Job)>> {
        for entry in self.0.prefix("job/") {
            let job: Job = entry.value()?;
            let leased = Job { leased_until: now + LEASE, ..job.clone() };
            // Of several workers that see the job free, one wins.
            if job.leased_until <= now
                && self.0.compare_exchange(entry.key(), Some(&job), Some(&leased))?
            {
                return Ok(Some((entry.key().to_vec(), leased)));
            }
        }
        Ok(None)
    }

    /// Removes a job that is done. Returns false if the lease had ended and another worker has it.
    fn finish(&self, key: &[u8], job: &Job) -> Result<bool> {
        self.0.compare_exchange(key, Some(job), None)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let queue = Queue(Store::open(folder.path().join("jobs.db"))?);
    for number in 0..20 {
        queue.add(&format!("task {number}"))?;
    }

    // A worker leases the oldest job and dies.
    let (key, late) = queue.lease(0)?.ok_or("the queue has jobs")?;
    assert_eq!(late.task, "task 0");

    // Four workers do the others, each one once.
    let work = |now: u64| -> Result<usize> {
        let mut done = 0;
        while let Some((key, job)) = queue.lease(now)? {
            done += usize::from(queue.finish(&key, &job)?);
        }
        Ok(done)
    };
    let done = std::thread::scope(|scope| -> Result<usize> {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| work(1))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).sum()
    })?;
    assert_eq!((done, queue.0.prefix("job/").count()), (19, 1));

    // After its lease the job of the dead worker is done by another one.
    assert_eq!(work(LEASE)?, 1);
    assert!(!queue.finish(&key, &late)?);
    Ok(())
}
