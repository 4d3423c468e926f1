//! The tour in the README: each of its commands prints the text in the README.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::Folder;

#[test]
fn the_tour_of_the_readme_prints_what_it_shows() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, rest) = readme.split_once("```console\n").expect("there is a tour");
    let (tour, _) = rest.split_once("```").expect("the tour ends");
    let folder = Folder::new();
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/go/snap.zstd");
    fs::copy(old, folder.path("old.db")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_codexdb")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut commands = 0;
    for step in tour.split("$ ").skip(1) {
        let (line, shown) = step.split_once('\n').unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1; {line}")]).current_dir(folder.path("."));
        let output = shell.env("PATH", &path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), shown, "{line}");
        commands += 1;
    }
    assert!(commands >= 10, "{commands} commands");
}
