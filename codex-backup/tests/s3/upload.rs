//! Uploads in parts, against a server that decides when a part has arrived.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use codex_backup::remote::{Body, Created, Fault, Target};
use codex_backup::vfs::Vfs;
use codex_backup::{Error, Phase};
use sha2::{Digest as _, Sha256};

use crate::server::{Asked, Reply, begun, refusal, reply, start};
use crate::{HEAP, file, options, remote};

/// What the server has seen.
#[derive(Default)]
struct Seen {
    /// The parts that are in flight, and the most that were.
    in_flight: Vec<u64>,
    in_flight_max: usize,
    /// The parts that were answered, with their bytes, in the order of the answers.
    answered: Vec<(u64, Vec<u8>)>,
    /// The checksum of each part, as its headers have it.
    sums: BTreeMap<u64, Option<String>>,
    probes: usize,
    /// The other requests of uploads.
    requests: Vec<String>,
    /// The body of the request that ends an upload.
    complete: String,
}

struct Double {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Double {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until this is so.
    fn wait(&self, is_so: impl Fn(&Seen) -> bool) {
        let wait = Duration::from_secs(30);
        let is_not = |seen: &mut Seen| !is_so(seen);
        let waited = self.changed.wait_timeout_while(self.seen(), wait, is_not).unwrap();
        assert!(!waited.1.timed_out(), "{:?}", waited.0.in_flight);
    }

    fn answer(&self, asked: &mut Asked, rule: &Rule) -> Option<Reply> {
        if asked.line.starts_with("GET ") {
            let body = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                        <Name>books</Name></ListBucketResult>";
            return Some(Reply { body: body.to_owned(), ..reply(200) });
        }
        if let Some((_, rest)) = asked.line.split_once("partNumber=") {
            let number = rest.split_once('&').unwrap().0.parse().unwrap();
            return self.part(asked, number, rule);
        }
        // A connection that is closed before its request was read breaks, and the client may not
        // see the answer.
        let body = asked.body(usize::MAX);
        let mut seen = self.seen();
        let method = asked.line.split_once(' ').unwrap().0;
        if asked.line.contains("/probe/") {
            seen.probes += 1;
            // The proof that the server creates only.
            return Some(reply(if seen.probes == 2 { 412 } else { 200 }));
        }
        let has_sums = asked.header("x-amz-checksum-algorithm") == Some("SHA256");
        seen.requests.push(format!("{method}{}", if has_sums { " with sums" } else { "" }));
        Some(match method {
            "POST" if asked.line.contains("uploads=") => {
                if has_sums && !rule.has_sums {
                    refusal(501, "NotImplemented")
                } else {
                    begun()
                }
            }
            "POST" => {
                seen.complete = String::from_utf8(body).unwrap();
                let body = "<CompleteMultipartUploadResult \
                            xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                            <ETag>t</ETag></CompleteMultipartUploadResult>";
                Reply { body: body.to_owned(), ..reply(200) }
            }
            _ => reply(204),
        })
    }

    fn part(&self, asked: &mut Asked, number: u64, rule: &Rule) -> Option<Reply> {
        {
            let mut seen = self.seen();
            seen.in_flight.push(number);
            seen.in_flight_max = seen.in_flight_max.max(seen.in_flight.len());
            seen.sums.insert(number, asked.header("x-amz-checksum-sha256").map(str::to_owned));
        }
        self.changed.notify_all();
        (rule.begins)(self, number);
        let reply = (rule.reply)(number);
        let body = asked.body(reply.cut.unwrap_or(usize::MAX));
        {
            let mut seen = self.seen();
            seen.in_flight.retain(|in_flight| *in_flight != number);
            seen.answered.push((number, body));
        }
        self.changed.notify_all();
        reply.cut.is_none().then_some(reply)
    }
}

/// What the server does with a part.
struct Rule {
    /// Is called before the body of a part is read.
    begins: fn(&Double, u64),
    reply: fn(u64) -> Reply,
    has_sums: bool,
}

const RULE: Rule = Rule { begins: |_, _| (), reply: accepted, has_sums: true };

fn accepted(number: u64) -> Reply {
    Reply { headers: format!("etag: \"t{number}\"\r\n"), ..reply(200) }
}

/// Starts a server with this rule.
fn double(rule: Rule) -> (String, Arc<Double>) {
    let double = Arc::new(Double { seen: Mutex::default(), changed: Condvar::new() });
    let server = Arc::clone(&double);
    (start(move |asked| server.answer(asked, &rule)), double)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at ^ (at >> 11)) & 0xFF).unwrap()).collect()
}

/// The length of a part of a small object.
const PART: usize = 16 << 20;

/// Uploads an object of four parts, and checks what the server has got.
fn four_parts(rule: Rule) -> Arc<Double> {
    let has_sums = rule.has_sums;
    let (address, double) = double(rule);
    let contents = bytes(3 * PART + 1);
    let bucket = options(&address).open().unwrap();
    assert_eq!(bucket.create("image/1", &mut Body::new(&contents)).unwrap(), Created::New);
    let seen = double.seen();
    let mut answered: Vec<_> = seen.answered.iter().collect();
    answered.sort_unstable();
    let whole: Vec<u8> = answered.iter().flat_map(|(_, body)| body).copied().collect();
    assert!(whole == contents, "the parts are not the object");
    let part = |(number, body): &(u64, Vec<u8>)| {
        let sum = has_sums.then(|| Base64::encode_string(&Sha256::digest(body)));
        assert_eq!(seen.sums[number], sum);
        let sum = sum.map(|sum| format!("<ChecksumSHA256>{sum}</ChecksumSHA256>"));
        format!(
            "<Part>{}<ETag>&quot;t{number}&quot;</ETag><PartNumber>{number}</PartNumber></Part>",
            sum.unwrap_or_default()
        )
    };
    let listed: String = answered.into_iter().map(part).collect();
    let complete = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    assert_eq!(seen.complete, complete);
    drop(seen);
    double
}

#[test]
fn two_parts_are_in_flight_and_no_more_in_either_order_of_their_ends() {
    let held: [fn(&Double, u64); 2] = [
        |double, number| {
            // The first one ends last.
            double.wait(|seen| number != 1 || seen.answered.len() == 3);
            std::thread::sleep(PAUSE);
        },
        |double, number| {
            double.wait(|seen| number != 2 || seen.answered.len() == 3);
            std::thread::sleep(PAUSE);
        },
    ];
    for (begins, last) in held.into_iter().zip([1, 2]) {
        let double = four_parts(Rule { begins, ..RULE });
        let seen = double.seen();
        assert_eq!((seen.in_flight_max, seen.answered[3].0), (2, last));
        assert_eq!(seen.requests, ["POST with sums", "POST"]);
    }
}

#[test]
fn a_server_without_checksums_gets_none() {
    let double = four_parts(Rule { has_sums: false, ..RULE });
    assert_eq!(double.seen().requests, ["POST with sums", "POST", "POST"]);
}

#[test]
fn a_part_that_is_refused_ends_the_other_one_and_the_upload() {
    let first: Rule = Rule {
        // The other part is not read before the client has the refusal.
        begins: |double, number| {
            double.wait(|seen| seen.in_flight.len() == 2 || !seen.answered.is_empty());
            if number != 1 {
                double.wait(|seen| !seen.answered.is_empty());
                std::thread::sleep(PAUSE);
            }
        },
        reply: |number| if number == 1 { refusal(403, "AccessDenied") } else { accepted(number) },
        ..RULE
    };
    let second = Rule {
        begins: |double, number| {
            double.wait(|seen| seen.in_flight.len() == 2 || !seen.answered.is_empty());
            if number != 2 {
                double.wait(|seen| !seen.answered.is_empty());
                std::thread::sleep(PAUSE);
            }
        },
        reply: |number| if number == 2 { refusal(403, "AccessDenied") } else { accepted(number) },
        ..RULE
    };
    for rule in [first, second] {
        let (address, double) = double(rule);
        let bucket = options(&address).open().unwrap();
        let contents = vec![0; 4 * PART];
        let fault = bucket.create("image/1", &mut Body::new(&contents)).unwrap_err();
        assert!(matches!(fault, Fault::Denied(_)), "{fault}");
        double.wait(|seen| seen.answered.len() == 2);
        let seen = double.seen();
        // The client has broken off the other one, and has begun no third one.
        assert!(seen.answered[1].1.len() < PART && seen.in_flight_max == 2);
        assert_eq!(seen.requests, ["POST with sums", "DELETE"]);
    }
}

#[test]
fn an_upload_that_breaks_off_tells_how_far_it_came_and_removes_its_parts() {
    let rule = Rule {
        reply: |number| {
            let cut = (number == 2).then_some(100_000);
            Reply { cut, ..accepted(number) }
        },
        ..RULE
    };
    let (address, double) = double(rule);
    let bucket = options(&address).open().unwrap();
    let contents = vec![5; 2 * PART];
    match bucket.create("image/1", &mut Body::new(&contents)).unwrap_err() {
        Fault::HalfUpload { sent, total } => {
            let (sent, total) = (usize::try_from(sent).unwrap(), usize::try_from(total).unwrap());
            assert!((PART + 100_000..2 * PART).contains(&sent) && total == 2 * PART, "{sent}");
        }
        other => panic!("{other}"),
    }
    let seen = double.seen();
    // The first part, and four attempts of the second one.
    assert_eq!(seen.answered.len(), 5);
    assert_eq!(seen.requests, ["POST with sums", "DELETE"]);
}

#[test]
fn a_stop_of_the_caller_ends_both_parts_and_the_upload() {
    let total = 2 * PART as u64;
    // The part that comes first ends last.
    let held = |double: &Double, number| {
        double.wait(|seen| seen.in_flight.len() == 2 || !seen.answered.is_empty());
        let is_first = double.seen().in_flight.first() == Some(&number);
        double.wait(|seen| !is_first || !seen.answered.is_empty());
    };
    for (from, begins) in [(1, RULE.begins), (total / 2 + 1, RULE.begins), (total, held)] {
        let (address, double) = double(Rule { begins, ..RULE });
        let remote = remote(options(&address).open().unwrap(), &Vfs::mem(1));
        let stopped = remote.put(&file(&vec![1; 2 * PART]), &mut |progress| {
            assert!(progress.done <= progress.total);
            if progress.phase != Phase::Copying {
                return ControlFlow::Continue(());
            }
            // The part of the thread that calls this comes second.
            double.wait(|seen| !seen.sums.is_empty());
            if progress.done >= from { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
        assert_eq!(double.seen().requests, ["POST with sums", "DELETE"]);
    }
}

/// The address of the server in the environment of a child.
const ADDRESS: &str = "CODEX_TEST_S3_HEAP";

#[test]
fn the_memory_of_an_upload_does_not_depend_on_its_length() {
    if let Ok(address) = std::env::var(ADDRESS) {
        // This is the child, in which nothing else runs.
        let contents = vec![1; 6 * PART];
        let bucket = options(&address).open().unwrap();
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        bucket.create("image/1", &mut Body::new(&contents)).unwrap();
        println!("took {} bytes", HEAP.peak_usage() - before);
        return;
    }
    let address = double(RULE).0;
    let mut child = Command::new(std::env::current_exe().unwrap());
    let this_test = "upload::the_memory_of_an_upload_does_not_depend_on_its_length";
    child.args(["--exact", this_test, "--nocapture"]).env(ADDRESS, address);
    let output = String::from_utf8(child.output().unwrap().stdout).unwrap();
    let taken = output.split_once("took ").and_then(|(_, rest)| rest.split(' ').next());
    let taken: usize = taken.unwrap().parse().unwrap();
    println!("an upload of 96 MiB took {taken} bytes");
    assert!(taken < 4 << 20, "{taken}");
}

/// A time in which a client would do what it must not do.
const PAUSE: Duration = Duration::from_millis(200);
