//! Files of format version 1 that are never written again. A build that reads or writes them
//! differently is wrong.

use std::io::Write as _;
use std::path::Path;

/// Compares the output of this build with the golden file `name`, byte for byte, and returns the
/// file.
///
/// If the environment variable `CODEX_GOLDEN` is `write`, a missing file is created. An existing
/// file is never replaced.
#[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "test data is no store")]
pub fn check(name: &str, made: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name);
    if std::env::var("CODEX_GOLDEN").is_ok_and(|what| what == "write") {
        let new = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
        new.and_then(|mut file| file.write_all(made))
            .unwrap_or_else(|e| panic!("{}: {e}; golden files are made once", path.display()));
    }
    let golden = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let differs = golden.iter().zip(made).position(|(a, b)| a != b);
    let is_same = golden == made;
    assert!(is_same, "{name} is made otherwise from byte {differs:?} on, or of another length");
    golden
}
