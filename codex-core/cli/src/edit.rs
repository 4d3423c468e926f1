//! `edit`: a value in the editor of the user.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, io};

use clap::Args;
use codex_core::{Codec, Readable, Store};

use crate::failure::Failure;
use crate::key::{self, TypedKey};
use crate::look::AsType;
use crate::out::{Out, note};
use crate::target::Target;
use crate::value::{JSON, RAW, Shown};
use crate::{Outcome, change, json};

/// The options of `edit`.
#[derive(Debug, Args)]
pub(crate) struct Edit {
    #[command(flatten)]
    target: Target,
    /// The key; a key without a value begins with an empty text
    key: TypedKey,
    #[command(flatten)]
    of: AsType,
}

/// A value with its codec and expiry, as it was read.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    codec: &'static str,
    bytes: Vec<u8>,
    expires: Option<SystemTime>,
}

impl Edit {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let secret = self.target.secret()?;
        // Order: the store is closed while the editor runs, which may take hours.
        let seen = self.seen(&self.target.read_with(secret.as_ref())?)?;
        self.edit(seen.as_ref(), out, &mut |text| {
            let store = self.target.write_with(&self.target.options(secret.as_ref())?)?;
            let saved = self.save(&store, text, seen.as_ref());
            store.close()?;
            saved
        })
    }

    pub(crate) fn on(&self, store: &Store, out: &mut Out) -> Outcome {
        let seen = self.seen(store)?;
        self.edit(seen.as_ref(), out, &mut |text| self.save(store, text, seen.as_ref()))
    }

    /// Passes the text of the value to the editor, and the edited text to `save`.
    fn edit(
        &self,
        seen: Option<&Seen>,
        out: &mut Out,
        save: &mut dyn FnMut(&str) -> Outcome<()>,
    ) -> Outcome {
        let before = match seen {
            Some(seen) => json::pretty(&self.json(seen)?) + "\n",
            None => String::new(),
        };
        let file = write(&before)?;
        let edited = run_editor(&file).and_then(|()| {
            fs::read_to_string(&file).map_err(|source| Failure::file(file.display(), source))
        });
        let saved = edited.and_then(|after| {
            if after == before {
                return Ok(false);
            }
            save(&after).map(|()| true)
        });
        // The text is worth more than an empty folder.
        if saved.is_err() && fs::read_to_string(&file).is_ok_and(|after| after != before) {
            note(&format!("your text is in {}", file.display()));
        } else {
            fs::remove_file(&file).map_err(|source| Failure::file(file.display(), source))?;
        }
        let is_changed = saved?;
        if !is_changed && !out.json {
            out.line("nothing was changed")?;
        }
        Ok(is_changed)
    }

    fn seen(&self, store: &impl Readable) -> Outcome<Option<Seen>> {
        let Some(value) = store.get_bytes(&self.key) else { return Ok(None) };
        let codec = Shown::of(&value)?.codec;
        let expires = store.expires_at(&self.key);
        Ok(Some(Seen { codec, bytes: value.to_vec(), expires }))
    }

    /// Returns the JSON of a value, as its own or by the type that was given.
    fn json(&self, seen: &Seen) -> Outcome<String> {
        let shown = Shown { codec: seen.codec, bytes: &seen.bytes };
        match (shown.json(), &self.of.of) {
            (Some(json), _) => Ok(json.to_owned()),
            (None, Some(of)) => of.read(&seen.bytes).map_err(Failure::Usage),
            (None, None) => {
                let guess = shown.guess().map(|(of, _)| format!(", perhaps `--as '{of}'`"));
                let guess = guess.unwrap_or_default();
                let text = format!("the value is not JSON; give its type with `--as TYPE`{guess}");
                Err(Failure::Usage(text))
            }
        }
    }

    /// Stores the edited text, unless the value has changed since it was read.
    fn save(&self, store: &Store, text: &str, seen: Option<&Seen>) -> Outcome<()> {
        let json = json::checked(text)
            .map_err(|why| Failure::Usage(format!("the text is not JSON: {why}")))?;
        let (codec, bytes) = match (&self.of.of, seen.map(|seen| seen.codec)) {
            (Some(of), codec) if codec != Some(JSON) => {
                (Some(Codec::Bincode), of.write(&json).map_err(Failure::Usage)?)
            }
            _ => (Some(Codec::Json), json.into_bytes()),
        };
        // Raw bytes that were read as a type stay raw.
        let is_raw = seen.is_some_and(|seen| seen.codec == RAW);
        let codec = codec.filter(|_| !is_raw);
        store.try_transaction(|tx| {
            if self.seen(tx)?.as_ref() != seen {
                let key = key::show(self.key.as_ref());
                return Err(Failure::Usage(format!("{key} was changed meanwhile")));
            }
            let expires = seen.and_then(|seen| seen.expires);
            change::put(tx, &self.key, codec, &bytes, expires)
        })
    }
}

/// Writes the text to a new file that only this user can read, in memory if there is such a folder.
fn write(text: &str) -> Outcome<PathBuf> {
    let memory = [env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), Some("/dev/shm".into())];
    let memory = memory.into_iter().flatten().find(|folder| folder.is_dir());
    let folder = memory.unwrap_or_else(env::temp_dir);
    for number in 0..1_000_u32 {
        let path = folder.join(format!("codexdb-{}-{number}.json", std::process::id()));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
                return written
                    .map(|()| path.clone())
                    .map_err(|source| Failure::file(path.display(), source));
            }
        }
    }
    Err(Failure::Usage(format!("{} is full of files of other edits", folder.display())))
}

/// Runs the editor of the user, as a shell does: its name may have arguments.
fn run_editor(file: &Path) -> Outcome<()> {
    let set = |name| env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file)
        .status()
        .map_err(|source| Failure::file(&editor, source))?;
    if status.success() { Ok(()) } else { Err(Failure::Usage(format!("`{editor}`: {status}"))) }
}
