//! `codexdb shell`: at a terminal, and with a script.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use codex_core::Store;

use crate::common::{Folder, Run, field};

/// Runs a script, which must succeed. Returns its output.
#[track_caller]
fn script(folder: &Folder, args: &[&str], lines: &str) -> String {
    let run = folder.run_with(args, lines.as_bytes());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{lines}: {run:?}");
    run.stdout
}

#[test]
fn a_script_acts_on_one_open_store() {
    let folder = Folder::with_store();
    let lines = "# a comment\n\nset 'a b' {\"n\": 1}\r\nset b \"text\" --expires-in 2h\n\
                 get 'a b'\nkeys\nscan --prefix b --json\ncount\nremove b c\n\
                 count --json\nclear --yes\n\
                 du\nstats\nverify\ncheckpoint\ninfo";
    let shown = script(&folder, &["shell", "app.db"], lines);
    let (first, rest) = shown.split_once("{\"key\":\"b\",\"expires_us\":").unwrap();
    assert_eq!(first, "{\"n\":1}\na b\nb\n");
    let (_, rest) = rest.split_once("\"codec\":\"json\",\"value\":\"text\"}\n").unwrap();
    assert!(rest.starts_with("2\nremoved 1 key\n{\"keys\":1}\nremoved 1 key\n"), "{rest}");
    assert_eq!(field(rest, "result"), "intact");
    let (_, info) = rest.split_once("\npath ").unwrap();
    assert!(field(info, "open for writing").contains("yes, in this process"), "{info}");
    assert_eq!(field(info, "keys"), "0");
    assert_eq!(script(&folder, &["shell", "app.db", "--json"], "count"), "{\"keys\":0}\n");
    assert_eq!(script(&folder, &["shell", "app.db"], ""), "");
}

#[test]
fn a_script_ends_at_the_first_error_with_its_line_and_its_code() {
    let folder = Folder::with_store();
    let fails = |lines: &str, code: i32, text: &str| {
        let run = folder.run_with(&["shell", "app.db"], lines.as_bytes());
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{lines}: {run:?}");
        assert!(run.stderr.starts_with(&format!("codexdb: {text}")), "{lines}: {}", run.stderr);
    };
    fails("set a 1\nset b nonsense\nset c 1\n", 2, "line 2: the value is not JSON");
    assert_eq!(folder.ok(&["keys", "app.db"]), "a\n");
    fails("frobnicate", 2, "line 1: unrecognized subcommand");
    fails("\nget", 2, "line 2: the following required arguments");
    fails("get 'a", 2, "line 1: the line ends before a closing `'`");
    fails("keys --wait 5", 2, "line 1: the store is open");
    fails("set a 1 --create", 2, "line 1: the store is open");
    fails("set a --file -\n2", 2, "line 1: stdin has the lines");
    fails("set a --file none", 3, "line 1: none: No such file");
    fails("log", 3, "line 1: ");
    fails("commit", 2, "line 1: no transaction has begun");
    fails("begin\nset b 1\nset c nonsense\ncommit", 2, "line 3: the value is not JSON");
    fails("begin\nset b 1\n", 2, "line 2: the input ends within a transaction");
    let run = folder.run_with(&["shell", "app.db"], b"get a\n\xff\nget a\n");
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), "1\n"), "{run:?}");
    assert!(run.stderr.contains("line 2: the line is not UTF-8"), "{run:?}");
    assert_eq!(folder.ok(&["keys", "app.db"]), "a\n");
    folder.fails(&["shell", "none.db"], 4, "next: ");
    let _store = folder.open("app.db");
    folder.fails(&["shell", "app.db"], 5, "is open in another process");
}

#[test]
fn an_answer_of_no_does_not_end_a_script() {
    let folder = Folder::with_store();
    let run = folder.run_with(&["shell", "app.db"], b"get none\nremove none\ncount\n");
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "removed 0 keys\n0\n"), "{run:?}");
    assert_eq!(run.stderr, "codexdb: no such key: none\n");
}

#[test]
fn a_transaction_of_a_script_is_one_commit() {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    let lines = "set a 1\nbegin\nset a 2\nset b 3\nget a\nremove b\nset c 4\nscan\ncommit\n\
                 begin\nset a 5\nrollback\nget a\nlog\nhistory a\nget a --at 1\n";
    let shown = script(&folder, &["shell", "app.db", "--json"], lines);
    let lines: Vec<serde_json::Value> =
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let value = |at: usize| lines[at]["value"].to_string();
    // Its own writes are seen: by `get`, and by `scan`.
    assert_eq!((value(0), lines[1]["removed"].to_string()), ("2".into(), "1".into()), "{shown}");
    assert_eq!((value(2), value(3), value(4)), ("2".into(), "4".into(), "2".into()), "{shown}");
    // The log: commit 2 has the whole transaction.
    assert_eq!(lines[5]["set"].to_string() + &lines[6]["set"].to_string(), "12", "{shown}");
    assert_eq!((value(7), value(8), value(9)), ("1".into(), "2".into(), "1".into()), "{shown}");
    assert_eq!(lines.len(), 10, "{shown}");
}

#[test]
fn an_encrypted_store_takes_the_same_options() {
    let folder = Folder::new();
    fs::write(folder.path("pass"), "correct horse").unwrap();
    let key = ["--passphrase", "file:pass"];
    let with = |args: &[&'static str]| [args, &key].concat();
    folder.ok(&with(&["init", "app.db", "--form", "ledger"]));
    let lines = "set a 1\nset a 2\nhistory a\ninfo\n";
    let shown = script(&folder, &with(&["shell", "app.db"]), lines);
    assert!(shown.contains("1\n") && field(&shown, "encrypted") == "yes", "{shown}");
    assert_eq!(field(&shown, "keys"), "1");
    folder.fails(&["shell", "app.db"], 6, "next: `--passphrase ask`");
}

#[test]
fn a_shell_that_only_reads_changes_nothing() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    let reader = Store::options().read_only(true).open(folder.path("app.db")).unwrap();
    assert_eq!(script(&folder, &["shell", "app.db", "--read-only"], "get a\n"), "1\n");
    let run = folder.run_with(&["shell", "app.db", "--read-only"], b"set a 2\n");
    assert_eq!((run.code, run.stderr.contains("read-only")), (Some(3), true), "{run:?}");
    assert_eq!(reader.get("a").unwrap(), Some(1));
}

#[test]
fn a_line_of_70_kb_is_one_line() {
    let folder = Folder::with_store();
    let text = "x".repeat(70_000);
    let lines = format!("set a \"{text}\"\nget a\n");
    let run = folder.run_with(&["shell", "app.db"], lines.as_bytes());
    assert!(run.stdout == format!("\"{text}\"\n"), "{:?} {:.99}", run.code, run.stderr);
}

#[test]
fn a_shell_whose_store_is_gone_tells_it_and_ends() {
    let folder = Folder::new();
    fs::create_dir(folder.path("here")).unwrap();
    folder.ok(&["init", "here/app.db"]);
    let mut shell = folder.command(&["shell", "here/app.db"]);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let mut to = shell.stdin.take().unwrap();
    to.write_all(b"set a 1\nget a\n").unwrap();
    // The output of a line is there before the next line is read.
    let mut shown = [0; 2];
    std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut shown).unwrap();
    assert_eq!(&shown, b"1\n");
    fs::remove_dir_all(folder.path("here")).unwrap();
    to.write_all(b"checkpoint\n").unwrap();
    drop(to);
    let run = Run::of(&shell.wait_with_output().unwrap());
    assert_eq!(run.code, Some(10), "{run:?}");
    assert!(run.stderr.starts_with("codexdb: line 3: "), "{run:?}");
    assert!(!run.stderr.contains("panicked"), "{run:?}");
}

#[cfg(target_os = "linux")]
mod at_a_terminal {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Child, Command};

    use rustix::process::{Pid, Signal, kill_process};
    use rustix::termios::LocalModes;

    use crate::common::Folder;
    use crate::terminal::Terminal;

    /// Starts the shell with its history in the folder.
    fn start(folder: &Folder, terminal: &mut Terminal, args: &[&str]) -> Child {
        let mut command: Command = folder.command(&[&["shell", "app.db"], args].concat());
        let shell = terminal.run(command.env("XDG_STATE_HOME", folder.path("state")));
        terminal.read_until("app.db> ");
        shell
    }

    /// Ends the shell at its next prompt. Before that, the terminal would take Ctrl-D for itself.
    fn end(mut shell: Child, terminal: &mut Terminal) {
        terminal.read_until("app.db> ");
        terminal.type_in("\x04");
        assert_eq!(shell.wait().unwrap().code(), Some(0));
        assert!(
            terminal.modes().contains(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON)
        );
    }

    #[test]
    fn lines_are_completed_and_the_prompt_shows_a_transaction() {
        let folder = Folder::with_store();
        folder.ok(&["set", "app.db", "users/ada", "\"Ada\""]);
        let mut terminal = Terminal::new();
        let shell = start(&folder, &mut terminal, &[]);
        // The word of the command, the part of the key up to the separator, and the rest.
        terminal.type_in("ge\tu\t\t\r");
        terminal.read_until("\n\"Ada\"\r\n");
        terminal.type_in("begin\r");
        terminal.read_until("app.db (transaction)> ");
        terminal.type_in("set users/bob \"Bob\"\rnonsense\r");
        terminal.read_until("unrecognized subcommand");
        terminal.read_until("app.db (transaction)> ");
        terminal.type_in("commit\r");
        terminal.read_until("app.db> ");
        terminal.type_in("begin\rset users/eve 1\r\x04");
        terminal.read_until("note: the transaction was not committed");
        let mut shell = shell;
        assert_eq!(shell.wait().unwrap().code(), Some(0));
        assert_eq!(folder.ok(&["keys", "app.db"]), "users/ada\nusers/bob\n");
    }

    #[test]
    fn the_history_is_kept_without_values() {
        let folder = Folder::with_store();
        let mut terminal = Terminal::new();
        let shell = start(&folder, &mut terminal, &[]);
        terminal.type_in("set 'a b' \"sec\x7f\x7f\x7fsecret\"\r hidden\rbad 'secret\rkeys\r");
        terminal.read_until("\na b\r\n");
        // In the shell itself the line is whole.
        terminal.type_in("\x1b[A\x1b[A\x1b[A");
        terminal.read_until("set 'a b' \"secret\"");
        terminal.type_in("\x03");
        end(shell, &mut terminal);
        let path = folder.path("state/codexdb/history");
        assert_eq!(fs::read_to_string(&path).unwrap(), "#V2\nset 'a b'\nkeys\n");
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder.path("state/codexdb"))), (0o600, 0o700));
        // Another shell has the line without its value.
        let mut terminal = Terminal::new();
        let shell = start(&folder, &mut terminal, &["--history", "values"]);
        terminal.type_in("\x1b[A\x1b[A");
        terminal.read_until("set 'a b'");
        terminal.type_in(" 7\r");
        end(shell, &mut terminal);
        assert!(fs::read_to_string(&path).unwrap().ends_with("keys\nset 'a b' 7\n"));
    }

    #[test]
    fn no_history_is_kept_of_an_encrypted_store() {
        let folder = Folder::new();
        fs::write(folder.path("pass"), "correct horse").unwrap();
        let key = ["--passphrase", "file:pass"];
        folder.ok(&[&["init", "app.db"], &key[..]].concat());
        let mut terminal = Terminal::new();
        let shell = start(&folder, &mut terminal, &key);
        terminal.type_in("set a 1\rcount\r");
        terminal.read_until("\n1\r\n");
        end(shell, &mut terminal);
        assert!(!folder.path("state").exists());
    }

    #[test]
    fn ctrl_c_gives_up_a_line_and_ends_a_scan_but_not_the_shell() {
        let folder = Folder::with_store();
        {
            let store = folder.open("app.db");
            let mut batch = store.batch();
            (0..100_000).for_each(|n| drop(batch.set(format!("{n:06}"), &n).map(|_| ())));
            batch.commit().unwrap();
            store.close().unwrap();
        }
        let mut terminal = Terminal::new();
        let mut shell = start(&folder, &mut terminal, &[]);
        terminal.type_in("clear --yes\x03");
        terminal.read_until("app.db> ");
        terminal.type_in("keys\r");
        // The program waits until the terminal is read.
        terminal.read_until("000010\r\n");
        assert!(terminal.modes().contains(LocalModes::ISIG), "Ctrl-C is a signal now");
        kill_process(Pid::from_child(&shell), Signal::INT).unwrap();
        let shown = terminal.read_until("app.db> ");
        assert!(shown.lines().count() < 90_000, "{} lines", shown.lines().count());
        terminal.type_in("count\r");
        terminal.read_until("\n100000\r\n");
        assert_eq!(shell.try_wait().unwrap(), None);
        end(shell, &mut terminal);
    }

    #[test]
    fn a_line_of_70_kb_can_be_pasted() {
        let folder = Folder::with_store();
        let mut terminal = Terminal::new();
        let shell = start(&folder, &mut terminal, &[]);
        let text = "x".repeat(70_000);
        let mut typist = terminal.typist();
        // Two lines, as a terminal sends pasted text.
        let line = format!("\x1b[200~set a \"{text}\"\rcount\x1b[201~\r");
        let typed = std::thread::spawn(move || typist.type_in(&line));
        terminal.read_until("\n1\r\n");
        typed.join().unwrap();
        end(shell, &mut terminal);
        assert!(folder.ok(&["get", "app.db", "a"]) == format!("\"{text}\"\n"));
    }
}
