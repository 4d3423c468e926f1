//! Uploads an image, reads it back, and lists it.

use std::sync::Arc;

use codex_storage::vfs::File;

use super::archive::ArchiveWriter;
use super::fault::Fault;
use super::manifest::{Manifest, image_name};
use super::piece::LogStart;
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
        self.put_with(None, file, None, watch)
    }

    /// As [`put`](Self::put), as a part of the archive of `writer`: the image is continued by the
    /// pieces of the log `log`. An image of the same version that no log continues gets `log`, and
    /// beside one that another log continues the file is uploaded again.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Fault::Fenced`] if another archive has begun; [`Error::Invalid`]
    /// if `log` does not begin with the version of the file.
    pub fn put_image(
        &self,
        writer: &ArchiveWriter,
        file: &Arc<dyn File>,
        log: Option<LogStart>,
        watch: &mut Watch<'_>,
    ) -> Result<Put> {
        self.put_with(Some(writer), file, log, watch)
    }

    fn put_with(
        &self,
        writer: Option<&ArchiveWriter>,
        file: &Arc<dyn File>,
        log: Option<LogStart>,
        watch: &mut Watch<'_>,
    ) -> Result<Put> {
        let place = self.target.path("");
        let unread = |error| Error::from_inspect(place.clone(), error);
        let mut going = |_| crate::meter::sign_of_life(watch);
        let facts = self.inspect.facts(file, &mut going).map_err(unread)?;
        if !facts.encrypted && !self.plain_objects {
            return Err(self.fault("", Fault::Plain));
        }
        if let Some(LogStart { log, .. }) = log.filter(|start| start.log.base_seq != facts.seq) {
            let why = "does not continue the image; its base is the last commit of the image";
            return Err(Error::Invalid { value: log.name(), why });
        }
        let latest = self.latest()?;
        self.refuse_other(&latest, &facts.id)?;
        self.refuse_fenced(&latest, writer)?;
        let newest = latest.manifest.images.into_iter().next().filter(|newest| {
            newest.facts.same_version(&facts)
                && (log.is_none() || newest.log.is_none_or(|l| Some(l) == log))
        });
        if let Some(newest) = newest
            && self.is_there(&newest)?
        {
            let image = Image { log: newest.log.or(log), ..newest };
            self.list_image(writer, &image)?;
            return Ok(Put { image, is_new: false });
        }
        let image = Image { log, ..self.upload(file, watch)? };
        self.list_image(writer, &image)?;
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
        let listed_us = self.clock.now_us();
        let image = Image { name, facts, sha256, listed_us, log: None };
        self.check(&image, watch).inspect_err(|_| {
            // No manifest lists it, and none will. If this fails, a prune removes it later.
            let _ = self.target.remove(&image.name);
        })?;
        Ok(image)
    }

    /// Writes a manifest that lists the image, first if it is new, unless the one that counts does
    /// and no unreadable one follows.
    fn list_image(&self, writer: Option<&ArchiveWriter>, image: &Image) -> Result<()> {
        self.revise(&mut |latest, next| {
            self.refuse_fenced(latest, writer)?;
            match next.images.iter_mut().find(|listed| listed.name == image.name) {
                Some(listed) if image.log.is_none() || listed.log == image.log => Ok(false),
                Some(listed) => {
                    listed.log = image.log;
                    Ok(true)
                }
                None => {
                    self.refuse_other(latest, &image.facts.id)?;
                    // Order: the look at the object comes after the manifest was read. A prune
                    // removes an image only after a manifest has given it up. If that is this one
                    // or an older one, the list or the look tells it; if it is a newer one, the
                    // creation of the next one changes nothing.
                    if latest.manifest.dropped.contains(&image.name) || !self.is_there(image)? {
                        return Err(self.fault(&image.name, Fault::GivenUp));
                    }
                    next.images.insert(0, image.clone());
                    Ok(true)
                }
            }
        })
    }

    /// Writes manifests until `change` leaves the one that counts as it is, and no unreadable one
    /// follows. `change` gets the latest one and a copy of it, and returns whether it has changed
    /// the copy.
    pub(super) fn revise(
        &self,
        change: &mut dyn FnMut(&Latest, &mut Manifest) -> Result<bool>,
    ) -> Result<()> {
        for attempt in 0..LOOKS_MAX {
            self.rest(attempt)?;
            let latest = self.latest()?;
            let mut next = latest.manifest.clone();
            // This also tells whether an earlier attempt was done although its answer was lost.
            if !change(&latest, &mut next)? && latest.unreadable.is_empty() {
                return Ok(());
            }
            let next = self.after(&latest, next)?;
            if let Err(fault) = self.publish(&next) {
                return match self.latest() {
                    Ok(now) if matches!(change(&now, &mut now.manifest.clone()), Ok(false)) => {
                        Ok(())
                    }
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

    /// Returns `next` as the manifest after the latest one. If manifests had to be passed over, it
    /// lists only images that are there.
    fn after(&self, latest: &Latest, next: Manifest) -> Result<Manifest> {
        let mut images = Vec::new();
        for image in next.images {
            if latest.unreadable.is_empty() || self.is_there(&image)? {
                images.push(image);
            }
        }
        Ok(Manifest { number: latest.next(), images, ..next })
    }

    /// Returns an error if the place has the images of another file.
    pub(super) fn refuse_other(&self, latest: &Latest, id: &[u8]) -> Result<()> {
        match latest.manifest.images.first() {
            Some(image) if image.facts.id != id => Err(self.fault("", Fault::OtherFile)),
            _ => Ok(()),
        }
    }

    fn source(&self, name: &str, error: std::io::Error) -> Error {
        self.fault(name, Fault::Source(Arc::new(error)))
    }
}
