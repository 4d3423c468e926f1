//! An index in memory that follows the store: the notes in which a word occurs.
#![allow(clippy::disallowed_methods, reason = "a program starts its threads as it likes")]
use std::collections::{BTreeMap, BTreeSet};

use codex_core::{Change, Key, Notice, Result, Seq, Store, Watch};

#[derive(Default)]
struct Words {
    notes: BTreeMap<Key, String>,
    by_word: BTreeMap<String, BTreeSet<Key>>,
    /// The last commit that the index contains.
    seq: Seq,
}

impl Words {
    /// Indexes the store as it is now.
    fn load(store: &Store) -> Result<Self> {
        let snapshot = store.snapshot();
        let mut words = Self { seq: snapshot.seq(), ..Self::default() };
        for entry in snapshot.prefix("note/") {
            words.put(entry.clone().into_parts().0, Some(entry.value()?));
        }
        Ok(words)
    }

    /// Follows the store until it is closed, and returns the index of its last state.
    fn follow(store: &Store, watch: Watch) -> Result<Self> {
        // The watch was made before this: no commit is missed in between.
        let mut words = Self::load(store)?;
        for notice in watch {
            match notice {
                // The snapshot has it.
                Notice::Commit(commit) if commit.seq() <= words.seq => {}
                Notice::Commit(commit) => {
                    for change in commit.changes() {
                        words.apply(change)?;
                    }
                    words.seq = commit.seq();
                }
                // `Lagged`: commits came faster than they were indexed.
                _ => words = Self::load(store)?,
            }
        }
        Ok(words)
    }

    fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Set(entry) => self.put(entry.clone().into_parts().0, Some(entry.value()?)),
            Change::Removed(key) => self.put(key.clone(), None),
            // `Cleared`: all keys of the store are removed.
            _ => (self.notes, self.by_word) = Default::default(),
        }
        Ok(())
    }

    fn put(&mut self, key: Key, text: Option<String>) {
        for word in self.notes.remove(&key).iter().flat_map(|old| old.split(' ')) {
            self.by_word.get_mut(word).map(|keys| keys.remove(&key));
        }
        if let Some(text) = text {
            for word in text.split(' ') {
                self.by_word.entry(word.into()).or_default().insert(key.clone());
            }
            self.notes.insert(key, text);
        }
    }

    fn with(&self, word: &str) -> Vec<&Key> {
        self.by_word.get(word).into_iter().flatten().collect()
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("notes.db"))?;
    store.set("note/1", "two locks")?;

    let watch = store.watch("note/")?;
    let theirs = store.clone();
    let index = std::thread::spawn(move || Words::follow(&theirs, watch));

    store.set("note/2", "one order of two locks")?;
    store.batch().set("note/3", "locks")?.remove("note/1")?.commit()?;
    store.set("visits", &1)?; // not watched
    store.close()?; // ends the watch

    let index = index.join().expect("the thread does not panic")?;
    assert_eq!(index.with("locks"), ["note/2", "note/3"]);
    assert_eq!(index.with("two"), ["note/2"]);
    Ok(())
}
