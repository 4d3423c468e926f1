//! `backup remote`: backups in a folder of another disk, and what is told about a bucket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codex_core::Backups;
use codex_core::internals;
use codex_core::remote::{self, LogId, LogStart, unwatched};
use codex_storage::storage::LogPart;

use crate::common::{Folder, field};

const PUT: [&str; 6] = ["backup", "remote", "put", "app.db", "elsewhere", "--plain-objects"];

/// Returns a folder with a store of one key, and a place beside it with an image of it.
fn folder() -> Folder {
    let folder = Folder::with_store();
    fs::create_dir(folder.path("elsewhere")).unwrap();
    folder.ok(&["set", "app.db", "a", "1"]);
    folder.ok(&PUT);
    folder
}

/// Removes everything of the store.
fn lose(folder: &Folder) {
    for file in fs::read_dir(folder.path("")).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::remove_file(file.path()).unwrap();
        }
    }
}

#[test]
fn a_store_that_is_lost_comes_back_from_another_place() {
    let folder = folder();
    let again = folder.ok(&PUT);
    assert_eq!(field(&again, "new"), "no");
    folder.ok(&["set", "app.db", "a", "2"]);
    assert_eq!(field(&folder.ok(&PUT), "new"), "yes");
    let list = folder.ok(&["backup", "remote", "list", "app.db", "elsewhere"]);
    let commits = list.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap());
    assert_eq!(commits.collect::<Vec<_>>(), ["2", "1"]);
    let oldest = list.lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
    let verified = folder.ok(&["backup", "remote", "verify", "app.db", "elsewhere", &oldest]);
    assert_eq!((field(&verified, "result"), field(&verified, "commit")), ("intact", "1"));

    lose(&folder);
    let restored = folder.ok(&["backup", "remote", "restore", "app.db", "elsewhere"]);
    assert_eq!(field(&restored, "commit"), "2");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "2\n");
    // An older image replaces the newer store, whose files are kept.
    let restored = folder.ok(&["backup", "remote", "restore", "app.db", "elsewhere", &oldest]);
    assert!(field(&restored, "replaced files are kept as").starts_with("app.db.replaced.1"));
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "1\n");

    let pruned = folder.ok(&["backup", "remote", "prune", "app.db", "elsewhere", "--keep", "1"]);
    assert_eq!(field(&pruned, "removed"), oldest);
    let left = folder.ok(&["backup", "remote", "list", "app.db", "elsewhere"]);
    assert_eq!(left.lines().count(), 2, "{left}");
}

/// Archives the store in this process, which sets `a` in the commits 2 and 3. The place has them in
/// one piece of the log each, of the times 03:33:20 and 03:33:30. Returns the length of the log.
fn archive(folder: &Folder) -> u64 {
    let place = Arc::new(remote::Folder::open(folder.path("elsewhere")).unwrap());
    let remote = Backups::of(folder.path("app.db")).unwrap().remote(place).plain_objects(true);
    let store = folder.open("app.db");
    let engine = internals::engine(&store);
    let point = engine.archive_point().unwrap();
    let (file, _) = point.main.to_copy().unwrap();
    let LogPart { base_seq, file_id, follows, .. } = point.parts[0];
    let log = LogId { base_seq, file_id, follows };
    let writer = remote.begin_archive(&file).unwrap();
    let start = Some(LogStart { log, from: 0 });
    assert!(!remote.put_image(&writer, &file, start, &mut unwatched).unwrap().is_new);
    let mut end = 0;
    for (value, time_us) in [(2, 2_000_000_000_000_000), (3, 2_000_000_010_000_000)] {
        store.set("a", &value).unwrap();
        let part = engine.archive_point().unwrap().parts.remove(0);
        let mut bytes = vec![0; usize::try_from(part.end - end).unwrap()];
        part.file.read_exact_at(&mut bytes, end).unwrap();
        end = remote.put_piece(&log, end, &bytes, part.seq, time_us).unwrap();
    }
    store.close().unwrap();
    end
}

#[test]
fn a_lost_store_comes_back_as_it_was_after_any_commit_that_was_archived() {
    let folder = folder();
    archive(&folder);
    let run = |words: &[&str]| {
        folder.run(&[&["backup", "remote", "restore", "app.db", "elsewhere"], words].concat())
    };
    lose(&folder);
    let cases: [(&[&str], _); 7] = [
        (&[], "3"),
        (&["--at", "1"], "1"),
        (&["--at", "2"], "2"),
        (&["--at", "2033-05-18T03:33:20Z"], "2"),
        (&["--at", "2033-05-18T03:33:29Z"], "2"),
        (&["--at", "2033-05-18T03:33:30Z"], "3"),
        // As the errors below have it.
        (&["--at", "2033-05-18 03:33:30.000000 UTC"], "3"),
    ];
    for (words, commit) in cases {
        let restored = run(words);
        assert_eq!(restored.code, Some(0), "{words:?}: {restored:?}");
        assert_eq!(field(&restored.stdout, "commit"), commit, "{words:?}");
        assert!(field(&restored.stdout, "image").starts_with("image/"), "{restored:?}");
        // The value is the number of its commit.
        assert_eq!(folder.run(&["get", "app.db", "a"]).stdout, format!("{commit}\n"));
    }
    // What is not there is told with what is, and changes nothing.
    for at in ["4", "2033-05-18T03:33:31Z"] {
        let refused = run(&["--at", at]);
        let told = &refused.stderr;
        assert_eq!(refused.code, Some(2), "{told}");
        assert!(told.contains("can be restored is 3 (2033-05-18 03:33:30"), "{told}");
        assert!(told.contains("next: `--at COMMIT`, or no `--at`"), "{told}");
    }
    let before = run(&["--at", "2020-01-01"]);
    assert!(before.stderr.contains("begins with commit 1"), "{before:?}");
    assert_eq!(folder.run(&["get", "app.db", "a"]).stdout, "3\n");
    assert_eq!(run(&["--at", "soon"]).code, Some(2));
    assert_eq!(run(&["image/1", "--at", "1"]).code, Some(2));
}

#[test]
fn the_log_of_an_archive_is_listed_verified_and_pruned() {
    let folder = folder();
    let run = |words: &[&str]| {
        let words = [&["backup", "remote", words[0], "app.db", "elsewhere"], &words[1..]].concat();
        folder.ok(&words)
    };
    let verified = run(&["verify"]);
    assert_eq!(field(&verified, "authenticated"), "no");
    assert!(!verified.contains("logs read") && !verified.contains("reaches"), "{verified}");
    let len = archive(&folder);
    folder.ok(&["set", "app.db", "a", "4"]);
    let list = run(&["list", "--json"]);
    let line: serde_json::Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    assert_eq!((&line["log"], &line["reaches_commit"]), (&true.into(), &3.into()), "{list}");
    assert!(run(&["list"]).contains("2033-05-18T03:33:30Z"), "{list}");
    let verified = run(&["verify"]);
    assert_eq!(field(&verified, "reaches commit"), "3");
    assert_eq!(field(&verified, "logs read"), format!("{len} B"));
    // An image alone.
    let name = field(&verified, "image").to_owned();
    assert!(!run(&["verify", &name]).contains("logs read"));

    // The image with a log stays beside a newer one, because an archive may be sending that log.
    folder.ok(&PUT);
    let prune = |words: &[&str]| {
        folder.run(&[&["backup", "remote", "prune", "app.db", "elsewhere"], words].concat())
    };
    for words in [&["--keep", "1"][..], &["--keep-for", "1h"], &["--keep", "1", "--keep-for", "7d"]]
    {
        let pruned = prune(words);
        assert_eq!((pruned.code, field(&pruned.stdout, "pieces of logs")), (Some(1), "0"));
    }
    assert_eq!(run(&["list"]).lines().count(), 3);
    assert_eq!(prune(&[]).code, Some(2));
    assert!(prune(&["--keep-for", "soon"]).stderr.contains("such as 90s"));
}

#[test]
fn a_damaged_piece_of_a_log_is_told_with_its_name() {
    let folder = folder();
    archive(&folder);
    let verify = ["backup", "remote", "verify", "app.db", "elsewhere"];
    folder.ok(&verify);
    // Bytes of the log in either piece, and the header of the last one.
    for (piece, at) in [(0, 70), (1, 70), (1, 30)] {
        let mut pieces = objects(&folder, "log.");
        pieces.sort();
        let path = &pieces[piece];
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        replace(path, &bytes);
        folder.fails(&verify, 7, "its bytes are not those that were uploaded");
        // The image is good, and listed.
        let list = folder.ok(&["backup", "remote", "list", "app.db", "elsewhere"]);
        assert!(list.contains("yes"), "{list}");
        bytes[at] ^= 1;
        replace(path, &bytes);
    }
    folder.ok(&verify);
}

/// Returns the paths of the objects whose names begin like this.
fn objects(folder: &Folder, name: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.path("elsewhere")).unwrap().map(|file| file.unwrap().path());
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(name);
    files.filter(is_it).collect()
}

/// Replaces the bytes of an object, which nobody may write.
fn replace(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn each_mistake_about_a_place_is_told_with_the_next_step() {
    let folder = folder();
    let remote = |words: &[&'static str]| [&["backup", "remote"], words].concat();
    folder.fails(&remote(&["put", "app.db", "elsewhere"]), 2, "next: `--plain-objects` allows it");
    folder.fails(&remote(&["list", "app.db", "nowhere"]), 3, "cannot open the folder");
    let name = ["verify", "app.db", "elsewhere", "image/no"];
    folder.fails(&remote(&name), 2, "elsewhere lists no image image/no");
    let of_bucket = ["probe", "elsewhere", "--region", "eu-central-1"];
    folder.fails(&remote(&of_bucket), 2, "name a bucket as s3://BUCKET/PREFIX");
    // Another store must not get the place.
    folder.ok(&["init", "other.db"]);
    let other = ["put", "other.db", "elsewhere", "--plain-objects"];
    folder.fails(&remote(&other), 2, "has the backups of another file");
    // An image that lost its end is no backup.
    let image = objects(&folder, "image.").remove(0);
    let bytes = fs::read(&image).unwrap();
    replace(&image, &bytes[..bytes.len() - 1]);
    folder.fails(&remote(&["verify", "app.db", "elsewhere"]), 7, "bytes instead of");
}

#[test]
fn a_bucket_that_cannot_be_used_is_told_with_the_next_step() {
    let folder = Folder::new();
    let run = |args: &[&str], keys: bool| {
        let mut command = folder.command(&[&["backup", "remote", "probe"], args].concat());
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"] {
            command.env_remove(name);
        }
        if keys {
            command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
        }
        let ended = command.output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    // Nobody listens on this port.
    let here = ["s3://bucket/app", "--endpoint", "http://127.0.0.1:9"];
    let (code, told) = run(&here, true);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("s3://bucket/app") && told.contains("check the connection"), "{told}");
    let (code, told) = run(&here, false);
    assert!(code.is_some_and(|code| code > 1), "{told}");
    assert!(told.contains("AWS_ACCESS_KEY_ID"), "{told}");
    let (code, told) = run(&["s3://bucket/app", "--endpoint", "http://example.org"], true);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("not encrypted on the way"), "{told}");
}
