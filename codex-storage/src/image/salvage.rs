//! Reading the intact blocks of an image that is damaged.

use super::blocks::{Block, Blocks};
use super::read::{EntryDecoder, ImageReader};
use crate::batch::{Op, TableId};
use crate::convert::Name;
use crate::error::{Error, Result};

/// What is intact of an image.
#[derive(Debug, Default)]
pub(crate) struct Intact {
    /// The number of entries in the intact blocks.
    pub(crate) entries: u64,
    /// The ranges of keys of which blocks are lost, in order.
    pub(crate) lost: Vec<LostKeys>,
    /// The number of lost entries, if the footer is intact.
    pub(crate) lost_entries: Option<u64>,
    /// The damage, in the order of the file.
    pub(crate) faults: Vec<Error>,
}

/// A range of keys, in the order of tables and keys, of which entries are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostKeys {
    /// The last key before the range, or `None` if the range begins with the first key.
    pub after: Option<(Option<TableId>, Vec<u8>)>,
    /// The first key after the range, or `None` if the range has all keys up to the last.
    pub before: Option<(Option<TableId>, Vec<u8>)>,
}

impl LostKeys {
    /// Returns whether `key` lies in the range.
    pub(crate) fn contains(&self, key: &Name) -> bool {
        self.after.as_ref().is_none_or(|after| key > after)
            && self.before.as_ref().is_none_or(|before| key < before)
    }
}

impl ImageReader {
    /// Calls `sink` with the entries of each intact block, in order, and returns what is not
    /// intact. Damage ends nothing: the reading goes on at the next block.
    ///
    /// # Errors
    /// `KeyRequired` if the image is sealed and its key is missing; the errors of `sink`; an error
    /// of a record that a newer build wrote.
    pub(crate) fn salvage(&self, sink: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<Intact> {
        if self.is_sealed() && self.opener.is_none() {
            return Err(Error::KeyRequired { path: self.path.clone() });
        }
        let mut found = Intact::default();
        let mut blocks = Blocks::new(self);
        let mut entries = EntryDecoder::new(self);
        // The range of keys since the last intact block, if a block was lost after it.
        let mut lost: Option<LostKeys> = None;
        loop {
            let error = match blocks.next() {
                Ok(Some(block)) => match take(&block, &mut entries, &mut lost, sink) {
                    Ok(taken) => {
                        found.lost.extend(taken);
                        continue;
                    }
                    Err(error @ (Error::Damaged { .. } | Error::Tampered { .. })) => error,
                    Err(error) => return Err(error),
                },
                Ok(None) => break,
                Err(error) => {
                    blocks.skip();
                    error
                }
            };
            found.faults.push(error);
            lost.get_or_insert_with(|| {
                let after = entries.last().cloned();
                LostKeys { after, before: None }
            });
        }
        found.lost.extend(lost);
        found.entries = entries.count();
        match self.footer() {
            Ok(footer) => found.lost_entries = footer.entries.checked_sub(found.entries),
            Err(error) => found.faults.push(error),
        }
        // The damage is behind the blocks.
        if found.lost_entries == Some(0) {
            found.lost.clear();
        }
        // The counts of the footer and its sections can be checked only if no block is lost.
        if found.faults.is_empty()
            && let Err(error) = self.check(false, &mut |_, _| true)
        {
            found.faults.push(error);
        }
        Ok(found)
    }
}

/// Passes the entries of an intact block to `sink`. Returns the range of lost keys that ends
/// before it.
fn take(
    block: &Block,
    entries: &mut EntryDecoder<'_>,
    lost: &mut Option<LostKeys>,
    sink: &mut dyn FnMut(Op<'_>) -> Result<()>,
) -> Result<Option<LostKeys>> {
    let mut first = None;
    entries.decode(block, &mut |op| {
        if let (None, Op::Set(item)) = (&first, op) {
            first = Some((item.table, item.key.to_vec()));
        }
        sink(op)
    })?;
    Ok(lost.take().map(|lost| LostKeys { before: first, ..lost }))
}
