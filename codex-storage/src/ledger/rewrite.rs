//! Whole ledgers made anew: copied under another key, or written from a state.

use std::sync::Arc;

use super::log_place;
use crate::batch::{Group, Seq};
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::header::{HEADER_LEN, Header};
use crate::image::Place;
use crate::log::{Copying, LogPlace, LogReader, LogWriter, NewLog, Reseal, layout, of_the_copy};
use crate::names::Temporary;
use crate::seal::Seal;
use crate::slots::{SECOND_SLOT, replacement};
use crate::storage::{Durability, Form};
use crate::vfs::Open;

/// A ledger that is being copied, most often under another root key.
#[derive(Debug)]
pub(crate) struct Rewrite {
    pub(super) copying: Copying,
    /// The name of the copy.
    pub(crate) temporary: String,
    pub(super) header: Header,
    pub(super) seal: Option<Arc<dyn Seal>>,
    slot: Vec<u8>,
}

impl Rewrite {
    /// Begins the copy of the ledger in `place` that has the header `from`: an empty one under its
    /// temporary name, with the header `to`.
    pub(crate) fn begin(
        place: &Place,
        durability: Durability,
        from: &Header,
        to: Header,
        seal: Option<Arc<dyn Seal>>,
    ) -> Result<Self> {
        let (path, name) = (place.path(), place.names.main());
        let (header, slot) = replacement(to, seal.as_deref());
        let file = place.vfs.dir.open(name, Open::Read).map_err(|e| Error::io("open", &path, e))?;
        let own = place.seal.clone();
        let reader = LogReader::new(file, &path, from, own, 0, OnDamage::Refuse)?;
        let log = LogPlace { seal: seal.clone(), ..log_place(place, durability) };
        let temporary = place.names.temporary(Temporary::Rekey);
        let copying = Copying::default();
        copying.begin(Reseal::begin(reader, log, &header, temporary.clone())?);
        Ok(Self { copying, temporary, header, seal, slot })
    }

    /// Copies the rest, up to commit `upto`. Both header slots are equal until the name of the
    /// copy is durable, so that an open for writing knows.
    pub(crate) fn complete(&self, upto: Seq) -> Result<LogWriter> {
        let mut writer = self.copying.complete(upto)?;
        writer.put_slot(&self.slot, SECOND_SLOT).map_err(of_the_copy)?;
        Ok(writer)
    }
}

/// Gives the complete copy, which is [prepared](Place::prepare) for it, the ledger's name.
///
/// # Errors
/// `Io`: either file may have the name; `InDoubt`: the copy has it.
pub(crate) fn install(writer: &mut LogWriter, place: &Place, temporary: &str) -> Result<()> {
    let installed = place.put_name(temporary);
    installed.map_err(|e| Error::io("put the new ledger in place as", &place.path(), e))?;
    writer.put_slot(&[0; HEADER_LEN], SECOND_SLOT)
}

/// Writes a ledger with the header `header` and the groups that `fill` hands to its second
/// argument, complete but for its name, and reads it back.
pub(crate) fn write_ledger(
    place: &Place,
    header: Header,
    temporary: &str,
    fill: &mut Fill<'_>,
) -> Result<LogWriter> {
    let (header, slot) = replacement(header, place.seal.as_deref());
    let log = log_place(place, Durability::Os);
    let (path, seal) = (log.path(), place.seal.clone());
    let new = NewLog::write(log, header.clone(), temporary.to_owned())?;
    let (mut writer, file) = new.unnamed();
    let mut group = Group::new(layout(Form::Ledger, place.seal.is_some()));
    let filled = fill(&mut group, &mut |group| {
        writer.append(group)?;
        group.reset();
        Ok(())
    });
    filled.and_then(|()| writer.sync()).map_err(of_the_copy)?;
    writer.put_slot(&slot, SECOND_SLOT).map_err(of_the_copy)?;
    let mut reader = LogReader::new(file, &path, &header, seal, 0, OnDamage::Refuse)?;
    while let Some(group) = reader.next()? {
        group.for_each(&mut |_| Ok(()))?;
    }
    if reader.end() != writer.end() {
        let what = "the new ledger does not read back as it was written";
        return Err(Error::Damaged { path, offset: reader.end().offset, what });
    }
    Ok(writer)
}

/// Fills groups, and hands over each that is full.
pub(crate) type Fill<'a> =
    dyn FnMut(&mut Group, &mut dyn FnMut(&mut Group) -> Result<()>) -> Result<()> + 'a;
