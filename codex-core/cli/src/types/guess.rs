//! The type of a value that does not name it, guessed from its bytes.
//!
//! Of all readings of the bytes as a row of fields, the guess is the one that needs the fewest
//! bits: each field has a price for its type, and one for its value. Eight bytes of which seven are
//! zero are cheaper as one small `u64` than as eight `u8`, and printable text with its length
//! before it is cheaper than anything else.

use std::fmt;

use super::{Type, int};

/// Returns the guess at the type of a value, or `None` if no type explains the bytes.
pub fn guess(bytes: &[u8]) -> Option<Type> {
    if bytes.is_empty() {
        return Some(Type::Unit);
    }
    // A text may be long. All other values are guessed only while that is quick.
    if text(bytes).is_some_and(|(_, len)| len == bytes.len()) {
        return Some(Type::Str);
    }
    if bytes.len() > LEN_MAX {
        return None;
    }
    // For each place, from the end: the price of the bytes from there on, and their first field.
    let mut best: Vec<(u64, Type, usize)> = vec![(0, Type::Unit, 0)];
    for at in (0..bytes.len()).rev() {
        let rest = bytes.get(at..)?;
        let cheapest = fields(rest).into_iter().filter_map(|(of, len, price)| {
            // The places are in reverse: the last one is the place after this one.
            let (after, ..) = best.get(best.len().checked_sub(len)?)?;
            Some((after + price, of, len))
        });
        best.push(cheapest.min_by_key(|(price, ..)| *price)?);
    }
    let (price, ..) = best.last()?;
    let bits = 8 * u64::try_from(bytes.len()).ok()?;
    // Random bytes are no type.
    if *price > bits + SLACK {
        return None;
    }
    let (mut types, mut at) = (Vec::new(), best.len() - 1);
    while at > 0 {
        let (_, of, len) = best.get(at)?;
        types.push(of.clone());
        at -= len;
    }
    Some(if types.len() == 1 { types.remove(0) } else { Type::Tuple(types) })
}

const LEN_MAX: usize = 1024;
/// The number of bits that a reading may need in addition to the bits of the bytes themselves.
const SLACK: u64 = 16;
/// The price of one more field.
const FIELD: u64 = 10;
/// The price of a list or map, beside the one of its items.
const LIST: u64 = 22;
/// The price of a byte of text.
const TEXT: u64 = 5;

/// A type, the number of bytes that a value of it has, and its price.
type Field = (Type, usize, u64);

/// Returns the fields with which `bytes` may begin.
fn fields(bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    for of in SCALARS {
        if let Some((len, price)) = scalar(&of, bytes) {
            fields.push((of, len, FIELD + price));
        }
    }
    if let [first @ (0 | 1), rest @ ..] = bytes {
        // A byte that is 0 or 1 is more likely a boolean.
        fields.push((Type::Bool, 1, FIELD - 1));
        if let (1, Some((price, len))) = (first, text(rest)) {
            fields.push((Type::Option(Box::new(Type::Str)), 1 + len, FIELD + 2 + price));
        }
    }
    if let Some((price, len)) = text(bytes) {
        fields.push((Type::Str, len, FIELD + price));
    }
    // A list of one item looks like a number and a field after it.
    let Some((count, items)) = count(bytes).filter(|(count, _)| *count > 1) else {
        return fields;
    };
    if count <= items.len() {
        let bits = 8 * u64::try_from(count).unwrap_or(u64::MAX);
        fields.push((Type::Bytes, 8 + count, LIST + bits));
    }
    for of in SCALARS.into_iter().chain([Type::Str]) {
        if let Some((len, price)) = row(count, items, &[&of]) {
            fields.push((Type::List(Box::new(of.clone())), 8 + len, LIST + price));
        }
        if let Some((len, price)) = row(count, items, &[&Type::Str, &of]) {
            let map = Type::Map(Box::new(Type::Str), Box::new(of));
            fields.push((map, 8 + len, LIST + price));
        }
    }
    fields
}

const SCALARS: [Type; 10] = [
    int(8, false),
    int(4, false),
    int(8, true),
    int(4, true),
    Type::F64,
    Type::F32,
    int(1, false),
    int(2, false),
    int(16, false),
    int(2, true),
];

/// Returns the length and the price of `count` times these types.
fn row(count: usize, bytes: &[u8], types: &[&Type]) -> Option<(usize, u64)> {
    if count > bytes.len() {
        return None;
    }
    let (mut at, mut sum) = (0, 0);
    for of in std::iter::repeat_n(types, count).flatten() {
        let rest = bytes.get(at..)?;
        let (len, price) = match of {
            Type::Str => text(rest).map(|(price, len)| (len, price))?,
            of => scalar(of, rest)?,
        };
        at += len;
        sum += price + 1;
    }
    Some((at, sum))
}

/// Returns the length of a number and the price of its value: the bits or digits that matter.
fn scalar(of: &Type, bytes: &[u8]) -> Option<(usize, u64)> {
    match of {
        Type::F64 => {
            let value = f64::from_le_bytes(*bytes.first_chunk()?);
            Some((8, float(value.abs(), &value, 53)?))
        }
        Type::F32 => {
            let value = f32::from_le_bytes(*bytes.first_chunk()?);
            Some((4, 3 + float(value.abs().into(), &value, 24)?))
        }
        Type::Int { bytes: len, is_signed } => {
            let mut wide = [0; 16];
            for (to, from) in wide.iter_mut().zip(bytes.get(..*len)?) {
                *to = *from;
            }
            let spare = 128 - 8 * len;
            let value = (u128::from_le_bytes(wide) << spare).cast_signed() >> spare;
            let magnitude = match (is_signed, value) {
                // A number without a sign is cheaper.
                (true, 0..) => return None,
                (true, _) => !value.cast_unsigned() << 2 | 2,
                (false, _) => u128::from_le_bytes(wide),
            };
            // The widths that are used least are dearer.
            let rare = match len {
                8 | 4 => 0,
                1 => 1,
                _ => 3,
            };
            Some((*len, u64::from(u128::BITS - magnitude.leading_zeros()) + rare))
        }
        _ => None,
    }
}

/// Returns the price of a number by its digits, if it has the size of the numbers that people use.
fn float(size: f64, value: &dyn fmt::LowerExp, bits: u64) -> Option<u64> {
    if !(1e-6..1e12).contains(&size) {
        return None;
    }
    let text = format!("{value:e}");
    let (digits, _) = text.split_once('e')?;
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    let price = u64::try_from(count).ok()? * 10 / 3;
    Some(2 + price.min(bits))
}

/// Returns the price and the length of a text with its length before it.
fn text(bytes: &[u8]) -> Option<(u64, usize)> {
    let (len, rest) = count(bytes).filter(|(len, _)| *len > 0)?;
    let text = std::str::from_utf8(rest.get(..len)?).ok().filter(|text| is_text(text))?;
    Some((TEXT * u64::try_from(text.len()).ok()?, 8 + len))
}

/// Returns the number in the first eight bytes, and the bytes after it.
fn count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u64::from_le_bytes(*count)).ok()?, rest))
}

/// Returns true if the text has no control characters beside those of lines and columns.
pub fn is_text(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}
