//! Values of a header, other than its tag, that are computed with the root key.

use std::ops::Range;

use super::{FileKind, HEADER_LEN, Header};
use crate::seal::Seal;

impl Header {
    /// Returns the header of this segment, which a rekey makes under the root key `fresh`, with the
    /// proof of this under the root key `before`.
    pub(crate) fn proven_stray(self, before: &dyn Seal, fresh: &dyn Seal) -> Self {
        let stray_proof = before.header_tag(&stray_input(&self.encode(Some(fresh))));
        Self { stray_proof, ..self }
    }

    /// Returns a tag by which tools without the key compare the states of encrypted images. Two
    /// images under one root key have the same tag if they have the same history. Zeros in other
    /// files.
    pub(super) fn state_tag(&self, seal: Option<&dyn Seal>) -> [u8; STATE_TAG_LEN] {
        let mut tag = [0; STATE_TAG_LEN];
        if let (FileKind::Image, Some(seal)) = (self.kind, seal) {
            // The input of a header tag has 480 bytes and begins with the signature. This input
            // differs in both, so the two kinds of tags never agree.
            let full = seal.header_tag(&[STATE_LABEL, &self.base_digest].concat());
            tag.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        }
        tag
    }
}

/// Returns the input of the proof that a rekey made the segment with this header. It is shorter
/// than the input of a header tag and does not begin with the signature.
pub(super) fn stray_input(bytes: &[u8; HEADER_LEN]) -> Vec<u8> {
    [STRAY_LABEL, &bytes[..ENVELOPE_OFFSET]].concat()
}

/// Converts a digest between its true value and its value in the header of the file `file_id`. The
/// digest is a function of the plaintext, so an encrypted store masks it.
pub(super) fn masked(digest: &[u8; 32], seal: Option<&dyn Seal>, file_id: &[u8; 16]) -> [u8; 32] {
    let mut out = *digest;
    if let Some(seal) = seal {
        // The same exclusive or masks and unmasks.
        out.iter_mut().zip(seal.digest_pad(file_id)).for_each(|(to, pad)| *to ^= pad);
    }
    out
}

const STRAY_LABEL: &[u8] = b"codexdb stray 1";
const ENVELOPE_OFFSET: usize = 224;
const STATE_LABEL: &[u8] = b"codexdb state 1";
pub(super) const STATE_TAG_LEN: usize = 8;
/// The state that an encrypted image holds, for tools without the key.
pub(super) const STATE_FIELD: Range<usize> = 216..224;
