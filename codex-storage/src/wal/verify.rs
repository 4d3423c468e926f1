//! Reading the segments of a store again, beside its writer.

use super::segments::{Replay, Segments};
use crate::config::OnDamage;
use crate::error::Result;
use crate::files::StoreFiles;
use crate::header::Header;
use crate::history::AnchorWatch;
use crate::verify::Verified;

/// Reads the segments that continue the image with this header, and adds their findings to `found`.
///
/// # Errors
/// The errors of opening. Without the key of an encrypted store only checksums are checked.
pub(crate) fn verify(files: &StoreFiles, image: &Header, found: &mut Verified) -> Result<()> {
    let segments = Segments::find(files, image)?;
    segments.begin_at(files, image)?;
    let (mut watch, store) = (AnchorWatch::new(None, false), files.path());
    let mut sink = |_: crate::batch::Op<'_>| Ok(());
    let mut replay = Replay { sink: &mut sink, watch: &mut watch, store: &store, commits: 0 };
    for state in segments.read(files, OnDamage::Refuse, &mut replay)? {
        found.goes_on(&state);
        found.bytes += state.file_len;
    }
    found.commits = replay.commits;
    Ok(())
}
