//! Tests that each rule reports a bad sample and accepts a good one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::source::Source;
use super::{File, Finding, documents, format, rust, seams, tree};
use crate::mutants::Edit;

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn shown(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// Returns the findings of a rule in one Rust source.
fn on_source(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
    let file = file(path, text);
    shown(&rule(&Source::of(&file).unwrap()))
}

fn rust_rules(text: &str) -> Vec<String> {
    on_source(rust::check, "codex-core/src/a.rs", text)
}

fn seam_rules(path: &str, text: &str) -> Vec<String> {
    on_source(seams::check, path, text)
}

fn tree_rules(path: &str, text: &str) -> Vec<String> {
    shown(&tree::check(&[file(path, text)]))
}

#[test]
fn a_plain_source_breaks_no_rule() {
    assert!(rust_rules("//! What it is for.\nfn a() {\n    b();\n}\n").is_empty());
}

#[test]
fn a_file_without_an_opening_sentence_is_found() {
    for text in ["fn a() {}\n", "// Not this.\n", "//!\nfn a() {}\n", ""] {
        assert!(rust_rules(text)[0].contains("open with `//!`"), "{text:?}");
    }
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let library = |lines: usize| "//! Long.\n".to_owned() + &"const A: u8 = 0;\n".repeat(lines - 1);
    assert!(rust_rules(&library(400)).is_empty());
    assert!(rust_rules(&library(401))[0].contains("401 lines without tests, at most 400"));
    let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"    a();\n".repeat(150) + "}\n";
    assert!(rust_rules(&(library(400) + &tests)).is_empty());
    let example = "/// ```\n".to_owned() + &"/// a();\n".repeat(150) + "/// ```\n";
    assert!(rust_rules(&(library(400) + &example)).is_empty());
    let doc = example.clone() + "/// The end.\n";
    assert!(rust_rules(&(library(400) + &doc))[0].contains("401 lines"));
}

#[test]
fn only_tests_count_as_tests() {
    let is_test = |text: &str| {
        let file = file("codex-core/src/a.rs", text);
        Source::of(&file).unwrap().is_test
    };
    let lines = |condition: &str| {
        is_test(&format!("//! A.\n#[cfg({condition})]\nfn a() {{\n    b();\n}}\nfn c() {{}}\n"))
    };
    assert_eq!(lines("test"), [false, true, true, true, true, false]);
    assert_eq!(lines("all(test, not(loom))"), [false, true, true, true, true, false]);
    assert_eq!(lines("not(test)"), [false; 6]);
    assert_eq!(lines("feature = \"test\""), [false; 6]);
    for item in
        ["mod tests;", "use a::{\n    b,\n};", "#[allow(x)]\nfn a(\n    b: u8,\n) {\n    c();\n}"]
    {
        let lines = is_test(&format!(
            "//! A.\n    #[cfg(test)]\n    {}\n    d();\n",
            item.replace('\n', "\n    ")
        ));
        let (last, tests) = lines.split_last().unwrap();
        assert!(!last && tests.iter().skip(1).all(|is_test| *is_test), "{item}: {lines:?}");
    }
}

#[test]
fn a_long_function_is_found() {
    let function = |head: &str, lines: usize| {
        let body = "        a();\n\n".repeat((lines - 2) / 2) + "        // b\n";
        format!("//! A.\nimpl B {{\n    {head} {{\n{body}    }}\n\n    fn d() {{}}\n}}\n")
    };
    for head in
        ["fn c()", "pub(crate) const fn c(x: [u8; 3]) -> fn(u8)", "pub(in crate::a) async fn c()"]
    {
        assert!(rust_rules(&function(head, 69)).is_empty());
        let found = rust_rules(&function(head, 71));
        assert_eq!(found, ["codex-core/src/a.rs:3: a function of 71 lines, at most 70"], "{head}");
    }
}

#[test]
fn a_wide_line_is_found() {
    let line = |columns: usize| format!("//! A.\n// {}\n", "e".repeat(columns - 3));
    assert!(rust_rules(&line(100)).is_empty());
    assert!(rust_rules(&line(101))[0].contains(":2: 101 columns"));
    assert!(rust_rules(&format!("{}://x\n", line(101).trim_end())).is_empty());
}

#[test]
fn an_ignored_test_is_found() {
    let sample = "//! A.\n#[test]\n#[ignore = \"slow\"]\nfn a() {}\n";
    assert!(rust_rules(sample)[0].contains(":3: an ignored test"));
}

#[test]
fn words_for_what_is_undone_are_found_in_any_text() {
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")] {
        assert!(
            tree_rules("docs/a.md", &format!("first\n{word}: later\n"))[0].contains(":2: left")
        );
        assert!(tree_rules("docs/a.md", &format!("the {word}S are another word")).is_empty());
    }
}

#[test]
fn places_on_one_machine_are_found() {
    let bad = [
        concat!("see ..", "/shared/a"),
        concat!("cd /wo", "rk/main"),
        concat!("\"/ho", "me/me/a\""),
        concat!("/tm", "p/a"),
        concat!("/ro", "ot/.cargo"),
    ];
    for text in bad {
        assert!(tree_rules("docs/a.md", text)[0].contains("one machine only"), "{text}");
    }
    let good = [concat!("docs/ho", "me/a"), concat!("a.wo", "rk/b"), "work in home"];
    for text in good {
        assert!(tree_rules("docs/a.md", text).is_empty(), "{text}");
    }
}

#[test]
fn a_file_that_no_one_wrote_by_hand_is_found() {
    let most = 512 * 1024;
    assert!(tree_rules("docs/a.bin", &"a".repeat(most)).is_empty());
    assert!(tree_rules("docs/a.bin", &"a".repeat(most + 1))[0].contains("was it built"));
}

#[test]
fn strangers_at_the_top_are_found() {
    assert!(tree_rules("tools/a.rs", "")[0].contains("`tools` is not one of the folders"));
    assert!(tree_rules("notes.txt", "")[0].contains("not one of the files"));
    assert!(tree_rules("README.md", "").is_empty());
    assert!(tree_rules("docs/a/b.md", "").is_empty());
}

/// Returns whether the rule of a seam reports a line of code, in each of these files.
fn fires<const N: usize>(line: &str, files: [&str; N]) -> [bool; N] {
    files.map(|path| {
        let found = seam_rules(path, &format!("//! A.\n{line}\n"));
        assert!(found.iter().all(|text| text.starts_with(&format!("{path}:2: "))), "{found:?}");
        !found.is_empty()
    })
}

const OS: &str = "codex-storage/src/vfs/os.rs";
const CLOCK: &str = "codex-storage/src/vfs/clock.rs";
const SYNC: &str = "codex-storage/src/sync.rs";

#[test]
fn the_disk_is_named_in_one_file_only() {
    for line in [
        "use std::fs;",
        "    let _ = ::std::fs::read(\"a\");",
        "use std::os::unix::fs::FileExt as _;",
        "use rustix::fs::*;",
    ] {
        let files =
            ["codex-backup/src/a.rs", "codex-crypto/src/a.rs", OS, "codex-core/src/bin/a.rs"];
        assert_eq!(fires(line, files), [true, true, false, false], "{line}");
    }
}

#[test]
fn locks_threads_and_channels_are_named_in_sync_only() {
    for line in [
        "use std::sync::mpsc::channel;",
        "use std::thread;",
        "    std::thread::Builder::new();",
        "use crossbeam::channel::Sender;",
        "use loom::sync::atomic::AtomicU8;",
    ] {
        let files =
            ["codex-core/src/a.rs", "codex-core/src/sync.rs", SYNC, "codex-crypto/src/a.rs"];
        assert_eq!(fires(line, files), [true, true, false, false], "{line}");
    }
}

#[test]
fn atomics_come_from_sync_but_in_the_vfs() {
    let files = ["codex-core/src/a.rs", SYNC, "codex-storage/src/vfs/mem.rs"];
    assert_eq!(fires("use std::sync::atomic::AtomicU64;", files), [true, false, false]);
    assert_eq!(fires("use crate::sync::atomic::AtomicU64;", files), [false; 3]);
}

#[test]
fn the_bans_of_clippy_are_lifted_in_the_seams_only() {
    let files = ["codex-core/src/a.rs", OS, CLOCK, SYNC, "codex-crypto/src/entropy.rs"];
    let fired = fires("#[expect(clippy::disallowed_methods, reason = \"a\")]", files);
    assert_eq!(fired, [true, false, false, false, false]);
}

#[test]
fn no_nested_use_hides_a_module_of_std() {
    assert_eq!(fires("use std::{fmt, io};", ["codex-core/src/a.rs", SYNC]), [true, true]);
}

#[test]
fn what_only_looks_like_a_seam_is_left_alone() {
    let good = [
        "//! A.\nuse std::sync::Arc;\nuse codex_storage::sync::thread;\nuse crate::fs;\n",
        "//! A `std::fs` in a comment.\n/// `mpsc`\nfn a() {} // std::thread\n",
        "//! A.\n#[cfg(test)]\nmod tests {\n    use std::fs;\n    use std::thread;\n}\n",
    ];
    for text in good {
        let found = seam_rules("codex-core/src/a.rs", text);
        assert!(found.is_empty(), "{text} gave {found:?}");
    }
    let bad = "//! A.\nuse std::fs;\n";
    assert!(seam_rules("codex-core/tests/a.rs", bad).is_empty());
    assert!(seam_rules("codex-core/src/a/tests.rs", bad).is_empty());
    assert!(seam_rules("codex-bench/src/a.rs", bad).is_empty());
}

#[test]
fn a_comment_ends_the_code_of_its_line_but_a_string_does_not() {
    let text = "//! A.\n// b\nc(); // d\n    /// e\nf(\"g // h\");\n";
    let file = file("a.rs", text);
    let source = Source::of(&file).unwrap();
    let code: Vec<_> = source.code().collect();
    assert_eq!(code, [(3, "c();"), (5, "f(\"g // h\");")]);
}

#[test]
fn the_lines_of_a_mutant_stand_in_its_source_exactly_once() {
    let edits = Edit::list("m codex-core/src/a.rs\n- known();\n+ new();\n");
    let on = |text: &str| {
        let file = file("codex-core/src/a.rs", text);
        shown(&documents::mutants(&[Source::of(&file).unwrap()], &edits))
    };
    assert!(on("//! A.\n    known();\n").is_empty());
    assert!(on("//! A.\n")[0].contains("a.rs: the lines that mutant `m` changes stand there 0"));
    assert!(on("//! A.\nknown();\nknown();\n")[0].contains("stand there 2 times"));
}

#[test]
fn documents_name_commands_and_tests_that_exist() {
    let code = file("codex-core/tests/a.rs", "//! A.\nfn torn_tail_is_dropped() {}\n");
    let sources = [Source::of(&code).unwrap()];
    let on = |text: &str| {
        let files = [file("docs/A.md", text)];
        let of_document = |finding: &Finding| finding.path == "docs/A.md";
        let found = documents::check(&files, &sources);
        shown(&found.into_iter().filter(of_document).collect::<Vec<_>>())
    };
    assert!(
        on("```\ncargo xtask ci --keep-going\n```\n| 1 | `a::torn_tail_is_dropped` |\n").is_empty()
    );
    assert!(on("run\n`cargo xtask nothing`\n")[0].contains("A.md:2: `cargo xtask nothing`"));
    assert!(on("| 1 | `torn_tail_is_no_more` |\n")[0].contains("no such function"));
    let head = "| promise | mutants |\n|---|---|\n";
    assert!(on(&format!("{head}| 1 | `lock_order` |\n")).is_empty());
    assert!(on(&format!("{head}| 1 | `lost` |\n"))[0].contains("A.md:3: `lost` is not a mutant"));
    assert!(on("in a sentence `torn_tail_is_no_more` may be anything\n").is_empty());
}

#[test]
fn each_promise_of_the_readme_has_a_row_that_names_a_test() {
    let readme = "# A\n## Promises\n\n1. **Safe.** See:\n\n   | form | files | `Sync` |\n   \
                  |---|---|---|\n   | `Wal` | log | power |\n\n   After it.\n2. **Fast.** Reads \
                  never\n   wait; writes do.\n3. **Whole.** All.\n\nMore.\n\n## More\n\
                  4. **No.** no\n";
    let code = file("codex-core/tests/a.rs", "//! A.\nfn reads() {}\n");
    let sources = [Source::of(&code).unwrap()];
    let on = |rows: &str| {
        let head = "| promise of the README | tests | mutants |\n|---|---|---|\n";
        let testing = file("docs/TESTING.md", &format!("# T\n\n{head}{rows}\n| `x` | other |\n"));
        shown(&documents::promises(&[file("README.md", readme), testing], &sources))
    };
    let rows =
        ["1 `Wal`, `Sync`: power", "1 After it", "2 Reads never wait", "2 writes do", "3 All"];
    let row = |promise: &str| format!("| {promise} | `reads` | `lock_order` |\n");
    let whole: String = rows.map(row).concat();
    assert!(on(&whole).is_empty(), "{:?}", on(&whole));
    for promise in rows {
        let found = on(&whole.replace(&row(promise), ""));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(&format!("no row for the promise: {promise}")), "{found:?}");
    }
    let found = on(&format!("{whole}{}", row("4 no")));
    assert!(found[0].contains("does not promise: 4 no"), "{found:?}");
    // A function in the column of the mutants is no test.
    let found = on(&whole.replace("| 3 All | `reads` |", "| 3 All | `writes` | `reads`"));
    assert!(found[0].contains("no test for: 3 All"), "{found:?}");
}

/// Returns a repository with the sources of the format, including `code`, and one golden file.
fn format_files(code: &str, document: Option<&str>, list: &str) -> Vec<File> {
    let text = |path: &str| if path.ends_with("/frame.rs") { code } else { "//! A.\n" };
    let mut files: Vec<File> = format::SOURCES.iter().map(|path| file(path, text(path))).collect();
    files.extend([
        file("codex-storage/testdata/v1/wal.db", "golden"),
        file("codex-storage/testdata/v1/FNV", list),
    ]);
    files.extend(document.map(|text| file("docs/FORMAT.md", text)));
    files
}

fn format_rules(files: &[File]) -> Vec<String> {
    let sources: Vec<Source> = files.iter().filter_map(Source::of).collect();
    shown(&format::check(files, &sources))
}

const CODE: &str = "//! A frame.\nconst LEN: u32 = 64;\n";

/// Returns the hash that the finding reports as missing in the document.
fn hash_of(code: &str) -> String {
    let found = format_rules(&format_files(code, Some("# Format\n"), GOLDEN));
    found[0].split('`').nth(1).unwrap().to_owned()
}

const GOLDEN: &str = "2b72c88efe37d9c4  wal.db\n";

#[test]
fn a_changed_format_needs_its_document() {
    let document = format!("# Format\n{}\n", hash_of(CODE));
    let on = |code: &str, text: Option<&str>| format_rules(&format_files(code, text, GOLDEN));
    assert!(on(CODE, Some(&document)).is_empty(), "{:?}", on(CODE, Some(&document)));
    assert!(on(CODE, None)[0].contains("missing, although"));
    assert!(on(CODE, Some("# Format\n"))[0].contains("has no line `sources: "));
    assert!(on(&CODE.replace("64", "65"), Some(&document))[0].contains("but the sources are"));
}

#[test]
fn a_source_of_the_format_that_is_gone_is_noticed() {
    let mut files = format_files(CODE, Some("# Format\n"), GOLDEN);
    files.remove(0);
    assert!(format_rules(&files)[0].contains("defines the format, but is gone"));
}

#[test]
fn comments_layout_and_tests_do_not_change_the_format() {
    let same = "//! Another sentence.\n\nconst  LEN: u32\n    = 64; // bytes\n\
                #[cfg(test)]\nmod tests {\n    const A: u8 = 1;\n}\n";
    assert_eq!(hash_of(CODE), hash_of(same));
    assert_ne!(
        hash_of("//! A.\nconst M: &str = \"a\";\n"),
        hash_of("//! A.\nconst M: &str = \"b\";\n")
    );
}

#[test]
fn golden_files_neither_change_nor_come_nor_go_unnoticed() {
    let document = format!("{}\n", hash_of(CODE));
    let on = |list: &str| format_rules(&format_files(CODE, Some(&document), list));
    assert!(on(GOLDEN).is_empty(), "{:?}", on(GOLDEN));
    assert!(on("0000000000000000  wal.db\n")[0].contains("changed: a version-1 file"));
    assert!(on("")[0].contains("--bless-golden"));
    let gone = format!("{GOLDEN}0000000000000000  gone.db\n");
    assert!(on(&gone)[0].contains("FNV:2: names a file that is no longer there"));
}
