//! The recorded run of the comparison with other stores, which `docs/BENCHMARKS.md` shows. The
//! tables and plots of the document are made from the record and from nothing else.

pub mod goals;
pub mod tables;

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::numbers::median;

/// All rows that were measured, in the order of the document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Each row was measured in one run, maybe at another time than its neighbours.
    pub rows: Vec<Row>,
}

/// A row: some workloads of one kind, measured in one run with all stores in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The name, with which the row is measured again.
    pub name: String,
    /// The heading.
    pub title: String,
    /// The workload.
    pub about: String,
    /// The date and time at the end of the run, in UTC.
    pub date: String,
    /// The seconds that the run took.
    pub seconds: u64,
    /// The commit of this repository that was measured.
    pub commit: String,
    /// The machine and the compiler.
    pub machine: String,
    /// Other work on the machine during the run, and whether it was a quick one.
    pub note: String,
    /// The stores, in the order of the tables.
    pub stores: Vec<Measured>,
    /// The figures.
    pub cells: Vec<Cell>,
}

/// A store of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The name.
    pub name: String,
    /// Ours, another one, or a limit.
    pub group: Group,
    /// The version and the settings.
    pub settings: String,
}

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// `CodexDB`.
    Ours,
    /// A store of others.
    Other,
    /// A store of others that promises less than the row asks. It is shown, but not compared.
    Weaker,
    /// A part without which no store can work, alone: the disk, or a structure in memory.
    Limit,
}

/// The figures of one store under one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The name of the store.
    pub store: String,
    /// The workload: the head of the column.
    pub case: String,
    /// The unit of the rounds.
    pub unit: Unit,
    /// The figure of each round.
    pub rounds: Vec<f64>,
    /// The median and the 99th percentile of the times of the calls, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<[u64; 2]>,
}

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Operations a second.
    PerSecond,
    /// Nanoseconds.
    Ns,
    /// Multiples of the stored bytes.
    Times,
}

impl Record {
    /// Reads a file.
    ///
    /// # Errors
    /// An error if it cannot be read or has another form.
    pub fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// Replaces the row of the same name, or adds it. The rows are then in the order of `names`.
    pub fn merge(&mut self, row: Row, names: &[&str]) {
        self.rows.retain(|other| other.name != row.name);
        self.rows.push(row);
        self.rows.sort_by_key(|row| names.iter().position(|name| *name == row.name));
    }

    /// Writes a file with a line for each store and each figure, so that changes are readable.
    ///
    /// # Errors
    /// An error if it cannot be written.
    pub fn write(&self, path: &Path) -> Outcome {
        let mut text = "{\"rows\": [".to_owned();
        for (at, row) in self.rows.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let head = Row { stores: Vec::new(), cells: Vec::new(), ..row.clone() };
            let head = serde_json::to_string(&head)?;
            let head = head.strip_suffix("\"stores\":[],\"cells\":[]}").ok_or("other fields")?;
            let _ = write!(text, "{comma}\n{head}\n\"stores\": [");
            lines(&mut text, &row.stores)?;
            text.push_str("],\n\"cells\": [");
            lines(&mut text, &row.cells)?;
            text.push_str("]}");
        }
        text.push_str("\n]}\n");
        Ok(std::fs::write(path, text)?)
    }
}

fn lines<T: Serialize>(text: &mut String, values: &[T]) -> Outcome {
    for (at, value) in values.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\n{}", serde_json::to_string(value)?);
    }
    Ok(())
}

impl Row {
    /// Returns the heads of the columns, in the order of the figures.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !cases.contains(&&*cell.case) {
                cases.push(&cell.case);
            }
        }
        cases
    }

    /// Returns the figures of a store under a workload, if they were measured.
    pub fn cell(&self, store: &str, case: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.store == store && cell.case == case)
    }

    /// Returns the tables of the row: a head and the cases of each. The name of a case that has a
    /// colon has the head of its table before it.
    pub fn tables(&self) -> Vec<(&str, Vec<&str>)> {
        let mut tables: Vec<(&str, Vec<&str>)> = Vec::new();
        for case in self.cases() {
            let head = case.split_once(": ").map_or("", |(head, _)| head);
            match tables.iter_mut().find(|table| table.0 == head) {
                Some(table) => table.1.push(case),
                None => tables.push((head, vec![case])),
            }
        }
        tables
    }

    /// Returns how many times as good ours is as the best other store: its name, and the median of
    /// the ratios of the rounds.
    pub fn lead(&self, case: &str) -> Option<(&str, f64)> {
        self.lead_except(case, "")
    }

    /// As [`lead`](Self::lead), without the other store of this name.
    pub fn lead_except(&self, case: &str, except: &str) -> Option<(&str, f64)> {
        let ours = self.ours(case)?;
        let others = self.stores.iter().filter(|store| store.group == Group::Other);
        let others = others.filter(|store| store.name != except);
        let others = others.filter_map(|store| self.cell(&store.name, case));
        let best = others.max_by(|a, b| a.goodness().total_cmp(&b.goodness()))?;
        ours.against(best).map(|ratio| (&*best.store, ratio))
    }

    /// Returns our figures under a workload: those of the first of our stores that has some.
    pub fn ours(&self, case: &str) -> Option<&Cell> {
        let mut ours = self.stores.iter().filter(|store| store.group == Group::Ours);
        ours.find_map(|store| self.cell(&store.name, case))
    }
}

impl Cell {
    /// Returns the median of the rounds.
    pub fn median(&self) -> f64 {
        median(&self.rounds).unwrap_or(f64::NAN)
    }

    /// Returns how many times as good this is as `other`: the median of the ratios of the rounds.
    pub fn against(&self, other: &Self) -> Option<f64> {
        let ratios = self.rounds.iter().zip(&other.rounds).map(|(this, other)| match self.unit {
            Unit::PerSecond => this / other,
            Unit::Ns | Unit::Times => other / this,
        });
        median(&ratios.collect::<Vec<_>>())
    }

    /// Returns a number that is larger for a better figure.
    fn goodness(&self) -> f64 {
        match self.unit {
            Unit::PerSecond => self.median(),
            Unit::Ns | Unit::Times => -self.median(),
        }
    }
}
