//! Completions and the manual: they name each command.

use crate::common::Folder;

/// Returns the commands that `--help` lists.
fn commands(folder: &Folder) -> Vec<String> {
    let help = folder.ok(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let (list, _) = rest.split_once("\n\n").unwrap();
    let first = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    list.lines().map(first).collect()
}

#[test]
fn completions_and_the_manual_name_each_command() {
    let folder = Folder::new();
    let page = folder.ok(&["man"]);
    assert!(page.contains(".TH codexdb 1"), "{page}");
    assert!(page.contains("141  the reader of the output was closed"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.ok(&["completions", shell]);
        for command in commands(&folder) {
            assert!(script.contains(&command), "{shell}: {command}");
            let page_name = format!("codexdb-{command}(1)").replace('-', "\\-");
            assert!(page.contains(&page_name), "{command}");
        }
    }
    assert!(folder.ok(&["man", "backup", "list"]).contains("codexdb backup list"));
    folder.fails(&["man", "frobnicate"], 2, "no command `frobnicate`");
    folder.fails(&["completions", "dosshell"], 2, "invalid value");
}
