//! `completions` and `man`: files for shells and for the manual, from the command line itself.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use crate::Outcome;
use crate::cli::Cli;
use crate::failure::Failure;
use crate::out::Out;

/// The options of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "codexdb", &mut text);
        out.bytes(&text)?;
        Ok(true)
    }
}

/// The options of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command whose page is printed, such as `get` or `backup list`; the program if it is
    /// left out
    command: Vec<String>,
}

impl Man {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let mut root = Cli::command();
        // The names of the subcommands are complete after this call.
        root.build();
        let mut command = &root;
        for name in &self.command {
            let unknown = || Failure::Usage(format!("there is no command `{name}`"));
            command = command.find_subcommand(name).ok_or_else(unknown)?;
        }
        let mut text = Vec::new();
        Page::new(command.clone()).render(&mut text)?;
        out.bytes(&text)?;
        Ok(true)
    }
}
