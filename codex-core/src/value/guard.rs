//! The limits that encoding and decoding share, and the reason of a refusal.

use std::cell::Cell;

/// The deepest nesting of a value. Each of these is one level: `Some`, a sequence, a tuple, a map,
/// a struct, an enum variant with content; a tuple or struct variant is two. In JSON brackets are
/// never more than levels; its decoder refuses 128 of them, with a text that does not say so.
pub(super) const DEPTH_MAX: u32 = 126;

/// How many more elements than bytes a value may have: elements without content, like those of a
/// `Vec<()>`, take no byte in bincode, and reading them takes time all the same.
const EMPTY_ELEMENTS_MAX: usize = 65_536;

/// Passed along one encoding or decoding.
///
/// Serde's errors are built by generic code and may quote a value; the reason of a refusal is a
/// fixed phrase and is kept here.
#[derive(Debug)]
pub(super) struct Guard {
    why: Cell<Option<&'static str>>,
    elements: Cell<usize>,
    elements_max: usize,
}

/// The number of levels after `levels` more; `None` if these are too many.
#[inline]
pub(super) fn deeper(depth: u32, levels: u32) -> Option<u32> {
    let deeper = depth.saturating_add(levels);
    (deeper <= DEPTH_MAX).then_some(deeper)
}

impl Guard {
    /// For a value of at most `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        let elements_max = len.saturating_add(EMPTY_ELEMENTS_MAX);
        Self { why: Cell::new(None), elements: Cell::new(0), elements_max }
    }

    /// The reason of the refusal, if it came from here.
    pub(super) fn why(&self) -> Option<&'static str> {
        self.why.get()
    }

    /// Notes the reason and returns the text for serde's error.
    #[cold]
    pub(super) fn refuse(&self, why: &'static str) -> &'static str {
        self.why.set(Some(why));
        why
    }

    /// Counts the elements of a sequence or map before they are written or read; whether there
    /// may be so many.
    #[inline]
    pub(super) fn count(&self, len: usize) -> bool {
        let elements = self.elements.get().saturating_add(len);
        self.elements.set(elements);
        elements <= self.elements_max
    }

    /// Checks the elements that were written against the `len` bytes that they took, as the
    /// decoder will.
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
