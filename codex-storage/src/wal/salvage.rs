//! Reading the intact commits of a log whose files may be damaged.

use super::segments::Segment;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::Header;
use crate::history::Position;
use crate::main_file::segments;
use crate::names::Role;
use crate::storage::OpSink;

/// What is intact of the log after an image.
#[derive(Debug)]
pub(crate) struct IntactLog {
    /// The segments of which commits were read, with the number of these commits.
    pub(crate) segments: Vec<(String, u64)>,
    /// The end of the last intact commit.
    pub(crate) end: Position,
    /// The damage that ended the reading, and files that do not belong to the log.
    pub(crate) faults: Vec<Error>,
}

/// Calls `sink` with the operations of the commits that follow the image with this header, up to
/// the first damage. The segments are found by the history with which they begin, so the image may
/// be an earlier one, such as a backup.
///
/// # Errors
/// The errors of `sink`, and an error of a record that a newer build wrote.
pub(crate) fn salvage(
    files: &StoreFiles,
    image: &Header,
    sink: &mut OpSink<'_>,
) -> Result<IntactLog> {
    let end = Position { seq: image.base_seq, digest: image.base_digest };
    let mut log = IntactLog { segments: Vec::new(), end, faults: Vec::new() };
    let mut generations: Vec<u64> = segments(&files.vfs, files.names.main())?
        .iter()
        .filter_map(|name| match files.names.role(name) {
            Some(Role::Segment(generation)) if generation > image.generation => Some(generation),
            _ => None,
        })
        .collect();
    generations.sort_unstable();
    let mut neighbour = None;
    for &generation in &generations {
        if let Some(neighbour) = neighbour
            && Segment::is_stray(files, image, generation, neighbour).unwrap_or(false)
        {
            break;
        }
        let segment = match Segment::open(files, image, generation) {
            Ok(segment) => segment,
            Err(error) => {
                log.faults.push(error);
                continue;
            }
        };
        let header = &segment.header;
        let base = Position { seq: header.base_seq, digest: header.base_digest };
        if base != log.end {
            log.faults.push(if base.seq > log.end.seq {
                Error::Gap { path: segment.path, expected: log.end.seq, found: base.seq }
            } else {
                Error::ForeignLog { path: segment.path }
            });
            continue;
        }
        neighbour = Some(header.file_id);
        let commits = log.read(files, &segment, sink)?;
        log.segments.push((files.names.segment(generation), commits));
    }
    let is_linked = image.next_generation != 0;
    if is_linked && !generations.contains(&image.next_generation) {
        let name = files.names.segment(image.next_generation);
        log.faults.push(Error::LogMissing { path: files.path(), log: name });
    }
    Ok(log)
}

impl IntactLog {
    /// Reads the commits of a segment up to the first damage. Returns their number.
    fn read(
        &mut self,
        files: &StoreFiles,
        segment: &Segment,
        sink: &mut OpSink<'_>,
    ) -> Result<u64> {
        let mut reader = segment.reader(files, segment.header.base_seq, OnDamage::Refuse)?;
        let mut commits = 0;
        loop {
            match reader.next() {
                Ok(Some(group)) => {
                    group.for_each(sink)?;
                    commits += u64::from(group.count);
                }
                Ok(None) => break,
                Err(error) => {
                    self.faults.push(error);
                    break;
                }
            }
            let end = reader.end();
            self.end = Position { seq: end.seq, digest: end.digest };
        }
        Ok(commits)
    }
}
