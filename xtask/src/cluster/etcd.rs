//! Finds etcd, or fetches it.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use crate::Outcome;
use crate::program::{Run, apt, part};

/// Returns the program: the one in `CODEX_ETCD`, one of the system, or Debian's package of it,
/// unpacked into `folder`. It is fetched with `fetch`, and where `CI` is set.
pub(super) fn find(folder: &Path, fetch: bool) -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os("CODEX_ETCD") {
        return works(PathBuf::from(named)).map_err(|e| format!("CODEX_ETCD: {e}"));
    }
    let unpacked = folder.join("usr/bin/etcd");
    if let Ok(program) = works(in_path()).or_else(|_| works(unpacked.clone())) {
        return Ok(program);
    }
    if fetch || std::env::var_os("CI").is_some() {
        part("fetch etcd", || unpack(folder))?;
        return works(unpacked);
    }
    Err("there is no etcd; `cargo xtask cluster --fetch` unpacks Debian's package of it into \
         `target`, or name one in CODEX_ETCD"
        .to_owned())
}

/// Returns the program if it starts.
fn works(program: PathBuf) -> Outcome<PathBuf> {
    Process::new(&program).arg("--version").read()?;
    Ok(program)
}

/// Returns the program of the system. A path, because the members run without `PATH`.
fn in_path() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|folder| folder.join("etcd"));
    places.into_iter().find(|place| place.is_file()).unwrap_or_else(|| "etcd".into())
}

/// Downloads the package and unpacks it. Nothing is installed, and no right of root is needed.
fn unpack(folder: &Path) -> Outcome<()> {
    let io = |e| format!("{}: {e}", folder.display());
    let refused = |e: String| {
        let reason = e.lines().last().unwrap_or_default().to_owned();
        format!(
            "there is no etcd, and `apt-get download etcd-server` fails: {reason}; name one in \
             CODEX_ETCD"
        )
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    let download = || apt("download etcd-server").current_dir(folder).quiet();
    // The lists of packages are missing in a new image, and old in an old one.
    download().or_else(|_| apt("update").quiet().and_then(|_| download())).map_err(refused)?;
    let files = std::fs::read_dir(folder).map_err(io)?.flatten().map(|file| file.path());
    let package = files.filter(|file| file.extension().is_some_and(|end| end == "deb")).max();
    let package = package.ok_or_else(|| refused("it has left no package".to_owned()))?;
    let mut unpack = Process::new("dpkg-deb");
    unpack.arg("-x").args([package.as_path(), folder]).quiet()?;
    std::fs::remove_file(&package).map_err(io)
}
