//! The health of the store and of its backups.

use std::time::SystemTime;

use codex_core::{Backups, Writes};
use serde::Serialize;

use crate::time;
use crate::view::answer::{Answer, Refused};
use crate::view::request::Request;
use crate::view::site::Site;

#[derive(Serialize)]
struct Health {
    writes: String,
    is_well: bool,
    errors: Vec<String>,
    form: Option<String>,
    keys: usize,
    seq: u64,
    commits: u64,
    groups: u64,
    syncs: u64,
    group_commits_max: u64,
    data_hold_ns_max: u64,
    checkpoints: u64,
    checkpoint_failures: u64,
    image_bytes: u64,
    log_bytes: u64,
    expiring: u64,
    swept: u64,
    backups: Vec<Backup>,
    now_us: i64,
}

#[derive(Serialize)]
struct Backup {
    index: u32,
    size: u64,
    seq: Option<u64>,
    /// The time of its last commit, or of its making if the form has no times.
    time_us: Option<i64>,
    error: Option<String>,
}

/// Returns the statistics since the store was opened, and its backups.
pub(super) fn show(site: &Site, _: &Request) -> Result<Answer, Refused> {
    let store = &site.store;
    let (stats, health) = (store.stats(), store.health());
    let (backups, unread) = match backups(site) {
        Ok(backups) => (backups, None),
        Err(error) => (Vec::new(), Some(format!("the backups cannot be listed: {error}"))),
    };
    let writes = match &health.writes {
        Writes::Accepted => "accepts writes",
        Writes::ReadOnly => "read-only",
        Writes::Closed => "closed",
        Writes::Poisoned { .. } => "refuses writes after an error",
        Writes::BackupRequired => "refuses writes until a backup succeeds",
        _ => "unknown",
    };
    let reason = if let Writes::Poisoned { reason } = &health.writes { Some(reason) } else { None };
    let errors = reason.into_iter().chain(&health.checkpoint_error).chain(&health.backup_error);
    Ok(Answer::json(&Health {
        writes: writes.to_owned(),
        is_well: health.is_well() && unread.is_none(),
        errors: errors.cloned().chain(unread).collect(),
        form: store.form().map(|form| form.to_string()),
        keys: store.len(),
        seq: stats.storage.seq,
        commits: stats.commits,
        groups: stats.storage.groups,
        syncs: stats.storage.syncs,
        group_commits_max: stats.group_commits_max,
        data_hold_ns_max: stats.data_hold_ns_max,
        checkpoints: stats.checkpoints,
        checkpoint_failures: stats.checkpoint_failures,
        image_bytes: stats.storage.image_bytes,
        log_bytes: stats.storage.log_bytes,
        expiring: stats.expiring,
        swept: stats.swept,
        backups,
        now_us: time::to_us(SystemTime::now()),
    }))
}

fn backups(site: &Site) -> codex_core::Result<Vec<Backup>> {
    if site.store.form().is_none() {
        return Ok(Vec::new());
    }
    let listed = Backups::of(site.store.path())?.list()?;
    let backup = |entry: codex_core::BackupEntry| {
        let (seq, time_us, error) = match &entry.facts {
            Ok(facts) => (Some(facts.seq), facts.time_us, None),
            Err(error) => (None, None, Some(error.to_string())),
        };
        Backup { index: entry.index, size: entry.size, seq, time_us, error }
    };
    Ok(listed.into_iter().take(BACKUPS_MAX).map(backup).collect())
}

/// The maximum number of backups that are shown.
const BACKUPS_MAX: usize = 200;
