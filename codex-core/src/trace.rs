//! The spans and events of the feature `tracing`. Without it, each function is empty.
//!
//! They show paths, names of files, numbers and error texts, and no key, value or secret. A
//! subscriber is code of the program: none of these functions is called while a lock on memory, the
//! disk or the queue is held, and a panic of a subscriber has the effect of one of the caller.

use std::path::Path;

use codex_storage::storage::Cut;

use crate::error::Error;

/// A span that has begun. Dropping it ends it.
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

/// Begins a span with the level and the name.
macro_rules! span {
    ($level:ident, $name:literal $(, $field:ident = $value:expr)*) => {
        Span {
            #[cfg(feature = "tracing")]
            _entered: tracing::span!(
                target: TARGET, tracing::Level::$level, $name $(, $field = %$value)*
            )
            .entered(),
        }
    };
}

/// Makes an event.
macro_rules! event {
    ($level:ident, $text:literal $(, $field:ident = $value:expr)*) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: TARGET, tracing::Level::$level, $($field = %$value,)* $text)
    };
}

/// The opening of a store.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nothing shows it"))]
pub(crate) fn open(path: &Path) -> Span {
    span!(INFO, "open", path = path.display())
}

/// The reading of the files of a store.
pub(crate) fn recovery() -> Span {
    span!(INFO, "recovery")
}

/// The making of one group of commits.
pub(crate) fn commit_group() -> Span {
    span!(TRACE, "commit_group")
}

/// The writing of an image.
pub(crate) fn checkpoint() -> Span {
    span!(INFO, "checkpoint")
}

/// The making of a backup.
pub(crate) fn backup() -> Span {
    span!(INFO, "backup")
}

/// An attempt of the archive to send what is new.
#[cfg(feature = "remote")]
pub(crate) fn archive() -> Span {
    span!(INFO, "archive")
}

/// A change of the root key.
#[cfg(feature = "crypto")]
pub(crate) fn rekey() -> Span {
    span!(INFO, "rekey")
}

/// A tail that recovery left out.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nothing shows it"))]
pub(crate) fn cut_tail(cut: &Cut) {
    event!(
        WARN,
        "the end of the log was cut",
        file = cut.file,
        offset = cut.offset,
        bytes = cut.bytes,
        seq = cut.seq
    );
}

/// A backup that failed.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nothing shows it"))]
pub(crate) fn backup_failed(error: &Error) {
    event!(WARN, "a backup failed", error = error);
}

/// An attempt of the archive that failed.
#[cfg(feature = "remote")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nothing shows it"))]
pub(crate) fn archive_failed(error: &Error) {
    event!(WARN, "the archive is behind", error = error);
}

/// A store that refuses writes from now on.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nothing shows it"))]
pub(crate) fn poisoned(reason: &str) {
    event!(ERROR, "the store refuses writes until it is opened again", reason = reason);
}

#[cfg(feature = "tracing")]
const TARGET: &str = "codex_core";
