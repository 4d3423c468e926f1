//! The bytes of a value of a known type, as JSON.

use std::fmt::Write as _;

use super::Type;
use super::quoted;
use crate::key;

impl Type {
    /// Returns a value of this type as JSON.
    ///
    /// # Errors
    /// The reason why the bytes are not a value of this type.
    pub fn read(&self, bytes: &[u8]) -> Result<String, String> {
        let json_len_max = AMPLIFIED_MAX.saturating_mul(bytes.len()).saturating_add(1 << 20);
        let mut reader = Reader { rest: bytes, json: String::new(), json_len_max };
        reader.value(self).map_err(|why| {
            let at = bytes.len() - reader.rest.len();
            format!("the value is no {self}: {why} at byte {at} of {}", bytes.len())
        })?;
        if !reader.rest.is_empty() {
            let (left, len) = (reader.rest.len(), bytes.len());
            return Err(format!("the value is no {self}: {left} of {len} bytes are left over"));
        }
        Ok(reader.json)
    }

    /// Returns true if some value of this type has no bytes.
    fn may_be_empty(&self) -> bool {
        match self {
            Self::Unit => true,
            Self::Array(of, len) => *len == 0 || of.may_be_empty(),
            Self::Tuple(types) => types.iter().all(Self::may_be_empty),
            Self::Struct(fields) => fields.iter().all(|(_, of)| of.may_be_empty()),
            _ => false,
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    json: String,
    json_len_max: usize,
}

/// The maximum number of bytes of JSON for each byte of a value. Items without bytes would have no
/// bound.
const AMPLIFIED_MAX: usize = 1024;

/// Nothing, or the reason why the bytes are of another type.
type Read<T = ()> = Result<T, String>;

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let split = self.rest.split_at_checked(len);
        let (taken, rest) = split.ok_or_else(|| "it ends too early".to_owned())?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a number of up to 16 bytes.
    fn number(&mut self, len: usize) -> Read<u128> {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(self.take(len)?) {
            *to = *from;
        }
        Ok(u128::from_le_bytes(bytes))
    }

    /// Reads the number of the items that follow.
    fn len(&mut self, is_plausible: impl Fn(usize, usize) -> bool) -> Read<usize> {
        let before = self.rest;
        let len = usize::try_from(self.number(8)?).unwrap_or(usize::MAX);
        if is_plausible(len, self.rest.len()) {
            return Ok(len);
        }
        self.rest = before;
        Err(format!("there is a length of {len}"))
    }

    fn value(&mut self, of: &Type) -> Read {
        if self.json.len() > self.json_len_max {
            return Err("there are too many items without bytes".to_owned());
        }
        match of {
            Type::Unit => self.json.push_str("null"),
            Type::Bool => {
                let text = match self.take(1)? {
                    [0] => "false",
                    [1] => "true",
                    _ => return Err("a boolean is neither 0 nor 1".to_owned()),
                };
                self.json.push_str(text);
            }
            Type::Int { bytes, is_signed } => self.int(*bytes, *is_signed)?,
            Type::F32 => {
                let bits = u32::try_from(self.number(4)?).unwrap_or_default();
                self.json.push_str(&json_float(&f32::from_bits(bits)));
            }
            Type::F64 => {
                let bits = u64::try_from(self.number(8)?).unwrap_or_default();
                self.json.push_str(&json_float(&f64::from_bits(bits)));
            }
            Type::Char => {
                let len = self.rest.utf8_chunks().next().and_then(|chunk| {
                    let first = chunk.valid().chars().next()?;
                    Some(first.len_utf8())
                });
                let bytes = self.take(len.ok_or_else(|| "a character is not UTF-8".to_owned())?)?;
                self.json.push_str(&quoted(&String::from_utf8_lossy(bytes)));
            }
            Type::Str => {
                let len = self.len(|len, rest| len <= rest)?;
                let text = std::str::from_utf8(self.take(len)?);
                let text = text.map_err(|_| "a text is not UTF-8".to_owned())?;
                self.json.push_str(&quoted(text));
            }
            Type::Bytes => {
                let len = self.len(|len, rest| len <= rest)?;
                let hex = key::hex(self.take(len)?);
                self.json.push_str(&quoted(&hex));
            }
            Type::Option(of) => match self.take(1)? {
                [0] => self.json.push_str("null"),
                [1] => self.value(of)?,
                _ => return Err("an option is neither 0 nor 1".to_owned()),
            },
            Type::List(of) => {
                let may_be_empty = of.may_be_empty();
                let len = self.len(|len, rest| len <= rest || may_be_empty && len <= EMPTY_MAX)?;
                self.items(&mut std::iter::repeat_n(&**of, len))?;
            }
            Type::Array(of, len) => {
                if of.may_be_empty() && *len > EMPTY_MAX {
                    return Err("an array is too long".to_owned());
                }
                self.items(&mut std::iter::repeat_n(&**of, *len))?;
            }
            Type::Tuple(types) => self.items(&mut types.iter())?,
            Type::Struct(fields) => self.fields(fields)?,
            Type::Map(key, value) => self.map(key, value)?,
            Type::Enum(variants) => self.variant(variants)?,
        }
        Ok(())
    }

    fn int(&mut self, bytes: usize, is_signed: bool) -> Read {
        let value = self.number(bytes)?;
        let spare = 128 - 8 * bytes;
        let shown = if is_signed {
            // The sign is the highest bit of the number.
            write!(self.json, "{}", (value << spare).cast_signed() >> spare)
        } else {
            write!(self.json, "{value}")
        };
        shown.expect("a string can be written to");
        Ok(())
    }

    fn items(&mut self, types: &mut dyn Iterator<Item = &Type>) -> Read {
        self.json.push('[');
        for (at, of) in types.enumerate() {
            self.comma(at);
            self.value(of)?;
        }
        self.json.push(']');
        Ok(())
    }

    fn fields(&mut self, fields: &[(String, Type)]) -> Read {
        self.json.push('{');
        for (at, (name, of)) in fields.iter().enumerate() {
            self.comma(at);
            self.json.push_str(&quoted(name));
            self.json.push(':');
            self.value(of)?;
        }
        self.json.push('}');
        Ok(())
    }

    /// Reads a map: an object, or a list of pairs if its keys are no names.
    fn map(&mut self, key: &Type, value: &Type) -> Read {
        let may_be_empty = key.may_be_empty() && value.may_be_empty();
        let len = self.len(|len, rest| len <= rest || may_be_empty && len <= EMPTY_MAX)?;
        let is_object = key.is_name();
        self.json.push(if is_object { '{' } else { '[' });
        for at in 0..len {
            self.comma(at);
            if is_object {
                let start = self.json.len();
                self.value(key)?;
                // A number is a name in quotes.
                let name = self.json.split_off(start);
                let name = if name.starts_with('"') { name } else { quoted(&name) };
                self.json.push_str(&name);
                self.json.push(':');
                self.value(value)?;
            } else {
                self.items(&mut [key, value].into_iter())?;
            }
        }
        self.json.push(if is_object { '}' } else { ']' });
        Ok(())
    }

    fn variant(&mut self, variants: &[(String, Type)]) -> Read {
        let number = self.number(4)?;
        let variant = usize::try_from(number).ok().and_then(|at| variants.get(at));
        let (name, content) = variant.ok_or_else(|| format!("there is no variant {number}"))?;
        if *content == Type::Unit {
            self.json.push_str(&quoted(name));
            return Ok(());
        }
        self.json.push('{');
        self.json.push_str(&quoted(name));
        self.json.push(':');
        self.value(content)?;
        self.json.push('}');
        Ok(())
    }

    fn comma(&mut self, at: usize) {
        if at > 0 {
            self.json.push(',');
        }
    }
}

/// The largest number of items without bytes that are shown.
const EMPTY_MAX: usize = 1_000;

/// Returns a number as JSON. JSON has no infinity and no `NaN`: these are texts.
fn json_float<T: serde::Serialize + std::fmt::Display>(value: &T) -> String {
    let json = serde_json::to_string(value).expect("a number is JSON");
    if json == "null" { quoted(&value.to_string()) } else { json }
}
