//! What goes wrong, and when: the rules of a test for its simulated disk.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Call, CallKind};

/// An error that the simulated disk can be told to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The medium fails (EIO). A sync that gives it dooms what it should have written.
    Eio,
    /// The disk is full (ENOSPC); only for calls that take space.
    Enospc,
    /// A signal came (EINTR). The directory of the operating system repeats such calls itself, so
    /// this shows that callers treat it as any other error.
    Eintr,
    /// A write stops after so many bytes, which are written (`WriteZero`); only for writes.
    ShortWrite(usize),
    /// The file system cannot do this (`Unsupported`); only for reflinks.
    Unsupported,
}

impl Fault {
    /// The error that the call gives.
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

    /// Whether a call of this kind can have it.
    pub fn applies_to(self, kind: CallKind) -> bool {
        match self {
            Self::Eio | Self::Eintr => true,
            Self::Enospc => kind.takes_space(),
            Self::ShortWrite(_) => kind == CallKind::Write,
            Self::Unsupported => kind == CallKind::Reflink,
        }
    }
}

/// Whether something happens before a call has its effect, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The call does nothing.
    Before,
    /// The call does all it should, but its caller is told that it failed.
    After,
}

/// Whether a fault goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// It strikes one call.
    Once,
    /// It strikes that call and every later one that the rule is about.
    Sticky,
}

/// Which calls a rule is about.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    kinds: Option<Vec<CallKind>>,
    pattern: Option<String>,
    bytes: Option<Range<u64>>,
}

impl Calls {
    /// Every call.
    pub fn any() -> Self {
        Self::default()
    }

    /// The calls of one kind.
    pub fn of(kind: CallKind) -> Self {
        Self::among(&[kind])
    }

    /// The calls of these kinds.
    pub fn among(kinds: &[CallKind]) -> Self {
        Self { kinds: Some(kinds.to_vec()), ..Self::default() }
    }

    /// Only those to files whose name (or second name) matches `pattern`, where a `*` stands for
    /// any number of characters.
    #[must_use]
    pub fn on(mut self, pattern: &str) -> Self {
        self.pattern = Some(pattern.to_owned());
        self
    }

    /// Only those to a file that are about any of these bytes: a bad sector.
    #[must_use]
    pub fn at(mut self, bytes: Range<u64>) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Whether `call` is one of them.
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

/// The rules that are in force.
#[derive(Debug, Default)]
pub(super) struct Plan {
    rules: Vec<Rule>,
    delays: Vec<(Calls, Duration)>,
    pub(super) fired: u64,
}

#[derive(Debug)]
struct Rule {
    calls: Calls,
    start: Start,
    strike: Strike,
    lasting: Lasting,
    spent: bool,
}

/// When a rule begins to strike.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// At the call with this index.
    Index(u64),
    /// At the call of those it is about that has so many before it.
    After(u64),
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    Fail(Fault, Side),
    CutPower(Side),
    Kill(Side),
}

impl Plan {
    pub(super) fn add(&mut self, calls: Calls, start: Start, strike: Strike, lasting: Lasting) {
        self.rules.push(Rule { calls, start, strike, lasting, spent: false });
    }

    pub(super) fn delay(&mut self, calls: Calls, duration: Duration) {
        self.delays.push((calls, duration));
    }

    pub(super) fn delay_of(&self, call: &Call) -> Duration {
        let delays = self.delays.iter().filter(|(calls, _)| calls.include(call));
        delays.map(|(_, duration)| *duration).sum()
    }

    /// What happens to `call`: a power cut or a kill before errors, and older rules before newer
    /// ones.
    pub(super) fn strike(&mut self, call: &Call) -> Option<Strike> {
        let mut found = None;
        for rule in &mut self.rules {
            if rule.strikes(call) {
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
        match &mut self.start {
            Start::Index(index) if call.index < *index => return false,
            Start::After(before) if *before > 0 => {
                *before -= 1;
                return false;
            }
            Start::Index(_) | Start::After(_) => {}
        }
        // A single fault that the call cannot have lapses: it must not strike some later call.
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

fn matches_pattern(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
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
