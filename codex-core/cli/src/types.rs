//! The types of values, as they are typed after `--as`: values that the codec bincode has written
//! do not name their type.

mod guess;
mod read;
mod write;

use std::fmt;
use std::str::FromStr;

pub use guess::{guess, is_text};

/// A type in the notation of Rust. Names of structs are left out: `{name: str, stars: u32}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Unit,
    Bool,
    Char,
    Int {
        bytes: usize,
        is_signed: bool,
    },
    F32,
    F64,
    Str,
    /// Bytes with their number before them. JSON has them as a text of hex digits.
    Bytes,
    Option(Box<Self>),
    List(Box<Self>),
    Array(Box<Self>, usize),
    Tuple(Vec<Self>),
    Struct(Vec<(String, Self)>),
    Map(Box<Self>, Box<Self>),
    /// The variants, with their content: `Unit`, a type, a `Tuple` or a `Struct`.
    Enum(Vec<(String, Self)>),
}

/// Returns `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

impl Type {
    /// Returns true if a JSON object can have values of this type as its names.
    fn is_name(&self) -> bool {
        match self {
            Self::Str | Self::Char | Self::Bool | Self::Int { .. } => true,
            Self::Enum(variants) => variants.iter().all(|(_, content)| *content == Self::Unit),
            _ => false,
        }
    }
}

/// The types with a fixed name, and other names that mean the same.
static NAMES: [(&str, Type); 20] = [
    ("bool", Type::Bool),
    ("char", Type::Char),
    ("u8", int(1, false)),
    ("u16", int(2, false)),
    ("u32", int(4, false)),
    ("u64", int(8, false)),
    ("u128", int(16, false)),
    ("i8", int(1, true)),
    ("i16", int(2, true)),
    ("i32", int(4, true)),
    ("i64", int(8, true)),
    ("i128", int(16, true)),
    ("usize", int(8, false)),
    ("isize", int(8, true)),
    ("f32", Type::F32),
    ("f64", Type::F64),
    ("str", Type::Str),
    ("&str", Type::Str),
    ("String", Type::Str),
    ("bytes", Type::Bytes),
];

const fn int(bytes: usize, is_signed: bool) -> Type {
    Type::Int { bytes, is_signed }
}

/// Prints the type in the form in which it can be typed.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, types: &[Self]| {
            for (at, one) in types.iter().enumerate() {
                write!(f, "{}{one}", if at == 0 { "" } else { ", " })?;
            }
            Ok(())
        };
        match self {
            Self::Unit => f.write_str("()"),
            Self::Option(of) => write!(f, "Option<{of}>"),
            Self::List(of) => write!(f, "[{of}]"),
            Self::Array(of, len) => write!(f, "[{of}; {len}]"),
            Self::Map(key, value) => write!(f, "Map<{key}, {value}>"),
            Self::Tuple(types) => {
                f.write_str("(")?;
                list(f, types)?;
                f.write_str(if types.len() == 1 { ",)" } else { ")" })
            }
            Self::Struct(fields) => {
                f.write_str("{")?;
                for (at, (name, of)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {of}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Self::Enum(variants) => {
                f.write_str("enum {")?;
                for (at, (name, content)) in variants.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { ", " })?;
                    match content {
                        Self::Unit => f.write_str(name)?,
                        Self::Tuple(_) | Self::Struct(_) => write!(f, "{name}{content}")?,
                        of => write!(f, "{name}({of})")?,
                    }
                }
                f.write_str("}")
            }
            named => {
                let name = NAMES.iter().find(|(_, of)| of == named);
                f.write_str(name.map_or("?", |(name, _)| name))
            }
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text, depth: 0 };
        let parsed = parser.of().and_then(|of| {
            parser.skip_spaces();
            if parser.rest.is_empty() { Ok(of) } else { Err("the end") }
        });
        parsed.map_err(|expected| {
            let at = text.len() - parser.rest.len();
            format!("{expected} is expected at byte {at}; {EXAMPLES}")
        })
    }
}

const EXAMPLES: &str = "types are such as `u64`, `str`, `[f32]`, `Option<bool>`, `(u8, str)`, \
                        `{name: str, stars: u32}`, `Map<str, i64>`, `enum {Open, Shut(u64)}`";

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// The limit of the library for nested values.
const DEPTH_MAX: usize = 126;

/// The result of a parser, or the text that was expected.
type Parsed<T> = Result<T, &'static str>;

impl<'a> Parser<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes `token` if it comes next.
    fn takes(&mut self, token: &str) -> bool {
        self.skip_spaces();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take(&mut self, token: &'static str) -> Parsed<()> {
        if self.takes(token) { Ok(()) } else { Err(token) }
    }

    fn name(&mut self) -> Parsed<&'a str> {
        self.skip_spaces();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '&' | '#');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            return Err("a name");
        }
        self.rest = rest;
        Ok(name)
    }

    fn of(&mut self) -> Parsed<Type> {
        if self.depth == DEPTH_MAX {
            return Err("a type with fewer levels");
        }
        self.depth += 1;
        let of = self.inner();
        self.depth -= 1;
        of
    }

    fn inner(&mut self) -> Parsed<Type> {
        if self.takes("[") {
            let of = Box::new(self.of()?);
            if self.takes(";") {
                self.skip_spaces();
                let before = self.rest;
                let len = self.name()?.parse().map_err(|_| {
                    self.rest = before;
                    "a number"
                })?;
                self.take("]")?;
                return Ok(Type::Array(of, len));
            }
            self.take("]")?;
            return Ok(Type::List(of));
        }
        if self.takes("(") {
            return self.tuple();
        }
        if self.takes("{") {
            return Ok(Type::Struct(self.until("}", |parser| {
                let name = parser.name()?.to_owned();
                parser.take(":")?;
                Ok((name, parser.of()?))
            })?));
        }
        self.skip_spaces();
        let before = self.rest;
        let name = self.name().map_err(|_| "a type")?;
        if let Some((_, of)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(of.clone());
        }
        match name {
            "enum" => {
                self.take("{")?;
                Ok(Type::Enum(self.until("}", Self::variant)?))
            }
            "Option" | "Vec" => {
                self.take("<")?;
                let of = Box::new(self.of()?);
                self.take(">")?;
                Ok(if name == "Vec" { Type::List(of) } else { Type::Option(of) })
            }
            "Map" | "HashMap" | "BTreeMap" => {
                self.take("<")?;
                let key = Box::new(self.of()?);
                self.take(",")?;
                let value = Box::new(self.of()?);
                self.take(">")?;
                Ok(Type::Map(key, value))
            }
            _ => {
                self.rest = before;
                Err("a type")
            }
        }
    }

    /// Parses the rest of a tuple, or of a type in parentheses.
    fn tuple(&mut self) -> Parsed<Type> {
        let mut types = Vec::new();
        while !self.takes(")") {
            types.push(self.of()?);
            if !self.takes(",") {
                self.take(")")?;
                return Ok(if types.len() == 1 { types.remove(0) } else { Type::Tuple(types) });
            }
        }
        Ok(if types.is_empty() { Type::Unit } else { Type::Tuple(types) })
    }

    fn variant(&mut self) -> Parsed<(String, Type)> {
        let name = self.name()?.to_owned();
        let has_content = self.rest.trim_start().starts_with(['(', '{']);
        Ok((name, if has_content { self.of()? } else { Type::Unit }))
    }

    /// Parses items between commas, up to `end`.
    fn until<T>(
        &mut self,
        end: &'static str,
        item: impl Fn(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(item(self)?);
            if !self.takes(",") {
                self.take(end)?;
                break;
            }
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests;
