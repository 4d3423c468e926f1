//! The keys that sign the requests to a bucket, and where they come from.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use codex_storage::net::read_file;
use codex_storage::sync::Mutex;
use rusty_s3::Credentials;

use crate::error::Cause;
use crate::remote::Fault;

/// The keys that sign the requests to a bucket. `Debug` shows only the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Keys(pub(super) Credentials);

impl S3Keys {
    /// Returns the keys with this id (`AKIA...`) and this secret.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Credentials::new(id, secret))
    }

    /// Returns temporary keys, which have a token.
    pub fn with_token(
        id: impl Into<String>,
        secret: impl Into<String>,
        token: impl Into<String>,
    ) -> Self {
        Self(Credentials::new_with_token(id, secret, token))
    }
}

/// A function that returns the present keys.
type Renew = dyn Fn() -> Result<S3Keys, Cause> + Send + Sync;

/// The source of the keys.
#[derive(Clone, Default)]
pub(super) enum Source {
    #[default]
    Environment,
    Keys(S3Keys),
    File(PathBuf),
    Function(Arc<Renew>),
}

impl Source {
    /// Returns the keys that the source has at present.
    pub(super) fn read(&self) -> Result<S3Keys, Fault> {
        match self {
            Self::Environment => Credentials::from_env().map(S3Keys).ok_or_else(|| {
                let what = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set";
                Fault::Credentials(what.to_owned())
            }),
            Self::Keys(keys) => Ok(keys.clone()),
            Self::File(path) => {
                let text = read_file(path).map_err(|error| {
                    Fault::Credentials(format!("{} cannot be read: {error}", path.display()))
                })?;
                let profile = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
                of_profile(&String::from_utf8_lossy(&text), &profile).ok_or_else(|| {
                    let path = path.display();
                    Fault::Credentials(format!("{path} has no keys in its section [{profile}]"))
                })
            }
            Self::Function(renew) => renew().map_err(|error| {
                Fault::Credentials(format!("the function that renews them failed: {error}"))
            }),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::Keys(keys) => keys.fmt(f),
            Self::File(path) => path.fmt(f),
            Self::Function(_) => f.write_str("function"),
        }
    }
}

/// The keys in use. They are read when the place is opened, and again when a server refuses them.
#[derive(Debug)]
pub(super) struct Ring {
    source: Source,
    now: Mutex<S3Keys>,
}

impl Ring {
    pub(super) fn new(source: Source) -> Result<Self, Fault> {
        let now = Mutex::new(source.read()?);
        Ok(Self { source, now })
    }

    pub(super) fn now(&self) -> S3Keys {
        self.now.lock().clone()
    }

    /// Reads the keys again after `refused` were refused. Returns whether there are others now.
    pub(super) fn renew(&self, refused: &S3Keys) -> bool {
        // The function of the user runs under no lock.
        if self.now() == *refused
            && let Ok(keys) = self.source.read()
        {
            *self.now.lock() = keys;
        }
        self.now() != *refused
    }
}

/// Returns the keys in the section `[profile]` of a file as the tools of AWS have it.
fn of_profile(text: &str, profile: &str) -> Option<S3Keys> {
    let (mut is_here, mut id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_here = section.trim() == profile;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_here) else { continue };
        let value = Some(value.trim().to_owned());
        match name.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    let (id, secret) = (id?, secret?);
    Some(match token {
        Some(token) => S3Keys::with_token(id, secret, token),
        None => S3Keys::new(id, secret),
    })
}

#[cfg(test)]
mod tests {
    use super::{S3Keys, Source, of_profile};

    #[test]
    fn a_file_has_keys_by_section() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=b=c\n\
                    region = x\n[ work ]\naws_access_key_id=D\naws_secret_access_key = e\n\
                    aws_session_token = f\n[half]\naws_access_key_id = G\n";
        assert_eq!(of_profile(text, "default"), Some(S3Keys::new("A", "b=c")));
        assert_eq!(of_profile(text, "work"), Some(S3Keys::with_token("D", "e", "f")));
        assert_eq!(of_profile(text, "half"), None);
        assert_eq!(of_profile(text, "none"), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let keys = S3Keys::with_token("AKIA", "hidden", "hidden");
        let source = Source::Keys(keys.clone());
        let renewed = Source::Function(std::sync::Arc::new(move || Ok(keys.clone())));
        let shown = format!("{source:?} {renewed:?}");
        assert!(shown.contains("AKIA") && !shown.contains("hidden"), "{shown}");
    }
}
