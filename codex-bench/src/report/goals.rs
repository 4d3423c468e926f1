//! The goals for the speed, beside the figures of a record.

use std::fmt::Write as _;

use super::tables::times;
use super::{Cell, Record};

/// A ratio that is to be reached.
struct Goal {
    text: &'static str,
    bound: Bound,
    figure: fn(&Record) -> Option<Reached>,
}

enum Bound {
    Least(f64),
    Most(f64),
}
use Bound::{Least, Most};

/// A figure, and the case or store to which it belongs, if the goal does not name it.
type Reached = (f64, String);

/// Returns the table of the goals.
pub(super) fn table(record: &Record) -> String {
    let mut text = "### Goals\n\n\
        Ratios within one run, from the tables below; of several cases, the worst.\n\n\
        | goal | asked | reached | |\n|---|---:|---:|---|\n"
        .to_owned();
    for goal in GOALS {
        let (sign, bound) = match goal.bound {
            Least(bound) => ("at least", bound),
            Most(bound) => ("at most", bound),
        };
        let (reached, verdict) = match (goal.figure)(record) {
            None => ("-".to_owned(), "not recorded"),
            Some((figure, of)) => {
                let is_met = match goal.bound {
                    Least(bound) => figure >= bound,
                    Most(bound) => figure <= bound,
                };
                let of = if of.is_empty() { of } else { format!(" ({of})") };
                (times(figure) + &of, if is_met { "reached" } else { "**behind**" })
            }
        };
        let _ =
            writeln!(text, "| {} | {sign} {} | {reached} | {verdict} |", goal.text, times(bound));
    }
    text.push('\n');
    text
}

const GOALS: &[Goal] = &[
    Goal {
        text: "durable sets, 1 writer, against a raw write + fdatasync",
        bound: Least(0.97),
        figure: |all| against(all, "sets-sync", &["1 writer"], "raw file"),
    },
    Goal {
        text: "durable sets, 32 and 64 writers, against the bare group commit",
        bound: Least(0.95),
        figure: |all| against(all, "sets-sync", &["32 writers", "64 writers"], "group commit"),
    },
    Goal {
        text: "the same against the best other store",
        bound: Least(1.7),
        figure: |all| lead(all, "sets-sync", &["32 writers", "64 writers"], ""),
    },
    Goal {
        text: "sets at `Os`, 1 writer, against the best other store but LMDB",
        bound: Least(1.0),
        figure: |all| lead(all, "sets-os", &["1 writer"], "LMDB"),
    },
    Goal {
        text: "the same with 32 writers",
        bound: Least(1.0),
        figure: |all| lead(all, "sets-os", &["32 writers"], "LMDB"),
    },
    Goal {
        text: "sets at `Os`, 32 writers, against 1 writer",
        bound: Least(1.0),
        figure: |all| between(all, "sets-os", "32 writers", "1 writer"),
    },
    Goal {
        text: "99th percentile of a set at `Os` with 32 writers, us",
        bound: Most(200.0),
        figure: |all| {
            let [_, p99] = ours(all, "sets-os", "32 writers")?.latency?;
            #[expect(clippy::cast_precision_loss, reason = "a time below 2^52 ns")]
            Some((p99 as f64 / 1e3, String::new()))
        },
    },
    Goal {
        text: "sets in memory, 1 and 32 writers, against sets at `Os`",
        bound: Least(3.0),
        figure: |all| {
            worst(&["1 writer", "32 writers"], |case| {
                let os = ours(all, "sets-os", case)?.median();
                Some((ours(all, "sets-memory", case)?.median() / os, case.to_owned()))
            })
        },
    },
    Goal {
        text: "the same against `RwLock<HashMap>`",
        bound: Least(1.0 / 3.0),
        figure: |all| against(all, "sets-memory", &["1 writer", "32 writers"], "RwLock<HashMap>"),
    },
    Goal {
        text: "time of a get of 10,000 keys, against hashbrown",
        bound: Most(2.0),
        figure: |all| time_of(all, "gets", "hit, 1 thread", "hashbrown"),
    },
    Goal {
        text: "time of a get of 1 M keys, against hashbrown",
        bound: Most(1.5),
        figure: |all| time_of(all, "reads-1m", "get: hit, 1 thread", "hashbrown"),
    },
    Goal {
        text: "gets of 10,000 keys, against the best other store",
        bound: Least(1.0),
        figure: |all| lead(all, "gets", &["hit, 1 thread", "hit, 2 threads"], ""),
    },
    Goal {
        text: "gets of 1 M keys, against the best other store",
        bound: Least(1.0),
        figure: |all| lead(all, "reads-1m", &["get: hit, 1 thread", "get: hit, 2 threads"], ""),
    },
    Goal {
        text: "gets of 1 M keys a second by 2 threads, against 1 thread",
        bound: Least(1.8),
        figure: |all| {
            between(all, "reads-1m", "get: hit, 2 threads", "get: hit, 1 thread")
                .map(|(ratio, of)| (2.0 * ratio, of))
        },
    },
    Goal {
        text: "time of a scan of 1 M entries, against `BTreeMap`",
        bound: Most(3.0),
        figure: |all| time_of(all, "reads-1m", "scan: an entry of all", "RwLock<BTreeMap>"),
    },
    Goal {
        text: "scans of 1 M entries, against the best other store",
        bound: Least(1.0),
        figure: |all| {
            let cases = ["scan: an entry of all", "scan: 50 entries", "scan: a prefix"];
            lead(all, "reads-1m", &cases, "")
        },
    },
    Goal {
        text: "time to load 1 M entries in batches, against `HashMap`",
        bound: Most(2.0),
        figure: |all| time_of(all, "whole", "load", "RwLock<HashMap>"),
    },
    Goal {
        text: "the same against the best other store",
        bound: Least(1.0),
        figure: |all| lead(all, "whole", &["load"], ""),
    },
    Goal {
        text: "time to open 1 M entries, against emdb",
        bound: Most(0.7),
        figure: |all| time_of(all, "whole", "open", "emdb"),
    },
    Goal {
        text: "the same against sled",
        bound: Most(1.0),
        figure: |all| time_of(all, "whole", "open", "sled"),
    },
    Goal {
        text: "memory of 1 M entries, as a multiple of their bytes",
        bound: Most(1.7),
        figure: |all| Some((ours(all, "whole", "memory, loaded")?.median(), String::new())),
    },
    Goal {
        text: "the same against emdb, which keeps its entries in memory too",
        bound: Most(1.0),
        figure: |all| time_of(all, "whole", "memory, loaded", "emdb"),
    },
    Goal {
        text: "YCSB A to F at `Sync`, against the best other store",
        bound: Least(1.0),
        figure: |all| lead(all, "ycsb-sync", &MIXES, ""),
    },
    Goal {
        text: "YCSB A to F at `Os`, against the best other store",
        bound: Least(1.0),
        figure: |all| lead(all, "ycsb-os", &MIXES, ""),
    },
    Goal {
        text: "durable sets of the form Snapshot, 10,000 keys, 32 writers, against the 89 a second \
               of the Go program (measured on its own, on a like machine)",
        bound: Least(50.0),
        figure: |all| {
            let row = all.rows.iter().find(|row| row.name == "sets-sync")?;
            let cell = row.cell("CodexDB, snapshot", "32 writers")?;
            Some((cell.median() / 89.0, String::new()))
        },
    },
    Goal {
        text: "time of a checkpoint of 1 M entries, nobody writing, against a raw write + sync",
        bound: Most(2.0),
        figure: |all| time_of(all, "copies", "nobody writing: checkpoint", "raw file"),
    },
    Goal {
        text: "time of a hot backup of 1 M entries, nobody writing, against a raw write + sync",
        bound: Most(2.0),
        figure: |all| time_of(all, "copies", "nobody writing: hot backup", "raw file"),
    },
    Goal {
        text: "99th percentile of durable sets of 8 writers beside checkpoints and backups, \
               against the same alone",
        bound: Most(1.5),
        figure: |all| {
            let alone = ours(all, "copies", "8 writers, 99th percentile: alone")?;
            let beside = ["checkpoints", "hot backups"].into_iter().filter_map(|other| {
                let case = format!("8 writers, 99th percentile: beside {other}");
                let ratio = alone.against(ours(all, "copies", &case)?)?;
                Some((ratio, other.to_owned()))
            });
            beside.max_by(|a, b| a.0.total_cmp(&b.0))
        },
    },
];

const MIXES: [&str; 6] = ["A", "B", "C", "D", "E", "F"];

/// Returns our figures of a case.
fn ours<'a>(record: &'a Record, row: &str, case: &str) -> Option<&'a Cell> {
    record.rows.iter().find(|other| other.name == row)?.ours(case)
}

/// Returns the least figure of some cases.
fn worst(cases: &[&str], figure: impl Fn(&str) -> Option<Reached>) -> Option<Reached> {
    let all = cases.iter().filter_map(|case| figure(case));
    let (figure, mut of) = all.min_by(|a, b| a.0.total_cmp(&b.0))?;
    if cases.len() == 1 {
        of.clear();
    }
    Some((figure, of))
}

/// Returns how many times as good ours is as one store.
fn against(record: &Record, row: &str, cases: &[&str], store: &str) -> Option<Reached> {
    let row = record.rows.iter().find(|other| other.name == row)?;
    worst(cases, |case| Some((row.ours(case)?.against(row.cell(store, case)?)?, case.to_owned())))
}

/// Returns the time of ours as a multiple of the time of one store.
fn time_of(record: &Record, row: &str, case: &str, store: &str) -> Option<Reached> {
    against(record, row, &[case], store).map(|(ratio, of)| (1.0 / ratio, of))
}

/// Returns how many times as good ours is as the best other store but one.
fn lead(record: &Record, row: &str, cases: &[&str], except: &str) -> Option<Reached> {
    let row = record.rows.iter().find(|other| other.name == row)?;
    let all = cases.iter().filter_map(|case| {
        let (best, ratio) = row.lead_except(case, except)?;
        let shown = case.split_once(": ").map_or(*case, |(_, rest)| rest);
        let of = if cases.len() == 1 { best.to_owned() } else { format!("{shown}, {best}") };
        Some((ratio, of))
    });
    all.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Returns how many times as good ours is in one case as in another.
fn between(record: &Record, row: &str, case: &str, other: &str) -> Option<Reached> {
    let ratio = ours(record, row, case)?.against(ours(record, row, other)?)?;
    Some((ratio, String::new()))
}

#[cfg(test)]
mod tests {
    use super::super::{Group, Measured, Row, Unit};
    use super::*;

    /// A record of two rows with these figures of ours, of another store and of a limit.
    fn record(ours: f64, other: f64, limit: f64) -> Record {
        let cells = |case: &str, unit| {
            [("CodexDB", ours), ("emdb", other), ("raw file", limit)].map(|(store, figure)| Cell {
                store: store.to_owned(),
                case: case.to_owned(),
                unit,
                rounds: vec![figure],
                latency: None,
            })
        };
        let store =
            |name: &str, group| Measured { name: name.to_owned(), group, settings: String::new() };
        let row = |name: &str, case: &str, unit| Row {
            name: name.to_owned(),
            title: String::new(),
            about: String::new(),
            date: String::new(),
            seconds: 1,
            commit: String::new(),
            machine: String::new(),
            note: String::new(),
            stores: vec![
                store("CodexDB", Group::Ours),
                store("emdb", Group::Other),
                store("raw file", Group::Limit),
            ],
            cells: cells(case, unit).into(),
        };
        Record {
            rows: vec![
                row("sets-sync", "1 writer", Unit::PerSecond),
                row("whole", "open", Unit::Ns),
            ],
        }
    }

    #[test]
    fn a_goal_is_reached_at_its_bound_and_behind_past_it() {
        let lines = |record: &Record| {
            let text = table(record);
            let of = |goal: &str| {
                let line = text.lines().find(|line| line.contains(goal));
                line.and_then(|line| line.split_once("| at ")).map(|(_, rest)| rest.to_owned())
            };
            (of("raw write + fdatasync"), of("to open 1 M"))
        };
        let expected = |raw: &str, open: &str| (Some(raw.to_owned()), Some(open.to_owned()));
        // More is better in the first row, and less in the second.
        assert_eq!(
            lines(&record(97.0, 97.0 / 0.7, 100.0)),
            expected("least 0.97 | 0.97 | reached |", "most 0.70 | 0.70 | reached |")
        );
        assert_eq!(
            lines(&record(96.0, 100.0, 100.0)),
            expected("least 0.97 | 0.96 | **behind** |", "most 0.70 | 0.96 | **behind** |")
        );
        assert_eq!(
            lines(&Record::default()),
            expected("least 0.97 | - | not recorded |", "most 0.70 | - | not recorded |")
        );
    }
}
