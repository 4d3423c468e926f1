//! Backups outside of the machine, at a server in a process of its own: an upload beside
//! the same bytes by bare PUTs, durable sets beside it, the memory of a backup, durable sets of a
//! store that is archived, and a restore of it.
//! `cargo bench -p codex-bench --features s3 --bench remote`, with `-- NAME` for one part.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

mod sink;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::remote::{Body, Folder, S3, S3Keys, S3Options, Target, unwatched};
use codex_core::vfs::{Open, Vfs};
use codex_core::{Archive, Backups, CheckpointPolicy, Durability, Store};
use sink::Sink;

/// How much is measured.
struct Scale {
    rounds: usize,
    image_bytes: u64,
    log_bytes: u64,
    turn: Duration,
}

/// A part of the program, which uses a folder.
type Part = fn(&Scale, &Path);

/// The parts, by their names.
const PARTS: [(&str, Part); 5] = [
    ("upload", upload),
    ("beside", beside),
    ("memory", memory),
    ("archive", archive),
    ("restore", restore),
];
/// A line of a gigabit a second, shared by all connections, and one without a limit.
const LINES: [(&str, Option<u64>); 2] = [("of 1 Gbit/s", Some(125_000_000)), ("unlimited", None)];

fn main() {
    if let Some(rate) = sink::rate() {
        return sink::serve(rate).unwrap();
    }
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, path, place] = words.as_slice()
        && word == CHILD
    {
        return measure(Path::new(path), place);
    }
    let scale = if words.iter().any(|word| word == "--bench") {
        let turn = Duration::from_millis(800);
        Scale { rounds: 3, image_bytes: 256 << 20, log_bytes: 1 << 30, turn }
    } else {
        let turn = Duration::from_millis(1);
        Scale { rounds: 1, image_bytes: 17 << 20, log_bytes: 5 << 20, turn }
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let is_any = PARTS.iter().any(|(name, _)| words.iter().any(|word| word == name));
    for (name, part) in PARTS {
        if !is_any || words.iter().any(|word| word == name) {
            part(&scale, folder.path());
        }
    }
}

/// Makes a store whose image has about `bytes` bytes, and returns its path.
fn store(folder: &Path, bytes: u64) -> PathBuf {
    let path = folder.join("image.db");
    if path.exists() {
        return path;
    }
    let store = Store::open(&path).unwrap();
    let mut random = 1_u64;
    for from in (0..bytes / 1_000).step_by(1_000) {
        let mut batch = store.batch();
        for n in from..from + 1_000 {
            let value: Vec<u8> = (0..121)
                .flat_map(|_| {
                    // A xorshift: bytes that nothing compresses.
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random.to_le_bytes()
                })
                .collect();
            batch.set_bytes(format!("key/{n:013}"), value).unwrap();
        }
        batch.commit().unwrap();
    }
    store.checkpoint().unwrap();
    store.close().unwrap();
    path
}

/// Returns a bucket of the server under a prefix of its own.
fn bucket(sink: &Sink) -> S3 {
    PREFIX.fetch_add(1, Ordering::Relaxed);
    bucket_at(&sink.address)
}

fn bucket_at(address: &str) -> S3 {
    let prefix = PREFIX.load(Ordering::Relaxed).to_string();
    let options = S3Options::new(format!("http://{address}"), "bench").prefix(prefix);
    options.keys(S3Keys::new("key", "secret")).open().unwrap()
}

/// Compares the times of an upload, and of a whole backup, with that of bare PUTs.
fn upload(scale: &Scale, folder: &Path) {
    let path = store(folder, scale.image_bytes);
    let bytes = std::fs::read(&path).unwrap();
    println!("an image of {} MiB, medians of {} rounds in turn", bytes.len() >> 20, scale.rounds);
    println!("line            bare PUTs          upload    with verification and reading back");
    for (line, rate) in LINES {
        let sink = Sink::start(rate).unwrap();
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..scale.rounds {
            let bucket = Arc::new(bucket(&sink));
            let mut timed = |at: usize, work: &dyn Fn() -> Vec<String>| {
                let from = Instant::now();
                let names = work();
                times[at].push(from.elapsed().as_secs_f64());
                for name in names {
                    bucket.remove(&name).unwrap();
                }
            };
            timed(0, &|| bare_puts(&sink, &bytes).unwrap());
            timed(1, &|| {
                bucket.create("image/0", &mut Body::new(&bytes)).unwrap();
                vec!["image/0".to_owned()]
            });
            timed(2, &|| vec![put(&path, bucket.clone())]);
        }
        let [bare, upload, whole] = times.map(|times| median(&times).unwrap());
        let ratio = |time: f64| format!("{time:.2} s ({:.2})", time / bare);
        println!("{line:<14}{bare:>9.2} s {:>15} {:>15}", ratio(upload), ratio(whole));
    }
}

/// Sends the bytes in parts of 16 MiB over one connection, and waits for each answer. Returns the
/// names of the objects.
fn bare_puts(sink: &Sink, bytes: &[u8]) -> std::io::Result<Vec<String>> {
    let mut stream = TcpStream::connect(&sink.address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut names = Vec::new();
    for (n, part) in bytes.chunks(16 << 20).enumerate() {
        let name = format!("bare/{n}");
        let target = format!("/bench/{}/{name}", PREFIX.load(Ordering::Relaxed));
        write!(stream, "PUT {target} HTTP/1.1\r\ncontent-length: {}\r\n\r\n", part.len())?;
        stream.write_all(part)?;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            answers.read_line(&mut line)?;
        }
        names.push(name);
    }
    Ok(names)
}

/// Uploads the file, reads it back, and lists it. Returns the name of the image.
fn put(path: &Path, target: Arc<dyn Target>) -> String {
    let vfs = Vfs::os(path.parent().unwrap()).unwrap();
    let file = vfs.dir.open("image.db", Open::Read).unwrap();
    let remote = Backups::of(path).unwrap().remote(target).plain_objects(true);
    remote.put(&file, &mut unwatched).unwrap().image.name
}

/// Compares the rates of durable sets alone, beside uploads of 32 MiB, and beside the same bytes by
/// bare PUTs, which shows what the server and the line take of the same processors.
fn beside(scale: &Scale, folder: &Path) {
    let bytes = vec![7; 32 << 20];
    println!("durable sets a second, medians of {} rounds in turn", scale.rounds);
    println!("line          writers    alone  beside an upload  beside bare PUTs");
    for (line, limit) in LINES {
        let sink = Sink::start(limit).unwrap();
        let bucket = bucket(&sink);
        let upload = || {
            bucket.create("image/0", &mut Body::new(&bytes)).unwrap();
            bucket.remove("image/0").unwrap();
        };
        let bare = || {
            for name in bare_puts(&sink, &bytes).unwrap() {
                bucket.remove(&name).unwrap();
            }
        };
        for writers in [1, 32] {
            let path = folder.join("sets.db");
            let store = Store::open(&path).unwrap();
            let mut rates = [const { Vec::new() }; 3];
            for _ in 0..scale.rounds {
                let works: [Option<&(dyn Fn() + Sync)>; 3] = [None, Some(&upload), Some(&bare)];
                for (rates, work) in rates.iter_mut().zip(works) {
                    rates.push(sets(&store, writers, scale.turn, work));
                }
            }
            let [alone, upload, bare] = rates.map(|rates| median(&rates).unwrap());
            let ratio = |rate: f64| format!("{rate:.0} ({:.2})", rate / alone);
            println!("{line:<13}{writers:>8}{alone:>9.0}{:>18}{:>18}", ratio(upload), ratio(bare));
            store.close().unwrap();
            Store::destroy(&path).unwrap();
        }
    }
}

/// Returns the rate of sets by `writers` threads, beside a thread that repeats `work`.
fn sets(store: &Store, writers: usize, turn: Duration, work: Option<&(dyn Fn() + Sync)>) -> f64 {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(work) = work {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    work();
                }
            });
        }
        let rate = crew::rate(writers, turn, |writer, n| {
            Ok(store.set_bytes(format!("key/{writer:02}/{:04}", n % 1_000), [7; 100])?)
        });
        is_over.store(true, Ordering::Relaxed);
        rate.unwrap()
    })
}

/// Compares the rates of durable sets of a store that is archived and of one that is not.
fn archive(scale: &Scale, folder: &Path) {
    println!("durable sets a second, medians of {} rounds in turn", 2 * scale.rounds - 1);
    println!("line          writers    alone     archived   pieces  images");
    for (line, limit) in LINES {
        let sink = Sink::start(limit).unwrap();
        for writers in [1, 32] {
            let paths = ["plain.db", "archived.db"].map(|name| folder.join(name));
            let plain = Store::open(&paths[0]).unwrap();
            let archive = Archive::to(Arc::new(bucket(&sink))).plain_objects(true);
            let archive = archive.every(Duration::from_millis(500));
            let archived = Store::options().archive(archive).open(&paths[1]).unwrap();
            let mut rates = [const { Vec::new() }; 2];
            for round in 0..2 * scale.rounds - 1 {
                // Each goes first in every other round.
                for at in [round % 2, 1 - round % 2] {
                    let store = [&plain, &archived][at];
                    rates[at].push(sets(store, writers, scale.turn, None));
                }
                // What waits is sent in no turn of the other store.
                archived.archive_now().unwrap();
            }
            let [alone, with] = rates.map(|rates| median(&rates).unwrap());
            let stats = archived.stats().archive.unwrap();
            let ratio = format!("{with:.0} ({:.2})", with / alone);
            let (pieces, images) = (stats.pieces, stats.images);
            println!("{line:<13}{writers:>8}{alone:>9.0}{ratio:>15}{pieces:>7}{images:>8}");
            for (store, path) in [plain, archived].into_iter().zip(&paths) {
                store.close().unwrap();
                Store::destroy(path).unwrap();
            }
        }
    }
}

/// Compares the times of a restore from an image and a log, and of an opening of the same files.
fn restore(scale: &Scale, folder: &Path) {
    let policy = CheckpointPolicy::default().floor_bytes(u64::MAX).close_into_image_bytes_max(0);
    let path = store(folder, scale.image_bytes);
    let sink = Sink::start(None).unwrap();
    let bucket = Arc::new(bucket(&sink));
    let archive = Archive::to(bucket.clone()).plain_objects(true).close_wait(Duration::MAX);
    let options = Store::options().checkpoint(policy).durability(Durability::Os);
    let store = options.archive(archive).open(&path).unwrap();
    for from in (0..scale.log_bytes / 1_000).step_by(1_000) {
        let mut batch = store.batch();
        for n in from..from + 1_000 {
            // The keys of the image, again and again.
            let n = n % (scale.image_bytes / 1_000);
            batch.set_bytes(format!("key/{n:013}"), [7; 970]).unwrap();
        }
        batch.commit().unwrap();
    }
    let seq = store.archive_now().unwrap();
    store.close().unwrap();
    let mut times = [const { Vec::new() }; 2];
    for round in 0..scale.rounds {
        let from = Instant::now();
        drop(Store::options().read_only(true).open(&path).unwrap());
        times[0].push(from.elapsed().as_secs_f64());
        let other = folder.join(format!("restored.{round}.db"));
        let backups = Backups::of(&other).unwrap();
        let from = Instant::now();
        let restored = backups.restore_archive(&backups.remote(bucket.clone()), None).unwrap();
        times[1].push(from.elapsed().as_secs_f64());
        assert_eq!(restored.facts.seq, seq);
        Store::destroy(&other).unwrap();
    }
    let [open, restore] = times.map(|times| median(&times).unwrap());
    println!(
        "an image of {} and a log of {} MiB: opening {open:.2} s, restore {restore:.2} s ({:.2})",
        scale.image_bytes >> 20,
        scale.log_bytes >> 20,
        restore / open
    );
    Store::destroy(&path).unwrap();
}

/// Prints the memory that a backup takes in a process of its own.
fn memory(scale: &Scale, folder: &Path) {
    let path = store(folder, scale.image_bytes);
    println!("memory above idle of a backup of {} MiB", scale.image_bytes >> 20);
    let sink = Sink::start(None).unwrap();
    for place in [format!("http://{}", sink.address), folder.join("place").display().to_string()] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.arg(CHILD).arg(&path).arg(&place);
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let is_bucket = place.starts_with("http");
        let text = String::from_utf8(output.stdout).unwrap();
        println!("{:<8}{:>6} KiB", if is_bucket { "bucket" } else { "folder" }, text.trim());
    }
}

/// Puts the store at `path`, and prints how much the resident memory grew at most, in KiB.
fn measure(path: &Path, place: &str) {
    let target: Arc<dyn Target> = if let Some(address) = place.strip_prefix("http://") {
        Arc::new(bucket_at(address))
    } else {
        std::fs::create_dir(place).unwrap();
        Arc::new(Folder::open(place).unwrap())
    };
    let in_kib = |name| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    // The most so far begins again.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = in_kib("VmRSS:");
    put(path, target);
    println!("{}", in_kib("VmHWM:") - before);
}

/// The number of the prefix of the next bucket.
static PREFIX: AtomicU64 = AtomicU64::new(0);
/// The word with which this program measures its own memory.
const CHILD: &str = "--measure";
