//! `edit`: the editor is a line of a shell.

use std::fs;

use crate::common::{Folder, Run};

/// Edits the key with this editor.
fn edit(folder: &Folder, editor: &str, args: &[&str]) -> Run {
    fs::create_dir_all(folder.path("run")).unwrap();
    let all: Vec<&str> = ["edit", "app.db"].iter().chain(args).copied().collect();
    let mut command = folder.command(&all);
    command.env_remove("VISUAL").env("EDITOR", editor);
    Run::of(&command.env("XDG_RUNTIME_DIR", folder.path("run")).output().unwrap())
}

/// Returns the number of texts that are left over.
fn left(folder: &Folder) -> usize {
    fs::read_dir(folder.path("run")).unwrap().count()
}

#[test]
fn a_value_is_edited_as_json_on_lines() {
    let folder = Folder::with_store();
    folder.ok(&[
        "set",
        "app.db",
        "a",
        "{\"n\": 1.10, \"t\": \" x \"}",
        "--expires-at",
        "2999-01-01",
    ]);
    let run = edit(&folder, "sed -i 's/^  \"n\": 1.10,$/  \"n\": 2.20,/'", &["a"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "{\"n\":2.20,\"t\":\" x \"}\n");
    let scan = folder.ok(&["scan", "app.db", "--json"]);
    assert!(scan.contains("expires_us"), "{scan}");
    let run = edit(&folder, "true", &["a"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "nothing was changed\n"));
    // A key without a value, and a value of an application.
    assert_eq!(edit(&folder, "echo '[1]' >", &["new"]).code, Some(0));
    assert_eq!(folder.ok(&["get", "app.db", "new"]), "[1]\n");
    folder.ok(&["set", "app.db", "n", "7", "--as", "u32"]);
    assert!(edit(&folder, "true", &["n"]).stderr.contains("perhaps `--as 'u32'`"));
    assert_eq!(edit(&folder, "echo 8 >", &["n", "--as", "u32"]).code, Some(0));
    assert_eq!(folder.open("app.db").get::<u32>("n").unwrap(), Some(8));
    assert_eq!(left(&folder), 0);
}

#[test]
fn a_text_that_is_not_saved_is_kept() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    let run = edit(&folder, "echo hello >", &["a"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert!(run.stderr.contains("not JSON") && run.stderr.contains("your text is in "), "{run:?}");
    assert_eq!(left(&folder), 1);
    // Another process changes the value meanwhile.
    let program = env!("CARGO_BIN_EXE_codexdb");
    let run = edit(&folder, &format!("{program} set app.db a 5; echo 2 >"), &["a"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("a was changed meanwhile"), "{}", run.stderr);
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "5\n");
    assert_eq!(left(&folder), 2);
    // An editor that fails changes nothing.
    let run = edit(&folder, "false", &["a"]);
    assert!(run.stderr.contains("`false`: exit status: 1"), "{}", run.stderr);
    assert_eq!(left(&folder), 2);
}
