//! All mutants, with the tests that must catch each and the expected output, from `table.txt`.

use std::sync::LazyLock;

use crate::loom;

/// Every mutant. `edits.txt` contains the changes of each.
pub(crate) static MUTANTS: LazyLock<Vec<Mutant>> =
    LazyLock::new(|| Mutant::list(include_str!("table.txt")));

/// The name of the test program that has the tests inside a library.
pub(super) const LIB: &str = "lib";

/// A deliberate fault in production code, and the tests that must catch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// The name in `edits.txt`.
    pub(crate) name: &'static str,
    /// The package with the tests.
    pub(super) package: &'static str,
    /// The test program.
    pub(super) program: &'static str,
    /// The tests to run: those whose names contain this text, or all if it is empty.
    pub(super) tests: &'static str,
    /// Whether the test hangs, because it waits for an event that the mutant prevents.
    pub(super) hangs: bool,
    /// Texts that must all occur in the output, to show that the test failed for the expected
    /// reason.
    pub(super) words: Vec<&'static str>,
}

impl Mutant {
    /// Parses a table such as `table.txt`.
    fn list(text: &'static str) -> Vec<Self> {
        let mut mutants = Vec::<Self>::new();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let head = line.split_once(": ").filter(|_| !line.starts_with(' '));
            if let Some((name, place)) = head {
                let mut place = place.splitn(3, ' ');
                let mut next = || place.next().unwrap_or_default();
                let (package, program, tests) = (next(), next(), next());
                let (hangs, words) = (false, Vec::new());
                mutants.push(Self { name, package, program, tests, hangs, words });
            } else if let Some(mutant) = mutants.last_mut() {
                mutant.hangs |= line.trim() == "(hangs)";
                // The first words of the output show that a program that hangs has the test.
                mutant.words.push(if mutant.hangs { "running 1 test\n" } else { line.trim() });
            }
        }
        mutants
    }

    /// Returns whether it is built with `--cfg loom`.
    pub(super) fn is_modelled(&self) -> bool {
        self.program == loom::TEST
    }
}
