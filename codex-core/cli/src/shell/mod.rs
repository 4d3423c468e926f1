//! `shell`: the commands of the program on one open store, line by line, with transactions.

mod complete;
mod history;
mod input;
mod statement;
mod words;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use codex_core::{Error, Store, Transaction};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::cli::Command;
use crate::failure::Failure;
use crate::out::{Out, note};
use crate::target::Target;
use crate::{Outcome, change, look, tables};
use history::{History, Keep};
use input::{Input, Script, Terminal};
use statement::{Reader, Statement, without_value};

/// The options of `shell`.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    target: Target,
    /// Open the store for reading only, as other commands that read do
    #[arg(long)]
    read_only: bool,
    /// What the file of earlier lines keeps: all but the values, everything, or nothing. The
    /// default is `keys`, and `none` for an encrypted store
    #[arg(long, value_name = "WHAT", value_enum)]
    history: Option<Keep>,
}

impl Shell {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let secret = self.target.secret()?;
        let secret = secret.as_ref();
        let store = if self.read_only {
            self.target.look_with(secret)?
        } else {
            self.target.write_with(&self.target.options(secret)?)?
        };
        let is_interrupted = Arc::new(AtomicBool::new(false));
        let mut input: Box<dyn Input> = if io::stdin().is_terminal() && out.is_terminal {
            let failed = |error| Failure::file("cannot wait for Ctrl-C", error);
            // The second Ctrl-C in one command ends the program, as it does elsewhere.
            flag::register_conditional_default(SIGINT, Arc::clone(&is_interrupted))
                .and_then(|_| flag::register(SIGINT, Arc::clone(&is_interrupted)))
                .map_err(failed)?;
            out.stop_if(Arc::clone(&is_interrupted));
            let keep = self.history.unwrap_or(match secret {
                Some(_) => Keep::None,
                None => Keep::Keys,
            });
            Box::new(Terminal::new(&store, &self.target.path, History::open(keep))?)
        } else {
            Box::new(Script::new(io::stdin().lock()))
        };
        let reader = Reader::new(&self.target.path);
        let json = out.json;
        let mut session =
            Session { store: &store, reader, input: &mut *input, out, json, is_interrupted };
        let ended = session.lines(None);
        drop(input);
        // Order: the store is closed also after an error, which is the first to be told.
        let closed = store.close();
        ended?;
        closed?;
        Ok(true)
    }
}

/// The lines of one shell, and the store that they are about.
struct Session<'a> {
    store: &'a Store,
    reader: Reader,
    input: &'a mut dyn Input,
    out: &'a mut Out,
    /// Whether all output is JSON.
    json: bool,
    is_interrupted: Arc<AtomicBool>,
}

/// The reason why lines, or a transaction, end.
enum End {
    Commit,
    Rollback,
    Exit,
}

/// The reason why a transaction writes nothing.
enum Undone {
    Rollback,
    Exit,
    Failed(Failure),
}

impl Session<'_> {
    /// Acts on lines until they end, or until the transaction does.
    fn lines(&mut self, mut tx: Option<&mut Transaction>) -> Outcome<End> {
        while let Some(line) = self.input.next(tx.is_some())? {
            self.is_interrupted.store(false, Ordering::SeqCst);
            let acted = self.line(&line, tx.as_deref_mut());
            // Order: output from before an error is printed before the error.
            let printed = self.out.flush();
            match acted.and_then(|end| printed.map(|()| end)) {
                Ok(None) | Err(Failure::Interrupted) => {}
                Ok(Some(end)) => return Ok(end),
                Err(failure) => self.input.refuse(failure)?,
            }
        }
        Ok(End::Exit)
    }

    /// Acts on one line.
    fn line(&mut self, line: &str, tx: Option<&mut Transaction>) -> Outcome<Option<End>> {
        let statement = self.reader.read(line);
        if let Ok(statement) = &statement {
            self.input.remember(line, &without_value(line, statement));
        } else {
            // A line that cannot be read may have a value anywhere.
            self.input.remember(line, "");
        }
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        match (statement?, tx) {
            (Statement::Nothing, _) => {}
            (Statement::Help(text), _) => self.out.line(&text)?,
            (Statement::Begin, None) => return self.transact(),
            (Statement::Begin, Some(_)) => return usage("a transaction has begun already"),
            (Statement::Commit, Some(_)) => return Ok(Some(End::Commit)),
            (Statement::Rollback, Some(_)) => return Ok(Some(End::Rollback)),
            (Statement::Commit | Statement::Rollback, None) => {
                return usage("no transaction has begun; see `help begin`");
            }
            (Statement::Exit, _) => return Ok(Some(End::Exit)),
            (Statement::Run { command, json }, tx) => {
                self.out.json = self.json || json;
                match tx {
                    Some(tx) => self.run_within(&command, tx)?,
                    None => self.run(&command)?,
                };
            }
        }
        Ok(None)
    }

    /// Acts on lines within a transaction, and commits their writes.
    fn transact(&mut self) -> Outcome<Option<End>> {
        let mut is_first = true;
        let done = self.store.try_transaction(|tx| {
            // The lines cannot be acted on once more, as the library would do after a conflict.
            if !std::mem::take(&mut is_first) {
                return Err(Undone::Failed(Failure::Conflict));
            }
            match self.lines(Some(tx)).map_err(Undone::Failed)? {
                End::Commit => Ok(()),
                End::Rollback => Err(Undone::Rollback),
                End::Exit => Err(Undone::Exit),
            }
        });
        match done {
            Ok(()) | Err(Undone::Rollback) => Ok(None),
            Err(Undone::Exit) => {
                note("the transaction was not committed");
                Ok(Some(End::Exit))
            }
            Err(Undone::Failed(failure)) => Err(failure),
        }
    }

    /// Runs a command within a transaction.
    fn run_within(&mut self, command: &Command, tx: &mut Transaction) -> Outcome {
        let out = &mut *self.out;
        match command {
            Command::Get(get) if get.at().is_none() => get.on(tx, out),
            Command::Keys(keys) => keys.on(tx, out),
            Command::Scan(scan) => scan.on(tx, out),
            Command::Count(count) => count.on(tx, out),
            Command::Set(set) => set.within(tx, &set.value()?),
            Command::Remove(remove) => change::Remove::tell(remove.within(tx)?, out),
            _ => {
                let text = "only get, keys, scan, count, set and remove are part of a \
                            transaction; `commit` or `rollback` first";
                Err(Failure::Usage(text.to_owned()))
            }
        }
    }

    /// Runs a command on the store.
    fn run(&mut self, command: &Command) -> Outcome {
        let (store, out) = (self.store, &mut *self.out);
        match command {
            Command::Get(get) => match get.at() {
                Some(at) => get.on(&at.of(store)?, out),
                None => get.on(store, out),
            },
            Command::Keys(keys) => keys.on(store, out),
            Command::Scan(scan) => scan.on(store, out),
            Command::Count(count) => count.on(store, out),
            Command::Du(du) => du.on(store, out),
            Command::Tables(_) => tables::Tables::on(store, out),
            Command::Stats(_) => look::Stats::on(store, out),
            Command::Info(info) => info.tell(Some(store), out),
            Command::Verify(_) => look::Verify::on(store, out),
            Command::Log(log) => log.on(store, out),
            Command::History(history) => history.on(store, out),
            Command::Set(set) => set.on(store, &set.value()?),
            Command::Edit(edit) => edit.on(store, out),
            Command::Remove(remove) => change::Remove::tell(remove.on(store)?, out),
            Command::Clear(clear) => clear.on(store, out),
            Command::Checkpoint(_) => change::Checkpoint::on(store),
            _ => Err(Failure::Usage("the shell has no such command".to_owned())),
        }
    }
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests;
