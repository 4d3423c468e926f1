//! Flags of the form `--name value`, with defaults and a list for `--help`.

use std::str::FromStr;

use crate::Outcome;

/// The command line, taken apart as the program asks for its flags.
#[derive(Debug)]
pub struct Args {
    rest: Vec<String>,
    help: Vec<String>,
}

impl Args {
    /// The arguments of this process.
    pub fn from_env() -> Self {
        Self::from_words(std::env::args().skip(1))
    }

    /// The given arguments.
    pub fn from_words(words: impl IntoIterator<Item = String>) -> Self {
        Self { rest: words.into_iter().collect(), help: Vec::new() }
    }

    /// The value of `--name`, or `default`; `what` is its line in the help.
    ///
    /// # Errors
    /// The value is missing or is not of the type.
    pub fn value<T: FromStr + ToString>(
        &mut self,
        name: &str,
        default: T,
        what: &str,
    ) -> Outcome<T> {
        self.help.push(format!("  --{name} {:<10} {what}", default.to_string()));
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// The value of `--name` where it is given; not listed in the help.
    ///
    /// # Errors
    /// The value is missing or is not of the type.
    pub fn optional<T: FromStr>(&mut self, name: &str) -> Outcome<Option<T>> {
        let Some(at) = self.position(name) else { return Ok(None) };
        self.rest.remove(at);
        if at >= self.rest.len() {
            return Err(format!("--{name} needs a value").into());
        }
        let word = self.rest.remove(at);
        word.parse()
            .map(Some)
            .map_err(|_| format!("--{name}: `{word}` is not a valid value").into())
    }

    /// Whether `--name` is given.
    pub fn flag(&mut self, name: &str, what: &str) -> bool {
        self.help.push(format!("  --{name:<16} {what}"));
        let at = self.position(name);
        at.map(|at| self.rest.remove(at)).is_some()
    }

    /// Ends the reading: prints the help and returns false where `--help` is given.
    ///
    /// # Errors
    /// A word is left that no flag took.
    pub fn finish(mut self, what: &str) -> Outcome<bool> {
        if let Some(at) = self.position("help") {
            self.rest.remove(at);
            println!("{what}\n\n{}", self.help.join("\n"));
            return Ok(false);
        }
        match self.rest.first() {
            None => Ok(true),
            Some(word) => Err(format!("`{word}` is not known; try --help").into()),
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.rest.iter().position(|word| word.strip_prefix("--") == Some(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn words(words: &[&str]) -> Args {
        Args::from_words(words.iter().map(ToString::to_string))
    }

    #[test]
    fn flags_are_taken_in_any_order_and_the_rest_is_refused() {
        let mut args = words(&["--b", "--a", "7"]);
        assert_eq!(args.value("a", 1, "").unwrap(), 7);
        assert!(args.flag("b", ""));
        assert_eq!(args.value("c", 3, "").unwrap(), 3);
        assert!(args.finish("").unwrap());
        assert!(words(&["--x"]).finish("").is_err());
        assert!(words(&["--a", "x"]).value("a", 1, "").is_err());
        assert!(words(&["--a"]).value("a", 1, "").is_err());
    }
}
