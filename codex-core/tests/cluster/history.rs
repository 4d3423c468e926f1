//! A history of operations, judged by the numbers of the commits. A witness has watched every
//! commit, so each write has a place in the one order, and each read names the one that it saw.

use std::collections::{BTreeMap, HashMap};

use codex_core::Seq;

/// An operation of a client on a key, with the times of its call and its return.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) node: usize,
    pub(crate) key: u64,
    pub(crate) call: u64,
    /// `u64::MAX` if it was in doubt.
    pub(crate) back: u64,
    pub(crate) kind: Kind,
}

/// Values differ between any two writes, so a value tells which write has set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Set(u64),
    /// A conditional write, and whether it was made, which is not known of one in doubt.
    Exchange {
        was: Option<u64>,
        now: u64,
        made: Option<bool>,
    },
    /// A write whose error says that nothing was written.
    Failed(u64),
    /// A read of the state after a commit. One that was not asked to be the latest may be older
    /// than what other nodes have acknowledged.
    Read {
        seen: Option<u64>,
        at: Seq,
        latest: bool,
    },
}

/// The commits that a witness has watched.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// The keys and values that each commit has set.
    pub(crate) sets: BTreeMap<Seq, Vec<(u64, u64)>>,
}

/// What a history has, without a violation.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    pub(crate) refused: usize,
    pub(crate) doubts: usize,
    /// Of those in doubt, the ones that were made.
    pub(crate) doubts_made: usize,
}

impl Commits {
    /// Judges a history. Returns the violation that was found first.
    pub(crate) fn judge(&self, operations: &[Operation]) -> Result<Counts, String> {
        let places = Places::of(self)?;
        let mut counts = Counts::default();
        let mut points = Vec::new();
        for operation in operations {
            let point = places.point(operation, &mut counts)?;
            if let Some(point) = point {
                points.push((operation, point));
            }
        }
        places.real_time(operations, &points)?;
        Ok(counts)
    }

    /// Returns whether the write of a value was made.
    pub(crate) fn has(&self, value: u64) -> bool {
        self.sets.values().flatten().any(|(_, set)| *set == value)
    }
}

/// The commits by what they have set.
struct Places {
    /// The commit that has set a value.
    of_value: HashMap<u64, Seq>,
    /// The commits that have set a key, and to what.
    of_key: HashMap<u64, Vec<(Seq, u64)>>,
}

impl Places {
    fn of(commits: &Commits) -> Result<Self, String> {
        let (mut of_value, mut of_key) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (&seq, sets) in &commits.sets {
            for &(key, value) in sets {
                if let Some(first) = of_value.insert(value, seq) {
                    return Err(format!("doubled: {value} in commits {first} and {seq}"));
                }
                of_key.entry(key).or_default().push((seq, value));
            }
        }
        Ok(Self { of_value, of_key })
    }

    /// Returns the value of a key after commit `at`.
    fn value(&self, key: u64, at: Seq) -> Option<u64> {
        let versions = self.of_key.get(&key)?;
        let before = versions.partition_point(|(seq, _)| *seq <= at);
        before.checked_sub(1).map(|last| versions[last].1)
    }

    /// Returns the commit at which an operation took place, if it has one.
    fn point(&self, operation: &Operation, counts: &mut Counts) -> Result<Option<Seq>, String> {
        let in_doubt = operation.back == u64::MAX;
        match operation.kind {
            Kind::Read { seen, at, .. } => {
                counts.reads += 1;
                let right = self.value(operation.key, at);
                if seen != right {
                    return Err(format!("false read: {operation:?}, and it was {right:?}"));
                }
                Ok(Some(at))
            }
            Kind::Failed(value) => match self.of_value.get(&value) {
                Some(seq) => Err(format!("failed, and in {seq}: {operation:?}")),
                None => Ok(None),
            },
            Kind::Set(now) | Kind::Exchange { now, .. } => {
                let place = self.of_value.get(&now).copied();
                if let (Kind::Exchange { was, .. }, Some(seq)) = (operation.kind, place)
                    && self.value(operation.key, seq - 1) != was
                {
                    return Err(format!("made against its condition in {seq}: {operation:?}"));
                }
                let refused = matches!(operation.kind, Kind::Exchange { made: Some(false), .. });
                match place {
                    Some(seq) if refused => Err(format!("refused, and in {seq}: {operation:?}")),
                    None if !refused && !in_doubt => Err(format!("lost: {operation:?}")),
                    _ => {
                        counts.doubts += usize::from(in_doubt);
                        counts.doubts_made += usize::from(in_doubt && place.is_some());
                        counts.refused += usize::from(refused);
                        counts.writes += usize::from(!in_doubt && !refused);
                        Ok(place)
                    }
                }
            }
        }
    }

    /// Checks that what returned before another was called has an earlier place.
    fn real_time(
        &self,
        operations: &[Operation],
        points: &[(&Operation, Seq)],
    ) -> Result<(), String> {
        // The highest place of the operations that had returned, by the time of their return.
        let highest = |of: &dyn Fn(&Operation) -> bool| {
            let ended = points.iter().filter(|(op, _)| op.back != u64::MAX && of(op));
            let mut ended: Vec<_> = ended.map(|(op, seq)| (op.back, *seq)).collect();
            ended.sort_unstable();
            let mut top = 0;
            for (_, seq) in &mut ended {
                top = top.max(*seq);
                *seq = top;
            }
            ended
        };
        let before = |list: &[(u64, Seq)], time: u64| {
            let count = list.partition_point(|(back, _)| *back < time);
            count.checked_sub(1).map_or(0, |last| list[last].1)
        };
        let is_seen = |op: &Operation| !matches!(op.kind, Kind::Read { latest: false, .. });
        let all = highest(&is_seen);
        let nodes = operations.iter().map(|op| op.node + 1).max().unwrap_or_default();
        let of_nodes: Vec<_> = (0..nodes).map(|node| highest(&|op| op.node == node)).collect();
        for (operation, seq) in points {
            let floor = match operation.kind {
                // What a node has returned or shown, it shows.
                Kind::Read { latest: false, .. } => {
                    before(&of_nodes[operation.node], operation.call)
                }
                _ => before(&all, operation.call),
            };
            let is_read = matches!(operation.kind, Kind::Read { .. });
            if *seq < floor || (*seq == floor && !is_read) {
                return Err(format!("at {seq}, after {floor} had returned: {operation:?}"));
            }
        }
        self.refusals(operations, points, |time| before(&all, time))
    }

    /// Checks that for each refusal there was a state in its time that refuses it.
    fn refusals(
        &self,
        operations: &[Operation],
        points: &[(&Operation, Seq)],
        floor: impl Fn(u64) -> Seq,
    ) -> Result<(), String> {
        let writes = points.iter().filter(|(op, _)| !matches!(op.kind, Kind::Read { .. }));
        let mut called: Vec<_> = writes.map(|(op, seq)| (op.call, *seq)).collect();
        called.sort_unstable();
        let mut lowest = Seq::MAX;
        for (_, seq) in called.iter_mut().rev() {
            lowest = lowest.min(*seq);
            *seq = lowest;
        }
        for operation in operations {
            let Kind::Exchange { was, made: Some(false), .. } = operation.kind else { continue };
            let first = floor(operation.call);
            let next = called.partition_point(|(call, _)| *call <= operation.back);
            let end = called.get(next).map_or(Seq::MAX, |(_, seq)| *seq);
            let versions = self.of_key.get(&operation.key).map_or(&[][..], Vec::as_slice);
            let within = versions.iter().filter(|(seq, _)| *seq > first && *seq < end);
            let differs = |value| value != was;
            if !differs(self.value(operation.key, first))
                && !within.into_iter().any(|(_, value)| differs(Some(*value)))
            {
                return Err(format!("refused without a reason: {operation:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn each_violation_of_the_one_order_is_found() {
    let sets = [(1, vec![(0, 10)]), (2, vec![(0, 20)]), (3, vec![(1, 30)])];
    let commits = Commits { sets: sets.into() };
    let op = |call, back, kind| Operation { client: 0, node: 0, key: 0, call, back, kind };
    let read = |seen, at, latest| Kind::Read { seen, at, latest };
    let right = [
        op(0, 5, Kind::Set(10)),
        op(6, 9, Kind::Exchange { was: Some(10), now: 20, made: Some(true) }),
        op(1, 7, Kind::Exchange { was: None, now: 21, made: Some(false) }),
        op(10, 11, read(Some(20), 2, true)),
        op(2, u64::MAX, Kind::Set(22)),
    ];
    let counts = commits.judge(&right).unwrap();
    assert_eq!((counts.writes, counts.refused, counts.doubts, counts.doubts_made), (2, 1, 1, 0));
    for (wrong, words) in [
        (op(0, 5, Kind::Set(11)), "lost"),
        (op(10, 11, read(Some(10), 2, true)), "false read"),
        (op(10, 11, read(Some(10), 1, true)), "had returned"),
        (op(10, 11, read(Some(10), 1, false)), "had returned"),
        (op(10, 11, Kind::Exchange { was: Some(20), now: 9, made: Some(false) }), "without a"),
        (op(0, 5, Kind::Exchange { was: None, now: 20, made: Some(true) }), "its condition"),
        (op(0, 5, Kind::Exchange { was: Some(10), now: 20, made: Some(false) }), "refused, and"),
        (op(0, 5, Kind::Failed(20)), "failed, and"),
    ] {
        let error = commits.judge(&[&right[..], &[wrong]].concat()).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let twice = Commits { sets: [(1, vec![(0, 10)]), (2, vec![(0, 10)])].into() };
    assert!(twice.judge(&[]).unwrap_err().contains("doubled"));
    assert!(commits.has(30) && !commits.has(31));
}
