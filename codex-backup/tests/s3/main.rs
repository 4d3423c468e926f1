//! Tests of buckets: against a server whose answers are given, and against a server of its own kind
//! at the address in `CODEX_S3`, which `cargo xtask bucket` starts.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it left out"
)]

mod archive;
mod keys;
mod server;
mod upload;

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use codex_backup::remote::{
    Body, Created, Fault, Remote, S3, S3Keys, S3Options, Target, unwatched,
};
use codex_backup::vfs::{File, Mode, Open, Vfs};
use codex_backup::{Backups, Error, Options, Whole};
use codex_storage::net::ureq;
use peak_alloc::PeakAlloc;
use server::{Reply, next, refusal, reply, server};

/// Counts the memory of the child that measures it.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The answers to the proof that a server creates objects only.
fn proof() -> Vec<Reply> {
    vec![reply(200), reply(412), reply(204)]
}

fn options(address: &str) -> S3Options {
    let keys = S3Keys::new("AKIDEXAMPLE", "hidden-secret");
    S3Options::new(address, "books").region("us-east-1").prefix("a/b").keys(keys)
}

/// Returns a bucket that gives these answers after the proof.
fn bucket(replies: Vec<Reply>) -> (S3, Receiver<String>) {
    let (address, lines) = server([proof(), replies].concat());
    let bucket = options(&address).open().unwrap();
    for method in ["PUT /books/a/b/probe/", "PUT /books/a/b/probe/", "DELETE /books/a/b/probe/"] {
        let line = next(&lines, 1).remove(0);
        assert!(line.starts_with(method), "{line}");
    }
    (bucket, lines)
}

fn fault_of<T: std::fmt::Debug>(result: Result<T, Error>) -> Fault {
    match result {
        Err(Error::Remote { path, fault }) => {
            assert_eq!(path.to_str(), Some("s3://books/a/b"));
            fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_refusal_at_the_opening_has_its_own_error_with_the_next_step() {
    type IsIt = fn(&Fault) -> bool;
    let off = Reply {
        headers: "date: Thu, 26 Nov 2020 18:48:52 GMT\r\n".to_owned(),
        ..refusal(403, "AccessDenied")
    };
    let cases: Vec<(Vec<Reply>, IsIt, &str)> = vec![
        (
            vec![refusal(403, "InvalidAccessKeyId")],
            |f| matches!(f, Fault::Credentials(_)),
            "check the key id",
        ),
        (
            vec![refusal(403, "SignatureDoesNotMatch")],
            |f| matches!(f, Fault::Credentials(_)),
            "the secret",
        ),
        (
            vec![refusal(403, "AccessDenied")],
            |f| matches!(f, Fault::Denied(_)),
            "under this prefix",
        ),
        (vec![off], |f| matches!(f, Fault::ClockOff { off: Some(_) }), "set it"),
        (vec![refusal(404, "NoSuchBucket")], |f| matches!(f, Fault::NoBucket(_)), "check its name"),
        (
            vec![refusal(301, "PermanentRedirect")],
            |f| matches!(f, Fault::NoBucket(_)),
            "the region",
        ),
        (
            vec![reply(200), reply(200), reply(204)],
            |f| matches!(f, Fault::NoCreateOnly),
            "If-None-Match",
        ),
        (
            vec![refusal(501, "NotImplemented"), reply(204)],
            |f| matches!(f, Fault::NoCreateOnly),
            "If-None-Match",
        ),
        (
            vec![refusal(418, "Teapot"), reply(204)],
            |f| matches!(f, Fault::Refused { status: 418, .. }),
            "418 Teapot",
        ),
    ];
    for (mut replies, is_it, words) in cases {
        // The removal after a failed proof.
        replies.push(reply(204));
        let (address, _lines) = server(replies);
        let fault = fault_of(options(&address).open());
        assert!(is_it(&fault) && fault.to_string().contains(words), "{fault}");
    }
}

#[test]
fn no_error_has_a_secret_or_a_signature() {
    // A port on which no server listens.
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let options = options(&address);
    let shown = format!("{options:?}");
    assert!(shown.contains("AKIDEXAMPLE") && !shown.contains("hidden"), "{shown}");
    let error = options.open().unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hidden") && !shown.contains("Signature"), "{shown}");
    assert!(matches!(fault_of::<()>(Err(error)), Fault::Io { .. }));
}

#[test]
fn options_that_lead_nowhere_are_refused_before_a_request() {
    let invalid = [
        (S3Options::new("http://example.org", "books"), "https://"),
        (S3Options::new("ftp://localhost", "books"), "no bucket can be there"),
        (S3Options::new("nonsense", "books"), "no address"),
        (S3Options::new("http://localhost:1", "books").prefix("A"), "lower-case"),
        (S3Options::new("https://localhost:1", "books").ca_file("/nowhere"), "no certificates"),
    ];
    for (options, words) in invalid {
        let error = options.keys(S3Keys::new("a", "b")).open().unwrap_err();
        let is_invalid = matches!(error, Error::Remote { fault: Fault::Invalid(_), .. });
        assert!(is_invalid && error.to_string().contains(words), "{error}");
    }
    let error = S3Options::new("http://localhost:1", "books").keys_file("/nowhere").open();
    let is_it = matches!(error, Err(Error::Remote { fault: Fault::Credentials(_), .. }));
    assert!(is_it, "{error:?}");
}

#[test]
fn a_request_is_sent_again_while_the_server_is_busy() {
    let (bucket, lines) = bucket(vec![refusal(503, "SlowDown"), reply(500), reply(204)]);
    bucket.remove("image/1").unwrap();
    next(&lines, 3);
}

#[test]
fn a_creation_whose_answer_was_lost_exists_and_is_not_replaced() {
    // The first attempt breaks off after its last byte.
    let cut = Reply { cut: Some(5), ..reply(200) };
    let (bucket, _lines) = bucket(vec![cut, reply(412)]);
    let created = bucket.create("image/1", &mut Body::new(b"bytes")).unwrap();
    assert_eq!(created, Created::Exists);
}

#[test]
fn an_object_that_is_too_short_or_changes_its_length_is_truncated() {
    let range = |text: &str| format!("content-range: bytes {text}\r\n");
    let replies = vec![
        Reply { headers: range("4-5/6"), body: "45".to_owned(), ..reply(206) },
        Reply { headers: range("*/3"), ..refusal(416, "InvalidRange") },
        refusal(404, "NoSuchKey"),
    ];
    let (bucket, _lines) = bucket(replies);
    let mut buf = [0; 5];
    for found in [6, 3] {
        match bucket.read_at("image/1", &mut buf, 4) {
            Err(Fault::Truncated { expected: 9, found: told }) => assert_eq!(told, found),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(bucket.read_at("image/1", &mut buf, 4), Err(Fault::Missing)));
}

#[test]
fn a_list_of_several_pages_is_read_to_its_end() {
    let page = |name: &str, rest: &str| Reply {
        body: format!(
            "<?xml version=\"1.0\"?><ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>books</Name>{rest}<Contents>\
             <Key>a%2Fb%2F{name}</Key><LastModified>2026-11-26T18:47:52.000Z</LastModified>\
             <Size>1</Size></Contents><EncodingType>url</EncodingType></ListBucketResult>"
        ),
        headers: "date: Thu, 26 Nov 2026 18:48:52 GMT\r\n".to_owned(),
        ..reply(200)
    };
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t/1</NextContinuationToken>";
    let end = "<IsTruncated>false</IsTruncated>";
    let (bucket, lines) = bucket(vec![page("image/1", more), page("image/2", end)]);
    let mut found = Vec::new();
    bucket.list("image/", &mut |listed| found.push((listed.name, listed.age.as_secs()))).unwrap();
    assert_eq!(found, [("image/1".to_owned(), 60), ("image/2".to_owned(), 60)]);
    assert!(next(&lines, 2)[1].contains("continuation-token=t%2F1"));
}

/// The address of a server, if there is one.
static SERVER: LazyLock<Option<String>> = LazyLock::new(|| {
    let address = std::env::var("CODEX_S3").ok();
    if address.is_none() {
        println!("left out: no server in CODEX_S3; `cargo xtask bucket` starts one");
    }
    address
});

/// Returns a new bucket of the server, if there is one.
fn real(name: &str) -> Option<S3Options> {
    let address = SERVER.as_ref()?;
    ureq::put(&format!("{address}/{name}")).send("").unwrap();
    let keys = S3Keys::new("AKIDEXAMPLE", "secret");
    Some(S3Options::new(address, name).region("us-east-1").prefix("app").keys(keys))
}

fn remote(bucket: S3, vfs: &Vfs) -> Remote {
    let remote = Remote::new(Arc::new(bucket), Arc::new(Whole), vfs);
    remote.plain_objects(true).orphans_after(Duration::ZERO)
}

fn file(contents: &[u8]) -> Arc<dyn File> {
    let file = Vfs::mem(0).dir.open("f", Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(contents, 0).unwrap();
    file
}

#[test]
fn on_a_real_server_images_of_every_size_are_put_verified_restored_and_pruned() {
    let Some(options) = real("images") else { return };
    let vfs = Vfs::mem(1);
    let remote = remote(options.clone().open().unwrap(), &vfs);
    let sizes = [0, 1, 100_000, 16 << 20, (16 << 20) + 1, 40 << 20];
    let contents =
        |size: usize| (0..size).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect::<Vec<u8>>();
    for size in sizes {
        let put = remote.put(&file(&contents(size)), &mut unwatched).unwrap();
        assert!(put.is_new && put.image.facts.size == size as u64);
    }
    let images = remote.list().unwrap().images;
    let found = images.iter().rev().map(|image| usize::try_from(image.facts.size).unwrap());
    assert!(found.eq(sizes));
    let backups = Backups::new(vfs.clone(), "f", Arc::new(Whole), Options::default()).unwrap();
    for (image, size) in images.iter().rev().zip(sizes) {
        remote.verify(image, &mut unwatched).unwrap();
        remote.restore(image, &backups, &[], &mut unwatched).unwrap();
        let restored = vfs.dir.open("f", Open::Read).unwrap();
        let mut bytes = vec![0; size];
        restored.read_exact_at(&mut bytes, 0).unwrap();
        assert!(restored.len().unwrap() == size as u64 && bytes == contents(size), "{size}");
    }
    // What an interrupted upload leaves, and an object that another program has cut.
    let address = SERVER.as_ref().unwrap();
    ureq::post(&format!("{address}/images/app/image/x?uploads")).send("").unwrap();
    ureq::put(&format!("{address}/images/app/{}", images[0].name)).send("short").unwrap();
    let refused = remote.verify(&images[0], &mut unwatched);
    let is_it =
        matches!(refused, Err(Error::Remote { fault: Fault::Truncated { found: 5, .. }, .. }));
    assert!(is_it, "{refused:?}");
    let pruned = remote.prune(1, &mut unwatched).unwrap();
    assert_eq!((pruned.removed.len(), pruned.uploads), (4, 1));
    assert_eq!(remote.list().unwrap().images.len(), 2);
    // The same with the keys in a file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    std::fs::write(&path, "[default]\naws_access_key_id=A\naws_secret_access_key=B\n").unwrap();
    options.keys_file(path).open().unwrap();
}

#[test]
fn on_a_real_server_a_stopped_upload_and_a_wrong_bucket_have_their_errors() {
    let Some(options) = real("stopped") else { return };
    let vfs = Vfs::mem(1);
    let remote = remote(options.open().unwrap(), &vfs);
    let stopped = remote.put(&file(&vec![1; 20 << 20]), &mut |progress| {
        if progress.phase == codex_backup::Phase::Copying && progress.done > 17 << 20 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
    // Its parts were removed at once.
    assert_eq!(remote.prune(1, &mut unwatched).unwrap().uploads, 0);
    let keys = S3Keys::new("a", "b");
    let wrong = S3Options::new(SERVER.as_ref().unwrap(), "nowhere").keys(keys).open();
    let is_it = matches!(wrong, Err(Error::Remote { fault: Fault::NoBucket(_), .. }));
    assert!(is_it, "{wrong:?}");
}

#[test]
fn on_a_real_server_tls_trusts_the_certificates_that_it_is_told_and_no_others() {
    let tls = ["CODEX_S3_TLS", "CODEX_S3_CA"].map(|name| std::env::var(name).ok());
    let [Some(address), Some(ca)] = tls else {
        println!("left out: no server in CODEX_S3_TLS; `cargo xtask bucket` starts one");
        return;
    };
    // The bucket is not there: an answer of the server, through TLS.
    let open = |options: S3Options| options.keys(S3Keys::new("a", "b")).open();
    let trusted = open(S3Options::new(&address, "sealed").ca_file(&ca));
    let is_it = matches!(trusted, Err(Error::Remote { fault: Fault::NoBucket(_), .. }));
    assert!(is_it, "{trusted:?}");
    // It is for `localhost` alone.
    let elsewhere = address.replace("localhost", "127.0.0.1");
    for options in
        [S3Options::new(&address, "sealed"), S3Options::new(elsewhere, "sealed").ca_file(&ca)]
    {
        let error = open(options).unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[test]
fn on_a_real_server_eight_writers_at_one_place_lose_no_image() {
    let Some(options) = real("races") else { return };
    let (writers, each) = (8, 4);
    thread::scope(|scope| {
        for writer in 0..writers {
            let options = options.clone();
            scope.spawn(move || {
                // A real clock, for the pauses of writers that came second.
                let folder = tempfile::tempdir().unwrap();
                let vfs = Vfs::os(folder.path()).unwrap();
                let remote = remote(options.open().unwrap(), &vfs);
                for n in 0..each {
                    let contents = format!("writer {writer}, image {n}");
                    remote.put(&file(contents.as_bytes()), &mut unwatched).unwrap();
                }
            });
        }
    });
    let remote = remote(options.open().unwrap(), &Vfs::mem(99));
    let images = remote.list().unwrap().images;
    assert_eq!(images.len() as u64, writers * each);
    for image in images {
        remote.verify(&image, &mut unwatched).unwrap();
    }
}
