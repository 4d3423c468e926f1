//! The output: aligned text for people, one JSON object a line for programs.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use codex_core::Store;
use codex_core::internals::tables;
pub(crate) use codexdb::types::quoted;

use crate::failure::Failure;
use crate::{Outcome, key, time};

/// The buffered stdout, and the way in which it is written to.
pub(crate) struct Out {
    to: BufWriter<Stdout>,
    /// Whether a program reads the output.
    pub(crate) json: bool,
    /// Whether a person reads the output.
    pub(crate) is_terminal: bool,
    colours: bool,
    /// Whether the user wants no more output.
    is_stopped: Option<Arc<AtomicBool>>,
}

/// One value of a record.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Text(String),
    Count(u64),
    Bytes(u64),
    Flag(bool),
    /// A time in microseconds since 1970.
    Time(i64),
    /// A list of texts.
    List(Vec<String>),
    /// JSON that is printed as it is.
    Json(String),
    /// A column that only people see.
    Drawing(String),
    Nothing,
}

/// Names and values, in the order in which they are printed.
pub(crate) type Record = Vec<(&'static str, Cell)>;

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        // https://no-color.org
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = is_terminal && !json && !refused && !dumb;
        Self { to: BufWriter::new(io::stdout()), json, is_terminal, colours, is_stopped: None }
    }

    /// Makes printing an error from the time on at which `is_stopped` is true.
    pub(crate) fn stop_if(&mut self, is_stopped: Arc<AtomicBool>) {
        self.is_stopped = Some(is_stopped);
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: &str) -> Outcome<()> {
        if self.is_stopped.as_ref().is_some_and(|stopped| stopped.load(Ordering::SeqCst)) {
            return Err(Failure::Interrupted);
        }
        Ok(writeln!(self.to, "{text}")?)
    }

    /// Prints text of any kind. A terminal acts on nothing of it but the ends of lines.
    pub(crate) fn text(&mut self, text: &str) -> Outcome<()> {
        if !self.is_terminal {
            return self.line(text);
        }
        text.lines().try_for_each(|line| {
            let shown =
                line.chars().map(|c| if key::is_plain(c) || c == '\t' { c } else { '\u{fffd}' });
            self.line(&shown.collect::<String>())
        })
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.to.write_all(bytes)?)
    }

    pub(crate) fn flush(&mut self) -> Outcome<()> {
        Ok(self.to.flush()?)
    }

    /// Prints one record: a line for each value, or one JSON object.
    pub(crate) fn record(&mut self, record: &Record) -> Outcome<()> {
        if self.json {
            return self.line(&object(record));
        }
        let width = record.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, cell) in record {
            if !matches!(cell, Cell::Nothing) {
                let name = self.faint(&format!("{name:width$}"));
                self.line(&format!("{name}  {}", cell.plain()))?;
            }
        }
        Ok(())
    }

    /// Prints records with the same names: a table, or one JSON object a line.
    pub(crate) fn table(&mut self, records: &[Record]) -> Outcome<()> {
        if self.json {
            return records.iter().try_for_each(|record| self.line(&object(record)));
        }
        let Some(first) = records.first() else { return Ok(()) };
        let cells: Vec<Vec<String>> =
            records.iter().map(|r| r.iter().map(|(_, cell)| cell.plain()).collect()).collect();
        let len = |text: &str| text.chars().count();
        let widths: Vec<usize> = first
            .iter()
            .enumerate()
            .map(|(at, (name, _))| {
                let column = cells.iter().filter_map(|row| row.get(at));
                column.map(|cell| len(cell)).chain([len(name)]).max().unwrap_or_default()
            })
            .collect();
        let right: Vec<bool> = first.iter().map(|(_, cell)| cell.is_number()).collect();
        let row = |texts: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((text, width), right) in texts.zip(&widths).zip(&right) {
                let space = " ".repeat(width.saturating_sub(len(text)));
                let (before, after) = if *right { (&*space, "") } else { ("", &*space) };
                write!(line, "{before}{text}{after}  ").expect("a string can be written to");
            }
            line.trim_end().to_owned()
        };
        let head = row(&mut first.iter().map(|(name, _)| *name));
        let head = self.faint(&head);
        self.line(&head)?;
        cells.iter().try_for_each(|cells| self.line(&row(&mut cells.iter().map(String::as_str))))
    }

    fn faint(&self, text: &str) -> String {
        if self.colours { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Cell {
    fn is_number(&self) -> bool {
        matches!(self, Self::Count(_) | Self::Bytes(_))
    }

    /// Returns the text for people.
    fn plain(&self) -> String {
        match self {
            Self::Text(text) | Self::Json(text) | Self::Drawing(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Bytes(bytes) => size(*bytes),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Self::Time(time_us) => time::show(*time_us),
            Self::List(texts) if texts.is_empty() => "none".to_owned(),
            Self::List(texts) => texts.join(", "),
            Self::Nothing => "-".to_owned(),
        }
    }

    /// Returns the value for programs, or `None` if it is not meant for them.
    fn json(&self) -> Option<String> {
        Some(match self {
            Self::Text(text) => quoted(text),
            Self::Count(number) | Self::Bytes(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Time(time_us) => quoted(&time::show(*time_us)),
            Self::List(texts) => {
                format!("[{}]", texts.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(","))
            }
            Self::Json(json) => json.clone(),
            Self::Drawing(_) => return None,
            Self::Nothing => "null".to_owned(),
        })
    }
}

impl<T> From<Option<T>> for Cell
where
    Self: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Self::from)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Prints a note to stderr. It is lost if stderr is closed.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "note: {text}");
}

/// Prints the reason for the answer no to stderr. It is lost if stderr is closed.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "codexdb: {text}");
}

/// Tells that a command leaves out the entries of tables, if the store has some.
pub(crate) fn note_tables(store: &Store, is_not: &str) {
    let tables = tables(&store.snapshot());
    if !tables.is_empty() {
        let entries: u64 = tables.iter().map(|table| table.entries).sum();
        let count = tables.len();
        note(&format!(
            "{entries} entries in {count} tables are not {is_not}; keys outside them are"
        ));
    }
}

/// Returns a JSON object.
pub(crate) fn object(record: &Record) -> String {
    let mut text = String::from("{");
    for (name, cell) in record {
        if let Some(json) = cell.json() {
            let comma = if text.len() > 1 { "," } else { "" };
            let name = quoted(&name.replace(' ', "_"));
            write!(text, "{comma}{name}:{json}").expect("a string can be written to");
        }
    }
    text + "}"
}

/// Returns a number of bytes with its unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, rounded down: no float is needed.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, "KiB");
    for next in &UNITS[1..] {
        if tenths >= 10_240 {
            (tenths, unit) = (tenths / 1024, next);
        }
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{Cell, object, size};

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(1 << 20), "1.0 MiB");
        assert_eq!(size(5 << 40), "5.0 TiB");
    }

    #[test]
    fn an_object_has_its_names_in_order_and_no_drawing() {
        let record = vec![
            ("last key", Cell::Text("a\"b".to_owned())),
            ("bar", Cell::Drawing("##".to_owned())),
            ("count", Cell::Count(1)),
            ("none", Cell::Nothing),
        ];
        assert_eq!(object(&record), r#"{"last_key":"a\"b","count":1,"none":null}"#);
    }
}
