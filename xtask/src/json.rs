//! A reader of the JSON that cargo prints: enough of it for `cargo metadata`, and no dependency.

use std::iter::Peekable;
use std::str::Chars;

/// A JSON value; a number keeps its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Reads one value that fills the whole text.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text.chars().peekable() };
        let value = reader.value()?;
        reader.space();
        match reader.rest.next() {
            None => Ok(value),
            Some(c) => Err(format!("JSON goes on with {c:?} after its end")),
        }
    }

    /// The field of an object; `Null` where there is none.
    pub(crate) fn field(&self, name: &str) -> &Self {
        let Self::Object(fields) = self else { return &Self::Null };
        fields.iter().find(|(key, _)| key == name).map_or(&Self::Null, |(_, value)| value)
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// The fields of an object; none for anything else.
    pub(crate) fn fields(&self) -> &[(String, Self)] {
        if let Self::Object(fields) = self { fields } else { &[] }
    }

    /// The text of a string; nothing for anything else.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The texts of a list of strings.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.items().iter().filter_map(Self::text).collect()
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value, String> {
        self.space();
        match self.rest.peek() {
            Some('{') => self.object(),
            Some('[') => self.list(),
            Some('"') => self.string().map(Value::Text),
            Some(_) => self.word(),
            None => Err("JSON ends in the middle".to_owned()),
        }
    }

    fn object(&mut self) -> Result<Value, String> {
        self.expect('{')?;
        let mut fields = Vec::new();
        while !self.ends('}') {
            if !fields.is_empty() {
                self.expect(',')?;
            }
            self.space();
            let key = self.string()?;
            self.expect(':')?;
            fields.push((key, self.value()?));
        }
        Ok(Value::Object(fields))
    }

    fn list(&mut self) -> Result<Value, String> {
        self.expect('[')?;
        let mut items = Vec::new();
        while !self.ends(']') {
            if !items.is_empty() {
                self.expect(',')?;
            }
            items.push(self.value()?);
        }
        Ok(Value::List(items))
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or("JSON ends inside a string")? {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        Ok(match self.rest.next().ok_or("JSON ends inside an escape")? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let high = self.unit()?;
                // A character beyond the first 65,536 comes as a pair of units.
                let code = if (0xD800..0xDC00).contains(&high) {
                    self.expect('\\')?;
                    self.expect('u')?;
                    0x10000 + ((high & 0x3FF) << 10) + (self.unit()? & 0x3FF)
                } else {
                    high
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            c => c,
        })
    }

    fn unit(&mut self) -> Result<u32, String> {
        let digits: String = self.rest.by_ref().take(4).collect();
        u32::from_str_radix(&digits, 16).map_err(|e| format!("JSON escape \\u{digits}: {e}"))
    }

    fn word(&mut self) -> Result<Value, String> {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c)) {
            word.push(c);
        }
        match word.as_str() {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            number if number.parse::<f64>().is_ok() => Ok(Value::Number(word)),
            _ => Err(format!("JSON has `{word}` where a value should be")),
        }
    }

    fn ends(&mut self, end: char) -> bool {
        self.space();
        self.rest.next_if_eq(&end).is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        self.space();
        match self.rest.next() {
            Some(c) if c == wanted => Ok(()),
            other => Err(format!("JSON has {other:?} where {wanted:?} should be")),
        }
    }

    fn space(&mut self) {
        while self.rest.next_if(char::is_ascii_whitespace).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn nested_values_are_read() {
        let value =
            Value::read(r#" {"a": [1, -2.5e3, true, null], "b": {"c": "d"}, "e": [], "f": {}} "#);
        let value = value.unwrap();
        assert_eq!(value.field("a").items().len(), 4);
        assert_eq!(value.field("a").items()[1], Value::Number("-2.5e3".to_owned()));
        assert_eq!(value.field("b").field("c").text(), Some("d"));
        assert_eq!(value.field("missing"), &Value::Null);
        assert_eq!(value.fields().len(), 4);
    }

    #[test]
    fn escapes_are_undone() {
        let value = Value::read(r#""a\"b\\c\n\u00e9\ud83d\ude00/\/""#).unwrap();
        assert_eq!(value.text(), Some("a\"b\\c\n\u{e9}\u{1f600}//"));
    }

    #[test]
    fn broken_text_is_an_error() {
        for text in ["", "{", "[1", "\"a", "{\"a\" 1}", "[1] x", "nul", "\"\\u12", "[1 2]", "[,1]"]
        {
            assert!(Value::read(text).is_err(), "{text:?} was read");
        }
    }
}
