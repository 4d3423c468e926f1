//! The program at a terminal: prompts that show nothing, Ctrl-C, and colours.
#![cfg(target_os = "linux")]

use std::fs;

use rustix::termios::LocalModes;

use crate::common::Folder;
use crate::terminal::Terminal;

#[test]
fn a_passphrase_is_asked_for_and_not_shown() {
    let folder = Folder::new();
    let mut terminal = Terminal::new();
    let mut init = terminal.start(&folder, &["init", "app.db", "--passphrase", "ask"]);
    terminal.answer(&mut init, "New passphrase of app.db: ", "correct horsf\x7fe\n");
    terminal.answer(&mut init, "The same again: ", "correct horse\n");
    assert_eq!(init.wait().unwrap().code(), Some(0));
    assert_eq!(terminal.shown(), "");
    fs::write(folder.path("pass"), "correct horse").unwrap();
    assert_eq!(folder.ok(&["count", "app.db", "--passphrase", "file:pass"]), "0\n");
}

#[test]
fn two_answers_that_differ_make_no_store() {
    let folder = Folder::new();
    let mut terminal = Terminal::new();
    let mut init = terminal.start(&folder, &["init", "app.db", "--passphrase", "ask"]);
    terminal.answer(&mut init, "New passphrase of app.db: ", "one\n");
    terminal.answer(&mut init, "The same again: ", "two\n");
    assert_eq!(init.wait().unwrap().code(), Some(6));
    assert!(!folder.path("app.db").exists());
}

#[test]
fn ctrl_c_at_a_prompt_gives_the_terminal_back() {
    let folder = Folder::with_store();
    let mut terminal = Terminal::new();
    let mut get = terminal.start(&folder, &["get", "app.db", "a", "--passphrase", "ask"]);
    terminal.answer(&mut get, "Passphrase of app.db: ", "half\x03");
    assert_eq!(get.wait().unwrap().code(), Some(130));
    assert!(terminal.modes().contains(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON));
}

#[test]
fn a_terminal_gets_colours_unless_they_are_refused() {
    let folder = Folder::with_store();
    let shown = |name: &str, value: &str, args: &[&str]| {
        let terminal = Terminal::new();
        let mut info = folder.command(args);
        let status = info.stdout(terminal.stdio()).env(name, value).status().unwrap();
        assert_eq!(status.code(), Some(0));
        drop(info);
        terminal.shown()
    };
    let args = ["info", "app.db"];
    assert!(shown("NO_COLOR", "", &args).contains("\x1b[2mform"));
    assert!(!shown("NO_COLOR", "1", &args).contains('\x1b'));
    assert!(!shown("TERM", "dumb", &args).contains('\x1b'));
    assert!(!shown("NO_COLOR", "", &["info", "app.db", "--json"]).contains('\x1b'));
}

#[test]
fn a_terminal_acts_on_no_value() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "\"\u{9b}31m\""]);
    let terminal = Terminal::new();
    let mut get = folder.command(&["get", "app.db", "a"]);
    get.stdout(terminal.stdio()).status().unwrap();
    drop(get);
    assert_eq!(terminal.shown().trim_end(), "\"\\u009b31m\"");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "\"\u{9b}31m\"\n");
}

/// Runs a command with stderr at a terminal without colours. Returns its exit code, and what the
/// terminal has shown between two erasures of its line.
fn steps(folder: &Folder, args: &[&str]) -> (Option<i32>, Vec<String>) {
    let terminal = Terminal::new();
    let mut command = folder.command(args);
    let output = command.stderr(terminal.stdio()).env("NO_COLOR", "1").output().unwrap();
    drop(command);
    let shown = terminal.shown();
    (output.status.code(), shown.split("\r\x1b[K").map(str::to_owned).collect())
}

#[test]
fn long_calls_show_how_far_they_are_at_a_terminal() {
    let folder = Folder::new();
    fs::write(folder.path("key"), "00".repeat(32)).unwrap();
    folder.ok(&["init", "app.db"]);
    let store = folder.open("app.db");
    for n in 0..9 {
        store.set_bytes([n], vec![n; 500_000]).unwrap();
    }
    store.back_up().unwrap();
    store.close().unwrap();
    drop(store);
    for (args, bars) in [
        (&["count", "app.db"][..], 1),
        // The opening, and the reading after it.
        (&["verify", "app.db"], 2),
        (&["convert", "app.db", "--form", "ledger"], 1),
        (&["backup", "verify", "app.db", "1"], 1),
        (&["backup", "restore", "app.db", "1"], 1),
        (&["key", "encrypt", "app.db", "--new-key", "file:key"], 1),
        (&["key", "rekey", "app.db", "--key", "file:key", "--new-key", "file:key"], 2),
        (&["count", "app.db", "--key", "file:key", "--json"], 0),
    ] {
        let (code, steps) = steps(&folder, args);
        assert_eq!(code, Some(0), "{args:?}: {steps:?}");
        assert_eq!((&*steps[0], steps.last().unwrap().as_str()), ("", ""), "{args:?}");
        let shares: Vec<u32> = steps
            .iter()
            .filter(|step| !step.is_empty())
            .map(|step| step[22..].split('%').next().unwrap().trim().parse().unwrap())
            .collect();
        let ends = shares.iter().filter(|share| **share == 100).count();
        assert_eq!(ends, bars, "{args:?}: {steps:?}");
        for bar in shares.split_inclusive(|share| *share == 100) {
            assert_eq!(bar[0], 0, "{args:?}: {bar:?}");
            assert!(bar.len() > 5 && bar.is_sorted(), "{args:?}: {bar:?}");
        }
    }
    // The line of a bar that is broken off is empty again before the error.
    let mut bytes = fs::read(folder.path("app.db.bak.1")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(folder.path("damaged.db"), bytes).unwrap();
    let (code, steps) = steps(&folder, &["count", "damaged.db"]);
    assert_eq!(code, Some(7));
    assert!(steps.len() > 5, "{steps:?}");
    assert!(steps.last().unwrap().starts_with("codexdb: "), "{steps:?}");
}

#[test]
fn an_import_shows_how_far_it_is_at_a_terminal() {
    let folder = Folder::new();
    let line = |n: usize| {
        let text = "x".repeat(1000);
        format!("{{\"key\":\"{n:05}\",\"codec\":\"raw\",\"text\":\"{text}\"}}\n")
    };
    // Two commits: one after a mebibyte, and one at the end.
    fs::write(folder.path("lines"), (0..1500).map(line).collect::<String>()).unwrap();
    let shown = |name: &str, value: &str, args: &[&str]| {
        let terminal = Terminal::new();
        let mut import = folder.command(args);
        let output = import.stderr(terminal.stdio()).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        drop(import);
        (String::from_utf8(output.stdout).unwrap(), terminal.shown())
    };
    let args = ["import", "a.db", "lines", "--create"];
    let (stdout, bar) = shown("NO_COLOR", "1", &args);
    assert_eq!(stdout, "imported 1500 keys\n");
    let steps: Vec<&str> = bar.split("\r\x1b[K").collect();
    assert_eq!(steps.len(), 4, "{bar:?}");
    assert!(steps[1].starts_with("[#############       ]  67%  1"), "{bar:?}");
    assert_eq!((steps[2], steps[3]), ("[####################] 100%  1500 keys", ""));
    assert!(shown("NO_COLOR", "", &args).1.contains("\x1b[36m#"));
    assert_eq!(shown("TERM", "dumb", &args).1, "");
    assert_eq!(shown("NO_COLOR", "", &["import", "a.db", "lines", "--json"]).1, "");
    // No bar in a pipe.
    assert_eq!(folder.ok(&args), "imported 1500 keys\n");
}
