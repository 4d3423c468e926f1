//! An archive in a bucket: pieces of a log, and what they lead to.

use std::sync::Arc;
use std::thread;

use codex_backup::Error;
use codex_backup::remote::{Fault, LogId, LogStart, Moment, Remote, unwatched};
use codex_backup::vfs::{File, Vfs};

use super::{file, real, remote};

/// Returns the bytes of a log, which differ everywhere.
fn contents(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 13 % 251).unwrap()).collect()
}

fn read(log: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(log.len().unwrap()).unwrap()];
    log.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn on_a_real_server_an_archive_is_sent_reached_and_pruned() {
    let Some(options) = real("archive") else { return };
    let remote = remote(options.open().unwrap(), &Vfs::mem(1));
    let log = |name| LogId { base_seq: 0, file_id: [name; 16], follows: [0; 16] };
    let start = |name| Some(LogStart { log: log(name), from: 0 });
    let image = file(b"the image");
    let writer = remote.begin_archive(&image).unwrap();
    remote.put_image(&writer, &image, start(1), &mut unwatched).unwrap();
    // The largest piece, and some small ones.
    let bytes = contents((4 << 20) + 1_200);
    let (mut at, mut seq) = (0, 0);
    while at < bytes.len() {
        let end = if at == 0 { 4 << 20 } else { at + 100 };
        seq += 1;
        let put = remote.put_piece(&log(1), at as u64, &bytes[at..end], seq, 0);
        assert_eq!(put.unwrap(), end as u64);
        at = end;
    }
    let reached = remote.reach(Moment::Latest).unwrap();
    assert!(reached.seq == seq && read(&*reached.logs[0].0) == bytes);
    for wanted in 1..=seq {
        let reached = remote.reach(Moment::Seq(wanted)).unwrap();
        let len = (4 << 20) + (wanted - 1) * 100;
        assert_eq!((reached.seq, reached.logs[0].0.len().unwrap()), (wanted, len));
    }
    let end = remote.log_end(&log(1), 0, &*file(&bytes)).unwrap().map(|end| end.offset);
    assert_eq!(end, Some(bytes.len() as u64));
    let refused = remote.reach(Moment::Seq(seq + 1));
    let is_it = matches!(
        &refused,
        Err(Error::Remote { fault: Fault::NotReached { seq: last, .. }, .. }) if *last == seq
    );
    assert!(is_it, "{refused:?}");
    race(&remote, &log(2));

    remote.put_image(&writer, &file(b"the next image"), start(3), &mut unwatched).unwrap();
    let pruned = remote.prune(1, &mut unwatched).unwrap();
    // Those of the first log, and the one of the race.
    assert_eq!((pruned.removed.len() as u64, pruned.pieces), (1, seq + 1));
    assert!(remote.reach(Moment::Latest).unwrap().logs.is_empty());
    remote.begin_archive(&image).unwrap();
    let fenced = remote.check_writer(&writer);
    assert!(matches!(fenced, Err(Error::Remote { fault: Fault::Fenced, .. })), "{fenced:?}");
}

/// Sends eight pieces under one name at once. One archive wins, and its bytes are those that are
/// there.
fn race(remote: &Remote, log: &LogId) {
    let remote = Arc::new(remote.clone());
    let results: Vec<_> = thread::scope(|scope| {
        let send = |name: u8| {
            let remote = Arc::clone(&remote);
            scope.spawn(move || remote.put_piece(log, 0, &[name; 5_000], 1, 1))
        };
        let threads: Vec<_> = (0..8).map(send).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let won: Vec<u8> =
        (0..8).zip(&results).filter(|(_, result)| result.is_ok()).map(|(name, _)| name).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    let fenced = results
        .iter()
        .filter(|result| matches!(result, Err(Error::Remote { fault: Fault::Fenced, .. })));
    assert_eq!(fenced.count(), 7, "{results:?}");
    assert_eq!(remote.put_piece(log, 0, &[won[0]; 5_000], 1, 1).unwrap(), 5_000);
}
