//! The commands that read the past of a ledger: `log`, `history`, and `get --at`.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;
use codex_core::crypto::Cipher;
use codex_core::{Seq, StorageError};
use codex_storage::batch::Op;
use codex_storage::names::Names;
use codex_storage::{Access, LedgerCommit, StoreLock, read_commits};
use codexdb::past::{Change, last_change};
use codexdb::time::{self, show};

use crate::Outcome;
use crate::key::{self, TypedKey};
use crate::look::AsType;
use crate::out::{Cell, Out, Record, complain};
use crate::secret::Secret;
use crate::target::{Target, place};
use crate::value::Shown;

/// The options of `log`.
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(flatten)]
    target: Target,
    /// Only the last COUNT commits
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

impl Log {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let secret = self.target.secret()?;
        self.on(&Commits::locked(&self.target, secret.as_ref()), out)
    }

    pub(crate) fn on(&self, commits: &Commits<'_>, out: &mut Out) -> Outcome {
        let mut rows = VecDeque::new();
        commits.each(&mut |commit| {
            let (mut set, mut removed, mut cleared) = (0_u64, 0_u64, false);
            for op in commit.ops.flatten() {
                match op {
                    Op::Set(_) => set += 1,
                    Op::Remove { .. } => removed += 1,
                    Op::Clear { .. } => cleared = true,
                }
            }
            let row: Record = vec![
                ("commit", Cell::Count(commit.seq)),
                ("time", Cell::Time(commit.time_us)),
                ("set", Cell::Count(set)),
                ("removed", Cell::Count(removed)),
                ("cleared", Cell::Flag(cleared)),
            ];
            rows.push_back(row);
            if self.limit.is_some_and(|limit| rows.len() > limit) {
                rows.pop_front();
            }
            Ok(())
        })?;
        out.table(rows.make_contiguous())?;
        Ok(true)
    }
}

/// The options of `history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    target: Target,
    /// The key
    key: TypedKey,
    #[command(flatten)]
    of: AsType,
}

impl History {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let secret = self.target.secret()?;
        self.on(&Commits::locked(&self.target, secret.as_ref()), out)
    }

    pub(crate) fn on(&self, commits: &Commits<'_>, out: &mut Out) -> Outcome {
        let mut rows: Vec<Record> = Vec::new();
        let (json, of) = (out.json, self.of.of.as_ref());
        // The expiry of the value that the key has: the outer `None` means that there is none.
        let (mut seen, mut failed) = (None, Ok(()));
        commits.each(&mut |commit| {
            let mut row: Record =
                vec![("commit", Cell::Count(commit.seq)), ("time", Cell::Time(commit.time_us))];
            let time_us = commit.time_us;
            match (last_change(commit, self.key.as_ref()), seen) {
                (Some(Change::Set(item)), _) => {
                    seen = Some(item.expires_us);
                    let value = match Shown::stored(item.value) {
                        Ok(value) => value,
                        Err(error) => {
                            failed = Err(error);
                            return Ok(());
                        }
                    };
                    match item.expires_us {
                        Some(expires) if json => {
                            row.push(("expires_us", Cell::Json(expires.to_string())));
                        }
                        _ => {}
                    }
                    if json {
                        row.extend(value.fields_as(of));
                    } else {
                        let expires = item.expires_us.map(|at| format!(", expires {}", show(at)));
                        let text = value.line(of) + &expires.unwrap_or_default();
                        row.push(("value", Cell::Text(text)));
                    }
                }
                // A clear removes only what is there.
                (Some(Change::Removed), Some(expires_us)) => {
                    seen = None;
                    let is_expired = has_expired(expires_us, time_us);
                    let (name, text) = if is_expired {
                        ("expired", "(expired)")
                    } else {
                        ("removed", "(removed)")
                    };
                    row.push(if json {
                        (name, Cell::Flag(true))
                    } else {
                        ("value", Cell::Text(text.to_owned()))
                    });
                }
                _ => return Ok(()),
            }
            rows.push(row);
            Ok(())
        })?;
        failed?;
        out.table(&rows)?;
        if rows.is_empty() {
            complain(&format!("no commit has set the key {}", key::show(self.key.as_ref())));
        }
        Ok(!rows.is_empty())
    }
}

/// A moment in the past of a ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// After this commit.
    Commit(Seq),
    /// At this time, in microseconds since 1970.
    TimeUs(i64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(commit) = text.parse() {
            return Ok(Self::Commit(commit));
        }
        let ago = time::parse_span(text.trim().trim_end_matches("ago"));
        let past = ago.and_then(|ago| SystemTime::now().checked_sub(ago)).map(time::to_us);
        past.or_else(|| time::parse(text)).map(Self::TimeUs).ok_or_else(|| {
            "give a commit, a time such as 2026-11-26T05:30:00Z, or a span before now such as 2h"
                .to_owned()
        })
    }
}

/// A value in the past, as a record of the log has it, and its expiry.
pub(crate) type Past = (Vec<u8>, Option<i64>);

/// Returns the value that `key` had at the moment `at`. A value that had expired by then is none.
pub(crate) fn value_at(commits: &Commits<'_>, key: &TypedKey, at: Moment) -> Outcome<Option<Past>> {
    let mut value = None;
    let at_us = commits.up_to(at, &mut |commit| match last_change(commit, key.as_ref()) {
        Some(Change::Set(item)) => value = Some((item.value.to_vec(), item.expires_us)),
        Some(Change::Removed) => value = None,
        None => {}
    })?;
    Ok(value.filter(|(_, expires_us)| !has_expired(*expires_us, at_us)))
}

/// Returns all values at the moment `at`, except those that had expired by then.
pub(crate) fn state_at(commits: &Commits<'_>, at: Moment) -> Outcome<BTreeMap<Vec<u8>, Past>> {
    let mut state = BTreeMap::new();
    let at_us = commits.up_to(at, &mut |commit| {
        // The keys of tables are not those of the store.
        for op in commit.ops.flatten().filter(|op| op.table().is_none()) {
            match op {
                Op::Set(item) => {
                    state.insert(item.key.to_vec(), (item.value.to_vec(), item.expires_us));
                }
                Op::Remove { key, .. } => {
                    state.remove(key);
                }
                Op::Clear { .. } => state.clear(),
            }
        }
    })?;
    state.retain(|_, (_, expires_us)| !has_expired(*expires_us, at_us));
    Ok(state)
}

/// The commits of a ledger, in its file.
pub(crate) struct Commits<'a> {
    path: &'a Path,
    secret: Option<&'a Secret>,
    /// How long to wait for the lock, unless this process has the store open.
    wait: Option<Duration>,
}

impl<'a> Commits<'a> {
    /// Returns the commits of a store that this process does not have open.
    pub(crate) fn locked(target: &'a Target, secret: Option<&'a Secret>) -> Self {
        Self { path: &target.path, secret, wait: Some(target.wait()) }
    }

    /// Returns the commits of a store that this process has open.
    pub(crate) fn open(path: &'a Path, secret: Option<&'a Secret>) -> Self {
        Self { path, secret, wait: None }
    }

    /// Passes the commits up to a moment to `sink`. Returns the time of the moment.
    fn up_to(&self, at: Moment, sink: &mut dyn FnMut(LedgerCommit<'_>)) -> Outcome<i64> {
        // The moment is after the commit `newest`, which was made at `newest_us`.
        let (mut newest, mut newest_us) = (0, i64::MIN);
        let (oldest, last) = self.each(&mut |commit| {
            let is_in = match at {
                Moment::Commit(at) => commit.seq <= at,
                Moment::TimeUs(at_us) => commit.time_us <= at_us,
            };
            if is_in {
                (newest, newest_us) = (commit.seq, commit.time_us);
                sink(commit);
            }
            Ok(())
        })?;
        let (state, at_us) = match at {
            Moment::Commit(at) => (at, newest_us),
            Moment::TimeUs(at_us) => (newest, at_us),
        };
        if (oldest..=last).contains(&state) {
            return Ok(at_us);
        }
        let path = self.path.to_owned();
        Err(StorageError::NotInHistory { path, states: oldest..=last }.into())
    }

    /// Passes each commit to `sink`. Returns the commits of the oldest and of the newest state that
    /// the ledger has.
    fn each(
        &self,
        sink: &mut dyn FnMut(LedgerCommit<'_>) -> Result<(), StorageError>,
    ) -> Outcome<(Seq, Seq)> {
        let (vfs, name) = place(self.path)?;
        let names = Names::new(&name, &vfs.dir.path(&name))?;
        // Order: the lock is held while the log is read, so that no writer appends to it. A backup
        // has no writer and no lock.
        let lock = match self.wait {
            Some(wait) if !names.is_backup() => {
                Some(StoreLock::take(&vfs, &names, Access::ReadOnly, wait)?)
            }
            _ => None,
        };
        let keys = match self.secret {
            Some(secret) => {
                let entropy = vfs.entropy.clone();
                // The header names the cipher. This one is for new stores only.
                Some(codex_core::internals::keys(secret.key()?, Cipher::default(), entropy))
            }
            None => None,
        };
        let cut = read_commits(&vfs, &name, keys.as_deref(), Seq::MAX, sink)?;
        drop(lock);
        Ok((cut.oldest, cut.seq))
    }
}

fn has_expired(expires_us: Option<i64>, at_us: i64) -> bool {
    expires_us.is_some_and(|expires_us| expires_us <= at_us)
}
