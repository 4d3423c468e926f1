//! Encrypted stores, with keys from files, variables and descriptors.

use std::fs;

use codex_core::vfs::Vfs;
use codex_storage::MainFile;

use crate::common::{Folder, Run, field};

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Returns a folder with the store `app.db` under the key in the file `key`.
fn folder() -> Folder {
    let folder = Folder::new();
    fs::write(folder.path("key"), HEX).unwrap();
    fs::write(folder.path("other"), [7; 32]).unwrap();
    folder.ok(&["init", "app.db", "--key", "file:key"]);
    folder.ok(&["set", "app.db", "a", "1", "--key", "file:key"]);
    folder
}

/// Runs a line of a shell, in which `$CODEXDB` is the program.
fn shell(folder: &Folder, line: &str) -> Run {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line]).current_dir(folder.path("."));
    let output = command.env("CODEXDB", env!("CARGO_BIN_EXE_codexdb")).env("K", HEX).output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Run { code: output.status.code(), stdout, stderr }
}

#[test]
fn a_key_comes_from_a_file_a_variable_or_a_descriptor() {
    let folder = folder();
    assert_eq!(folder.ok(&["get", "app.db", "a", "--key", "file:key"]), "1\n");
    for line in [
        "\"$CODEXDB\" get app.db a --key env:K",
        "\"$CODEXDB\" get app.db a --key fd:3 3<key",
        "printf %s \"$K\" | \"$CODEXDB\" get app.db a --key fd:0",
    ] {
        let run = shell(&folder, line);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "1\n"), "{line}: {run:?}");
    }
}

#[test]
fn a_key_that_is_missing_wrong_or_not_needed_is_an_error() {
    let folder = folder();
    folder.fails(&["get", "app.db", "a"], 6, "next: `--passphrase ask`, or `--key file:PATH`");
    folder.fails(&["get", "app.db", "a", "--key", "file:other"], 6, "does not open this store");
    folder.fails(&["set", "app.db", "a", "2", "--key", "file:other"], 6, "does not open");
    folder.fails(&["get", "app.db", "a", "--key", "file:none"], 3, "cannot read the key from none");
    folder.fails(&["get", "app.db", "a", "--key", "env:UNSET"], 6, "UNSET is not set");
    fs::write(folder.path("short"), "x").unwrap();
    folder.fails(&["get", "app.db", "a", "--key", "file:short"], 6, "bytes");
    folder.ok(&["init", "plain.db"]);
    folder.fails(&["count", "plain.db", "--key", "file:key"], 6, "is not encrypted");
    let info = folder.ok(&["info", "app.db"]);
    assert_eq!((field(&info, "encrypted"), field(&info, "not read")), ("yes", "no key was given"));
    let info = folder.ok(&["info", "app.db", "--key", "file:key"]);
    assert_eq!(field(&info, "keys"), "1");
}

#[test]
fn a_secret_that_is_an_argument_is_refused_and_not_repeated() {
    let folder = folder();
    for option in ["--passphrase", "--key"] {
        let run = folder.fails(&["get", "app.db", "a", option, "hunter2"], 2, "never an argument");
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
    folder.fails(&["count", "app.db", "--key", "env:A", "--passphrase", "env:B"], 2, "cannot be");
}

#[test]
fn a_passphrase_has_no_line_end() {
    let folder = Folder::new();
    fs::write(folder.path("pass"), "correct horse battery staple\n").unwrap();
    folder.ok(&["init", "app.db", "--passphrase", "file:pass"]);
    let line = "P='correct horse battery staple' \"$CODEXDB\" count app.db --passphrase env:P";
    let run = shell(&folder, line);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "0\n"), "{run:?}");
}

#[test]
fn the_key_of_a_store_is_changed() {
    let folder = folder();
    let opens = |key: &str| folder.run(&["get", "app.db", "a", "--key", key]).code == Some(0);
    // The public name of the root key, which a change of the key keeps.
    let root = || {
        let vfs = Vfs::os(folder.path(".")).unwrap();
        MainFile::open(&vfs, "app.db").unwrap().root_id()
    };
    for (command, from, to) in
        [("change", "file:key", "file:other"), ("rekey", "file:other", "file:key")]
    {
        folder.fails(&["key", command, "app.db", "--key", from], 2, "--new-key");
        folder.fails(
            &["key", command, "app.db", "--key", to, "--new-key", from],
            6,
            "does not open",
        );
        let before = root();
        folder.ok(&["key", command, "app.db", "--key", from, "--new-key", to]);
        assert!(opens(to) && !opens(from), "{command}");
        assert_eq!(root() == before, command == "change", "{command}");
    }
}

#[test]
fn a_store_is_encrypted_and_decrypted() {
    let folder = folder();
    let done = folder.ok(&["convert", "app.db", "--key", "file:key", "--decrypt"]);
    assert_eq!(field(&done, "still without encryption"), "none");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "1\n");
    folder.ok(&["backup", "create", "app.db"]);
    let done = folder.ok(&["convert", "app.db", "--new-key", "file:other"]);
    assert!(field(&done, "still without encryption").ends_with("app.db.bak.1"), "{done}");
    folder.fails(&["get", "app.db", "a"], 6, "is encrypted");
    assert_eq!(folder.ok(&["get", "app.db", "a", "--key", "file:other"]), "1\n");
}

#[test]
fn the_past_of_an_encrypted_ledger_is_read_with_its_key() {
    let folder = Folder::new();
    fs::write(folder.path("key"), HEX).unwrap();
    let with_key = |args: &[&str]| {
        let all: Vec<&str> = args.iter().copied().chain(["--key", "file:key"]).collect();
        folder.ok(&all)
    };
    with_key(&["init", "app.db", "--form", "ledger"]);
    with_key(&["set", "app.db", "a", "1"]);
    with_key(&["set", "app.db", "a", "2"]);
    assert_eq!(with_key(&["get", "app.db", "a", "--at", "1"]), "1\n");
    assert_eq!(with_key(&["log", "app.db", "--json"]).lines().count(), 2);
    folder.fails(&["log", "app.db"], 6, "is encrypted");
}

#[test]
fn the_commands_of_key_encrypt_and_decrypt_a_store() {
    let folder = Folder::with_store();
    fs::write(folder.path("key"), HEX).unwrap();
    folder.ok(&["set", "app.db", "a", "1"]);
    folder.fails(&["key", "encrypt", "app.db"], 2, "--new-key");
    folder.ok(&["key", "encrypt", "app.db", "--new-key", "file:key"]);
    folder.fails(&["get", "app.db", "a"], 6, "next: `--passphrase ask`");
    assert_eq!(folder.ok(&["get", "app.db", "a", "--key", "file:key"]), "1\n");
    folder.fails(&["key", "decrypt", "app.db"], 6, "key");
    folder.ok(&["key", "decrypt", "app.db", "--key", "file:key"]);
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "1\n");
}
