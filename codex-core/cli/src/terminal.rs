//! A prompt that does not show the typed text.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use zeroize::Zeroizing;

use crate::Outcome;
use crate::failure::Failure;

/// Prints `prompt` and returns the line that is typed, without its end. The line is not shown.
pub(crate) fn ask(prompt: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    let no_terminal = |_| {
        let text = "there is no terminal to ask at; use `file:PATH`, `env:NAME` or `fd:NUMBER`";
        Failure::Key(text.to_owned())
    };
    let stdin = io::stdin();
    let controlling: File;
    let terminal = if stdin.is_terminal() {
        stdin.as_fd()
    } else {
        controlling =
            OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
        controlling.as_fd()
    };
    let silent = Silent::new(terminal).map_err(|error| no_terminal(error.into()))?;
    let _ = write!(io::stderr(), "{prompt}");
    let line = read_line(&mut Descriptor(terminal));
    // Order: the terminal is as it was before the next line is printed to it.
    drop(silent);
    let _ = writeln!(io::stderr());
    line
}

/// A terminal that neither shows typed text nor sends signals. It is as it was before when this
/// value is dropped.
struct Silent<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: BorrowedFd<'a>) -> rustix::io::Result<Self> {
        let before = termios::tcgetattr(terminal)?;
        let mut silent = before.clone();
        // Ctrl-C is read as a byte: a signal would end the process and leave the terminal silent.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON);
        termios::tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Reads from a descriptor that is owned elsewhere.
struct Descriptor<'a>(BorrowedFd<'a>);

impl Read for Descriptor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, buf)?)
    }
}

/// Reads a line, byte by byte, with the keys that edit it.
fn read_line(from: &mut dyn Read) -> Outcome<Zeroizing<Vec<u8>>> {
    // The buffer does not grow, which would leave a copy of the secret behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_LEN_MAX));
    let mut byte = [0];
    loop {
        let read = match from.read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => {
                read.map_err(|source| Failure::file("cannot read from the terminal", source))?
            }
        };
        match byte {
            _ if read == 0 => return Ok(line),
            [b'\n' | b'\r'] => return Ok(line),
            [CTRL_C] => return Err(Failure::Interrupted),
            [CTRL_D] if line.is_empty() => return Err(Failure::Interrupted),
            [CTRL_D] => return Ok(line),
            [CTRL_U] => line.clear(),
            [BACKSPACE | DELETE] => {
                // A character is a byte that does not continue one, and the bytes after it.
                while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {}
            }
            [byte] if line.len() < LINE_LEN_MAX => line.push(byte),
            _ => return Err(Failure::Key("the line is too long".to_owned())),
        }
    }
}

const LINE_LEN_MAX: usize = 4096;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

#[cfg(test)]
mod tests {
    use super::{Failure, read_line};

    #[test]
    fn a_line_can_be_edited_and_given_up() {
        let read = |mut typed: &[u8]| read_line(&mut typed).map(|line| line.to_vec());
        assert_eq!(read(b"abc\nd").unwrap(), b"abc");
        assert_eq!(read("aü\x7fb\r".as_bytes()).unwrap(), b"ab");
        assert_eq!(read(b"abc\x15d\n").unwrap(), b"d");
        assert_eq!(read(b"\x7fd\x04").unwrap(), b"d");
        assert!(matches!(read(b"abc\x03"), Err(Failure::Interrupted)));
        assert!(matches!(read(b"\x04"), Err(Failure::Interrupted)));
        assert!(matches!(read(&[b'a'; 5000]), Err(Failure::Key(_))));
    }
}
