//! `view`: shows a page about a store to browsers on this machine.

use std::thread;

use clap::Args;
use codexdb::view;

use crate::Outcome;
use crate::failure::Failure;
use crate::out::{Cell, Out};
use crate::target::Target;

/// The options of `view`.
#[derive(Debug, Args)]
pub(crate) struct View {
    #[command(flatten)]
    target: Target,
    /// The port of this machine to listen on; a free one if it is 0
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Show the values of an encrypted store to the browser
    #[arg(long)]
    show_values: bool,
}

impl View {
    #[allow(clippy::print_stderr, reason = "a program talks to its user")]
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let secret = self.target.secret()?;
        let store = self.target.look_with(secret.as_ref())?;
        let mut view = view::View::new(&store).port(self.port).show_values(self.show_values);
        if let Some(secret) = &secret {
            view = view.key(secret.key()?);
        }
        let failed = |error| Failure::file("cannot show the page", error);
        let server = view.serve().map_err(failed)?;
        let address = server.address().map_err(failed)?;
        if out.json {
            out.record(&vec![("address", Cell::Text(address))])?;
        } else {
            out.line(&address)?;
        }
        out.flush()?;
        if out.is_terminal {
            eprintln!("note: the address works once; Ctrl-C ends the page");
        }
        // The signal of Ctrl-C ends the process. Nothing is left to write: the store is read-only.
        loop {
            thread::park();
        }
    }
}
