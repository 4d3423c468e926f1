//! Reading the segments of a store again, beside its writer.

use super::segments::{Replay, Segments};
use crate::batch::{Op, Seq};
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::Header;
use crate::history::AnchorWatch;
use crate::verify::Verified;

/// Reads the segments that continue the image with this header, up to the commit `upto`, and adds
/// their findings to `found`.
///
/// # Errors
/// The errors of opening; `Abandoned` if `go_on` returned `false`. Without the key of an encrypted
/// store only checksums are checked.
pub(crate) fn verify(
    files: &StoreFiles,
    image: &Header,
    upto: Seq,
    go_on: &dyn Fn() -> bool,
    found: &mut Verified,
) -> Result<()> {
    let segments = Segments::find(files, image)?;
    segments.begin_at(files, image)?;
    let (mut watch, store) = (AnchorWatch::new(None, false), files.path());
    let mut sink = |_: Op<'_>| {
        if go_on() { Ok(()) } else { Err(Error::Abandoned { path: store.clone() }) }
    };
    let mut replay = Replay { upto, ..Replay::new(&mut sink, &mut watch, &store) };
    for state in segments.read(files, OnDamage::Refuse, &mut replay)? {
        found.goes_on(&state);
        found.bytes += state.file_len;
    }
    found.commits = replay.commits;
    Ok(())
}
