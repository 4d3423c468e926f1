//! The states of a ledger after its commits, for those who look at the past.

use codex_storage::LedgerCommit;
use codex_storage::batch::{Op, Seq};

use crate::engine::View;
use crate::entry::{Entry, Name};
use crate::map::Ordered;
use crate::snapshot::Snapshot;

/// The state after one commit of a ledger, from which the next commit makes the next state. A clone
/// takes O(1), and shares the entries.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    seq: Seq,
    time_us: i64,
    ordered: Ordered,
    len: u64,
    turnover: u64,
}

impl Moment {
    /// Goes to the state after `commit`, which is the next one.
    pub fn apply(&mut self, commit: LedgerCommit<'_>) {
        (self.seq, self.time_us) = (commit.seq, commit.time_us);
        // The reader of the ledger has decoded each operation before, so none is an error.
        for op in commit.ops.flatten() {
            self.turnover += NODE_LEN;
            match op {
                Op::Set(item) => {
                    let entry = Entry::from_item(item);
                    self.forget(entry.name());
                    self.len += len(&entry);
                    self.ordered.insert(entry);
                }
                Op::Remove { table, key } => {
                    self.forget(Name { table, key });
                    self.ordered.remove(Name { table, key });
                }
                Op::Clear { table } => {
                    let all = self.ordered.iter_with_tables();
                    let cleared = all.filter(|entry| entry.table() == table).map(len).sum::<u64>();
                    self.len -= cleared;
                    self.turnover += cleared;
                    self.ordered.clear(table);
                }
            }
        }
    }

    /// Returns the state. Entries that had expired at the time of the commit are hidden.
    pub fn snapshot(&self) -> Snapshot {
        let Self { seq, time_us, ordered, .. } = self;
        Snapshot::new(View { seq: *seq, ordered: ordered.clone(), now_us: *time_us })
    }

    /// Returns the number of the commit; 0 before the first one.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Returns about how many bytes of memory the entries take.
    pub fn memory_len(&self) -> u64 {
        self.len
    }

    /// Returns about how many bytes of memory the commits so far have replaced or removed. Of two
    /// moments, the earlier one keeps at most the difference in memory for itself alone.
    pub fn turnover(&self) -> u64 {
        self.turnover
    }

    /// Counts an entry out, before it is replaced or removed.
    fn forget(&mut self, name: Name<'_>) {
        let len = self.ordered.get(name).map_or(0, len);
        self.len -= len;
        self.turnover += len;
    }
}

fn len(entry: &Entry) -> u64 {
    let bytes = entry.key().len() + entry.value().len();
    ENTRY_LEN + u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// About the memory of an entry beside its key and value, in bytes.
const ENTRY_LEN: u64 = 64;
/// About the memory of a node of the index, which a change copies, in bytes.
const NODE_LEN: u64 = 1024;

#[cfg(test)]
mod tests {
    use codex_storage::batch::{Group, Item, Op, TableId};
    use codex_storage::storage::Form;
    use codex_storage::vfs::{SimClock, Vfs};
    use codex_storage::{Config, open, read_commits};

    use super::{ENTRY_LEN, Moment, NODE_LEN};
    use crate::entry::Entry;

    /// Returns the moments of a ledger with these commits, one a second from 1 s on.
    fn moments(commits: &[&[Op<'_>]]) -> Vec<Moment> {
        let clock = SimClock::new();
        let vfs = Vfs { clock: std::sync::Arc::new(clock.clone()), ..Vfs::mem(1) };
        let mut config = Config::new(vfs.clone(), "a.db");
        config.form = Some(Form::Ledger);
        let (mut ledger, _) = open(&config, &mut |_| Ok(())).unwrap();
        for (second, ops) in (1..).zip(commits) {
            clock.set_now_us(second * 1_000_000);
            let mut group: Group = ledger.group();
            ops.iter().for_each(|op| group.push(*op).unwrap());
            group.finish();
            ledger.commit(&mut group, None).unwrap();
        }
        let mut moments = vec![Moment::default()];
        read_commits(&vfs, "a.db", None, u64::MAX, &mut |commit| {
            let mut moment = moments.last().unwrap().clone();
            moment.apply(commit);
            moments.push(moment);
            Ok(())
        })
        .unwrap();
        moments
    }

    #[test]
    fn each_commit_makes_the_next_state_and_leaves_the_earlier_ones() {
        let tabled = Item { table: TableId::new(16), key: b"a", value: b"\0t", expires_us: None };
        let short = Item { table: None, key: b"b", value: b"\0s", expires_us: Some(3_000_000) };
        let moments = moments(&[
            &[Op::set(b"a", b"\x001"), Op::Set(tabled)],
            &[Op::set(b"a", b"\x002"), Op::Set(short)],
            &[Op::remove(b"none")],
            &[Op::CLEAR, Op::set(b"c", b"\x003")],
        ]);
        let shown = |at: usize| {
            let entries = moments[at].snapshot();
            let text = |entry: crate::Entry| [entry.key(), b"=", entry.bytes()].concat();
            entries.iter().map(|entry| String::from_utf8(text(entry)).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(shown(0), [""; 0]);
        assert_eq!(shown(1), ["a=1"]);
        assert_eq!(shown(2), ["a=2", "b=s"]);
        assert_eq!(shown(3), ["a=2"], "expired at the time of the third commit");
        assert_eq!(shown(4), ["c=3"]);
        for (seq, moment) in (0..).zip(&moments) {
            assert_eq!((moment.seq(), moment.snapshot().seq()), (seq, seq));
            let all: Vec<&Entry> = moment.ordered.iter_with_tables().collect();
            let bytes: usize =
                all.iter().map(|entry| entry.key().len() + entry.value().len()).sum();
            assert_eq!(moment.memory_len(), ENTRY_LEN * all.len() as u64 + bytes as u64, "{seq}");
            assert_eq!(all.iter().any(|entry| entry.table().is_some()), seq > 0, "{seq}");
        }
        // A replaced entry, two that were cleared, and a node for each of the seven operations.
        let entry = ENTRY_LEN + 3;
        assert_eq!(moments[4].turnover(), 3 * entry + 7 * NODE_LEN);
    }
}
