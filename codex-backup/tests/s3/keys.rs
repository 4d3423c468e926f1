//! The sources of keys, as the signatures of requests show them.

use std::process::Command;
use std::sync::mpsc::Receiver;

use codex_backup::Error;
use codex_backup::remote::{Fault, S3Keys, S3Options, Target};
use rusty_s3::Method;
use rusty_s3::signing::sign;

use crate::server::{next, refusal, reply, server};
use crate::{options, proof};

/// The address of the server in the environment of a child.
const ADDRESS: &str = "CODEX_TEST_S3";
/// The file with the keys, if the child is to take them from there.
const FILE: &str = "CODEX_TEST_S3_FILE";
const KEYS: (&str, &str) = ("KEYOFENV", "secret/of+env");

/// Opens a bucket in a process of its own with these variables. Returns the first lines of the
/// requests, and the output.
fn child(set: &[(&str, &str)]) -> (String, Receiver<String>, String) {
    let (address, lines) = server(proof());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "keys::keys_and_the_region_are_those_of_the_environment",
        "--nocapture",
    ]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            child.env_remove(name);
        }
    }
    let output = child.env(ADDRESS, &address).envs(set.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (address, lines, text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn keys_and_the_region_are_those_of_the_environment() {
    if let Ok(address) = std::env::var(ADDRESS) {
        // This is the child.
        let options = S3Options::new(address, "books").prefix("a/b");
        let options = match std::env::var_os(FILE) {
            Some(file) => options.keys_file(file),
            None => options,
        };
        match options.open() {
            Ok(_) => println!("opened"),
            Err(error) => println!("{error}"),
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    let text = "[default]\naws_access_key_id = A\naws_secret_access_key = B\n\
                [work]\naws_access_key_id = D\naws_secret_access_key = E\naws_session_token = F\n";
    std::fs::write(&path, text).unwrap();
    let file = (FILE, path.to_str().unwrap());
    let id = ("AWS_ACCESS_KEY_ID", KEYS.0);
    let secret = ("AWS_SECRET_ACCESS_KEY", KEYS.1);
    let token = ("AWS_SESSION_TOKEN", "token/1");
    let (region, default) = (("AWS_REGION", "r-1"), ("AWS_DEFAULT_REGION", "r-2"));
    let work = ("AWS_PROFILE", "work");
    let cases: [(&[_], _, _, _); 5] = [
        (&[id, secret], KEYS, None, "us-east-1"),
        (&[id, secret, token, default], KEYS, Some("token/1"), "r-2"),
        (&[id, secret, region, default], KEYS, None, "r-1"),
        (&[id, secret, file, region], ("A", "B"), None, "r-1"),
        (&[id, secret, file, region, work], ("D", "E"), Some("F"), "r-1"),
    ];
    for (set, keys, token, region) in cases {
        let (address, lines, output) = child(set);
        assert!(output.contains("opened"), "{output}");
        let line = next(&lines, 1).remove(0);
        assert_eq!(line, signed(&address, &line, keys, token, region), "{set:?}");
    }
    let (no, none) = ("are not set", ("AWS_PROFILE", "none"));
    let cases: [(&[_], _); 4] = [
        (&[id], no),
        (&[secret, token], no),
        (&[file, none], "no keys in its section [none]"),
        (&[(FILE, "/nowhere"), id, secret], "/nowhere cannot be read"),
    ];
    for (set, words) in cases {
        let output = child(set).2;
        let is_next_told = output.contains("check the key id");
        assert!(output.contains(words) && is_next_told && !output.contains(KEYS.1), "{output}");
    }
}

/// Returns the first line of the request `line`, signed with these keys.
fn signed(
    address: &str,
    line: &str,
    (id, secret): (&str, &str),
    token: Option<&str>,
    region: &str,
) -> String {
    let path = line.split(' ').nth(1).unwrap();
    let mut url: url::Url = format!("{address}{path}").parse().unwrap();
    let date = url.query_pairs().find(|(name, _)| name == "X-Amz-Date").unwrap().1.into_owned();
    let now: jiff::Timestamp = date.parse().unwrap();
    url.set_query(None);
    let (query, headers) = (std::iter::empty(), std::iter::once(("if-none-match", "*")));
    let url = sign(&now, Method::Put, url, id, secret, token, region, 15 * 60, query, headers);
    format!("PUT {}?{} HTTP/1.1\r\n", url.path(), url.query().unwrap())
}

#[test]
fn keys_of_a_function_are_renewed_when_the_server_refuses_them() {
    let replies = [proof(), vec![refusal(400, "ExpiredToken"), reply(204), reply(204)]].concat();
    let (address, lines) = server(replies);
    let count = std::sync::atomic::AtomicU32::new(0);
    let bucket = options(&address)
        .keys_from(move || {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(S3Keys::with_token(format!("KEY{n}"), "secret", "token"))
        })
        .open()
        .unwrap();
    bucket.remove("image/1").unwrap();
    bucket.remove("image/1").unwrap();
    let keys: Vec<_> = next(&lines, 6).iter().map(|line| line.contains("KEY1")).collect();
    assert_eq!(keys, [false, false, false, false, true, true]);
}

#[test]
fn keys_of_a_file_are_read_again_when_the_server_refuses_them() {
    let refused = refusal(403, "InvalidAccessKeyId");
    let replies = [proof(), vec![refused.clone(), reply(204), refused.clone(), refused]].concat();
    let (address, lines) = server(replies);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    let write = |id| {
        let text = format!("[default]\naws_access_key_id={id}\naws_secret_access_key=B\n");
        std::fs::write(&path, text).unwrap();
    };
    write("FIRST");
    let bucket = options(&address).keys_file(&path).open().unwrap();
    write("SECOND");
    bucket.remove("image/1").unwrap();
    // The same keys are not tried again.
    assert!(matches!(bucket.remove("image/1"), Err(Fault::Credentials(_))));
    let ids = next(&lines, 6);
    let is_second: Vec<_> = ids.iter().map(|line| line.contains("SECOND")).collect();
    assert_eq!(is_second, [false, false, false, false, true, true]);
}

#[test]
fn a_function_that_fails_is_an_error_of_the_keys() {
    let error = options("http://localhost:1").keys_from(|| Err("no vault".into())).open();
    match error {
        Err(Error::Remote { fault, .. }) => {
            let is_it = matches!(fault, Fault::Credentials(_));
            assert!(is_it && fault.to_string().contains("no vault"), "{fault}");
        }
        other => panic!("{other:?}"),
    }
}
