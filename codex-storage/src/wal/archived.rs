//! A Wal as it was after an earlier commit: an image and copies of the segments that continue it.

use std::path::PathBuf;
use std::sync::Arc;

use super::Segment;
use crate::batch::Seq;
use crate::config::OnDamage;
use crate::earlier::EarlierStore;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Found, Header};
use crate::history::{History, Position, extend};
use crate::log::{GroupRef, LogReader};
use crate::main_file::MainFile;
use crate::names::Names;
use crate::seal::{Keys, Seal};
use crate::storage::{Form, OpSink, State};
use crate::vfs::{File, Vfs};

/// The history of a Wal up to a commit, which was read from an image and copies of segments.
#[derive(Debug)]
pub struct Replayed {
    /// The header of the image.
    image: Header,
    history: History,
    seal: Option<Arc<dyn Seal>>,
}

/// Passes the state in the image `main` to `sink`, then the operations of the copied segments
/// `logs`, oldest first, up to the commit `until`. Later commits of its group are left out.
///
/// A copy may end after any byte behind the frame that is needed of it.
///
/// # Errors
/// - `WrongForm` if `main` is a ledger; `KeyRequired`, `NotEncrypted`, `WrongKey`.
/// - `NotInHistory` if the files do not have the state after `until`.
/// - `ForeignLog` or `Gap` if a segment does not continue the one before it, or the image.
/// - `Damaged` if a segment ends before the commit that is needed of it, and one variant for each
///   other kind of damage; `Io`; the errors of `sink`.
pub fn replay_archived(
    main: &MainFile,
    logs: &[(Arc<dyn File>, PathBuf)],
    keys: Option<&dyn Keys>,
    until: Seq,
    sink: &mut OpSink<'_>,
) -> Result<Replayed> {
    let (image, seal) = main.unlocked_image(keys)?;
    let header = image.header().clone();
    let mut history = History::base(&header);
    let segments = logs.iter().map(|(file, path)| {
        Segment::copied(Arc::clone(file), path.clone(), &header, seal.as_deref())
    });
    let segments = segments.collect::<Result<Vec<_>>>()?;
    let newest = segments.last().map_or(header.base_seq, |last| last.header.base_seq);
    if until < header.base_seq {
        return Err(main.not_in_history(header.base_seq..=newest));
    }
    history.inherit(image.replay(sink)?);
    let next = segments.iter().skip(1).map(|next| next.header.base_seq).chain([Seq::MAX]);
    for (segment, next) in segments.iter().zip(next) {
        if history.seq() == until {
            break;
        }
        segment.continues(history.end())?;
        segment.replay_upto(until.min(next), seal.clone(), &mut history, sink)?;
    }
    if history.seq() < until {
        return Err(main.not_in_history(header.base_seq..=history.seq()));
    }
    Ok(Replayed { image: header, history, seal })
}

impl Replayed {
    /// Returns the last commit that was read.
    pub fn seq(&self) -> Seq {
        self.history.seq()
    }

    /// Returns the history up to the last commit that was read.
    #[cfg(feature = "shared")]
    pub(crate) fn into_history(self) -> History {
        self.history
    }

    /// Writes `state`, which the commits that were read have made, as an image in a temporary file
    /// of the store `name`. The caller holds the lock of that store.
    ///
    /// # Errors
    /// `BadPath`; `NoSpace` or `Io` if the image cannot be written; `Damaged` if it does not read
    /// back as written.
    pub fn write(&self, vfs: &Vfs, name: &str, state: &dyn State) -> Result<EarlierStore> {
        let files = StoreFiles {
            vfs: vfs.clone(),
            names: Names::staged(name),
            seal: self.seal.clone(),
            compression: self.image.compression,
            lock: None,
        };
        let image = files.image_elsewhere(vfs, name, &self.image, &self.history)?;
        let written = image.write(state, &|_| true)?;
        let main = MainFile::open(vfs, &written.temporary);
        EarlierStore::new(files.vfs, written.temporary, main)
    }
}

impl Segment {
    /// Returns the copy of a segment in `file`, whose header belongs to the store with this image.
    fn copied(
        file: Arc<dyn File>,
        path: PathBuf,
        image: &Header,
        seal: Option<&dyn Seal>,
    ) -> Result<Self> {
        let found = Found::read(&*file, &path)?;
        let header = &found.header;
        let is_ours = header.store_id == image.store_id
            && (header.kind, header.form) == (FileKind::Log, Form::Wal);
        if !is_ours {
            return Err(Error::ForeignLog { path });
        }
        Ok(Self { header: found.authenticate(seal, &path)?, path, file })
    }

    /// Checks that this segment begins at `end`, where the one before it, or the image, ends.
    fn continues(&self, end: Position) -> Result<()> {
        let Self { header, path, .. } = self;
        if header.base_seq != end.seq {
            let (expected, found) = (end.seq, header.base_seq);
            return Err(Error::Gap { path: path.clone(), expected, found });
        }
        // A copy may lack the last frames of the segment if they have no commit, so the chain is
        // not compared. The digest covers all commits.
        if header.base_digest != end.digest {
            return Err(Error::ForeignLog { path: path.clone() });
        }
        Ok(())
    }

    /// Passes the operations of the commits up to `upto` to `sink`.
    fn replay_upto(
        &self,
        upto: Seq,
        seal: Option<Arc<dyn Seal>>,
        history: &mut History,
        sink: &mut OpSink<'_>,
    ) -> Result<()> {
        let (file, refuse) = (Arc::clone(&self.file), OnDamage::Refuse);
        let mut reader = LogReader::new(file, &self.path, &self.header, seal, upto, refuse)?;
        while history.seq() < upto {
            let Some(group) = reader.next()? else { return Ok(()) };
            let included = group.upto(|commit| commit.seq <= upto)?;
            included.for_each(sink)?;
            // The digest of a part of a group is the one of a group that ends there.
            let GroupRef { first, count, payload, .. } = included;
            let digest = if count == group.count {
                group.digest
            } else {
                extend(&history.end().digest, first, count, payload)
            };
            let seq = history.seq() + u64::from(count);
            history.go_on(seq, digest);
        }
        Ok(())
    }
}
