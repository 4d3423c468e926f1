//! Keys and passphrases, from a prompt, a file, an environment variable or a file descriptor. None
//! is an argument: other users can see those.

use std::convert::Infallible;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use codex_core::crypto::Key;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::{Outcome, key, terminal};

/// The key of an encrypted store.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyArgs {
    /// The passphrase of an encrypted store, from `ask`, `file:PATH`, `env:NAME` or `fd:NUMBER`
    #[arg(long, value_name = "SOURCE", conflicts_with = "raw_key", help_heading = "Encryption")]
    passphrase: Option<Source>,
    /// The raw key of an encrypted store, from the same sources: 16, 24 or 32 bytes, or 64 hex
    /// digits
    #[arg(long = "key", id = "raw_key", value_name = "SOURCE", help_heading = "Encryption")]
    raw: Option<Source>,
}

/// The key that a store has after a command.
#[derive(Debug, Args)]
pub(crate) struct NewKeyArgs {
    /// The new passphrase, from `ask`, `file:PATH`, `env:NAME` or `fd:NUMBER`
    #[arg(long, value_name = "SOURCE", conflicts_with = "new_key", help_heading = "Encryption")]
    new_passphrase: Option<Source>,
    /// The new raw key, from the same sources: 16, 24 or 32 bytes, or 64 hex digits
    #[arg(long = "new-key", id = "new_key", value_name = "SOURCE", help_heading = "Encryption")]
    new_raw: Option<Source>,
}

/// The key of a file of another program.
#[derive(Debug, Args)]
pub(crate) struct SourceKeyArgs {
    /// The key of an encrypted SOURCE, from `ask`, `file:PATH`, `env:NAME` or `fd:NUMBER`: 16, 24
    /// or 32 bytes, or 64 hex digits
    #[arg(long = "source-key", id = "source_key", value_name = "SOURCE")]
    #[arg(help_heading = "Encryption")]
    raw: Option<Source>,
}

/// The place of a key or passphrase.
#[derive(Debug, Clone)]
enum Source {
    Ask,
    File(PathBuf),
    Variable(String),
    Descriptor(u32),
    /// None of these. The text is not kept, because it may be the secret itself: the parser of the
    /// command line would repeat it in its error.
    Unknown,
}

/// A key or passphrase that was read. Its memory is overwritten when it is dropped.
pub(crate) struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    is_passphrase: bool,
}

impl KeyArgs {
    /// Returns whether a key is given.
    pub(crate) fn is_given(&self) -> bool {
        self.passphrase.is_some() || self.raw.is_some()
    }

    /// Reads the key, if one is given. `of` names the store at a prompt.
    pub(crate) fn read(&self, of: &Path) -> Outcome<Option<Secret>> {
        read(self.passphrase.as_ref(), self.raw.as_ref(), &|is_passphrase| {
            let what = if is_passphrase { "Passphrase" } else { "Key (64 hex digits)" };
            terminal::ask(&format!("{what} of {}: ", of.display()))
        })
    }

    /// Reads the key of a store that does not exist yet. A prompt asks twice.
    pub(crate) fn read_new(&self, of: &Path) -> Outcome<Option<Secret>> {
        read(self.passphrase.as_ref(), self.raw.as_ref(), &|is_passphrase| twice(is_passphrase, of))
    }
}

impl SourceKeyArgs {
    /// Reads the key, if one is given. `of` names the file at a prompt.
    pub(crate) fn read(&self, of: &Path) -> Outcome<Option<Secret>> {
        let ask = |_| terminal::ask(&format!("Key (64 hex digits) of {}: ", of.display()));
        read(None, self.raw.as_ref(), &ask)
    }
}

impl NewKeyArgs {
    /// Reads the new key, if one is given. A prompt asks twice.
    pub(crate) fn read(&self, of: &Path) -> Outcome<Option<Secret>> {
        let ask = |is_passphrase| twice(is_passphrase, of);
        read(self.new_passphrase.as_ref(), self.new_raw.as_ref(), &ask)
    }

    /// Reads the new key, which must be given.
    pub(crate) fn key(&self, of: &Path) -> Outcome<Key> {
        let give = || Failure::Usage("give `--new-passphrase` or `--new-key`".to_owned());
        self.read(of)?.as_ref().ok_or_else(give)?.key()
    }
}

impl Secret {
    /// Returns the key for the library, which takes it away.
    pub(crate) fn key(&self) -> Outcome<Key> {
        let key =
            if self.is_passphrase { Key::passphrase(&*self.bytes) } else { Key::raw(&self.raw()) };
        key.map_err(|error| Failure::Key(error.to_string()))
    }

    /// Returns the bytes of a raw key.
    pub(crate) fn raw(&self) -> Zeroizing<Vec<u8>> {
        // Hex digits are accepted for the longest key alone: 32 digits may be 32 bytes.
        let digits = self.bytes.trim_ascii();
        let text = std::str::from_utf8(digits).ok().filter(|text| text.len() == 64);
        let bytes = text.and_then(key::from_hex).map(Zeroizing::new);
        bytes.unwrap_or_else(|| self.bytes.clone())
    }
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let source = match text.split_once(':') {
            None if text == "ask" => Some(Self::Ask),
            Some(("file", path)) if !path.is_empty() => Some(Self::File(path.into())),
            Some(("env", name)) if !name.is_empty() => Some(Self::Variable(name.to_owned())),
            Some(("fd", number)) => number.parse().ok().map(Self::Descriptor),
            _ => None,
        };
        Ok(source.unwrap_or(Self::Unknown))
    }
}

type Ask<'a> = &'a dyn Fn(bool) -> Outcome<Zeroizing<Vec<u8>>>;

fn read(
    passphrase: Option<&Source>,
    raw: Option<&Source>,
    ask: Ask<'_>,
) -> Outcome<Option<Secret>> {
    let is_passphrase = passphrase.is_some();
    let Some(source) = passphrase.or(raw) else { return Ok(None) };
    let mut bytes = match source {
        Source::Unknown => {
            let text = "a key or passphrase is never an argument, which other users can see: give \
                        `ask`, `file:PATH`, `env:NAME` or `fd:NUMBER`";
            return Err(Failure::Usage(text.to_owned()));
        }
        Source::Ask => ask(is_passphrase)?,
        Source::File(path) => from_file(path, &path.display().to_string())?,
        Source::Descriptor(number) => {
            from_file(Path::new(&format!("/dev/fd/{number}")), &format!("descriptor {number}"))?
        }
        Source::Variable(name) => {
            let unset = || Failure::Key(format!("the environment variable {name} is not set"));
            let value = std::env::var_os(name).ok_or_else(unset)?;
            Zeroizing::new(value.into_encoded_bytes())
        }
    };
    if is_passphrase {
        // The line end of an editor, or of `echo`, is not part of a passphrase.
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
    }
    Ok(Some(Secret { bytes, is_passphrase }))
}

fn from_file(path: &Path, what: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    /// No key or passphrase is longer. The buffer never grows, which would leave a copy behind.
    const LEN_MAX: usize = 4096;
    let failed = |source| Failure::file(format!("cannot read the key from {what}"), source);
    let mut bytes = Zeroizing::new(Vec::with_capacity(LEN_MAX));
    let file = fs::File::open(path).map_err(failed)?;
    file.take(LEN_MAX as u64).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() == LEN_MAX {
        return Err(Failure::Key(format!("{what} is too long for a key or passphrase")));
    }
    Ok(bytes)
}

/// Asks for a secret that is to be remembered.
fn twice(is_passphrase: bool, of: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let what = if is_passphrase { "New passphrase" } else { "New key (64 hex digits)" };
    let first = terminal::ask(&format!("{what} of {}: ", of.display()))?;
    let again = terminal::ask("The same again: ")?;
    if *first == *again {
        return Ok(first);
    }
    Err(Failure::Key("the two differ; nothing was changed".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn sources_have_a_kind_and_a_place() {
        for text in ["hunter2", "pass:hunter2", "file:", "env:", "fd:x", "fd:-1", ""] {
            assert!(matches!(text.parse(), Ok(Source::Unknown)), "{text}");
        }
        assert!(matches!("file:a:b".parse(), Ok(Source::File(path)) if path.as_os_str() == "a:b"));
        assert!(matches!("env:NAME".parse(), Ok(Source::Variable(name)) if name == "NAME"));
        assert!(matches!("fd:3".parse(), Ok(Source::Descriptor(3))));
        assert!(matches!("ask".parse(), Ok(Source::Ask)));
    }
}
