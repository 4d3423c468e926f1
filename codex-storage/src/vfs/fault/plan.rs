//! The rules of a test for its simulated disk: which calls fail, how, and when.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use super::{Call, CallKind};

/// An error that the simulated disk can return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The medium fails (EIO). A sync with this error dooms the changes that it should have
    /// written.
    Eio,
    /// The disk is full (ENOSPC). Only for calls that take space.
    Enospc,
    /// A signal interrupted the call (EINTR). The directory of the operating system repeats such
    /// calls itself, so this error shows that callers treat it like any other.
    Eintr,
    /// A write stops after this number of bytes, which are written (`WriteZero`). Only for writes.
    ShortWrite(usize),
    /// The file system does not support the call (`Unsupported`). Only for reflinks.
    Unsupported,
}

impl Fault {
    /// Returns the error of the call.
    pub fn error(self) -> io::Error {
        match self {
            Self::Eio => numbered(5, ErrorKind::Other),
            Self::Enospc => numbered(28, ErrorKind::StorageFull),
            Self::Eintr => numbered(4, ErrorKind::Interrupted),
            Self::ShortWrite(len) => {
                io::Error::new(ErrorKind::WriteZero, format!("only {len} bytes were written"))
            }
            Self::Unsupported => ErrorKind::Unsupported.into(),
        }
    }

    /// Returns true if a call of this kind can return this error.
    pub fn applies_to(self, kind: CallKind) -> bool {
        match self {
            Self::Eio | Self::Eintr => true,
            Self::Enospc => kind.takes_space(),
            Self::ShortWrite(_) => kind == CallKind::Write,
            Self::Unsupported => kind == CallKind::Reflink,
        }
    }
}

/// Whether an event happens before or after the effect of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The call has no effect.
    Before,
    /// The call has its full effect, but returns an error.
    After,
}

/// The duration of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// One call only.
    Once,
    /// The first call and each later one to which the rule applies.
    Sticky,
}

/// The set of calls to which a rule applies.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    kinds: Option<Vec<CallKind>>,
    pattern: Option<String>,
    bytes: Option<Range<u64>>,
}

impl Calls {
    /// Returns the set of all calls.
    pub fn any() -> Self {
        Self::default()
    }

    /// Returns the set of the calls of one kind.
    pub fn of(kind: CallKind) -> Self {
        Self::among(&[kind])
    }

    /// Returns the set of the calls of these kinds.
    pub fn among(kinds: &[CallKind]) -> Self {
        Self { kinds: Some(kinds.to_vec()), ..Self::default() }
    }

    /// Restricts the set to files whose name (or second name) matches `pattern`. A `*` matches any
    /// number of characters.
    #[must_use]
    pub fn on(mut self, pattern: &str) -> Self {
        self.pattern = Some(pattern.to_owned());
        self
    }

    /// Restricts the set to calls that touch any of these bytes of a file, like a bad sector.
    #[must_use]
    pub fn at(mut self, bytes: Range<u64>) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Returns true if `call` is in the set.
    pub fn include(&self, call: &Call) -> bool {
        let kind_fits = self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&call.kind));
        let fits = |name: &Arc<str>, pattern: &str| matches_pattern(pattern, name);
        let name_fits = self.pattern.as_ref().is_none_or(|pattern| {
            fits(&call.name, pattern) || call.to.as_ref().is_some_and(|to| fits(to, pattern))
        });
        let overlaps = |bytes: &Range<u64>| {
            bytes.start < call.offset.saturating_add(call.len) && call.offset < bytes.end
        };
        kind_fits && name_fits && self.bytes.as_ref().is_none_or(overlaps)
    }
}

/// The active rules.
#[derive(Debug, Default)]
pub(super) struct Plan {
    rules: Vec<Rule>,
    pub(super) fired: u64,
}

#[derive(Debug)]
struct Rule {
    calls: Calls,
    start: FirstCall,
    strike: Strike,
    lasting: Lasting,
    spent: bool,
}

/// The first call that a rule affects.
#[derive(Debug, Clone, Copy)]
pub(super) enum FirstCall {
    /// The first call of its set with this index or a higher one.
    Index(u64),
    /// The call of its set that follows this number of other calls of the set.
    After(u64),
}

/// The event at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    Fail(Fault, Side),
    CutPower(Side),
    Kill(Side),
}

impl Plan {
    pub(super) fn add(&mut self, calls: Calls, start: FirstCall, strike: Strike, lasting: Lasting) {
        self.rules.push(Rule { calls, start, strike, lasting, spent: false });
    }

    /// Returns the event at `call`. A power cut or a kill precedes errors, and older rules precede
    /// newer ones.
    pub(super) fn strike(&mut self, call: &Call) -> Option<Strike> {
        let mut found = None;
        for rule in &mut self.rules {
            if rule.strikes(call) {
                // A power cut or a kill replaces an earlier event; an error counts only if there is
                // none.
                let cuts = !matches!(rule.strike, Strike::Fail(..));
                found = found.filter(|_| !cuts).or(Some(rule.strike));
            }
        }
        self.fired += u64::from(found.is_some());
        found
    }
}

impl Rule {
    fn strikes(&mut self, call: &Call) -> bool {
        if self.spent || !self.calls.include(call) {
            return false;
        }
        // Calls of the set before the first affected one do not match.
        match &mut self.start {
            FirstCall::Index(index) if call.index < *index => return false,
            FirstCall::After(before) if *before > 0 => {
                *before -= 1;
                return false;
            }
            FirstCall::Index(_) | FirstCall::After(_) => {}
        }
        // A single fault ends at this call even if the call cannot return it, so that it never
        // affects a later call.
        self.spent = self.lasting == Lasting::Once;
        match self.strike {
            Strike::Fail(fault, _) => fault.applies_to(call.kind),
            Strike::CutPower(_) | Strike::Kill(_) => true,
        }
    }
}

fn numbered(number: i32, kind: ErrorKind) -> io::Error {
    // The numbers are the same on every Unix.
    if cfg!(unix) { io::Error::from_raw_os_error(number) } else { kind.into() }
}

/// Returns true if `name` matches `pattern`, in which a `*` matches any number of characters.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    // The rest of the pattern may match from any later position.
    let mut starts = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    starts.any(|at| name.get(at..).is_some_and(|name| matches_pattern(rest, name)))
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn a_star_stands_for_any_number_of_characters() {
        for (pattern, name, expected) in [
            ("a.db", "a.db", true),
            ("a.db", "a.db.wal", false),
            ("*.wal.*", "a.db.wal.0001", true),
            ("*.wal.*", "a.db.bak.1", false),
            ("*", "", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a*a", "xa", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }
}
