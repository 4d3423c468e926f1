//! One value, in parts of a bounded length.

use codex_core::{Codec, ValueRef};
use serde::Serialize;

use crate::key;
use crate::space::Space;
use crate::time;
use crate::types::{Type, guess};
use crate::view::answer::{Answer, Refused};
use crate::view::request::Request;
use crate::view::site::Site;
use crate::view::text;

#[derive(Serialize)]
struct Value {
    key: String,
    seq: u64,
    codec: &'static str,
    len: usize,
    expires_us: Option<i64>,
    /// Whether the contents are left out, because the store is encrypted.
    hidden: bool,
    /// The beginning of the value, if it is text.
    text: Option<String>,
    /// The bytes from `offset` on.
    hex: Option<String>,
    offset: usize,
    /// The value as one of a type.
    read: Option<Read>,
    /// Why the value is none of the type that was asked for.
    unread: Option<String>,
}

#[derive(Serialize)]
struct Read {
    r#type: String,
    json: String,
    guess: bool,
}

/// Returns the value of a key, or nothing if there is no such key.
pub(super) fn show(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let state = site.state(request)?;
    let space = state.space(request)?;
    let wanted = wanted(request, &space)?;
    let found = space.scan(&state.snapshot, &wanted..=&wanted).next();
    let Some(entry) = found else { return Ok(Answer::json(&None::<Value>)) };
    let value = entry.value_ref();
    let len = value.len();
    let offset = request.number("offset")?.and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.unwrap_or_default().min(len);
    let text = std::str::from_utf8(text::cut(&value, TEXT_LEN_MAX)).ok().map(str::to_owned);
    let end = len.min(offset + HEX_LEN_MAX);
    let hex = value.get(offset..end).map(key::hex);
    let (read, unread) = match read(&value, request.param("as"), site.shows_values) {
        Ok(read) => (read, None),
        Err(why) => (None, Some(why)),
    };
    Ok(Answer::json(&Value {
        key: space.text(&wanted),
        seq: state.seq,
        codec: text::codec(&value),
        len,
        expires_us: entry.expires_at().map(time::to_us),
        hidden: !site.shows_values,
        text: text.filter(|_| site.shows_values && offset == 0),
        hex: hex.filter(|_| site.shows_values),
        offset,
        read,
        unread,
    }))
}

/// Returns the bytes of the key that a request names.
pub(super) fn wanted(request: &Request, space: &Space) -> Result<Vec<u8>, Refused> {
    let Some(key) = request.typed("key")? else { return Ok(Vec::new()) };
    space.typed(&key).map_err(|why| Answer::refuse(400, &why))
}

/// Returns a value that does not name its type as one of the type `wanted`, or of a guessed one.
fn read(value: &ValueRef, wanted: Option<&str>, is_shown: bool) -> Result<Option<Read>, String> {
    if !is_shown || value.codec() == Some(Codec::Json) {
        return Ok(None);
    }
    let found = match wanted {
        Some(_) if value.len() > READ_LEN_MAX => {
            return Err(format!("only a value of at most {READ_LEN_MAX} bytes is read as a type"));
        }
        Some(text) => {
            let of: Type = text.parse()?;
            Some((of.read(value)?, of))
        }
        None if value.codec() == Some(Codec::Bincode) => {
            guess(value).and_then(|of| Some((of.read(value).ok()?, of)))
        }
        None => None,
    };
    Ok(match found {
        Some((json, _)) if json.len() > TEXT_LEN_MAX && wanted.is_some() => {
            return Err("the reading is too long for this page".to_owned());
        }
        Some((json, of)) if json.len() <= TEXT_LEN_MAX => {
            Some(Read { r#type: of.to_string(), json, guess: wanted.is_none() })
        }
        _ => None,
    })
}

/// The maximum length of a value that is read as a type.
const READ_LEN_MAX: usize = 64 << 10;

/// The maximum length of a text in an answer, in bytes. A longer value is shown up to here.
const TEXT_LEN_MAX: usize = 1 << 20;
/// The maximum number of bytes of which an answer has hex digits.
const HEX_LEN_MAX: usize = 16 << 10;
