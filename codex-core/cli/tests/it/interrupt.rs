//! Ctrl-C during a long command: nothing that is left looks like more than it is.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::Folder;

/// Returns a folder with a store of many keys, whose export takes a while.
fn folder() -> Folder {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for n in 0..KEYS {
        batch.set_bytes(format!("key/{n:06}"), [b'x'; 20]).unwrap();
    }
    batch.commit().unwrap();
    store.close().unwrap();
    folder
}

/// Sends the signal of Ctrl-C, and waits for the end of the program, which must be that signal.
#[track_caller]
fn interrupt(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(2));
}

/// Starts a program, and interrupts it when one of the files `names` is there.
fn interrupt_at(folder: &Folder, command: &mut Command, names: &[&str]) {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !names.iter().any(|name| folder.path(name).exists()) {
        std::thread::yield_now();
    }
    interrupt(child);
}

#[test]
fn an_export_that_is_interrupted_leaves_no_file_of_its_name() {
    let folder = folder();
    interrupt_at(&folder, &mut folder.command(&["export", "app.db", "out"]), &["out.part", "out"]);
    assert!(!folder.path("out").exists(), "an export that was interrupted looks whole");
    folder.fails(&["export", "app.db", "out"], 3, "from an export that was interrupted");
    fs::remove_file(folder.path("out.part")).unwrap();
    folder.ok(&["export", "app.db", "out"]);
    let whole = fs::read_to_string(folder.path("out")).unwrap();
    assert_eq!((whole.lines().count(), folder.path("out.part").exists()), (KEYS, false));
    folder.fails(&["export", "app.db", "out"], 3, "out: ");
    assert!(fs::read_to_string(folder.path("out")).unwrap() == whole);
}

#[test]
fn an_import_that_is_interrupted_leaves_the_first_entries() {
    let folder = Folder::with_store();
    let mut import = folder.command(&["import", "app.db"]);
    let mut child = import.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let text = "x".repeat(1000);
    // More than two commits: the program has read all but the content of the pipe.
    for n in 0..2_500 {
        writeln!(to, "{{\"key\":\"{n:06}\",\"codec\":\"raw\",\"text\":\"{text}\"}}").unwrap();
    }
    interrupt(child);
    let keys = folder.ok(&["keys", "app.db"]);
    let count = keys.lines().count();
    assert!((1..2_500).contains(&count), "{count} keys");
    assert!(keys.lines().enumerate().all(|(n, key)| key == format!("{n:06}")));
    assert!(folder.ok(&["verify", "app.db"]).contains("intact"));
}

#[test]
fn a_conversion_that_is_interrupted_leaves_the_store_as_it_was() {
    let folder = folder();
    fs::write(folder.path("pass"), "correct horse").unwrap();
    let before = folder.ok(&["info", "app.db"]);
    let encrypt = ["key", "encrypt", "app.db", "--new-passphrase", "file:pass"];
    let child = folder.command(&encrypt).stdout(Stdio::null()).spawn().unwrap();
    interrupt(child);
    // Whichever it is, it is whole: the store without encryption, or the encrypted one.
    let key: &[&str] = if folder.ok(&["info", "app.db"]).contains("encrypted         yes") {
        &["--passphrase", "file:pass"]
    } else {
        assert_eq!(crate::common::field(&before, "encrypted"), "no");
        &[]
    };
    folder.ok(&[&["checkpoint", "app.db"], key].concat());
    assert_eq!(folder.ok(&[&["count", "app.db"], key].concat()), format!("{KEYS}\n"));
    let names = fs::read_dir(folder.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names.retain(|name| !name.contains(".wal."));
    assert_eq!(names, ["app.db", "app.db.lock", "pass"], "temporary files are left");
}

#[test]
fn a_scan_that_nobody_reads_can_be_interrupted() {
    let folder = folder();
    let mut scan = folder.command(&["scan", "app.db"]);
    let mut child = scan.stdout(Stdio::piped()).spawn().unwrap();
    // It has begun to write, and a pipe does not hold it all.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 10]).unwrap();
    interrupt(child);
    assert_eq!(folder.ok(&["count", "app.db"]), format!("{KEYS}\n"));
}

const KEYS: usize = 100_000;
