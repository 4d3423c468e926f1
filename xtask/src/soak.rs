//! `soak`: runs the tests of one file with one seed after another, for tests that draw at random.

use std::time::{Duration, Instant};

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::{Package, Workspace};
use crate::{Command, Outcome, free_word};

pub(crate) const COMMAND: Command = Command {
    name: "soak",
    args: "TEST [--minutes M] [--seed N]",
    about: "run the tests of the file TEST under one seed after another, and add up their counts",
    run,
};

/// The test program that contains most test files of a package as modules.
const ALL: &str = "it";

/// The arguments of the command.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// The name of a file in a `tests` directory, without `.rs`.
    test: String,
    minutes: u64,
    /// The first seed.
    seed: u64,
}

/// The totals of all runs.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    counts: Vec<(String, u64)>,
}

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    let asked = Asked::read(words)?;
    let members = workspace.members()?;
    // The tests are a program of their own, or a module of the program that has most test files.
    let is_module = |package: &&Package| {
        let file = format!("{}/tests/{ALL}/{}.rs", package.name, asked.test);
        workspace.root.join(file).is_file()
    };
    let program = members.iter().find(|package| package.has_target("test", &asked.test));
    let (package, program, filter) = match (program, members.iter().find(is_module)) {
        (Some(package), _) => (package, asked.test.as_str(), String::new()),
        (None, Some(package)) => (package, ALL, format!("{}::", asked.test)),
        (None, None) => {
            return Err(format!(
                "there are no tests `{}`; name a file of a tests folder",
                asked.test
            ));
        }
    };
    // Build before the clock starts.
    let build = format!("test --release --package {} --test {program}", package.name);
    workspace.cargo(&build).words("--no-run").progress()?;
    let end = Instant::now() + Duration::from_secs(60 * asked.minutes);
    let mut tally = Tally::default();
    let mut seed = asked.seed;
    loop {
        let mut cargo = workspace.cargo(&build);
        cargo.words("--quiet -- --nocapture").words(&filter).env("CODEX_SEED", seed.to_string());
        let ended = cargo.collect(None, false)?;
        if !ended.success() {
            return Err(format!("`CODEX_SEED={seed} cargo {build}` failed:\n{}", ended.output));
        }
        tally.add(&ended.output);
        seed += 1;
        println!("  seeds up to {}: {tally}", seed - 1);
        if Instant::now() >= end {
            return Ok(format!("{tally}; go on with `--seed {seed}`"));
        }
    }
}

impl Asked {
    fn read(mut words: Arguments) -> Outcome<Self> {
        let mut number = |flag, default| {
            let given = words.opt_value_from_str(flag).map_err(|e| format!("{flag}: {e}"));
            Ok::<u64, String>(given?.unwrap_or(default))
        };
        let (minutes, seed) = (number("--minutes", 1)?, number("--seed", 1)?);
        let test = free_word(&mut words)?;
        COMMAND.done(words)?;
        let test = test.ok_or("takes the name of a file of tests, such as `crypto_nonces`")?;
        Ok(Self { test, minutes, seed })
    }
}

impl Tally {
    /// Adds up the numbers in the lines that the tests have printed, by the word after each number.
    fn add(&mut self, output: &str) {
        self.runs += 1;
        let of_runner = |line: &&str| line.starts_with("running ") || line.starts_with("test ");
        for line in output.lines().filter(|line| !of_runner(line)) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2) {
                let [number, word] = pair else { continue };
                // The runner prints a dot for each test, sometimes at the start of a line.
                let Ok(number) = number.trim_start_matches('.').parse::<u64>() else { continue };
                let word = word.trim_end_matches([',', ':', ';', '.']);
                if !word.is_empty() && word.chars().all(char::is_alphabetic) {
                    self.count(word, number);
                }
            }
        }
    }

    fn count(&mut self, word: &str, number: u64) {
        match self.counts.iter_mut().find(|(name, _)| name == word) {
            Some((_, sum)) => *sum += number,
            None => self.counts.push((word.to_owned(), number)),
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} runs", self.runs)?;
        self.counts.iter().try_for_each(|(word, sum)| write!(f, ", {sum} {word}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Asked, Tally};

    fn asked(line: &str) -> Result<Asked, String> {
        Asked::read(Arguments::from_vec(line.split_whitespace().map(Into::into).collect()))
    }

    #[test]
    fn words_are_read_and_mistyped_ones_refused() {
        let all = Asked { test: "model".to_owned(), minutes: 5, seed: 7 };
        assert_eq!(asked("--seed 7 model --minutes 5"), Ok(all));
        assert_eq!(asked("model").unwrap().minutes, 1);
        for wrong in ["", "--seed 7", "model --seed", "model --minutes x", "model --long", "a b"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_added_up_by_the_word_behind_them() {
        let mut tally = Tally::default();
        tally.add("running 2 tests\n.90 cycles (of 100), 7 seals: {\"x\": 3}\n.\n");
        tally.add("10 cycles, 5 seals\ntest result: ok. 2 passed; 0 failed\n");
        assert_eq!(tally.to_string(), "2 runs, 100 cycles, 12 seals");
    }
}
