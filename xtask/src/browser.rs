//! `browser`: tests the page of a store in a headless Chromium, which it installs on Debian.

use std::path::Path;
use std::process::Command as Process;

use pico_args::Arguments;

use crate::program::{Run, apt, part};
use crate::workspace::Workspace;
use crate::{Command, Outcome, test};

pub(crate) const COMMAND: Command = Command {
    name: "browser",
    args: "[--pictures FOLDER]",
    about: "the page of `codexdb view` in a headless Chromium; installs Debian's package of it",
    run,
};

/// The names that Chromium has.
const NAMES: [&str; 2] = ["chromium", "chromium-browser"];

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let pictures: Option<String> =
        words.opt_value_from_str("--pictures").map_err(|e| e.to_string())?;
    COMMAND.done(words)?;
    let program = match found() {
        Some(program) => program,
        None => match part("install chromium", install) {
            Ok(program) => program,
            // A machine that checks changes must not leave it out in silence.
            Err(why) if std::env::var_os("CI").is_some() => return Err(why),
            Err(why) => return Ok(format!("left out: {why}")),
        },
    };
    let mut cargo = workspace.cargo("test --quiet --test it");
    cargo.words(&test::whole(workspace)?).env("CODEXDB_BROWSER", program);
    cargo.words("--features codexdb/browser browser:: -- --test-threads=1");
    if let Some(folder) = pictures {
        cargo.env("CODEXDB_PICTURES", workspace.root.join(folder));
    }
    let ended = cargo.collect(None, true)?;
    // Each of the tests is one that ran: none is left out here.
    let is_whole = ended.output.contains("4 passed");
    match (ended.success(), is_whole) {
        (true, true) => Ok("4 passed".to_owned()),
        (true, false) => Err("not all tests of the page ran".to_owned()),
        (false, _) => Err("the page fails in the browser".to_owned()),
    }
}

/// Returns the name of the browser, if one is installed.
fn found() -> Option<&'static str> {
    let is_there = |name: &&&str| Process::new(name).arg("--version").read().is_ok();
    NAMES.iter().find(is_there).copied()
}

/// Installs the package of Debian.
fn install() -> Outcome<&'static str> {
    if !Path::new("/etc/debian_version").exists() {
        return Err("there is no Chromium, and only Debian has its package".to_owned());
    }
    let refused = |e: String| {
        let reason = e.lines().last().unwrap_or_default().to_owned();
        format!("there is no Chromium, and `apt-get install chromium` fails: {reason}")
    };
    apt("update").quiet().map_err(refused)?;
    apt("install --yes --no-install-recommends chromium").quiet().map_err(refused)?;
    found().ok_or_else(|| "the package has no program `chromium`".to_owned())
}
