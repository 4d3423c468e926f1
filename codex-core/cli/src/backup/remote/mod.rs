//! `backup remote`: backups of a store outside of the machine, in a bucket or a folder.

mod place;

use std::time::Duration;

use clap::{Args, Subcommand};
use codex_core::remote::{self, Fault, Image, Reached, Remote, unwatched};
use codex_core::{BackupError, Restored};

use super::{Beside, kept};
use crate::Outcome;
use crate::change::span;
use crate::failure::Failure;
use crate::ledger::Moment;
use crate::out::{Cell, Out, Record, note};
use crate::target::Target;
use place::Place;

/// The commands of `backup remote`.
#[derive(Debug, Subcommand)]
pub(crate) enum Elsewhere {
    /// Upload the store as the newest image, read it back, and list it
    Put(Put),
    /// Print the images, the newest first
    List(List),
    /// Read and check every byte of an image
    Verify(Verify),
    /// Replace the store by its last commit at the place, or an earlier state; the replaced files
    /// are kept, and there need be no store
    Restore(Restore),
    /// Remove old images, and what interrupted uploads have left
    Prune(Prune),
    /// Find the place, and prove that two writers cannot replace each other's objects there
    Probe(Probe),
}

impl Elsewhere {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        match self {
            Self::Put(command) => command.run(out),
            Self::List(command) => command.run(out),
            Self::Verify(command) => command.run(out),
            Self::Restore(command) => command.run(out),
            Self::Prune(command) => command.run(out),
            Self::Probe(command) => command.run(out),
        }
    }
}

/// The images of a store at a place.
#[derive(Debug, Args)]
struct Images {
    #[command(flatten)]
    beside: Beside,
    #[command(flatten)]
    place: Place,
}

impl Images {
    fn open(&self) -> Outcome<Remote> {
        Ok(self.beside.backups()?.remote(self.place.open()?))
    }

    /// Returns the image with this name, or the newest.
    fn find(&self, remote: &Remote, name: Option<&str>) -> Outcome<Image> {
        let images = remote.list()?.images;
        let mut found = images.into_iter().filter(|image| name.is_none_or(|n| image.name == n));
        found.next().ok_or_else(|| {
            let place = &self.place.name;
            Failure::Usage(match name {
                Some(name) => format!("{place} lists no image {name}; list shows what there is"),
                None => format!("{place} lists no image; check the place and its prefix"),
            })
        })
    }
}

/// The options of `backup remote put`.
#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    place: Place,
    /// Upload a store that is not encrypted, which everybody who can read the place can read
    #[arg(long)]
    plain_objects: bool,
}

impl Put {
    fn run(&self, out: &mut Out) -> Outcome {
        // The place is opened first: it may not be there, and opening a store may change it.
        let place = self.place.open()?;
        let store = self.target.write()?;
        let remote = codex_core::Backups::of(&self.target.path)?.remote(place);
        let put = store.back_up_remote(&remote.plain_objects(self.plain_objects));
        let (put, ()) = (put?, store.close()?);
        let mut record = row(&put.image);
        record.push(("new", Cell::Flag(put.is_new)));
        out.record(&record)?;
        Ok(true)
    }
}

/// The options of `backup remote list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    images: Images,
}

impl List {
    fn run(&self, out: &mut Out) -> Outcome {
        let remote = self.images.open()?;
        let list = remote.list()?;
        for name in &list.unreadable {
            note(&format!(
                "{name} cannot be read, and an older list counts; `put` writes a new one"
            ));
        }
        let reached = if list.images.iter().any(has_log) { latest(&remote) } else { None };
        let rows: Vec<Record> = list
            .images
            .iter()
            .map(|image| {
                let end = reached.as_ref().filter(|end| end.image.name == image.name);
                let mut row = row(image);
                row.push(("log", Cell::Flag(has_log(image))));
                row.extend(reach(end.filter(|_| has_log(image))));
                row
            })
            .collect();
        out.table(&rows)?;
        Ok(!rows.is_empty())
    }
}

/// Returns whether pieces of a log may continue the image.
fn has_log(image: &Image) -> bool {
    image.log.is_some()
}

/// Returns what leads to the last commit at the place. The images are good without it, so a failure
/// is only told.
fn latest(remote: &Remote) -> Option<Reached> {
    let reached = remote.reach(remote::Moment::Latest);
    reached
        .inspect_err(|error| note(&format!("it is not known how far the log goes: {error}")))
        .ok()
}

/// Returns the last commit that an image and its log lead to, and the time before which it was
/// made.
fn reach(end: Option<&Reached>) -> Record {
    vec![
        ("reaches commit", end.map(|end| end.seq).into()),
        ("made before", end.map_or(Cell::Nothing, |end| Cell::Time(end.time_us))),
    ]
}

fn row(image: &Image) -> Record {
    vec![
        ("image", Cell::Text(image.name.clone())),
        ("commit", Cell::Count(image.facts.seq)),
        ("size", Cell::Bytes(image.facts.size)),
        ("listed", Cell::Time(image.listed_us)),
        ("form", Cell::Text(image.facts.form.clone())),
        ("encrypted", Cell::Flag(image.facts.encrypted)),
    ]
}

/// The options of `backup remote verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    images: Images,
    /// The name of the image in `list`. The default is the newest, and the logs that continue it
    image: Option<String>,
}

impl Verify {
    fn run(&self, out: &mut Out) -> Outcome {
        let remote = self.images.open()?;
        let image = self.images.find(&remote, self.image.as_deref())?;
        remote.verify(&image, &mut unwatched)?;
        let mut record = vec![("result", Cell::Text("intact".to_owned()))];
        record.extend(row(&image));
        let end = match &self.image {
            None if has_log(&image) => Some(whole_end(&remote)?),
            _ => None,
        };
        let read = end.as_ref().map(read_logs).transpose()?;
        record.push(("authenticated", Cell::Flag(self.images.beside.key.is_given())));
        record.push(("logs read", read.map_or(Cell::Nothing, Cell::Bytes)));
        record.extend(reach(end.as_ref()));
        out.record(&record)?;
        Ok(true)
    }
}

/// Returns what leads to the last commit at the place.
///
/// # Errors
/// The damage that ends a log before its last piece.
fn whole_end(remote: &Remote) -> Outcome<Reached> {
    let reached = remote.reach(remote::Moment::Latest)?;
    if let Some(damage) = &reached.damage {
        let (path, fault) = (damage.path.clone(), damage.fault.clone());
        return Err(BackupError::Remote { path, fault }.into());
    }
    Ok(reached)
}

/// Reads each piece of the logs, which checks it. Returns the number of bytes.
fn read_logs(reached: &Reached) -> Outcome<u64> {
    let mut bytes = 0;
    for (file, path) in &reached.logs {
        let failed =
            |error| BackupError::Remote { path: path.clone(), fault: Fault::io("read it", error) };
        // The file of a ledger begins with the image.
        let mut at = reached.image.log.map_or(0, |start| start.from);
        let len = file.len().map_err(failed)?;
        let mut buf = vec![0; READ_BYTES];
        while at < len {
            let now = usize::try_from(len - at).unwrap_or(READ_BYTES).min(READ_BYTES);
            let (piece, _) = buf.split_at_mut(now);
            file.read_exact_at(piece, at).map_err(failed)?;
            at += now as u64;
            bytes += now as u64;
        }
    }
    Ok(bytes)
}

/// The bytes of a log that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// The options of `backup remote restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    images: Images,
    /// The name of an image in `list`, to restore it alone. The default is the last commit that
    /// the place has
    #[arg(conflicts_with = "at")]
    image: Option<String>,
    /// Restore the state at this moment: after a commit, at a time, or 2h for two hours ago. Other
    /// forms than a ledger reach a time to within the interval of the archive, and never exceed it
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,
}

impl Restore {
    fn run(&self, out: &mut Out) -> Outcome {
        let backups = self.images.beside.backups()?;
        let remote = backups.remote(self.images.place.open()?);
        let restored = match &self.image {
            Some(name) => {
                backups.restore_remote(&remote, &self.images.find(&remote, Some(name))?)?
            }
            None => backups.restore_archive(&remote, self.at.map(|at| at.0))?,
        };
        let Restored { facts, from, replaced, .. } = restored;
        out.record(&vec![
            ("commit", Cell::Count(facts.seq)),
            ("image", from.into()),
            ("replaced files are kept as", kept(replaced)),
        ])?;
        Ok(true)
    }
}

/// The options of `backup remote prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    images: Images,
    /// Keep the newest COUNT good images. The default with --keep-for is 1
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(required_unless_present = "keep_for")]
    keep: Option<u32>,
    /// Keep also what leads to each moment of this time before now, such as 36h or 7d
    #[arg(long, value_name = "SPAN", value_parser = span)]
    keep_for: Option<Duration>,
}

impl Prune {
    fn run(&self, out: &mut Out) -> Outcome {
        let keep = usize::try_from(self.keep.unwrap_or(1)).unwrap_or(usize::MAX);
        let remote = self.images.open()?.keep_for(self.keep_for.unwrap_or_default());
        let pruned = remote.prune(keep, &mut unwatched)?;
        let is_any = !pruned.removed.is_empty() || pruned.pieces > 0 || pruned.uploads > 0;
        out.record(&vec![
            ("removed", Cell::List(pruned.removed)),
            ("pieces of logs", Cell::Count(pruned.pieces)),
            ("unfinished uploads", Cell::Count(pruned.uploads)),
        ])?;
        Ok(is_any)
    }
}

/// The options of `backup remote probe`.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    #[command(flatten)]
    place: Place,
}

impl Probe {
    fn run(&self, out: &mut Out) -> Outcome {
        let place = self.place.open()?;
        out.record(&vec![
            ("result", Cell::Text("usable".to_owned())),
            ("place", Cell::Text(place.path("").display().to_string())),
        ])?;
        Ok(true)
    }
}
