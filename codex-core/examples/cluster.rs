//! One store in three processes, over a cluster of etcd. One process is killed, and nothing that it
//! had acknowledged is lost.
//!
//! `cargo xtask cluster demo` starts three members of etcd and this program, and kills a member
//! meanwhile. On a cluster of your own:
//! `cargo run --example cluster --features etcd -- ADDRESS..`
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that prints")]
#![allow(clippy::indexing_slicing, reason = "one element for each name")]
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use codex_core::shared::Etcd;
use codex_core::{Change, Notice, Result, Store};

const NAMES: [&str; 3] = ["ada", "ben", "cleo"];
const KILLED_AFTER: Duration = Duration::from_secs(6);
const ENDS_AFTER: Duration = Duration::from_secs(13);

fn open(addresses: &[String]) -> Result<Store> {
    Store::options()
        .write_timeout(Duration::from_secs(10))
        .shared(Etcd::new(addresses).prefix("demo"))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((word, rest)) if word == "--as" => match rest.split_first() {
            Some((name, addresses)) => Ok(node(name, addresses)?),
            None => Err("`--as` takes a name".into()),
        },
        Some(_) => show(&words),
        None => {
            println!("name the members of a cluster, such as http://127.0.0.1:2379");
            Ok(())
        }
    }
}

/// A process: writes its own keys and a common count, and prints what the others write.
fn node(name: &str, addresses: &[String]) -> Result<()> {
    let store = open(addresses)?;
    let watch = store.watch("item/")?;
    let own = format!("item/{name}/");
    let prefix = own.clone();
    thread::spawn(move || {
        for notice in watch {
            let Notice::Commit(commit) = notice else { continue };
            for change in commit.changes() {
                let Change::Set(entry) = change else { continue };
                let key = String::from_utf8_lossy(entry.key()).into_owned();
                if !key.starts_with(&prefix) {
                    println!("sees {key} in commit {}", commit.seq());
                }
            }
        }
    });
    for n in 1_u32.. {
        let begin = Instant::now();
        // Both or neither, and in one order with those of the other processes.
        store.transaction(|tx| {
            let count = tx.get::<u64>("count")?.unwrap_or(0);
            tx.set(format!("{own}{n:04}"), &n)?;
            tx.set("count", &(count + 1))
        })?;
        println!("wrote {own}{n:04} in {} ms", begin.elapsed().as_millis());
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// Starts the processes, kills one, and counts at the end.
fn show(addresses: &[String]) -> std::result::Result<(), Box<dyn Error>> {
    let (send, lines) = mpsc::channel();
    let mut children = Vec::new();
    for name in NAMES {
        children.push(start(name, addresses, send.clone())?);
    }
    let (begin, mut wrote) = (Instant::now(), [0_u64; NAMES.len()]);
    let mut is_killed = false;
    while begin.elapsed() < ENDS_AFTER {
        if let Ok((n, line)) = lines.recv_timeout(Duration::from_millis(50)) {
            print(n, &line, &mut wrote);
        }
        if !is_killed && begin.elapsed() > KILLED_AFTER {
            is_killed = true;
            children[0].kill()?;
            println!("---- the process {} is killed", NAMES[0]);
        }
    }
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    drop(send);
    // What was printed before the end of each.
    for (n, line) in lines {
        print(n, &line, &mut wrote);
    }

    let store = open(addresses)?;
    store.read_latest(Duration::from_secs(10))?;
    let mut sum = 0;
    for (name, wrote) in NAMES.iter().zip(wrote) {
        let found = u64::try_from(store.prefix(format!("item/{name}/")).count())?;
        println!("{name:<4} acknowledged {wrote}, found {found}");
        // One more may have been made whose answer did not come in time.
        if !(wrote..=wrote + 1).contains(&found) {
            return Err(format!("{found} of {name} were found, and {wrote} acknowledged").into());
        }
        sum += found;
    }
    let count = store.get::<u64>("count")?.unwrap_or(0);
    if count != sum {
        return Err(format!("the count is {count}, and there are {sum} entries").into());
    }
    println!("nothing is lost, and nothing is there twice: {sum} entries, counted {count} times");
    Ok(())
}

fn print(n: usize, line: &str, wrote: &mut [u64]) {
    wrote[n] += u64::from(line.starts_with("wrote "));
    println!("{:<4} {line}", NAMES[n]);
}

/// Starts this program as the process `name`, and sends on the lines that it prints.
fn start(
    name: &str,
    addresses: &[String],
    lines: Sender<(usize, String)>,
) -> std::result::Result<Child, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--as", name]).args(addresses).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let output = child.stdout.take().ok_or("the output is a pipe")?;
    let n = NAMES.iter().position(|known| *known == name).unwrap_or_default();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            // The end of the receiver is the end of this program.
            let _ = lines.send((n, line));
        }
    });
    Ok(child)
}
