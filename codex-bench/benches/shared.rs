//! One store on several nodes, on a cluster of etcd that `cargo xtask performance-shared` starts:
//! sets beside the bare transaction, many writers, several nodes, conditional writes, local reads
//! beside the commits of others, an opening from an image, and what etcd keeps.
//! `-- NAME` for one part.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "numbers to look at, and bytes that only differ"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::remote::Folder;
use codex_core::shared::{Etcd, SharedLog, Slot};
use codex_core::{CheckpointPolicy, Store};

/// How much is measured.
struct Scale {
    rounds: usize,
    turn: Duration,
    /// The bytes of the state that is opened.
    state_bytes: u64,
    /// The time for which a megabyte a second is written.
    steady: Duration,
}

/// A part of the program.
type Part = fn(&Scale);

/// The parts, by their names.
const PARTS: [(&str, Part); 6] = [
    ("writer", writer),
    ("writers", writers),
    ("conditions", conditions),
    ("reads", reads),
    ("open", open),
    ("steady", steady),
];

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let scale = if words.iter().any(|word| word == "--bench") {
        let (turn, steady) = (Duration::from_secs(1), Duration::from_secs(300));
        Scale { rounds: 7, turn, state_bytes: 1 << 30, steady }
    } else {
        let (turn, steady) = (Duration::from_millis(100), Duration::from_secs(2));
        Scale { rounds: 1, turn, state_bytes: 1 << 20, steady }
    };
    let is_chosen = |name: &str| words.iter().any(|word| word == name);
    let all = !PARTS.iter().any(|(name, _)| is_chosen(name));
    for (_, part) in PARTS.iter().filter(|(name, _)| all || is_chosen(name)) {
        part(&scale);
    }
}

/// Returns access to the cluster, to a store of this name.
fn etcd(store: &str) -> Etcd {
    let endpoints = std::env::var("CODEX_ETCD_ENDPOINTS")
        .expect("`cargo xtask performance-shared` starts a cluster and this program");
    Etcd::new(endpoints.split(',')).prefix(store)
}

/// Returns a store on the cluster.
fn node(store: &str) -> Store {
    Store::options().write_timeout(TIMEOUT).shared(etcd(store)).unwrap()
}

/// Returns a name that no earlier run has used.
fn fresh(part: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("bench/{part}/{}/{n}", std::process::id())
}

fn key(n: u64) -> String {
    format!("key{n:014}")
}

fn set(store: &Store, worker: usize, n: u64) -> codex_bench::Outcome {
    store.set_bytes(key((worker as u64 * 7_919 + n * 31) % KEYS), [n as u8; 100])?;
    Ok(())
}

fn rate(
    workers: usize,
    time: Duration,
    work: impl Fn(usize, u64) -> codex_bench::Outcome + Sync,
) -> f64 {
    crew::rate(workers, time, work).unwrap()
}

/// Sets by one writer, and appends of as many bytes by the same client, in turn.
fn writer(scale: &Scale) {
    let store = node(&fresh("writer"));
    let bare = etcd(&fresh("bare"));
    let session = bare.begin_session(TIMEOUT).unwrap();
    let (mut ratios, mut sets, mut appends) = (Vec::new(), Vec::new(), Vec::new());
    let n = AtomicU64::new(0);
    for _ in 0..scale.rounds {
        let ours = rate(1, scale.turn, |worker, n| set(&store, worker, n));
        let raw = rate(1, scale.turn, |_, _| {
            let slot = Slot { session, n: n.fetch_add(1, Ordering::Relaxed) };
            bare.append(slot, &[7; 220], TIMEOUT).map_err(|error| format!("{error:?}"))?;
            Ok(())
        });
        ratios.push(raw / ours);
        sets.push(ours);
        appends.push(raw);
    }
    println!(
        "a set, 1 writer: {:.2} times a bare transaction ({:.0} beside {:.0} a second)",
        median(&ratios).unwrap(),
        median(&sets).unwrap(),
        median(&appends).unwrap()
    );
}

/// 64 writers on one node and on three, and one writer.
fn writers(scale: &Scale) {
    let name = fresh("writers");
    let nodes = [node(&name), node(&name), node(&name)];
    let (mut many, mut three, mut least) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ones, mut manies) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let one = rate(1, scale.turn, |worker, n| set(&nodes[0], worker, n));
        let on_one = rate(64, scale.turn, |worker, n| set(&nodes[0], worker, n));
        let made: [AtomicU64; 3] = Default::default();
        let on_three = rate(192, scale.turn, |worker, n| {
            made[worker % 3].fetch_add(1, Ordering::Relaxed);
            set(&nodes[worker % 3], worker, n)
        });
        let made = made.map(|made| made.into_inner() as f64);
        many.push(on_one / one);
        three.push(on_three / on_one);
        least.push(made.iter().copied().fold(f64::MAX, f64::min) * 3.0 / made.iter().sum::<f64>());
        ones.push(one);
        manies.push(on_one);
    }
    println!(
        "64 writers on a node: {:.1} times one writer ({:.0} beside {:.0} a second)",
        median(&many).unwrap(),
        median(&manies).unwrap(),
        median(&ones).unwrap()
    );
    println!(
        "3 nodes with 64 writers each: {:.2} times one node; the slowest has {:.2} of the mean",
        median(&three).unwrap(),
        median(&least).unwrap()
    );
}

/// Exchanges beside sets, on three nodes.
fn conditions(scale: &Scale) {
    let name = fresh("conditions");
    let nodes = [node(&name), node(&name), node(&name)];
    for n in (0..KEYS).step_by(100) {
        let mut batch = nodes[0].batch();
        for n in n..n + 100 {
            batch.set(key(n), &0_u64).unwrap();
        }
        batch.commit().unwrap();
    }
    for node in &nodes {
        node.read_latest(TIMEOUT).unwrap();
    }
    let random = |worker: usize, n: u64| {
        let mixed = (worker as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(n + 1);
        key((mixed >> 33) % KEYS)
    };
    let (mut ratios, mut lost, mut all) = (Vec::new(), 0.0, 0.0);
    for _ in 0..scale.rounds {
        let sets = rate(192, scale.turn, |worker, n| {
            nodes[worker % 3].set(random(worker, n), &n)?;
            Ok(())
        });
        let failed = AtomicU64::new(0);
        let exchanges = rate(192, scale.turn, |worker, n| {
            let (store, key) = (&nodes[worker % 3], random(worker, n));
            let was: Option<u64> = store.get(&key)?;
            if !store.compare_exchange(&key, was.as_ref(), Some(&n))? {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        ratios.push(exchanges / sets);
        lost += failed.into_inner() as f64;
        all += exchanges * scale.turn.as_secs_f64();
    }
    println!(
        "exchanges, 3 nodes, {KEYS} keys: {:.2} times sets; {:.1} % found another value",
        median(&ratios).unwrap(),
        100.0 * lost / all
    );
}

/// Local gets beside 5,000 commits a second of another node, as the time of those of a store in
/// memory in the same rounds.
fn reads(scale: &Scale) {
    let name = fresh("reads");
    let (store, other, local) = (node(&name), node(&name), Store::in_memory().unwrap());
    for store in [&store, &local] {
        let mut batch = store.batch();
        for n in 0..KEYS {
            batch.set_bytes(key(n), [1; 100]).unwrap();
        }
        batch.commit().unwrap();
    }
    let get = |store: &Store, n: u64| {
        store.get_bytes(key(n.wrapping_mul(7_919) % KEYS)).ok_or("a read found nothing")?;
        Ok(())
    };
    let (mut ratios, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let stop = AtomicBool::new(false);
        let made = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in 0..64 {
                let (other, stop, made) = (&other, &stop, &made);
                scope.spawn(move || {
                    // 5,000 a second of all 64.
                    let pause = Duration::from_micros(12_800);
                    let mut next = Instant::now();
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        set(other, worker, n).unwrap();
                        made.fetch_add(1, Ordering::Relaxed);
                        next += pause;
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                });
            }
            let begin = Instant::now();
            let ours = rate(1, scale.turn, |_, n| get(&store, n));
            let theirs = rate(1, scale.turn, |_, n| get(&local, n));
            stop.store(true, Ordering::Relaxed);
            ratios.push(theirs / ours);
            commits.push(made.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64());
        });
    }
    println!(
        "a get beside {:.0} commits of another node a second: {:.2} times one of a local store",
        median(&commits).unwrap(),
        median(&ratios).unwrap()
    );
}

/// An opening from an image in a folder, as the time of an opening of the same file as a store.
fn open(scale: &Scale) {
    let folder = tempfile::tempdir().unwrap();
    let name = fresh("open");
    let options = || {
        let place = Arc::new(Folder::open(folder.path()).unwrap());
        Store::options().write_timeout(TIMEOUT).images(place)
    };
    let store = options().shared(etcd(&name)).unwrap();
    let (mut n, value) = (0_u64, [7_u8; 1_000]);
    while n * 1_020 < scale.state_bytes {
        let mut batch = store.batch();
        for _ in 0..200 {
            batch.set_bytes(key(n), value).unwrap();
            n += 1;
        }
        batch.commit().unwrap();
    }
    store.checkpoint().unwrap();
    let path = folder.path().join("copy.db");
    store.backup_to(&path).unwrap();
    store.close().unwrap();
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds.min(5) {
        let begin = Instant::now();
        let node = options().shared(etcd(&name)).unwrap();
        let ours = begin.elapsed();
        assert_eq!(node.len() as u64, n);
        node.close().unwrap();
        drop(node);
        let begin = Instant::now();
        let file = Store::options().read_only(true).open(&path).unwrap();
        let theirs = begin.elapsed();
        assert_eq!(file.len() as u64, n);
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        times.push(ours.as_secs_f64());
    }
    println!(
        "opening of {} MB from an image: {:.2} times an opening of the file ({:.2} s)",
        n * 1_020 / 1_000_000,
        median(&ratios).unwrap(),
        median(&times).unwrap()
    );
}

/// What etcd keeps after a megabyte a second for a time, as a multiple of the log and the images.
fn steady(scale: &Scale) {
    let name = fresh("steady");
    let policy = CheckpointPolicy::default().floor_bytes(32 << 20).ratio(0.5);
    let store = Store::options().write_timeout(TIMEOUT).checkpoint(policy);
    let store = store.shared(etcd(&name)).unwrap();
    let log = etcd(&name);
    let before = log.usage(TIMEOUT).unwrap().used;
    let begin = Instant::now();
    let (mut n, mut most) = (0_u64, 0);
    while begin.elapsed() < scale.steady {
        // 64 sets of 1,000 bytes in a commit, so that a second has 16 of them.
        let mut batch = store.batch();
        for _ in 0..64 {
            batch.set_bytes(key(n * 7_919 % KEYS), [n as u8; 1_000]).unwrap();
            n += 1;
        }
        batch.commit().unwrap();
        if n % 6_400 == 0 {
            most = most.max(log.usage(TIMEOUT).unwrap().used);
        }
        let due = Duration::from_secs_f64(n as f64 / 1_000.0);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    let used = most.max(log.usage(TIMEOUT).unwrap().used).saturating_sub(before);
    let image = (KEYS * 1_030) as f64;
    // The log behind the image before the newest one, and the images.
    let kept = (2 * policy.floor_bytes) as f64 + 3.0 * image;
    println!(
        "etcd keeps {} MB at most of {} MB that were written: {:.2} times the log and the images \
         that are kept; errors of images: {:?}",
        used / 1_000_000,
        n / 1_000,
        used as f64 / kept,
        store.stats().image_error
    );
}

const KEYS: u64 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(10);
