//! The rate of small durable writes of the disk alone, for comparison.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Measures durable writes by one thread for the time `budget`: 256 bytes each, followed by
/// fdatasync, into preallocated zeroed space. Returns the writes per second, as the median of ten
/// slices of the time.
///
/// # Errors
/// An error of the file system.
pub fn sync_rate(folder: &Path, budget: Duration) -> Outcome<u64> {
    let path = folder.join("raw-sync.tmp");
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; SPACE_BYTES], 0)?;
    file.sync_all()?;
    let record = [0x5A; RECORD_BYTES];
    let mut rates = Vec::new();
    let mut offset = 0;
    for _ in 0..SLICES {
        let start = Instant::now();
        let mut writes = 0;
        while start.elapsed() < budget / SLICES {
            file.write_all_at(&record, offset)?;
            file.sync_data()?;
            writes += 1;
            offset = (offset + RECORD_BYTES as u64) % SPACE_BYTES as u64;
        }
        rates.push(crate::numbers::rate(writes, start.elapsed()));
    }
    std::fs::remove_file(&path)?;
    crate::numbers::quantile(&rates, 1, 2).ok_or_else(|| "no slice was measured".into())
}

const SLICES: u32 = 10;
const RECORD_BYTES: usize = 256;
const SPACE_BYTES: usize = 8 << 20;
