//! Point in time: a ledger as it was at a commit or at a time, as a file to restore.

use std::sync::Arc;
use std::time::Duration;

use codex_backup::WriteAt;
use codex_storage::batch::{Op, Seq};
use codex_storage::seal::Keys;
use codex_storage::storage::Form;
use codex_storage::vfs::{Clock, Dir, File, Mode, Open, Vfs, in_pieces};
use codex_storage::{Config, Create, Error as StorageError, LedgerCut, ledger_upto, read_commits};

use crate::error::{Error, Result};

/// A point in the history of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Behind the commit with this number.
    Seq(Seq),
    /// Behind the last commit at or before this time, in microseconds since 1970 (UTC).
    TimeUs(i64),
}

/// A ledger as it was, under a temporary name that is removed with this value.
pub(super) struct Staged {
    vfs: Vfs,
    name: String,
    /// Where its frames end.
    upto: u64,
    /// Its last commit.
    seq: Seq,
}

impl Staged {
    /// Hands its bytes to `to`.
    pub(super) fn write(&self, to: &mut WriteAt<'_>) -> Result<()> {
        let failed = |source| io("read", &*self.vfs.dir, &self.name, source);
        let from = view(&self.vfs, &self.name, self.upto, self.seq)?;
        copy_bytes(&*from, to).map_err(failed)
    }

    /// About how long it is, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.upto
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What stays has the name of a temporary, which the next open removes.
        let _ = self.vfs.dir.remove(&self.name);
    }
}

/// Writes the ledger `name` as it was at `moment`.
///
/// The groups that lie before the moment are copied as they are; of the group that it falls into,
/// the commits up to it are made once more, at the times they had, so that their digests are the
/// same.
pub(super) fn stage(
    vfs: &Vfs,
    name: &str,
    keys: Option<&Arc<dyn Keys>>,
    moment: Moment,
) -> Result<Staged> {
    let upto = match moment {
        Moment::Seq(seq) => seq,
        Moment::TimeUs(time_us) => last_before(vfs, name, keys, time_us)?,
    };
    let mut part = Vec::new();
    let cut = read_part(vfs, name, keys, upto, &mut part)?;
    if upto < cut.oldest {
        let (path, oldest) = (vfs.dir.path(name), cut.oldest);
        let value = format!("{}: commit {oldest} is the first there is", path.display());
        let why = "no earlier state came into the ledger when it was converted; name a later one";
        return Err(codex_backup::Error::Invalid { value, why }.into());
    }
    let last = part.last().map_or(cut.seq, |commit: &Commit| commit.seq);
    if matches!(moment, Moment::Seq(wanted) if wanted > last) {
        let value = format!("{}: commit {last} is the last one", vfs.dir.path(name).display());
        let why = "the moment asked for is behind it; name an earlier one";
        return Err(codex_backup::Error::Invalid { value, why }.into());
    }
    let staged_name = format!("{name}.tmp.moment");
    let mut staged = Staged { vfs: vfs.clone(), name: staged_name, upto: cut.offset, seq: cut.seq };
    copy(vfs, name, &staged.name, &cut)?;
    if !part.is_empty() {
        staged.upto = append(vfs, &staged.name, keys, &part)?;
        staged.seq = last;
    }
    Ok(staged)
}

/// A commit to be made once more.
struct Commit {
    seq: Seq,
    time_us: i64,
    ops: Vec<Change>,
}

/// One operation of a commit, with bytes of its own.
enum Change {
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Clear,
}

fn last_before(vfs: &Vfs, name: &str, keys: Option<&Arc<dyn Keys>>, time_us: i64) -> Result<Seq> {
    let mut last = 0;
    read_commits(vfs, name, keys.map(|keys| &**keys), Seq::MAX, &mut |commit| {
        if commit.time_us <= time_us {
            last = commit.seq;
        }
        Ok(())
    })?;
    Ok(last)
}

/// Where the last whole group up to `upto` ends, and the commits behind it up to there.
fn read_part(
    vfs: &Vfs,
    name: &str,
    keys: Option<&Arc<dyn Keys>>,
    upto: Seq,
    part: &mut Vec<Commit>,
) -> Result<LedgerCut> {
    let keys = keys.map(|keys| &**keys);
    let cut = read_commits(vfs, name, keys, upto, &mut |_| Ok(()))?;
    if cut.seq == upto {
        return Ok(cut);
    }
    read_commits(vfs, name, keys, upto, &mut |commit| {
        if commit.seq > cut.seq {
            let mut ops = Vec::new();
            for op in commit.ops {
                let op =
                    op.map_err(|source| StorageError::Record { path: vfs.dir.path(name), source })?;
                ops.push(match op {
                    Op::Set { key, value } => Change::Set(key.to_vec(), value.to_vec()),
                    Op::Remove { key } => Change::Remove(key.to_vec()),
                    Op::Clear => Change::Clear,
                });
            }
            part.push(Commit { seq: commit.seq, time_us: commit.time_us, ops });
        }
        Ok(())
    })?;
    Ok(cut)
}

/// The ledger `name` up to a commit.
fn view(vfs: &Vfs, name: &str, upto: u64, seq: Seq) -> Result<Arc<dyn File>> {
    let dir = &*vfs.dir;
    let file = dir.open(name, Open::Read).map_err(|source| io("open", dir, name, source))?;
    Ok(ledger_upto(file, &dir.path(name), upto, seq)?)
}

fn copy(vfs: &Vfs, from: &str, to: &str, cut: &LedgerCut) -> Result<()> {
    let dir = &*vfs.dir;
    if dir.metadata(to).map_err(|source| io("look at", dir, to, source))?.is_some() {
        dir.remove(to).map_err(|source| io("remove", dir, to, source))?;
    }
    let source = view(vfs, from, cut.offset, cut.seq)?;
    let create = Open::CreateNew(Mode::Private);
    let target = dir.open(to, create).map_err(|source| io("create", dir, to, source))?;
    copy_bytes(&*source, &mut |bytes, at| target.write_all_at(bytes, at))
        .map_err(|source| io("copy to", dir, to, source))
}

fn copy_bytes(from: &dyn File, to: &mut WriteAt<'_>) -> std::io::Result<()> {
    in_pieces(0..from.len()?, |piece, at| {
        from.read_exact_at(piece, at)?;
        to(piece, at)
    })
}

fn io(action: &'static str, dir: &dyn Dir, name: &str, source: std::io::Error) -> Error {
    StorageError::Io { action, path: dir.path(name), source: Arc::new(source) }.into()
}

/// Makes `part` once more at the end of the staged ledger; its length then.
fn append(vfs: &Vfs, name: &str, keys: Option<&Arc<dyn Keys>>, part: &[Commit]) -> Result<u64> {
    let clock = Arc::new(StoppedClock::default());
    let then = Vfs { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..vfs.clone() };
    let config = Config {
        form: Some(Form::Ledger),
        create: Create::Never,
        keys: keys.cloned(),
        ..Config::new(then, name)
    };
    let (mut ledger, _) = codex_storage::open_staged(&config, &mut |_| Ok(()))?;
    let mut group = ledger.group();
    for commit in part {
        clock.set(commit.time_us);
        group.reset();
        for change in &commit.ops {
            let op = match change {
                Change::Set(key, value) => Op::Set { key, value },
                Change::Remove(key) => Op::Remove { key },
                Change::Clear => Op::Clear,
            };
            let path = || vfs.dir.path(name);
            group.push(op).map_err(|source| StorageError::Record { path: path(), source })?;
        }
        group.finish();
        ledger.commit(&mut group, None)?;
    }
    let len = ledger.stats().log_bytes;
    drop(ledger);
    Ok(len)
}

/// A clock that stands where it was put.
#[derive(Debug, Default)]
struct StoppedClock(codex_storage::sync::atomic::AtomicU64);

impl StoppedClock {
    fn set(&self, time_us: i64) {
        let bits = u64::from_le_bytes(time_us.to_le_bytes());
        self.0.store(bits, codex_storage::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for StoppedClock {
    fn now_us(&self) -> i64 {
        let bits = self.0.load(codex_storage::sync::atomic::Ordering::Relaxed);
        i64::from_le_bytes(bits.to_le_bytes())
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _duration: Duration) {}
}
