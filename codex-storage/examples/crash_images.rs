//! Measures how long it takes to make the disk that a power cut leaves, for a store of 64 KiB.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that prints what it measured"
)]

use std::error::Error;
use std::time::Instant;

use codex_storage::vfs::fault::{CrashChoice, FaultDir};
use codex_storage::vfs::{Dir, Mode, Open};

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:>8} {:>8} {:>12} {:>12}", "writes", "images", "us an image", "us with read");
    for (writes, len) in [(2, 512), (8, 512), (8, 4_096), (64, 512), (8, 8_192)] {
        let disk = store()?;
        let log = disk.open("app.db.wal.00000000000000000001", Open::Write)?;
        let bytes = vec![7; usize::try_from(len)?];
        for write in 0..writes {
            log.write_all_at(&bytes, write * len % 65_536)?;
        }
        let choice = CrashChoice { images_max: 100_000, samples: 2_000, ..CrashChoice::default() };
        let start = Instant::now();
        let images = u32::try_from(disk.crash_images(&choice).count())?;
        let plain = start.elapsed();
        let start = Instant::now();
        let mut sum = 0_u64;
        for image in disk.crash_images(&choice) {
            for name in image.list()? {
                let file = image.open(&name, Open::Read)?;
                let mut found = vec![0; usize::try_from(file.len()?)?];
                file.read_exact_at(&mut found, 0)?;
                sum += found.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            }
        }
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / f64::from(images);
        let read = each(start.elapsed());
        println!("{writes:>8} {images:>8} {:>12.2} {read:>12.2}", each(plain));
        assert!(sum > 0, "the images were read");
    }
    Ok(())
}

/// An image and a log of 64 KiB each, with a lock file, all durable.
fn store() -> Result<FaultDir, Box<dyn Error>> {
    let disk = FaultDir::new();
    for name in ["app.db", "app.db.wal.00000000000000000001", "app.db.lock"] {
        let file = disk.open(name, Open::CreateNew(Mode::Private))?;
        if name != "app.db.lock" {
            file.write_all_at(&vec![1; 65_536], 0)?;
        }
        file.sync()?;
    }
    disk.sync()?;
    Ok(disk)
}
