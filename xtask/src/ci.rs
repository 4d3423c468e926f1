//! `ci`: runs every step, and prints a table of their times at the end.

use std::fmt::Write as _;
use std::time::Instant;

use pico_args::Arguments;

use crate::workspace::Workspace;
use crate::{
    Command, Outcome, api, browser, bucket, check, cluster, layers, licences, loom, mutants,
    package, start, test, tidy,
};

pub(crate) const COMMAND: Command = Command {
    name: "ci",
    args: "[--keep-going]",
    about: "every check that a change must pass, with a time for each step",
    run,
};

/// The steps, the fastest first. `browser`, `bucket`, `mutants` and `demo` use what `test --whole`
/// has built, and `mutants` does not repeat the tests that have just passed.
const STEPS: &[(&Command, &[&str])] = &[
    (&tidy::COMMAND, &[]),
    (&licences::COMMAND, &[]),
    (&check::COMMAND, &[]),
    (&api::COMMAND, &[]),
    (&layers::COMMAND, &[]),
    (&package::COMMAND, &[]),
    (&test::COMMAND, &["--whole"]),
    (&browser::COMMAND, &[]),
    (&bucket::COMMAND, &[]),
    (&cluster::COMMAND, &["test"]),
    (&loom::COMMAND, &[]),
    (&mutants::COMMAND, &["--no-baseline"]),
    (&start::DEMO, &[start::AS_TESTED]),
];

/// The maximum time for all steps together, on two cores.
const SECONDS_MAX: f64 = 1500.0;

/// A step that was run.
struct Row {
    name: &'static str,
    seconds: f64,
    result: Outcome,
}

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let keep_going = words.contains("--keep-going");
    COMMAND.done(words)?;
    let mut rows: Vec<Row> = Vec::new();
    for (command, args) in STEPS {
        println!("{} {}", command.name, args.join(" "));
        let start = Instant::now();
        let args = Arguments::from_vec(args.iter().map(Into::into).collect());
        let result = (command.run)(workspace, args);
        if let Err(error) = &result {
            println!("{error}");
        }
        let failed = result.is_err();
        rows.push(Row { name: command.name, seconds: start.elapsed().as_secs_f64(), result });
        if failed && !keep_going {
            break;
        }
    }
    print!("{}", table(&rows));
    let failed: Vec<&str> =
        rows.iter().filter(|row| row.result.is_err()).map(|row| row.name).collect();
    if failed.is_empty() {
        return Ok(String::new());
    }
    Err(format!("failed: {}; `cargo xtask STEP` runs one step alone", failed.join(", ")))
}

fn table(rows: &[Row]) -> String {
    let mut text = format!("\n{:<12} {:>9}  {}\n", "step", "seconds", "result");
    for Row { name, seconds, result } in rows {
        let note = match result {
            Ok(note) if note.is_empty() => "ok".to_owned(),
            Ok(note) => format!("ok      {note}"),
            Err(error) => format!("FAILED  {}", error.lines().next().unwrap_or_default()),
        };
        let _ = writeln!(text, "{name:<12} {seconds:>9.1}  {note}");
    }
    for step in STEPS.iter().skip(rows.len()) {
        let _ = writeln!(text, "{:<12} {:>9}  not run", step.0.name, "");
    }
    let total: f64 = rows.iter().map(|row| row.seconds).sum();
    let slow = if total > SECONDS_MAX { "  over the limit of 25 minutes" } else { "" };
    let _ = writeln!(text, "{:<12} {total:>9.1}{slow}", "total");
    let tests = rows.iter().find(|row| row.name == test::COMMAND.name);
    if let Some(Ok(note)) = tests.map(|row| &row.result) {
        let _ = writeln!(text, "tests: {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Row, STEPS, table};

    #[test]
    fn the_table_says_what_failed_and_what_did_not_run() {
        let rows = [
            Row { name: "tidy", seconds: 0.5, result: Ok("9 files".to_owned()) },
            Row { name: "check", seconds: 2000.0, result: Err("broken\nin detail".to_owned()) },
        ];
        let text = table(&rows);
        assert!(text.contains("tidy               0.5  ok      9 files\n"), "{text}");
        assert!(text.contains("FAILED  broken\n"), "{text}");
        assert_eq!(text.matches("not run").count(), STEPS.len() - 2);
        assert!(text.contains("total           2000.5  over the limit"), "{text}");
    }

    #[test]
    fn the_tests_are_counted_at_the_end() {
        let result = Ok("12 passed, 0 failed".to_owned());
        let text = table(&[Row { name: "test", seconds: 1.0, result }]);
        assert!(text.ends_with("\ntests: 12 passed, 0 failed\n"), "{text}");
    }
}
