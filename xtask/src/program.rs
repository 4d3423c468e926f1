//! Running other programs: quietly, in the open, or against the clock.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, IsTerminal, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::Outcome;

/// A program about to be run.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    shown: String,
}

/// How a program ended, with everything it printed in the order it printed it.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` when the time ran out and it was killed.
    pub(crate) status: Option<ExitStatus>,
    /// Both of its streams.
    pub(crate) output: String,
}

impl Program {
    /// The cargo that started this program, in the folder `root`.
    pub(crate) fn cargo(root: &Path) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self { command: Command::new(cargo), shown: "cargo".to_owned() }.at(root)
    }

    /// A program found on the path, or by its path.
    pub(crate) fn new(name: impl AsRef<OsStr>) -> Self {
        let shown = name.as_ref().to_string_lossy().into_owned();
        Self { command: Command::new(name), shown }
    }

    /// Runs it in this folder.
    pub(crate) fn at(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Adds the words of a line, split at spaces.
    pub(crate) fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Adds arguments as they are.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            let _ = write!(self.shown, " {}", arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds to a variable whose value is a list of flags, such as `RUSTFLAGS`.
    pub(crate) fn env_flags(self, name: &str, flags: &str) -> Self {
        let already = std::env::var(name).unwrap_or_default();
        self.env(name, format!("{already} {flags}").trim())
    }

    /// Runs it with this terminal as its own.
    pub(crate) fn open(mut self) -> Outcome<()> {
        let status = self.command.status().map_err(|e| self.not_started(&e))?;
        if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", self.shown)) }
    }

    /// Runs it and gives its standard output; a failure carries its standard error.
    pub(crate) fn read(mut self) -> Outcome<String> {
        let done = self.command.output().map_err(|e| self.not_started(&e))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let errors = String::from_utf8_lossy(&done.stderr);
        Err(format!("`{}` failed ({})\n{errors}", self.shown, done.status))
    }

    /// Runs it and keeps what it prints; a failure carries all of it.
    pub(crate) fn quiet(self) -> Outcome<String> {
        let shown = self.shown.clone();
        let ended = self.run(None, false)?;
        ended.or_error(&shown)
    }

    /// Runs it and keeps what it prints, however it ends.
    pub(crate) fn collect(self) -> Outcome<Ended> {
        self.run(None, false)
    }

    /// Runs it, passing each line on and keeping it too.
    pub(crate) fn echo(self) -> Outcome<Ended> {
        self.run(None, true)
    }

    /// Runs a build: with its progress on a terminal, quietly anywhere else.
    pub(crate) fn progress(self) -> Outcome<()> {
        if std::io::stderr().is_terminal() { self.open() } else { self.quiet().map(drop) }
    }

    /// Runs it at most this long, then kills it.
    pub(crate) fn within(self, limit: Duration) -> Outcome<Ended> {
        self.run(Some(limit), false)
    }

    fn run(mut self, limit: Option<Duration>, echo: bool) -> Outcome<Ended> {
        let pipe = |e: std::io::Error| format!("cannot make a pipe: {e}");
        let (reader, writer) = std::io::pipe().map_err(pipe)?;
        self.command.stdin(Stdio::null());
        self.command.stdout(writer.try_clone().map_err(pipe)?).stderr(writer);
        let mut child = self.command.spawn().map_err(|e| self.not_started(&e))?;
        // The command holds the writing end: while it does, the reader sees no end.
        drop(self.command);
        let lines = lines_of(reader);
        let end = limit.map(|limit| Instant::now() + limit);
        let mut output = String::new();
        loop {
            let wait =
                end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            match lines.recv_timeout(wait) {
                Ok(line) => {
                    if echo {
                        print!("{line}");
                        let _ = std::io::stdout().flush();
                    }
                    output.push_str(&line);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    child.kill().map_err(|e| format!("cannot stop `{}`: {e}", self.shown))?;
                    let _ = child.wait();
                    return Ok(Ended { status: None, output });
                }
            }
        }
        let status = child.wait().map_err(|e| format!("cannot wait for `{}`: {e}", self.shown))?;
        Ok(Ended { status: Some(status), output })
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        format!("cannot start `{}`: {error}", self.shown)
    }
}

impl Ended {
    /// Whether it ended by itself and without an error.
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    fn or_error(self, shown: &str) -> Outcome<String> {
        if self.success() {
            return Ok(self.output);
        }
        Err(format!("`{shown}` failed ({})\n{}", name_of(self.status), self.output))
    }
}

/// Does one part of a command, with its name and its time on one line.
pub(crate) fn part<T>(name: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    print!("  {name:<56} ");
    let _ = std::io::stdout().flush();
    let start = Instant::now();
    let done = work();
    println!("{}", end(done.is_ok(), start));
    done
}

/// As [`part`], beside others: the line is printed at the end.
pub(crate) fn part_beside<T>(name: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let start = Instant::now();
    let done = work();
    println!("  {name:<56} {}", end(done.is_ok(), start));
    done
}

fn end(ok: bool, start: Instant) -> String {
    let word = if ok { "ok" } else { "FAILED" };
    format!("{word:<6} {:>7.1} s", start.elapsed().as_secs_f64())
}

fn name_of(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "out of time".to_owned(), |status| status.to_string())
}

fn lines_of(reader: std::io::PipeReader) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receive
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use super::Program;

    fn shell(script: &str) -> Program {
        Program::new("sh").args(["-c", script])
    }

    #[test]
    fn output_of_both_streams_is_kept_in_order() {
        let output = shell("echo a; echo b >&2; printf c").quiet();
        assert_eq!(output.unwrap(), "a\nb\nc");
    }

    #[test]
    fn a_failure_carries_its_status_and_output() {
        let error = shell("echo why; exit 3").quiet().unwrap_err();
        assert!(error.contains("exit status: 3") && error.ends_with("why\n"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_output_kept() {
        // Without a status: it was killed, and did not end by itself.
        let ended = shell("echo before; exec sleep 600").within(Duration::from_secs(2)).unwrap();
        assert!(ended.status.is_none() && !ended.success());
        assert_eq!(ended.output, "before\n");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Program::new("no-such-program").quiet().unwrap_err();
        assert!(error.starts_with("cannot start `no-such-program`"), "{error}");
    }
}
