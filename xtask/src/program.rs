//! Runs other programs: quietly, with visible output, or with a time limit.

use std::io::{self, BufRead, BufReader, IsTerminal, PipeReader, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// The end of a program, with its whole output in the order of printing.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit status; `None` if the program was killed because its time was over.
    pub(crate) status: Option<ExitStatus>,
    /// Standard output and standard error.
    pub(crate) output: String,
}

impl Ended {
    /// Returns true if the program ended by itself and without an error.
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Methods to run a [`Command`] that the standard library does not have.
pub(crate) trait Run {
    /// Adds the words of a line as arguments. The line is split at spaces.
    fn words(&mut self, line: &str) -> &mut Self;

    /// Appends to an environment variable whose value is a list of flags, such as `RUSTFLAGS`.
    fn env_flags(&mut self, name: &str, flags: &str) -> &mut Self;

    /// Runs the command on this terminal.
    fn open(&mut self) -> Outcome<()>;

    /// Runs the command and returns its standard output.
    fn read(&mut self) -> Outcome<String>;

    /// Runs the command and returns both of its streams. An error contains them too.
    fn quiet(&mut self) -> Outcome<String>;

    /// Runs a build. Shows its progress on a terminal, and is quiet otherwise.
    fn progress(&mut self) -> Outcome<()> {
        if io::stderr().is_terminal() { self.open() } else { self.quiet().map(drop) }
    }

    /// Runs the command and returns both of its streams, even if it fails. Kills it after `limit`.
    /// With `echo`, also prints each line.
    fn collect(&mut self, limit: Option<Duration>, echo: bool) -> Outcome<Ended>;
}

impl Run for Command {
    fn words(&mut self, line: &str) -> &mut Self {
        self.args(line.split_whitespace())
    }

    fn env_flags(&mut self, name: &str, flags: &str) -> &mut Self {
        let already = std::env::var(name).unwrap_or_default();
        self.env(name, format!("{already} {flags}").trim())
    }

    fn open(&mut self) -> Outcome<()> {
        let status = self.status().map_err(|e| not_started(self, &e))?;
        if status.success() { Ok(()) } else { Err(failed(self, status, "")) }
    }

    fn read(&mut self) -> Outcome<String> {
        let done = self.output().map_err(|e| not_started(self, &e))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        Err(failed(self, done.status, &String::from_utf8_lossy(&done.stderr)))
    }

    fn quiet(&mut self) -> Outcome<String> {
        let Ended { status, output } = self.collect(None, false)?;
        match status {
            Some(status) if !status.success() => Err(failed(self, status, &output)),
            _ => Ok(output),
        }
    }

    fn collect(&mut self, limit: Option<Duration>, echo: bool) -> Outcome<Ended> {
        let pipe = |e: io::Error| format!("cannot make a pipe: {e}");
        // One pipe for both streams keeps the order of their lines.
        let (reader, writer) = io::pipe().map_err(pipe)?;
        self.stdin(Stdio::null()).stdout(writer.try_clone().map_err(pipe)?).stderr(writer);
        let started = self.spawn().map_err(|e| not_started(self, &e));
        // The command owns the writing ends of the pipe. The reader sees no end while they are
        // open.
        self.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = started?;
        let lines = lines_of(reader);
        let end = limit.map(|limit| Instant::now() + limit);
        let mut output = String::new();
        loop {
            // Wait for the next line, at most until the limit.
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            match lines.recv_timeout(left.unwrap_or(Duration::MAX)) {
                Ok(line) => {
                    if echo {
                        print!("{line}");
                        let _ = io::stdout().flush();
                    }
                    output.push_str(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill().map_err(|e| format!("cannot stop {}: {e}", shown(self)))?;
                    let _ = child.wait();
                    return Ok(Ended { status: None, output });
                }
            }
        }
        let status = child.wait().map_err(|e| format!("cannot wait for {}: {e}", shown(self)))?;
        Ok(Ended { status: Some(status), output })
    }
}

/// Returns a command of `apt-get`, which asks no questions.
pub(crate) fn apt(words: &str) -> Command {
    let mut apt = Command::new("apt-get");
    apt.words(words).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Runs one part of a command, and prints its name and its time on one line.
pub(crate) fn part<T>(name: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    print!("  {name:<56} ");
    let _ = io::stdout().flush();
    let start = Instant::now();
    let done = work();
    println!("{}", end(done.is_ok(), start));
    done
}

/// Does the same as [`part`] beside other parts: prints the line at the end.
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

fn not_started(command: &Command, error: &io::Error) -> String {
    format!("cannot start {}: {error}", shown(command))
}

fn failed(command: &Command, status: ExitStatus, output: &str) -> String {
    format!("{} failed ({status})\n{output}", shown(command)).trim_end().to_owned()
}

/// Returns the command as a user would type it: the program without its directory, and the
/// arguments.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name();
    let words = program.into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}

/// Returns the lines of a pipe. A thread reads them, so that waiting for a line can have a limit.
fn lines_of(reader: PipeReader) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
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
    use std::process::Command;
    use std::time::Duration;

    use super::Run;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn output_of_both_streams_is_kept_in_order() {
        let output = shell("echo a; echo b >&2; printf c").quiet();
        assert_eq!(output.unwrap(), "a\nb\nc");
    }

    #[test]
    fn a_failure_carries_its_status_and_output() {
        let error = shell("echo why; exit 3").quiet().unwrap_err();
        assert!(error.contains("exit status: 3") && error.ends_with("why"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_output_kept() {
        // There is no status, because the program was killed.
        let limit = Some(Duration::from_secs(2));
        let ended = shell("echo before; exec sleep 600").collect(limit, false).unwrap();
        assert!(ended.status.is_none() && !ended.success());
        assert_eq!(ended.output, "before\n");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Command::new("no-such-program").quiet().unwrap_err();
        assert!(error.starts_with("cannot start `no-such-program`"), "{error}");
    }
}
