//! Command line flags of the form `--name value`, with defaults and a list for `--help`.

use std::fmt::Display;
use std::str::FromStr;

use pico_args::Arguments;

use crate::Outcome;

/// The command line. The program parses it by asking for one flag after another.
#[derive(Debug)]
pub struct Args {
    rest: Arguments,
    help: Vec<String>,
}

impl Args {
    /// Returns the parser of `rest`.
    pub fn new(rest: Arguments) -> Self {
        Self { rest, help: Vec::new() }
    }

    /// Returns the value of `--name`, or `default`. `what` is its description in the help.
    ///
    /// # Errors
    /// An error if the value is missing or does not parse.
    pub fn value<T>(&mut self, name: &'static str, default: T, what: &str) -> Outcome<T>
    where
        T: FromStr<Err: Display> + Display,
    {
        self.help.push(format!("  {name} {:<10} {what}", default.to_string()));
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// Returns the value of `--name`, if it is given. The help does not list it.
    ///
    /// # Errors
    /// An error if the value is missing or does not parse.
    pub fn optional<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Outcome<Option<T>> {
        self.rest.opt_value_from_str(name).map_err(|error| format!("{name}: {error}").into())
    }

    /// Returns true if `--name` is given.
    pub fn flag(&mut self, name: &'static str, what: &str) -> bool {
        self.help.push(format!("  {name:<18} {what}"));
        self.rest.contains(name)
    }

    /// Ends the parsing. If `--help` is given, prints the help and returns false.
    ///
    /// # Errors
    /// An error if there is a word that is not a known flag.
    pub fn finish(mut self, what: &str) -> Outcome<bool> {
        if self.rest.contains("--help") {
            println!("{what}\n\n{}", self.help.join("\n"));
            return Ok(false);
        }
        match self.rest.finish().first() {
            None => Ok(true),
            Some(word) => Err(format!("`{}` is not known; try --help", word.display()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn words(words: &[&str]) -> Args {
        Args::new(Arguments::from_vec(words.iter().map(Into::into).collect()))
    }

    #[test]
    fn flags_are_taken_in_any_order_and_the_rest_is_refused() {
        let mut args = words(&["--b", "--a", "7"]);
        assert_eq!(args.value("--a", 1, "").unwrap(), 7);
        assert!(args.flag("--b", ""));
        assert_eq!(args.value("--c", 3, "").unwrap(), 3);
        assert!(args.finish("").unwrap());
        assert!(words(&["--x"]).finish("").is_err());
        assert!(words(&["--a", "x"]).value("--a", 1, "").is_err());
        assert!(words(&["--a"]).value("--a", 1, "").is_err());
    }
}
