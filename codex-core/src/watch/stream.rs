//! A watch as a stream of async code, with the feature `stream`.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{Notice, Watch};

/// The notices of a [`Watch`] as a [`Stream`]. [`Watch::stream`] returns it.
#[derive(Debug)]
#[must_use = "a stream does nothing until it is polled"]
pub struct WatchStream {
    watch: Watch,
}

impl Watch {
    /// Returns the watch as a [`Stream`], for the combinators and macros of async code. It ends
    /// like the watch, and any runtime can poll it.
    ///
    /// ```
    /// # use codex_core::{Notice, Store};
    /// # use futures_core::Stream;
    /// fn notices(store: &Store) -> codex_core::Result<impl Stream<Item = Notice> + use<>> {
    ///     Ok(store.watch("user/")?.stream())
    /// }
    /// # let store = Store::in_memory()?;
    /// # let mut notices = std::pin::pin!(notices(&store)?);
    /// # store.close()?;
    /// # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    /// # assert!(matches!(notices.as_mut().poll_next(&mut cx), std::task::Poll::Ready(None)));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn stream(self) -> WatchStream {
        WatchStream { watch: self }
    }
}

impl Stream for WatchStream {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        self.watch.poll_next(cx)
    }
}
