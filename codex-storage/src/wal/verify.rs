//! Re-reading the segments of a store, beside its writer.

use super::segments::{Replay, Segments};
use crate::config::OnDamage;
use crate::error::Result;
use crate::header::Header;
use crate::history::AnchorWatch;
use crate::image::Place;
use crate::verify::Verified;

/// Reads the segments that continue the image with this header, and adds what it finds.
///
/// # Errors
/// As opening. Without the key of an encrypted store the checksums alone speak for its segments.
pub(crate) fn verify(place: &Place, image: &Header, found: &mut Verified) -> Result<()> {
    let segments = Segments::find(place, image)?;
    segments.begin_at(place, image)?;
    let (mut watch, store) = (AnchorWatch::new(None, false), place.path());
    let mut sink = |_: crate::batch::Op<'_>| Ok(());
    let mut replay = Replay { sink: &mut sink, watch: &mut watch, store: &store, commits: 0 };
    for (at, segment) in segments.live.iter().enumerate() {
        let next = segments.live.get(at + 1).map(|next| &next.header);
        let state = segment.read(place, next, OnDamage::Refuse, &mut replay)?;
        found.goes_on(&state);
        found.bytes += state.file_len;
    }
    found.commits = replay.commits;
    Ok(())
}
