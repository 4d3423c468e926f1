//! Removes old images, the logs that only those led to, and what interrupted uploads have left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fault::Fault;
use super::manifest::{IMAGES, Manifest};
use super::piece::{LOGS, LogId};
use super::target::Listed;
use super::{Image, LOOKS_MAX, Latest, Remote, is_loss};
use crate::copy::Watch;
use crate::error::{Error, Result};

/// The result of [`Remote::prune`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// The names of the images that were removed, those that no manifest listed included.
    pub removed: Vec<String>,
    /// The number of pieces of logs that were removed.
    pub pieces: u64,
    /// The number of unfinished uploads that were removed.
    pub uploads: u64,
}

impl Remote {
    /// Removes all images that are older than the newest `keep` good ones, the pieces of logs that
    /// no image leads to any more, and what uploads have left that were interrupted
    /// [long ago](Self::orphans_after).
    ///
    /// Images that [`keep_for`](Self::keep_for) and [`keep_from`](Self::keep_from) ask for stay
    /// too, and so does the newest one that a log continues, because an archive may be sending that
    /// log.
    ///
    /// The newest good image is read completely first, and of the others the length is compared, so
    /// that the last good image is never removed. A manifest without the images is written before
    /// an object is removed. After an interruption, the next call continues.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `keep` is 0; [`Fault::BadManifest`] if the newest manifest cannot be
    /// read; [`Error::Stopped`] if `watch` returned `Break`; the faults of the target.
    pub fn prune(&self, keep: usize, watch: &mut Watch<'_>) -> Result<Pruned> {
        if keep == 0 {
            let why = "images cannot be kept; keep 1 or more";
            return Err(Error::Invalid { value: keep.to_string(), why });
        }
        let mut read = None;
        for attempt in 0..LOOKS_MAX {
            self.rest(attempt)?;
            let latest = self.latest()?;
            if let Some(number) = latest.unreadable.first() {
                let fault = Fault::BadManifest("so it is not known which images it gives up");
                return Err(self.fault(&Manifest::name(*number), fault));
            }
            let next = self.pruned(&latest, keep, &mut read, watch)?;
            let now = &latest.manifest;
            // Order: an object is removed only if the manifest that counts gives it up, so that no
            // manifest that counts later lists it: see `list_image`.
            if next.images == now.images && next.dropped.iter().all(|n| now.dropped.contains(n)) {
                return self.remove(&next);
            }
            self.publish(&next)?;
        }
        Err(self.fault("", Fault::Contended(LOOKS_MAX)))
    }

    /// Returns the manifest after the latest one, with only the images to keep. It gives up all
    /// others that are there, and those that no manifest lists and which are old.
    fn pruned(
        &self,
        latest: &Latest,
        keep: usize,
        read: &mut Option<String>,
        watch: &mut Watch<'_>,
    ) -> Result<Manifest> {
        let now = &latest.manifest;
        let mut objects = BTreeMap::new();
        let listed = self.target.list(IMAGES, &mut |object| {
            objects.insert(object.name, (object.len, object.age));
        });
        listed.map_err(|fault| self.fault("", fault))?;
        let count = self.count_to_keep(&now.images, keep, read, watch)?;
        let count = count.max(self.count_for(&now.images, &objects));
        let mut images = now.images.clone();
        images.truncate(count);
        objects.retain(|name, (_, age)| {
            let is_kept = images.iter().any(|image| image.name == *name);
            let is_old = *age >= self.orphans_after;
            let is_given_up = now.lists(name) || now.dropped.contains(name);
            Manifest::is_image(name) && !is_kept && (is_old || is_given_up)
        });
        let dropped = objects.into_keys().collect();
        Ok(Manifest { number: latest.next(), writer: now.writer, images, dropped })
    }

    /// Returns how many of the images, which are in order, have to stay so that the log which an
    /// archive sends continues one of them, each moment of the time to keep is reached, and none
    /// is missing from the commit on from which all are kept. `objects` has the length and the age
    /// of each object.
    fn count_for(&self, images: &[Image], objects: &BTreeMap<String, (u64, Duration)>) -> usize {
        let age = |image: &Image| {
            let (len, age) = objects.get(&image.name)?;
            (*len == image.facts.size).then_some(*age)
        };
        let log = images.iter().position(|image| image.log.is_some() && age(image).is_some());
        // An image with a greater commit than a newer one is of a line of history that was given
        // up, and leads to no moment of the newer line.
        let mut least = u64::MAX;
        let begin = images.iter().position(|image| {
            let is_of_line = image.facts.seq <= least;
            least = least.min(image.facts.seq);
            is_of_line && age(image).is_some_and(|age| age >= self.keep_for)
        });
        let begin = begin.map_or(images.len(), |at| at + 1);
        let named = images.iter().rposition(|image| image.facts.seq >= self.keep_from);
        let begin = begin.max(named.map_or(0, |at| at + 1));
        begin.max(log.map_or(0, |at| at + 1))
    }

    /// Returns how many of the images, which are in order, have to stay so that `keep` good ones
    /// do. `read` is the name of the image that was read completely.
    fn count_to_keep(
        &self,
        images: &[Image],
        keep: usize,
        read: &mut Option<String>,
        watch: &mut Watch<'_>,
    ) -> Result<usize> {
        let mut good = 0;
        for (at, image) in images.iter().enumerate() {
            let is_read = good > 0 || read.as_ref() == Some(&image.name);
            match if is_read { self.check_size(image) } else { self.check(image, watch) } {
                Ok(()) => good += 1,
                Err(error) if is_loss(&error) => continue,
                // An image that cannot be read now may be good, so none is removed.
                Err(error) => return Err(error),
            }
            read.get_or_insert_with(|| image.name.clone());
            if good == keep {
                return Ok(at + 1);
            }
        }
        Ok(images.len())
    }

    /// Removes the images that the manifest gives up, the pieces that its images do not lead to,
    /// manifests long before it, and old unfinished uploads.
    fn remove(&self, manifest: &Manifest) -> Result<Pruned> {
        let remove = |name: &str| self.target.remove(name).map_err(|fault| self.fault(name, fault));
        manifest.dropped.iter().try_for_each(|name| remove(name))?;
        let pieces = self.remove_pieces(&manifest.images)?;
        let old = |number: &u64| number.saturating_add(MANIFESTS_KEPT) <= manifest.number;
        let numbers = self.numbers()?;
        numbers.into_iter().filter(old).try_for_each(|number| remove(&Manifest::name(number)))?;
        let swept = self.target.sweep(self.orphans_after);
        let uploads = swept.map_err(|fault| self.fault("", fault))?;
        Ok(Pruned { removed: manifest.dropped.clone(), pieces, uploads })
    }

    /// Removes the pieces of the logs that no image leads to and that have no young piece: an
    /// archive may be sending the log of an image that it has not listed yet. Returns their number.
    fn remove_pieces(&self, images: &[Image]) -> Result<u64> {
        let list = |prefix: &str, sink: &mut dyn FnMut(LogId, Listed)| {
            let listed = self.target.list(prefix, &mut |object| {
                if let Some((log, _)) = LogId::of_piece(&object.name) {
                    sink(log, object);
                }
            });
            listed.map_err(|fault| self.fault("", fault))
        };
        let mut logs = BTreeSet::new();
        list(LOGS, &mut |log, _| _ = logs.insert(log))?;
        let mut reached: Vec<LogId> =
            images.iter().filter_map(|image| image.log).map(|start| start.log).collect();
        while let Some(log) = reached.pop() {
            logs.remove(&log);
            // Those that a gap comes before are among them, which does no harm.
            reached.extend(logs.iter().filter(|next| next.follows == log.file_id));
        }
        let mut count = 0;
        for log in logs {
            let (mut names, mut is_old) = (Vec::new(), true);
            list(&log.pieces(), &mut |_, object| {
                is_old &= object.age >= self.orphans_after;
                names.push(object.name);
            })?;
            for name in names.iter().filter(|_| is_old) {
                self.target.remove(name).map_err(|fault| self.fault(name, fault))?;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// The number of manifests that are kept. One is enough where lists show every object that was
/// created before; where they lag, a writer that has slept sees by the others that it is late.
const MANIFESTS_KEPT: u64 = 100;
