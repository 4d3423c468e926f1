//! JSON as the bytes of a value of a known type.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Type;
use super::quoted;
use crate::key;

impl Type {
    /// Returns the bytes that the codec bincode writes for a value of this type.
    ///
    /// # Errors
    /// The reason why the JSON is not a value of this type.
    pub fn write(&self, json: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        write(self, json, &mut bytes)?;
        Ok(bytes)
    }
}

fn write(of: &Type, json: &str, to: &mut Vec<u8>) -> Result<(), String> {
    let refused = || format!("{} is no {of}", shortened(json));
    match of {
        Type::Unit => drop(parse::<()>(json).ok_or_else(refused)?),
        Type::Bool => to.push(parse::<bool>(json).ok_or_else(refused)?.into()),
        Type::Char => {
            let c: char = parse(json).ok_or_else(refused)?;
            to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Type::Int { bytes, is_signed } => {
            let value = int(json.trim(), *bytes, *is_signed).ok_or_else(refused)?;
            to.extend(value.to_le_bytes().into_iter().take(*bytes));
        }
        Type::F32 => to.extend(float::<f32>(json).ok_or_else(refused)?.to_le_bytes()),
        Type::F64 => to.extend(float::<f64>(json).ok_or_else(refused)?.to_le_bytes()),
        Type::Str => {
            let text: Cow<'_, str> = parse(json).ok_or_else(refused)?;
            len(text.len(), to);
            to.extend_from_slice(text.as_bytes());
        }
        Type::Bytes => {
            let text: Cow<'_, str> = parse(json).ok_or_else(refused)?;
            let bytes = key::from_hex(&text).ok_or_else(refused)?;
            len(bytes.len(), to);
            to.extend_from_slice(&bytes);
        }
        Type::Option(_) if json.trim() == "null" => to.push(0),
        Type::Option(of) => {
            to.push(1);
            write(of, json, to)?;
        }
        Type::List(of) => {
            let items: Vec<&RawValue> = parse(json).ok_or_else(refused)?;
            len(items.len(), to);
            items.iter().try_for_each(|item| write(of, item.get(), to))?;
        }
        Type::Array(of, len) => {
            let items: Vec<&RawValue> = parse(json).ok_or_else(refused)?;
            if items.len() != *len {
                return Err(refused());
            }
            items.iter().try_for_each(|item| write(of, item.get(), to))?;
        }
        Type::Tuple(types) => {
            let items: Vec<&RawValue> = parse(json).ok_or_else(refused)?;
            if items.len() != types.len() {
                return Err(refused());
            }
            types.iter().zip(items).try_for_each(|(of, item)| write(of, item.get(), to))?;
        }
        Type::Struct(fields) => {
            let given: Pairs<'_> = parse(json).ok_or_else(refused)?;
            write_fields(fields, &given.0, to)?;
        }
        Type::Map(key, value) => write_map(of, (key, value), json, to)?,
        Type::Enum(variants) => write_variant(of, variants, json, to)?,
    }
    Ok(())
}

/// Writes the fields of a struct. All of them must be given, and no other.
fn write_fields(
    fields: &[(String, Type)],
    given: &[(Cow<'_, str>, &RawValue)],
    to: &mut Vec<u8>,
) -> Result<(), String> {
    let unknown = given.iter().find(|(name, _)| fields.iter().all(|(known, _)| known != name));
    if let Some((name, _)) = unknown {
        return Err(format!("there is no field `{name}`"));
    }
    for (name, of) in fields {
        let item = given.iter().find(|(given, _)| given == name);
        let (_, item) = item.ok_or_else(|| format!("the field `{name}` is missing"))?;
        write(of, item.get(), to)?;
    }
    Ok(())
}

/// Writes a map: an object, or a list of pairs if its keys are no names.
fn write_map(
    of: &Type,
    (key, value): (&Type, &Type),
    json: &str,
    to: &mut Vec<u8>,
) -> Result<(), String> {
    let refused = || format!("{} is no {of}", shortened(json));
    if !key.is_name() {
        let pairs: Vec<(&RawValue, &RawValue)> = parse(json).ok_or_else(refused)?;
        len(pairs.len(), to);
        return pairs.into_iter().try_for_each(|(first, second)| {
            write(key, first.get(), to)?;
            write(value, second.get(), to)
        });
    }
    let given: Pairs<'_> = parse(json).ok_or_else(refused)?;
    len(given.0.len(), to);
    // The name of a number is the number in quotes.
    let is_text = matches!(key, Type::Str | Type::Char | Type::Enum(_));
    for (name, item) in &given.0 {
        let name = if is_text { quoted(name) } else { name.to_string() };
        write(key, &name, to)?;
        write(value, item.get(), to)?;
    }
    Ok(())
}

fn write_variant(
    of: &Type,
    variants: &[(String, Type)],
    json: &str,
    to: &mut Vec<u8>,
) -> Result<(), String> {
    let refused = || format!("{} is no {of}", shortened(json));
    let (name, content) = match parse::<Cow<'_, str>>(json) {
        Some(name) => (name, None),
        None => match <[_; 1]>::try_from(parse::<Pairs<'_>>(json).ok_or_else(refused)?.0) {
            Ok([(name, content)]) => (name, Some(content)),
            Err(_) => return Err(refused()),
        },
    };
    let at = variants.iter().position(|(known, _)| *known == name).ok_or_else(refused)?;
    let number = u32::try_from(at).map_err(|_| refused())?;
    to.extend(number.to_le_bytes());
    match (variants.get(at), content) {
        (Some((_, Type::Unit)), None) => Ok(()),
        (Some((_, of)), Some(content)) if *of != Type::Unit => write(of, content.get(), to),
        _ => Err(refused()),
    }
}

/// Writes the number of the items that follow.
fn len(len: usize, to: &mut Vec<u8>) {
    to.extend(u64::try_from(len).unwrap_or(u64::MAX).to_le_bytes());
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok()
}

/// Returns the two's complement of a number that fits into `bytes` bytes.
fn int(digits: &str, bytes: usize, is_signed: bool) -> Option<u128> {
    let bits = u32::try_from(8 * bytes).ok()?;
    if is_signed {
        let value = i128::from_str(digits).ok()?;
        let spare = 128 - bits;
        return (value << spare >> spare == value).then_some(value.cast_unsigned());
    }
    let value = u128::from_str(digits).ok()?;
    (value.leading_zeros() >= 128 - bits).then_some(value)
}

/// Returns a number that was given as digits, or as one of the texts `inf`, `-inf` and `NaN`.
fn float<T: FromStr>(json: &str) -> Option<T> {
    let digits = match parse::<Cow<'_, str>>(json) {
        Some(text) => matches!(&*text, "inf" | "-inf" | "NaN").then_some(text)?,
        None => json.trim().into(),
    };
    digits.parse().ok()
}

/// Returns the beginning of a text that may be long.
fn shortened(json: &str) -> String {
    let start: String = json.chars().take(40).collect();
    if start.len() < json.len() { format!("`{start}...`") } else { format!("`{start}`") }
}

/// The names and values of an object, in their order.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    pairs.push((name.into(), value));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
