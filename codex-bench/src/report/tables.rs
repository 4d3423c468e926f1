//! The tables of a record, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Cell, Group, Record, Row, Unit};
use crate::Outcome;
use crate::numbers::span;

/// Returns the text of the document with the tables of `record` between the two marks.
///
/// # Errors
/// An error if the document lacks a mark.
pub fn replace(document: &str, record: &Record) -> Outcome<String> {
    let (before, rest) = document.split_once(BEGIN).ok_or("the document has no mark")?;
    let (_, after) = rest.split_once(END).ok_or("the document has no second mark")?;
    Ok(format!("{before}{BEGIN}\n\n{}{END}{after}", tables(record)))
}

/// Returns all tables, with their headings and plots.
pub fn tables(record: &Record) -> String {
    let mut text = String::new();
    for row in &record.rows {
        let _ = writeln!(text, "### {}\n\n{}\n", row.title, row.about);
        let _ = writeln!(text, "![{}](bench/{}.svg)\n", row.title, row.name);
        text.push_str(&table(row));
        let Row { name, date, commit, seconds, .. } = row;
        let _ = write!(text, "\n`--row {name}`, {date} UTC, commit {commit}, {seconds} s");
        let note = if row.note.is_empty() { String::new() } else { format!("; {}", row.note) };
        let _ = writeln!(text, "{note}.\n");
    }
    text.push_str(&machines(record));
    text.push_str(&settings(record));
    text
}

/// Returns the table of a row: a line for each store, and the ratio of ours to the best other one.
pub fn table(row: &Row) -> String {
    let cases = row.cases();
    let mut text = format!("| store | {} |\n|---|", cases.join(" | "));
    text.push_str(&"---:|".repeat(cases.len()));
    text.push('\n');
    for store in &row.stores {
        let name = match store.group {
            Group::Ours => format!("**{}**", store.name),
            Group::Other => store.name.clone(),
            Group::Weaker => format!("{} †", store.name),
            Group::Limit => format!("*{}*", store.name),
        };
        let _ = write!(text, "| {name} |");
        for case in &cases {
            let shown = row.cell(&store.name, case).map_or_else(|| "-".to_owned(), figure);
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    let leads: Vec<_> = cases.iter().map(|case| row.lead(case)).collect();
    if leads.iter().any(Option::is_some) {
        text.push_str("| CodexDB / best other store |");
        for lead in leads {
            let digits = |ratio: f64| if ratio < 0.1 { 4 } else { 2 };
            let shown = lead.map(|(best, ratio)| format!("**{ratio:.*}** ({best})", digits(ratio)));
            let _ = write!(text, " {} |", shown.as_deref().unwrap_or("-"));
        }
        text.push('\n');
    }
    text
}

/// Returns the figure as a cell shows it: the median, and the 99th percentile of the times.
fn figure(cell: &Cell) -> String {
    let median = value(cell.median(), cell.unit);
    match cell.latency {
        Some([_, p99]) => format!("{median} ({})", span(Duration::from_nanos(p99))),
        None => median,
    }
}

/// Formats a value of a unit.
pub fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond => match value {
            v if v >= 1e6 => format!("{:.2} M", v / 1e6),
            v if v >= 1e5 => format!("{:.0} k", v / 1e3),
            v if v >= 1e3 => format!("{:.1} k", v / 1e3),
            v => format!("{v:.0}"),
        },
        Unit::Ns if value < 1e3 => format!("{value:.0} ns"),
        Unit::Ns => span(Duration::from_secs_f64(value / 1e9)),
        Unit::Times => format!("{value:.2}"),
    }
}

/// Lists the machines of the rows, which may differ.
fn machines(record: &Record) -> String {
    let mut machines: Vec<&str> = record.rows.iter().map(|row| &*row.machine).collect();
    machines.dedup();
    format!("Measured on: {}.\n\n", machines.join("; then on: "))
}

/// Lists the stores with their versions and settings.
fn settings(record: &Record) -> String {
    let mut text = "| store | version and settings |\n|---|---|\n".to_owned();
    let mut names = Vec::new();
    for store in record.rows.iter().flat_map(|row| &row.stores) {
        if !names.contains(&&store.name) {
            let _ = writeln!(text, "| {} | {} |", store.name, store.settings);
            names.push(&store.name);
        }
    }
    text.push('\n');
    text
}

const BEGIN: &str = "<!-- recorded: begin -->";
const END: &str = "<!-- recorded: end -->";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use std::path::Path;

    use super::super::{Cell, Group, Measured, Record, Row, Unit};
    use super::{replace, table, value};

    #[test]
    fn the_tables_of_the_document_are_those_of_the_record() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let record = Record::read(&docs.join("bench/record.json")).unwrap();
        let document = std::fs::read_to_string(docs.join("BENCHMARKS.md")).unwrap();
        let expected = replace(&document, &record).unwrap();
        for (line, expected) in document.lines().zip(expected.lines()) {
            assert_eq!(line, expected, "`cargo xtask bench --report` writes the tables");
        }
        assert_eq!(document.len(), expected.len());
        for row in &record.rows {
            assert!(docs.join(format!("bench/{}.svg", row.name)).is_file(), "{}", row.name);
        }
    }

    fn row() -> Row {
        let store = |name: &str, group| Measured {
            name: name.to_owned(),
            group,
            settings: "plain".to_owned(),
        };
        let cell = |store: &str, unit, rounds: &[f64]| Cell {
            store: store.to_owned(),
            case: format!("{unit:?}"),
            unit,
            rounds: rounds.to_vec(),
            latency: (store == "a").then_some([1_000, 2_000]),
        };
        Row {
            name: "r".to_owned(),
            title: "R".to_owned(),
            about: String::new(),
            date: String::new(),
            seconds: 1,
            commit: String::new(),
            machine: String::new(),
            note: String::new(),
            stores: vec![
                store("a", Group::Ours),
                store("b", Group::Other),
                store("c", Group::Other),
                store("d", Group::Limit),
                store("e", Group::Weaker),
            ],
            cells: vec![
                cell("a", Unit::PerSecond, &[90.0, 200.0, 300.0]),
                cell("b", Unit::PerSecond, &[90.0, 100.0, 100.0]),
                cell("c", Unit::PerSecond, &[10.0, 10.0, 900.0]),
                cell("d", Unit::PerSecond, &[1e6, 1e6, 1e6]),
                cell("e", Unit::PerSecond, &[900.0, 900.0, 900.0]),
                cell("a", Unit::Ns, &[50.0]),
                cell("b", Unit::Ns, &[100.0]),
                cell("c", Unit::Ns, &[25.0]),
            ],
        }
    }

    #[test]
    fn ours_is_compared_with_the_best_other_store_round_by_round() {
        let text = table(&row());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "| **a** | 200 (2.0 us) | 50 ns (2.0 us) |");
        assert_eq!(lines[5], "| *d* | 1.00 M | - |");
        assert_eq!(lines[6], "| e † | 900 | - |");
        // The limit is no store, `e` promises less, and `c` is better in one round only.
        assert_eq!(lines[7], "| CodexDB / best other store | **2.00** (b) | **0.50** (c) |");
    }

    #[test]
    fn a_row_replaces_its_predecessor_alone_and_survives_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        let mut record = Record::default();
        record.merge(Row { name: "s".to_owned(), ..row() }, &["r", "s"]);
        record.merge(row(), &["r", "s"]);
        record.merge(Row { seconds: 2, ..row() }, &["r", "s"]);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        let rows: Vec<_> = record.rows.iter().map(|row| (&*row.name, row.seconds)).collect();
        assert_eq!(rows, [("r", 2), ("s", 1)]);
    }

    #[test]
    fn a_document_without_marks_is_refused() {
        assert!(replace("text", &Record::default()).is_err());
        assert!(replace("<!-- recorded: begin -->", &Record::default()).is_err());
    }

    #[test]
    fn values_have_their_units() {
        assert_eq!(value(1_234.0, Unit::PerSecond), "1.2 k");
        assert_eq!(value(1.5e9, Unit::Ns), "1.50 s");
        assert_eq!(value(1.75, Unit::Times), "1.75");
    }
}
