//! The rate of durable sets beside a follower in another process, and how late the follower shows
//! them. `cargo bench -p codex-bench --bench follow`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::vfs::{Mode, Open, Vfs};
use codex_core::{Form, Store};

const ROUND: Duration = Duration::from_millis(400);
const ROUNDS: usize = 9;
/// The path of the store in the environment of the follower.
const PATH: &str = "CODEX_FOLLOW";

fn main() {
    if let Some(path) = std::env::var_os(PATH) {
        follow(Path::new(&path));
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!(
        "durable sets a second, medians of {ROUNDS} rounds of {} ms in turn",
        ROUND.as_millis()
    );
    println!("form    writers    alone  beside a follower     lag p50, p99, most in us");
    for form in [Form::Wal, Form::Ledger] {
        for writers in [1, 32] {
            compare(folder.path(), form, writers);
        }
    }
    let each = announcement(folder.path());
    println!("a write of 64 bytes, which each group makes at the level Sync, takes {each:.2} us");
}

/// Measures both in turn, so that a change of the machine's speed concerns both.
fn compare(folder: &Path, form: Form, writers: usize) {
    let (mut alone, mut beside, mut lags) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(rate(folder, form, writers, None));
        beside.push(rate(folder, form, writers, Some(&mut lags)));
    }
    let (alone, beside) = (median(&alone).unwrap(), median(&beside).unwrap());
    lags.sort_unstable();
    let at = |part: usize| lags[(lags.len() - 1) * part / 100];
    println!(
        "{form:<8}{writers:>7}{alone:>9.0}{beside:>9.0} ({:.3}) {:>14} {:>6} {:>6}",
        beside / alone,
        at(50),
        at(99),
        at(100)
    );
}

/// Sets values from `writers` threads for a round. If `lags` is given, beside a follower, whose
/// lags are added to it.
fn rate(folder: &Path, form: Form, writers: usize, lags: Option<&mut Vec<u64>>) -> f64 {
    let path = folder.join("follow.db");
    let store = Store::options().form(form).open(&path).unwrap();
    let follower = lags.is_some().then(|| start(&path));
    let rate = crew::rate(writers, ROUND, |writer, count| {
        Ok(store.set_bytes(format!("key/{writer:02}/{:04}", count % 1_000), [7; 100])?)
    });
    store.close().unwrap();
    if let (Some(mut follower), Some(lags)) = (follower, lags) {
        drop(follower.stdin.take());
        let mut shown = String::new();
        follower.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        lags.extend(shown.lines().map(|lag| lag.parse::<u64>().unwrap()));
        assert!(follower.wait().unwrap().success());
    }
    Store::destroy(&path).unwrap();
    rate.unwrap()
}

/// Starts a follower, and waits until it shows the store.
fn start(path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(PATH, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    child.stdout = Some(reader.into_inner());
    child
}

/// Follows the store at `path` until its standard input ends, then prints each lag.
fn follow(path: &Path) {
    let store = Store::options().follow(true).open(path).unwrap();
    let watch = store.watch("").unwrap().changes_max(1);
    println!("open");
    let closing = store.clone();
    let end = std::thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        closing.close().unwrap();
    });
    let mut lags = Vec::new();
    for _notice in watch {
        lags.push(store.stats().follow.unwrap().lag_us);
    }
    end.join().unwrap();
    for lag in lags {
        println!("{lag}");
    }
}

/// Returns the time of a write of 64 bytes to a file, in microseconds.
fn announcement(folder: &Path) -> f64 {
    let vfs = Vfs::os(folder).unwrap();
    let file = vfs.dir.open("lock", Open::CreateNew(Mode::Private)).unwrap();
    let from = Instant::now();
    for _ in 0..10_000 {
        file.write_all_at(&[7; 64], 64).unwrap();
    }
    from.elapsed().as_secs_f64() * 1e6 / 10_000.0
}
