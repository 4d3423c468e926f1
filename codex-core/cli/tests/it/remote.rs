//! `backup remote`: backups in a folder of another disk, and what is told about a bucket.

use std::fs;

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

    // Everything of the store is lost.
    for file in fs::read_dir(folder.path("")).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::remove_file(file.path()).unwrap();
        }
    }
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
    let image = fs::read_dir(folder.path("elsewhere")).unwrap().map(|file| file.unwrap().path());
    let image =
        image.filter(|path| path.is_file()).max_by_key(|path| path.metadata().unwrap().len());
    let image = image.unwrap();
    let len = image.metadata().unwrap().len();
    let mut permissions = image.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&image, permissions).unwrap();
    fs::File::options().write(true).open(&image).unwrap().set_len(len - 1).unwrap();
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
