//! Functions of the user that options hold.

use std::fmt;
use std::panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// A function of the user. Two values are equal if they are the same function of one call.
pub(crate) struct Callback<F: ?Sized>(Arc<F>);

impl<F: ?Sized> Callback<F> {
    pub(crate) fn new(f: Arc<F>) -> Self {
        Self(f)
    }

    /// Calls the function through `call`. A panic in it does not reach the caller.
    pub(crate) fn run(&self, call: impl FnOnce(&F)) {
        // The panic hook has already printed a panic.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| call(&self.0)));
    }
}

impl<F: ?Sized> Clone for Callback<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: ?Sized> fmt::Debug for Callback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl<F: ?Sized> PartialEq for Callback<F> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

// A panic of the function does not leave this type.
impl<F: ?Sized> UnwindSafe for Callback<F> {}
impl<F: ?Sized> RefUnwindSafe for Callback<F> {}
