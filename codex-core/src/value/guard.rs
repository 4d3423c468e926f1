//! The limits of encoding and decoding, and the reason of a refusal.

use std::cell::Cell;

/// The maximum nesting of a value, in levels. Each of these is one level: `Some`, a sequence, a
/// tuple, a map, a struct, an enum variant with content. A tuple variant and a struct variant are
/// two. A JSON text has at most as many nested brackets as levels. The JSON decoder itself refuses
/// 128 of them, but its error does not name the reason.
pub(super) const DEPTH_MAX: u32 = 126;

/// The number by which the elements of a value may exceed its bytes. Elements without content, such
/// as those of a `Vec<()>`, take no bytes in bincode, but reading them still takes time.
const EMPTY_ELEMENTS_MAX: usize = 65_536;

/// The state of one encoding or decoding.
///
/// Generic code builds the errors of serde, which may quote a value. The reason of a refusal is a
/// fixed text, and is kept here instead.
#[derive(Debug)]
pub(super) struct Guard {
    why: Cell<Option<&'static str>>,
    elements: Cell<usize>,
    elements_max: usize,
}

/// Returns the depth `levels` below `depth`, or `None` if it exceeds [`DEPTH_MAX`].
#[inline]
pub(super) fn deeper(depth: u32, levels: u32) -> Option<u32> {
    let deeper = depth.saturating_add(levels);
    (deeper <= DEPTH_MAX).then_some(deeper)
}

impl Guard {
    /// Creates the guard of a value of at most `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        let elements_max = len.saturating_add(EMPTY_ELEMENTS_MAX);
        Self { why: Cell::new(None), elements: Cell::new(0), elements_max }
    }

    /// Returns the reason of the refusal, if the guard refused the value.
    pub(super) fn why(&self) -> Option<&'static str> {
        self.why.get()
    }

    /// Records the reason, and returns it as the text of serde's error.
    #[cold]
    pub(super) fn refuse(&self, why: &'static str) -> &'static str {
        self.why.set(Some(why));
        why
    }

    /// Counts the elements of a sequence or map before they are written or read. Returns false if
    /// the value has more elements than allowed.
    #[inline]
    pub(super) fn count(&self, len: usize) -> bool {
        let elements = self.elements.get().saturating_add(len);
        self.elements.set(elements);
        elements <= self.elements_max
    }

    /// Checks the number of written elements against the `len` bytes that were written. The decoder
    /// applies the same limit.
    #[cfg(feature = "bincode")]
    pub(super) fn check_written(&self, len: usize) -> Result<(), &'static str> {
        if self.elements.get() <= len.saturating_add(EMPTY_ELEMENTS_MAX) {
            Ok(())
        } else {
            Err(TOO_MANY)
        }
    }
}

pub(super) const TOO_DEEP: &str = "it is nested deeper than 126 levels";
pub(super) const TOO_MANY: &str = "it has more elements without content than a value may have";
