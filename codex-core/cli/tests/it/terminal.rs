//! A terminal that a test uses as a person does.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::common::Folder;

/// A terminal: the side of the person, and the side of the program.
pub(crate) struct Terminal {
    person: File,
    program: OwnedFd,
    /// The shown text that was not asked for yet.
    unread: Vec<u8>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let program = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        Self { person: person.into(), program, unread: Vec::new() }
    }

    /// Starts the program with this terminal as its stdin.
    pub(crate) fn start(&self, folder: &Folder, args: &[&str]) -> Child {
        folder.command(args).stdin(self.stdio()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn stdio(&self) -> Stdio {
        self.program.try_clone().unwrap().into()
    }

    /// Types `text` when the program has printed the prompt `prompt` to stderr.
    pub(crate) fn answer(&mut self, child: &mut Child, prompt: &str, text: &str) {
        let stderr = child.stderr.as_mut().unwrap();
        let (mut printed, mut byte) = (String::new(), [0]);
        while !printed.ends_with(prompt) {
            assert_eq!(stderr.read(&mut byte).unwrap(), 1, "no {prompt:?} but {printed:?}");
            printed.push(char::from(byte[0]));
        }
        self.person.write_all(text.as_bytes()).unwrap();
    }

    /// Starts the program with this terminal as its stdin, stdout and stderr.
    pub(crate) fn run(&self, command: &mut Command) -> Child {
        command.stdin(self.stdio()).stdout(self.stdio()).stderr(self.stdio()).spawn().unwrap()
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }

    /// Returns the shown text up to the text `end`.
    pub(crate) fn read_until(&mut self, end: &str) -> String {
        let mut some = [0; 4096];
        loop {
            let found = self.unread.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let shown: Vec<u8> = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&shown).into_owned();
            }
            // A test that waits in vain shows the text that it has read.
            let ready = poll(&mut [PollFd::new(&self.person, PollFlags::IN)], Some(&WAIT)).unwrap();
            let start = self.unread.get(..2_000).unwrap_or(&self.unread);
            assert_eq!(ready, 1, "no {end:?} in {:?}", String::from_utf8_lossy(start));
            let len = self.person.read(&mut some).unwrap();
            self.unread.extend_from_slice(&some[..len]);
        }
    }

    /// Returns another person at the same terminal.
    pub(crate) fn typist(&self) -> Self {
        let (person, program) = (self.person.try_clone(), self.program.try_clone());
        Self { person: person.unwrap(), program: program.unwrap(), unread: Vec::new() }
    }

    pub(crate) fn modes(&self) -> LocalModes {
        tcgetattr(&self.program).unwrap().local_modes
    }

    /// Returns all that the terminal has shown. Closes the side of the program.
    pub(crate) fn shown(self) -> String {
        let Self { mut person, program, .. } = self;
        drop(program);
        // The end of a terminal is an error on Linux.
        let mut shown = Vec::new();
        let _ = person.read_to_end(&mut shown);
        String::from_utf8(shown).unwrap()
    }
}

const WAIT: Timespec = Timespec { tv_sec: 300, tv_nsec: 0 };
