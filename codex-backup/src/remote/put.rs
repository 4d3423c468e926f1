//! Uploads an image, reads it back, and lists it.

use std::sync::Arc;

use codex_storage::vfs::File;

use super::fault::Fault;
use super::manifest::{Manifest, image_name};
use super::target::Body;
use super::{Image, LOOKS_MAX, Latest, Remote, digest};
use crate::copy::{Phase, Watch};
use crate::error::{Error, Result};
use crate::meter::Meter;

/// The result of [`Remote::put`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Put {
    /// The newest image at the place.
    pub image: Image,
    /// Whether it was uploaded by this call. If not, it was there already.
    pub is_new: bool,
}

impl Remote {
    /// Uploads `file`, reads the upload back, and lists it as the newest image. If the newest image
    /// has the version of the file already, and its length, nothing is uploaded.
    ///
    /// The file is read three times: it is verified, its SHA-256 is made, and it is uploaded. It is
    /// never in memory as a whole. It may not change meanwhile; of a file that grows, pass a
    /// [`Prefix`](crate::Prefix).
    ///
    /// # Errors
    /// - [`Error::Damaged`] and the other errors of [`Inspect::verify`](crate::Inspect::verify) if
    ///   the file is not good.
    /// - [`Fault::Plain`] if it is not encrypted, unless
    ///   [`plain_objects`](Remote::plain_objects) allows that; [`Fault::OtherFile`].
    /// - [`Fault::Truncated`] and [`Fault::Altered`] if the upload reads back as other bytes.
    /// - [`Error::Stopped`] if `watch` returned `Break`; the faults of the target.
    ///
    /// The images that were listed before are not affected. After a fault of the target the new
    /// image may be listed all the same, if only the answer was lost; the next call then finds it.
    pub fn put(&self, file: &Arc<dyn File>, watch: &mut Watch<'_>) -> Result<Put> {
        let place = self.target.path("");
        let unread = |error| Error::from_inspect(place.clone(), error);
        let mut going = |_| crate::meter::sign_of_life(watch);
        let facts = self.inspect.facts(file, &mut going).map_err(unread)?;
        if !facts.encrypted && !self.plain_objects {
            return Err(self.fault("", Fault::Plain));
        }
        let latest = self.latest()?;
        self.refuse_other(&latest, &facts.id)?;
        if let Some(newest) = latest.manifest.images.first()
            && newest.facts.same_version(&facts)
            && self.is_there(newest)?
        {
            let image = newest.clone();
            self.list_image(&image)?;
            return Ok(Put { image, is_new: false });
        }
        let image = self.upload(file, watch)?;
        self.list_image(&image)?;
        Ok(Put { image, is_new: true })
    }

    /// Uploads `file` and reads the upload back. No manifest lists it yet.
    fn upload(&self, file: &Arc<dyn File>, watch: &mut Watch<'_>) -> Result<Image> {
        let place = self.target.path("");
        let len = file.len().map_err(|error| self.source("", error))?;
        // Order: the file is verified before it is uploaded, and the upload is compared with it, so
        // that every image that a manifest lists was whole and good.
        let mut meter = Meter::new(watch, Phase::Preparing, len.saturating_mul(2));
        let depth = self.inspect.deepest();
        let read = self.inspect.verify(file, depth, &mut |done| meter.reach(done)).map(|facts| {
            Ok((facts, digest(&**file, len, &mut |done| meter.reach(len.saturating_add(done)))?))
        });
        meter.end(&place)?;
        let read = read.map_err(|error| Error::from_inspect(place.clone(), error))?;
        let (facts, sha256) = read.map_err(|error| self.source("", error))?;
        let mut id = [0; 16];
        self.entropy.fill(&mut id).map_err(|error| self.source("", error))?;
        let name = image_name(facts.seq, id);
        let mut body = Body::file(&**file, len, Meter::new(watch, Phase::Copying, len));
        self.target.create(&name, &mut body).map_err(|fault| self.fault(&name, fault))?;
        let facts = crate::Facts { size: len, ..facts };
        let image = Image { name, facts, sha256, listed_us: self.clock.now_us() };
        self.check(&image, watch).inspect_err(|_| {
            // No manifest lists it, and none will. If this fails, a prune removes it later.
            let _ = self.target.remove(&image.name);
        })?;
        Ok(image)
    }

    /// Writes a manifest that lists the image first, unless the one that counts lists it and no
    /// unreadable one follows.
    fn list_image(&self, image: &Image) -> Result<()> {
        for attempt in 0..LOOKS_MAX {
            self.rest(attempt)?;
            let latest = self.latest()?;
            // This also tells whether an earlier attempt was done although its answer was lost.
            let is_listed = latest.manifest.lists(&image.name);
            if is_listed && latest.unreadable.is_empty() {
                return Ok(());
            }
            self.refuse_other(&latest, &image.facts.id)?;
            // Order: the look at the object comes after the manifest was read. A prune removes an
            // image only after a manifest has given it up. If that is this one or an older one, the
            // list or the look tells it; if it is a newer one, the creation below changes nothing.
            if latest.manifest.dropped.contains(&image.name) || !self.is_there(image)? {
                return Err(self.fault(&image.name, Fault::GivenUp));
            }
            let mut next = self.next_of(latest)?;
            if !is_listed {
                next.images.insert(0, image.clone());
            }
            if let Err(fault) = self.publish(&next) {
                return match self.latest() {
                    Ok(latest) if latest.manifest.lists(&image.name) => Ok(()),
                    _ => Err(fault),
                };
            }
        }
        Err(self.fault("", Fault::Contended(LOOKS_MAX)))
    }

    /// Creates the manifest. Whether it counts is known only when it is read again: another one of
    /// its number may exist.
    pub(super) fn publish(&self, manifest: &Manifest) -> Result<()> {
        let (name, bytes) = (Manifest::name(manifest.number), manifest.encode());
        let created = self.target.create(&name, &mut Body::new(&bytes));
        created.map(drop).map_err(|fault| self.fault(&name, fault))
    }

    /// Returns the manifest after the latest one, with the same contents. If manifests had to be
    /// passed over, it lists only images that are there.
    fn next_of(&self, latest: Latest) -> Result<Manifest> {
        let number = latest.next();
        let mut images = Vec::new();
        for image in latest.manifest.images {
            if latest.unreadable.is_empty() || self.is_there(&image)? {
                images.push(image);
            }
        }
        Ok(Manifest { number, images, dropped: latest.manifest.dropped })
    }

    /// Returns an error if the place has the images of another file.
    fn refuse_other(&self, latest: &Latest, id: &[u8]) -> Result<()> {
        match latest.manifest.images.first() {
            Some(image) if image.facts.id != id => Err(self.fault("", Fault::OtherFile)),
            _ => Ok(()),
        }
    }

    fn source(&self, name: &str, error: std::io::Error) -> Error {
        self.fault(name, Fault::Source(Arc::new(error)))
    }
}
