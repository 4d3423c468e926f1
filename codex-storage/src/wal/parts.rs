//! The segments that continue the image in place, for a copy of them in another place.

use super::Wal;
use super::segments::Segment;
use super::start::Start;
use crate::error::Result;
use crate::log::LogEnd;
use crate::storage::LogPart;

impl Wal {
    /// Returns the segments that continue the image in place, oldest first.
    pub(super) fn parts(&mut self) -> Result<Vec<LogPart>> {
        if self.written()?.is_some() {
            self.check_names_now()?;
        }
        let mut parts = Vec::new();
        // The commit with which the segment before the last one of `parts` ends.
        let mut next_base = self.seq;
        if let Some((generation, part)) = self.last_part()? {
            next_base = part.base_seq;
            parts.push((generation, part));
        }
        for earlier in self.earlier.iter().rev() {
            let Segment { header, file, .. } =
                Segment::open(&self.files, &self.image, earlier.generation)?;
            let end = LogEnd { offset: earlier.bytes, seq: next_base, ..LogEnd::base(&header) };
            next_base = header.base_seq;
            parts.push((earlier.generation, LogPart::new(&header, file, &end)));
        }
        // A power cut takes back the commits of a segment without a name, and all later ones.
        parts.retain(|(generation, _)| self.lost.is_none_or(|lost| *generation < lost));
        Ok(parts.into_iter().rev().map(|(_, part)| part).collect())
    }

    /// Returns the segment that takes the next commit, with its generation, if it exists. An empty
    /// one that is made again does not count.
    fn last_part(&self) -> Result<Option<(u64, LogPart)>> {
        if let Some(current) = &self.current {
            return Ok(Some((current.header.generation, current.log.part(&current.header))));
        }
        let Start::Continue(header, state) = &self.start else { return Ok(None) };
        let Segment { file, .. } = Segment::at(&self.files, header.clone())?;
        Ok(Some((header.generation, LogPart::new(header, file, &state.end))))
    }
}
