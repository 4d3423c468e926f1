//! The pieces beside a shared log as a place for objects.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::{Body, Created, Fault, Listed, Target};
use codex_storage::shared::SharedLog;
use codex_storage::vfs::Clock;

/// The objects beside a shared log.
///
/// Piece 0 of an object has its length, the length of its other pieces, and the time at which it
/// was whole. It is written last. Until then the object is not there. The bytes of an object that
/// fits are in piece 0 too, so that a manifest is never there in part.
#[derive(Debug)]
pub(crate) struct Pieces {
    log: Arc<dyn SharedLog>,
    /// The longest time for which a call to the log waits.
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

/// The contents of piece 0.
struct Whole {
    len: u64,
    piece_len: u64,
    made_us: i64,
    /// The bytes, if piece 0 has them.
    bytes: Option<Vec<u8>>,
}

impl Pieces {
    pub(crate) fn new(log: Arc<dyn SharedLog>, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { log, timeout, clock }
    }

    /// Returns what piece 0 says, or `None` if the object is not whole.
    fn whole(&self, name: &str) -> Result<Option<Whole>, Fault> {
        let Some(bytes) = self.get(name, 0)? else { return Ok(None) };
        let (head, bytes) = bytes.split_first_chunk::<HEAD_LEN>().ok_or(Fault::Altered)?;
        let ([len, piece_len, made_us], _) = head.as_chunks::<8>() else {
            return Err(Fault::Altered);
        };
        let (len, piece_len) = (u64::from_le_bytes(*len), u64::from_le_bytes(*piece_len));
        let is_here = bytes.len() as u64 == len;
        if piece_len == 0 || !is_here && !bytes.is_empty() {
            return Err(Fault::Altered);
        }
        let bytes = is_here.then(|| bytes.to_vec());
        Ok(Some(Whole { len, piece_len, made_us: i64::from_le_bytes(*made_us), bytes }))
    }

    /// Puts a piece. A call that is made again changes nothing.
    fn put(&self, name: &str, n: u32, bytes: &[u8]) -> Result<(), Fault> {
        let put = self.log.put_piece(name, n, bytes, self.timeout);
        put.map_err(|error| Fault::io("store a piece of it", error.into()))
    }

    fn get(&self, name: &str, n: u32) -> Result<Option<Vec<u8>>, Fault> {
        let piece = self.log.piece(name, n, self.timeout);
        piece.map_err(|error| Fault::io("read it", error.into()))
    }
}

impl Target for Pieces {
    fn create(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        if self.size(name)?.is_some() {
            return Ok(Created::Exists);
        }
        let (len, piece_len) = (body.len(), self.log.limits().part_max.max(1));
        let mut buf = vec![0; piece_len];
        let fits = usize::try_from(len).ok().filter(|len| len + HEAD_LEN <= piece_len);
        let mut here = vec![0; fits.unwrap_or(0)];
        let (mut at, mut n) = (0, 0);
        if fits.is_some() {
            body.read_exact_at(&mut here, 0)?;
            at = len;
        }
        while at < len {
            n += 1;
            let left = usize::try_from(len - at).unwrap_or(usize::MAX);
            let (piece, _) = buf.split_at_mut(left.min(piece_len));
            body.read_exact_at(piece, at)?;
            self.put(name, n, piece)?;
            at += piece.len() as u64;
        }
        // Order: piece 0 last. It makes the object whole.
        let made_us = self.clock.now_us().to_le_bytes();
        let mut whole = [len.to_le_bytes(), (piece_len as u64).to_le_bytes(), made_us].concat();
        whole.append(&mut here);
        self.put(name, 0, &whole)?;
        Ok(Created::New)
    }

    fn read_at(&self, name: &str, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        let Whole { len: found, piece_len, bytes, .. } = self.whole(name)?.ok_or(Fault::Missing)?;
        let expected = at.saturating_add(buf.len() as u64);
        if expected > found {
            return Err(Fault::Truncated { expected, found });
        }
        if let Some(bytes) = bytes {
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let here = bytes.get(from..).and_then(|here| here.get(..buf.len()));
            buf.copy_from_slice(here.ok_or(Fault::Altered)?);
            return Ok(());
        }
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let n = u32::try_from(at / piece_len + 1).map_err(|_| Fault::Missing)?;
            let piece = self.get(name, n)?.ok_or(Fault::Missing)?;
            let from = usize::try_from(at % piece_len).unwrap_or(usize::MAX);
            let here = piece.get(from..).filter(|here| !here.is_empty()).ok_or(Fault::Altered)?;
            let (now, later) = rest.split_at_mut(here.len().min(rest.len()));
            now.copy_from_slice(here.split_at(now.len()).0);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<Option<u64>, Fault> {
        Ok(self.whole(name)?.map(|whole| whole.len))
    }

    fn list(&self, prefix: &str, sink: &mut dyn FnMut(Listed)) -> Result<(), Fault> {
        let names = self.log.objects(self.timeout);
        for name in names.map_err(|error| Fault::io("list the objects", error.into()))? {
            if !name.starts_with(prefix) {
                continue;
            }
            // Nobody knows how old an object is that is not whole. Removing one that is still
            // written makes its upload fail, and leaves nothing of it.
            let (len, age) = match self.whole(&name)? {
                None => (0, Duration::MAX),
                Some(whole) => {
                    let age_us = self.clock.now_us().saturating_sub(whole.made_us);
                    (whole.len, Duration::from_micros(u64::try_from(age_us).unwrap_or(0)))
                }
            };
            sink(Listed { name, len, age });
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        let removed = self.log.remove_object(name, self.timeout);
        removed.map_err(|error| Fault::io("remove it", error.into()))
    }

    /// An upload has no other traces than its pieces, which [`list`](Self::list) returns.
    fn sweep(&self, _: Duration) -> Result<u64, Fault> {
        Ok(0)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("(beside the shared log)/{name}"))
    }
}

/// The length of the fields of piece 0.
const HEAD_LEN: usize = 24;
