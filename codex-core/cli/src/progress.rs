//! A bar on stderr that shows how far a long command is, for people at a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use codex_storage::sync::Mutex;

use crate::out::size;

/// A bar on the last line of the terminal. The line is empty again after the bar is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    /// The number of bytes of the work, if it is known.
    total: Option<u64>,
    is_drawn: bool,
    is_shown: bool,
    has_colours: bool,
}

impl Bar {
    /// Returns a bar for work of `total` bytes. It is never drawn if stderr is no terminal, or if a
    /// program reads the output.
    pub(crate) fn new(total: Option<u64>, json: bool) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_shown = io::stderr().is_terminal() && !json && !dumb;
        Self { total, is_drawn: false, is_shown, has_colours: !is_set("NO_COLOR") }
    }

    /// Returns the function that draws a bar for the long calls of the library, or `None` if no bar
    /// is drawn. There is no bar for work that ends before it could be read.
    pub(crate) fn of_calls(json: bool) -> Option<impl Fn(u64, u64) + Send + Sync + 'static> {
        let bar = Self::new(None, json);
        let bar = bar.is_shown.then_some(Mutex::new(bar))?;
        Some(move |done, total| {
            let mut bar = bar.lock();
            if total < CALL_BYTES_MIN {
                return;
            }
            bar.total = Some(total);
            bar.draw(done, &format!("of {}", size(total)));
            if done == total {
                bar.clear();
            }
        })
    }

    /// Draws the bar at `done` bytes, with a text after it.
    pub(crate) fn draw(&mut self, done: u64, text: &str) {
        if !self.is_shown {
            return;
        }
        self.is_drawn = true;
        let mut line = String::from("\r\x1b[K");
        if let Some(total) = self.total {
            let share =
                |of: u64| u128::from(done.min(total)) * u128::from(of) / u128::from(total.max(1));
            let filled = usize::try_from(share(WIDTH)).unwrap_or_default();
            let bar = "#".repeat(filled);
            let rest = " ".repeat(usize::try_from(WIDTH).unwrap_or_default() - filled);
            let (on, off) = if self.has_colours { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
            write!(line, "[{on}{bar}{off}{rest}] {:3}%  ", share(100))
                .expect("a string can be written to");
        }
        // Nothing can be done about a terminal that is gone.
        let _ = write!(io::stderr(), "{line}{text}");
    }

    /// Makes the line of the bar empty.
    fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The number of characters of a bar.
const WIDTH: u64 = 20;
/// The minimum work of a call for which a bar is drawn. Less takes a few milliseconds.
const CALL_BYTES_MIN: u64 = 4 << 20;
