//! Removes old images, and what interrupted uploads have left.

use super::fault::Fault;
use super::manifest::{IMAGES, Manifest};
use super::{Image, LOOKS_MAX, Latest, Remote, is_loss};
use crate::copy::Watch;
use crate::error::{Error, Result};

/// The result of [`Remote::prune`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// The names of the images that were removed, those that no manifest listed included.
    pub removed: Vec<String>,
    /// The number of unfinished uploads that were removed.
    pub uploads: u64,
}

impl Remote {
    /// Removes all images that are older than the newest `keep` good ones, and what uploads have
    /// left that were interrupted [long ago](Self::orphans_after).
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
        let mut images = now.images.clone();
        images.truncate(self.count_to_keep(&now.images, keep, read, watch)?);
        let mut dropped = Vec::new();
        let listed = self.target.list(IMAGES, &mut |object| {
            let is_kept = images.iter().any(|image| image.name == object.name);
            let is_old = object.age >= self.orphans_after;
            let is_given_up = now.lists(&object.name) || now.dropped.contains(&object.name);
            if Manifest::is_image(&object.name) && !is_kept && (is_old || is_given_up) {
                dropped.push(object.name);
            }
        });
        listed.map_err(|fault| self.fault("", fault))?;
        Ok(Manifest { number: latest.next(), writer: now.writer, images, dropped })
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

    /// Removes the images that the manifest gives up, manifests long before it, and old unfinished
    /// uploads.
    fn remove(&self, manifest: &Manifest) -> Result<Pruned> {
        let remove = |name: &str| self.target.remove(name).map_err(|fault| self.fault(name, fault));
        manifest.dropped.iter().try_for_each(|name| remove(name))?;
        let old = |number: &u64| number.saturating_add(MANIFESTS_KEPT) <= manifest.number;
        let numbers = self.numbers()?;
        numbers.into_iter().filter(old).try_for_each(|number| remove(&Manifest::name(number)))?;
        let swept = self.target.sweep(self.orphans_after);
        let uploads = swept.map_err(|fault| self.fault("", fault))?;
        Ok(Pruned { removed: manifest.dropped.clone(), uploads })
    }
}

/// The number of manifests that are kept. One is enough where lists show every object that was
/// created before; where they lag, a writer that has slept sees by the others that it is late.
const MANIFESTS_KEPT: u64 = 100;
