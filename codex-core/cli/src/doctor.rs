//! `doctor`: the state of a store and of its surroundings, each with the next step.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use codex_core::vfs::Vfs;
use codex_core::{Backups, FileRole, Store};

use crate::failure::Failure;
use crate::find::holder;
use crate::out::{Cell, Out, Record, size};
use crate::target::{Target, place};
use crate::{Outcome, time};

/// The options of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    target: Target,
}

/// The findings, and whether each of them is good.
#[derive(Default)]
struct Findings {
    rows: Vec<Record>,
    is_ill: bool,
}

impl Findings {
    /// Adds a finding, with the next step if it is not good.
    fn add(&mut self, what: &str, found: String, next: Option<String>) {
        self.is_ill |= next.is_some();
        self.rows.push(vec![
            ("check", Cell::Text(what.to_owned())),
            ("good", Cell::Flag(next.is_none())),
            ("found", Cell::Text(found)),
            ("next", next.into()),
        ]);
    }
}

impl Doctor {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let path = &self.target.path;
        let (vfs, name) = place(path)?;
        let mut findings = Findings::default();
        let holder = holder(&vfs, &name)?;
        self.contents(holder.as_deref(), &mut findings)?;
        let files = Store::files(path)?;
        modes(files.iter().map(|file| file.path.as_path()), &mut findings);
        network(&vfs.dir.path(&name), &mut findings);
        let bytes = files.iter().filter(|file| file.role == FileRole::Store);
        space(&vfs, bytes.map(|file| file.bytes).sum(), &mut findings);
        backups(path, &mut findings)?;
        out.table(&findings.rows)?;
        Ok(!findings.is_ill)
    }

    /// Adds whether the store is free, and whether every byte of it is intact.
    fn contents(&self, holder: Option<&str>, findings: &mut Findings) -> Outcome<()> {
        if let Some(holder) = holder {
            let next = "its contents are not read; close it, and run `codexdb doctor` again";
            findings.add("lock", format!("open {holder}"), Some(next.to_owned()));
            return Ok(());
        }
        findings.add("lock", "free".to_owned(), None);
        let secret = self.target.secret()?;
        let verified = self.target.read_with(secret.as_ref()).and_then(|store| {
            let found = store.verify()?;
            Ok(format!("intact, {} read", size(found.bytes)))
        });
        match verified {
            Ok(found) => findings.add("contents", found, None),
            // Nothing else is to be found out about a file that is no store.
            Err(failure) if failure.is_no_store() => return Err(failure),
            Err(failure @ Failure::Store(_)) => {
                let next = failure.next_step().unwrap_or("see the error");
                findings.add("contents", failure.to_string(), Some(next.to_owned()));
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

/// Adds the files that other users can read or write.
fn modes<'a>(files: impl Iterator<Item = &'a Path>, findings: &mut Findings) {
    let is_open =
        |path: &&Path| fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
    let open: Vec<String> = files.filter(is_open).map(|path| path.display().to_string()).collect();
    if open.is_empty() {
        findings.add("modes", "only the owner can open the files".to_owned(), None);
        return;
    }
    let next = format!("`chmod go= {}`, if they are not meant to", open.join(" "));
    findings.add("modes", format!("others can open {}", open.join(", ")), Some(next));
}

/// Adds whether the file system is one of a network.
fn network(path: &Path, findings: &mut Findings) {
    match network_of(path) {
        Some(kind) => {
            let next = "move the store to a local disk: locks and syncs depend on the server";
            findings.add("file system", format!("{kind}, over a network"), Some(next.to_owned()));
        }
        None => findings.add("file system", "local".to_owned(), None),
    }
}

/// Returns the name of a network file system on which `path` is.
#[cfg(target_os = "linux")]
fn network_of(path: &Path) -> Option<&'static str> {
    /// From linux/magic.h and the sources of the file systems.
    const KINDS: [(u32, &str); 7] = [
        (0x6969, "NFS"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB"),
        (0x517B, "SMB"),
        (0x0102_1997, "9P"),
        (0x00C3_6400, "Ceph"),
        (0x5346_414F, "AFS"),
    ];
    let found = rustix::fs::statfs(path).ok()?;
    // The kernel's numbers have 32 bits; the type of the field depends on the processor.
    let kind = u32::try_from(i128::from(found.f_type) & 0xFFFF_FFFF).ok()?;
    KINDS.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
fn network_of(_: &Path) -> Option<&'static str> {
    None
}

/// Adds whether there is space for the next image, which is written beside the files of the store.
fn space(vfs: &Vfs, store_bytes: u64, findings: &mut Findings) {
    let Ok(Some(free)) = vfs.dir.available_bytes() else { return };
    let found = format!("{} free, {} for the next checkpoint", size(free), size(store_bytes));
    let next = "free some space: without it the log only grows";
    findings.add("space", found, (free < store_bytes).then(|| next.to_owned()));
}

/// Adds the age of the newest good backup.
fn backups(path: &Path, findings: &mut Findings) -> Outcome<()> {
    let backups = Backups::of(path)?;
    if let Some(pending) = backups.pending()? {
        let found = format!("a restore to commit {} was interrupted", pending.seq);
        let next = format!("`codexdb checkpoint {}` ends it", path.display());
        findings.add("restore", found, Some(next));
    }
    let list = backups.list()?;
    let bad = list.iter().filter(|entry| entry.facts.is_err());
    let bad: Vec<PathBuf> = bad.map(|entry| PathBuf::from(&entry.name)).collect();
    for name in bad {
        let next = "`codexdb backup list` tells why; `backup create` makes another".to_owned();
        findings.add("backup", format!("{} is not good", name.display()), Some(next));
    }
    let create = || Some(format!("`codexdb backup create {}`", path.display()));
    let newest = list.iter().find_map(|entry| entry.facts.as_ref().ok());
    match newest.and_then(|facts| facts.time_us) {
        Some(time_us) => {
            let age_us = time::to_us(std::time::SystemTime::now()).saturating_sub(time_us);
            let is_old = age_us > OLD_US;
            let found = format!("the last good one was made {}", time::ago(time_us));
            findings.add("backups", found, create().filter(|_| is_old));
        }
        None => findings.add("backups", "there is no good one".to_owned(), create()),
    }
    Ok(())
}

/// The age from which a backup is old: a week.
const OLD_US: i64 = 7 * 86_400 * 1_000_000;
