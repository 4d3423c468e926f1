//! The model: the worlds that the disk may contain, after all acknowledged and all interrupted
//! steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use codex_core::Form;

/// All keys and values of a store.
pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store: its form, its key, and its earlier states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub form: Form,
    /// The number of the key that opens it; `None` for a plain store.
    pub key: Option<u8>,
    /// The state after each commit; the last one is the current state. For a ledger this is the
    /// whole history from its base. For the other forms it begins with the earliest state to which
    /// a power cut may lead.
    pub history: Vec<(u64, Arc<Contents>)>,
    /// The index of the earliest state to which a power cut may lead.
    pub durable: usize,
}

impl Kept {
    pub fn new(form: Form, key: Option<u8>) -> Self {
        Self { form, key, history: vec![(0, Arc::default())], durable: 0 }
    }

    pub fn seq(&self) -> u64 {
        self.history.last().map_or(0, |(seq, _)| *seq)
    }

    pub fn contents(&self) -> &Arc<Contents> {
        &self.history.last().expect("a history is never empty").1
    }

    /// Adds the state after one more commit.
    pub fn committed(&self, seq: u64, contents: Arc<Contents>) -> Self {
        let mut next = self.clone();
        next.history.push((seq, contents));
        next
    }

    /// Returns the same store with all commits durable.
    pub fn settled(&self) -> Self {
        let mut next = self.clone();
        if next.form != Form::Ledger {
            next.history.drain(..next.history.len() - 1);
        }
        next.durable = next.history.len() - 1;
        next
    }

    pub fn under(&self, key: u8) -> Self {
        Self { key: Some(key), ..self.clone() }
    }

    /// Returns the stores that a power cut may leave.
    fn after_cut(&self) -> Vec<Self> {
        let cut = |last: usize| {
            let history = self.history.iter().take(last + 1).cloned().collect();
            Self { history, ..self.clone() }.settled()
        };
        (self.durable..self.history.len()).map(cut).collect()
    }

    /// Returns the same store after a conversion.
    pub fn converted(&self, form: Option<Form>, key: Option<u8>) -> Self {
        let form = form.unwrap_or(self.form);
        let mut next = Self { form, key, ..self.settled() };
        if form == Form::Ledger && self.form != Form::Ledger && !self.contents().is_empty() {
            // The ledger begins with a commit that sets every entry.
            next.history.push((self.seq() + 1, Arc::clone(self.contents())));
        }
        next.settled()
    }

    /// Returns the ledger after the commit `seq`, which is later than its base.
    pub fn until(&self, seq: u64) -> Self {
        let history = self.history.iter().take_while(|(at, _)| *at <= seq).cloned().collect();
        Self { history, ..self.clone() }.settled()
    }

    /// Returns true if readers see the same contents of both.
    pub fn looks_like(&self, other: &Self) -> bool {
        (self.form, self.key, self.seq()) == (other.form, other.key, other.seq())
            && self.contents() == other.contents()
    }
}

/// The possible content of the disk at the name of the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct World {
    pub store: Option<Kept>,
    /// The store that a decided restore will put in its place.
    pub pending: Option<Kept>,
}

impl World {
    pub fn of(kept: Kept) -> Self {
        Self { store: Some(kept), pending: None }
    }

    /// Returns the store that an opening for writing finds.
    pub fn finished(&self) -> Option<&Kept> {
        self.pending.as_ref().or(self.store.as_ref())
    }
}

/// Returns the worlds after a power cut.
pub fn after_cut(worlds: &[World]) -> Vec<World> {
    let mut cut = Vec::new();
    for world in worlds {
        let stores = match &world.store {
            Some(kept) => kept.after_cut().into_iter().map(Some).collect(),
            None => vec![None],
        };
        for store in stores {
            add(&mut cut, World { store, pending: world.pending.clone() });
        }
    }
    cut
}

/// Adds a world, if it is new.
pub fn add(worlds: &mut Vec<World>, world: World) {
    if !worlds.contains(&world) {
        worlds.push(world);
    }
}

/// A backup that is on the disk, or may be.
#[derive(Debug, Clone)]
pub struct Bak {
    pub kept: Kept,
    /// Whether it must be there.
    pub sure: bool,
    /// Its facts, as the last listing found them.
    pub facts: Option<String>,
}
