//! `backup remote`: backups of a store outside of the machine, in a bucket or a folder.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use codex_core::Restored;
use codex_core::remote::{Folder, Image, Remote, S3Options, Target as At, unwatched};

use super::{Beside, kept};
use crate::Outcome;
use crate::failure::Failure;
use crate::out::{Cell, Out, Record, note};
use crate::target::Target;

/// The commands of `backup remote`.
#[derive(Debug, Subcommand)]
pub(crate) enum Elsewhere {
    /// Upload the store as the newest image, read it back, and list it
    Put(Put),
    /// Print the images, the newest first
    List(List),
    /// Read and check every byte of an image
    Verify(Verify),
    /// Replace the store by an image; the replaced files are kept, and there need be no store
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

/// A place outside of the machine, and the way to it.
#[derive(Debug, Args)]
struct Place {
    /// A folder, such as one of another disk, or `s3://BUCKET/PREFIX`. Each store needs its own. The
    /// keys of a bucket are those in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`
    #[arg(value_name = "PLACE", id = "place")]
    name: String,
    /// The address of the server of the bucket. The default is that in `AWS_ENDPOINT_URL`, else
    /// that of Amazon S3
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The region of the bucket. The default is that in `AWS_REGION`, else us-east-1
    #[arg(long)]
    region: Option<String>,
    /// A file with the keys of the bucket, such as ~/.aws/credentials
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// A file with the certificates of the authorities to trust, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Allow a server without encryption on the way
    #[arg(long)]
    plain_http: bool,
}

impl Place {
    /// Opens the place. Of a bucket it is proved that it creates objects only once.
    fn open(&self) -> Outcome<Arc<dyn At>> {
        let Some(rest) = self.name.strip_prefix("s3://") else {
            let is_of_bucket = self.endpoint.is_some()
                || self.region.is_some()
                || self.keys_file.is_some()
                || self.ca_file.is_some();
            if is_of_bucket {
                let text = "the place is a folder, and the options are those of a bucket; name a \
                            bucket as s3://BUCKET/PREFIX";
                return Err(Failure::Usage(text.to_owned()));
            }
            return Ok(Arc::new(Folder::open(&self.name)?));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = self.region.clone().or_else(|| set("AWS_REGION"));
        let region = region.or_else(|| set("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = self.endpoint.clone().or_else(|| set("AWS_ENDPOINT_URL"));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let options = S3Options::new(endpoint, bucket).region(region);
        let options = options.prefix(prefix.trim_end_matches('/')).plain_http(self.plain_http);
        let options = match &self.keys_file {
            Some(file) => options.keys_file(file),
            None => options,
        };
        let options = match &self.ca_file {
            Some(file) => options.ca_file(file),
            None => options,
        };
        Ok(Arc::new(options.open()?))
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
        let list = self.images.open()?.list()?;
        for name in &list.unreadable {
            note(&format!(
                "{name} cannot be read, and an older list counts; `put` writes a new one"
            ));
        }
        let rows: Vec<Record> = list.images.iter().map(row).collect();
        out.table(&rows)?;
        Ok(!rows.is_empty())
    }
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
    /// The name of the image in `list`. The default is the newest
    image: Option<String>,
}

impl Verify {
    fn run(&self, out: &mut Out) -> Outcome {
        let remote = self.images.open()?;
        let image = self.images.find(&remote, self.image.as_deref())?;
        remote.verify(&image, &mut unwatched)?;
        let mut record = vec![("result", Cell::Text("intact".to_owned()))];
        record.extend(row(&image));
        out.record(&record)?;
        Ok(true)
    }
}

/// The options of `backup remote restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    images: Images,
    /// The name of the image in `list`. The default is the newest
    image: Option<String>,
}

impl Restore {
    fn run(&self, out: &mut Out) -> Outcome {
        let backups = self.images.beside.backups()?;
        let remote = backups.remote(self.images.place.open()?);
        let image = self.images.find(&remote, self.image.as_deref())?;
        let Restored { facts, replaced, .. } = backups.restore_remote(&remote, &image)?;
        out.record(&vec![
            ("commit", Cell::Count(facts.seq)),
            ("image", Cell::Text(image.name)),
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
    /// Keep the newest COUNT good images
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
}

impl Prune {
    fn run(&self, out: &mut Out) -> Outcome {
        let keep = usize::try_from(self.keep).unwrap_or(usize::MAX);
        let pruned = self.images.open()?.prune(keep, &mut unwatched)?;
        let is_any = !pruned.removed.is_empty() || pruned.uploads > 0;
        out.record(&vec![
            ("removed", Cell::List(pruned.removed)),
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
