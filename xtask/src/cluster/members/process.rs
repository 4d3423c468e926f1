//! Processes that end with this one.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that is killed when this is dropped, and when this process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The shell that waits for the end of its input, and then kills the process.
    keeper: Child,
    pid: u32,
}

/// Runs the arguments, prints the id of their process, and kills it at the end of the input. A
/// signal of the terminal ends the writer of the input, and not the shell before it has done so.
const KEEPER: &str = r#"
trap '' HUP INT TERM
"$@" </dev/null >&2 &
echo $!
exec >/dev/null
read -r _
kill -9 $!
wait $!
"#;

impl Kept {
    /// Starts the program of `command`, and appends what it prints to the file `log`.
    pub(crate) fn start(command: &Command, log: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            value.map(|value| keeper.env(name, value));
        }
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut line = String::new();
        if let Some(output) = keeper.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let pid = line.trim().parse().map_err(|_| io::Error::other("the shell does not start"))?;
        Ok(Self { keeper, pid })
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.pid);
        let _ = Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
