//! The tables of a record, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use super::goals;
use super::{Cell, Group, Measured, Record, Row, Unit};
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
    let mut text = goals::table(record);
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

/// Returns the tables of a row: a line for each store, and the ratios of ours to the best other one
/// and to the limits.
pub fn table(row: &Row) -> String {
    let tables = row.tables().into_iter().map(|(head, cases)| part(row, head, &cases));
    tables.collect::<Vec<_>>().join("\n")
}

/// Returns one of the tables of a row.
fn part(row: &Row, head: &str, cases: &[&str]) -> String {
    let shown = cases.iter().map(|case| case.split_once(": ").map_or(*case, |(_, rest)| rest));
    let first = if head.is_empty() { "store" } else { head };
    let mut text = format!("| {first} | {} |\n|---|", shown.collect::<Vec<_>>().join(" | "));
    text.push_str(&"---:|".repeat(cases.len()));
    text.push('\n');
    let in_part =
        |store: &&Measured| cases.iter().any(|case| row.cell(&store.name, case).is_some());
    let stores: Vec<_> = row.stores.iter().filter(in_part).collect();
    for store in &stores {
        let name = match store.group {
            Group::Ours => format!("**{}**", store.name),
            Group::Other => store.name.clone(),
            Group::Weaker => format!("{} †", store.name),
            Group::Limit => format!("*{}*", store.name),
        };
        line(&mut text, &name, cases, |case| row.cell(&store.name, case).map(figure));
    }
    if cases.iter().any(|case| row.lead(case).is_some()) {
        line(&mut text, "CodexDB / best other store", cases, |case| {
            row.lead(case).map(|(best, ratio)| format!("**{}** ({best})", times(ratio)))
        });
    }
    for limit in stores.iter().filter(|store| store.group == Group::Limit) {
        let ratio = |case: &str| row.ours(case)?.against(row.cell(&limit.name, case)?);
        if cases.iter().any(|case| ratio(case).is_some()) {
            let name = format!("CodexDB / *{}*", limit.name);
            line(&mut text, &name, cases, |case| ratio(case).map(times));
        }
    }
    text
}

/// Adds a line to a table.
fn line(text: &mut String, name: &str, cases: &[&str], shown: impl Fn(&str) -> Option<String>) {
    let _ = write!(text, "| {name} |");
    for case in cases {
        let _ = write!(text, " {} |", shown(case).as_deref().unwrap_or("-"));
    }
    text.push('\n');
}

/// Formats a ratio.
pub(super) fn times(ratio: f64) -> String {
    format!("{ratio:.*}", if ratio < 0.1 { 4 } else { 2 })
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
    machines.sort_unstable();
    machines.dedup();
    format!("Measured on: {}.\n\n", machines.join("; then on: "))
}

/// Lists the stores with their versions and settings, which may differ from row to row.
fn settings(record: &Record) -> String {
    let mut text = "| store | version and settings |\n|---|---|\n".to_owned();
    let mut shown = Vec::new();
    for store in record.rows.iter().flat_map(|row| &row.stores) {
        let line = (&store.name, &store.settings);
        if !shown.contains(&line) {
            let _ = writeln!(text, "| {} | {} |", store.name, store.settings);
            shown.push(line);
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
        assert_eq!(lines[8], "| CodexDB / *d* | 0.0002 | - |");
    }

    #[test]
    fn cases_with_a_head_have_a_table_of_their_own_without_the_stores_that_lack_them() {
        let mut row = row();
        for cell in &mut row.cells {
            let head = if cell.unit == Unit::Ns { "time" } else { "rate" };
            cell.case = format!("{head}: {}", cell.case);
        }
        let text = table(&row);
        let tables: Vec<Vec<&str>> =
            text.split("\n\n").map(|part| part.lines().collect()).collect();
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0][0], "| rate | PerSecond |");
        assert_eq!(tables[0][5], "| *d* | 1.00 M |");
        assert_eq!(tables[1][0], "| time | Ns |");
        assert_eq!(
            tables[1][2..],
            [
                "| **a** | 50 ns (2.0 us) |",
                "| b | 100 ns |",
                "| c | 25 ns |",
                "| CodexDB / best other store | **0.50** (c) |",
            ]
        );
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
