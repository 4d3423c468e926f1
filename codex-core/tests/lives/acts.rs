//! The steps on an open store, each with its effect on the model.

use std::ops::ControlFlow;
use std::sync::Arc;

use codex_core::{Form, Result, Store};

use crate::model::{Bak, Contents, Kept, World, add};
use crate::run::{COPIES, Held, MARK, Run, broken};
use crate::step::{Level, Step};
use crate::words::{class, key, said};

impl Run<'_> {
    /// Returns the store, if it is open for writing.
    fn writable(&self) -> Option<Store> {
        let open = self.open.as_ref()?;
        (!open.read_only).then(|| open.store.clone())
    }

    pub fn is_poisoned(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.store.poisoned().is_some())
    }

    pub fn commit(&mut self, step: Step) -> Held {
        let Some(store) = self.writable() else { return Ok(()) };
        let now = Arc::clone(self.now().contents());
        let mut next = (*now).clone();
        apply(step, self.seed, &mut next);
        let (seq_before, poisoned) = (self.now().seq(), self.is_poisoned());
        let before = self.before();
        let result = run(step, self.seed, &store, &now);
        let disturbed = self.disturbed(&before)?;
        self.counts.done("commit", &result, disturbed);
        self.note(|| format!("    {}", said(&result)));
        let seq = store.stats().storage.seq;
        let poisons = self.is_poisoned() && !poisoned;
        match result {
            Ok(()) => {
                if seq == seq_before {
                    if next != *now {
                        return broken("a write has a number", format!("seq {seq}"));
                    }
                    return Ok(());
                }
                if seq != seq_before + 1 || poisoned {
                    let what = format!("seq {seq_before} to {seq}, poisoned {poisoned}");
                    return broken("commits are numbered one by one", what);
                }
                let mut kept = self.now().committed(seq, Arc::new(next));
                if self.open.as_ref().is_some_and(|open| open.level == Level::Sync) {
                    kept = kept.settled();
                }
                self.worlds = vec![World::of(kept)];
            }
            Err(error) if error.is_in_doubt() => {
                if !poisons || !disturbed {
                    return broken("only a fault leaves a write in doubt", error.to_string());
                }
                let kept = self.now().committed(seq_before + 1, Arc::new(next));
                add(&mut self.worlds, World::of(kept));
                self.counts.add("doubts");
            }
            Err(error) if error.is_poisoned() && (poisoned || poisons) => {}
            Err(_) if disturbed && !poisons => {}
            Err(error) => {
                let what = format!("{error}; poisoned {poisoned}, then {}", self.is_poisoned());
                return broken("a write succeeds on a healthy disk", what);
            }
        }
        Ok(())
    }

    /// Checks the result of a step on an open store that changes no contents: an error must have a
    /// cause.
    fn outcome<T>(
        &mut self,
        what: &'static str,
        run: impl FnOnce(&Store) -> Result<T>,
    ) -> Held<Option<(Result<T>, bool)>> {
        let Some(store) = self.writable() else { return Ok(None) };
        let poisoned = self.is_poisoned();
        let before = self.before();
        let result = run(&store);
        let disturbed = self.disturbed(&before)?;
        self.counts.done(what, &result, disturbed);
        self.note(|| format!("    {}", said(&result)));
        let poisons = self.is_poisoned() && !poisoned;
        if poisons && !disturbed {
            return broken("only a fault poisons", format!("{what}: {}", said(&result)));
        }
        Ok(Some((result, poisons)))
    }

    /// Returns true if an error needs no other cause.
    fn excused(&self, before_poisoned: bool) -> bool {
        before_poisoned || self.limited || self.is_off || self.is_killed
    }

    pub fn flush(&mut self) -> Held {
        let (poisoned, before) = (self.is_poisoned(), self.before());
        let Some((result, _)) = self.outcome("flush", Store::flush)? else { return Ok(()) };
        let disturbed = self.disturbed(&before)?;
        match result {
            Ok(seq) if seq == self.now().seq() => self.settle(),
            Ok(seq) => return broken("a flush tells the last commit", format!("seq {seq}")),
            Err(_) if disturbed || self.excused(poisoned) => {}
            Err(error) => return broken("a flush succeeds on a healthy disk", error.to_string()),
        }
        Ok(())
    }

    pub fn checkpoint(&mut self) -> Held {
        let (poisoned, before) = (self.is_poisoned(), self.before());
        let Some((result, _)) = self.outcome("checkpoint", Store::checkpoint)? else {
            return Ok(());
        };
        let disturbed = self.disturbed(&before)?;
        match result {
            Ok(()) if self.now().form == Form::Wal => self.settle(),
            Ok(()) => {}
            Err(_) if disturbed || self.excused(poisoned) => {}
            Err(error) => {
                return broken("a checkpoint succeeds on a healthy disk", error.to_string());
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        if !self.is_poisoned() {
            self.worlds = vec![World::of(self.now().settled())];
        }
    }

    pub fn change_key(&mut self, n: u8, fresh_root: bool) -> Held {
        let (poisoned, before) = (self.is_poisoned(), self.before());
        let what = if fresh_root { "rekey" } else { "change of key" };
        let change = |store: &Store| {
            if fresh_root { store.rekey(key(n)) } else { store.change_key(key(n)) }
        };
        let Some((result, poisons)) = self.outcome(what, change)? else { return Ok(()) };
        let disturbed = self.disturbed(&before)?;
        let sealed = self.now().key.is_some();
        match result {
            Ok(()) if sealed && !poisoned => self.worlds = vec![World::of(self.now().under(n))],
            Ok(()) => return broken("only an encrypted store has a key to change", ""),
            Err(error) if !sealed => {
                if class(&error) != "NotEncrypted" && !disturbed && !self.excused(poisoned) {
                    return broken("a plain store has no key", error.to_string());
                }
            }
            Err(_) if poisons => {
                for world in self.worlds.clone() {
                    if let Some(kept) = &world.store {
                        add(&mut self.worlds, World::of(kept.under(n)));
                    }
                }
                self.counts.add("doubts");
            }
            Err(_) if disturbed || self.excused(poisoned) => {}
            Err(error) => {
                return broken("a key changes on a healthy disk", error.to_string());
            }
        }
        Ok(())
    }

    pub fn back_up(&mut self) -> Held {
        let (poisoned, before) = (self.is_poisoned(), self.before());
        let Some((result, _)) = self.outcome("backup", Store::back_up)? else { return Ok(()) };
        let disturbed = self.disturbed(&before)?;
        let made = Bak { kept: self.now().settled(), sure: true, facts: None };
        match result {
            Ok(rotated) => {
                self.settle();
                if rotated.method.is_some() {
                    self.baks.insert(0, made);
                } else if !self.baks.iter().any(|bak| is_unchanged(&bak.kept, &made.kept)) {
                    return broken("a backup is made of what changed", format!("{rotated:?}"));
                }
                // Backups under an earlier root key are removed after the same number of new ones
                // exists.
                let is_encrypted = self.now().key.is_some();
                self.keep_newest(self.plan.keep as usize, is_encrypted);
                (self.cleared_up, self.names_last) = (true, true);
                if !disturbed {
                    self.look()?;
                }
            }
            Err(_) if disturbed || self.excused(poisoned) => {
                self.floor = self.sure_backups().min(self.plan.keep as usize);
                self.baks.insert(0, Bak { sure: false, ..made });
                self.keep_newest(self.plan.keep as usize, true);
                (self.cleared_up, self.names_last) = (false, false);
            }
            Err(error) => {
                return broken("a backup succeeds on a healthy disk", error.to_string());
            }
        }
        Ok(())
    }

    pub fn sure_backups(&self) -> usize {
        self.baks.iter().filter(|bak| bak.sure).count()
    }

    /// Records that all but the newest `keep` backups are removed, or may be.
    pub fn keep_newest(&mut self, keep: usize, perhaps: bool) {
        let mut sure = 0;
        let mut kept = Vec::new();
        for (before, mut bak) in self.baks.drain(..).enumerate() {
            if sure >= keep && !perhaps {
                break;
            }
            sure += usize::from(bak.sure);
            bak.sure &= before < keep;
            kept.push(bak);
        }
        self.baks = kept;
    }

    pub fn copy(&mut self, which: usize) -> Held {
        let (poisoned, before) = (self.is_poisoned(), self.before());
        let vfs = self.vfs();
        let copy = |store: &Store| {
            store.backup_to_in(&vfs, COPIES[which], &mut |_| ControlFlow::Continue(()))
        };
        let Some((result, _)) = self.outcome("hot copy", copy)? else { return Ok(()) };
        let disturbed = self.disturbed(&before)?;
        let kept = self.now().settled();
        let excused = disturbed || self.excused(poisoned);
        let mut made = vec![Some(kept.clone())];
        if self.is_poisoned() {
            // A poisoned store is saved as an image of memory, also if the copy itself has noticed
            // a failed sync.
            made.push(Some(Kept { form: Form::Wal, ..kept.clone() }));
        }
        let may = &mut self.copies[which];
        match result {
            Ok(seq) if seq == kept.seq() && may.contains(&None) => *may = made,
            Ok(seq) => return broken("a copy replaces nothing", format!("seq {seq}")),
            Err(error) if may.iter().any(Option::is_some) && class(&error) == "Exists" => {}
            Err(_) if excused => may.extend(made),
            Err(error) => return broken("a copy succeeds on a healthy disk", error.to_string()),
        }
        Ok(())
    }

    pub fn verify(&mut self) -> Held {
        let (poisoned, before) = (self.is_poisoned(), self.before());
        let lazy = self.open.as_ref().is_some_and(|open| open.level != Level::Sync);
        let Some((result, _)) = self.outcome("verify", Store::verify)? else { return Ok(()) };
        let disturbed = self.disturbed(&before)?;
        match result {
            Err(error) if !disturbed && !lazy && !self.excused(poisoned) => {
                broken("a healthy store verifies", error.to_string())
            }
            _ => Ok(()),
        }
    }

    pub fn note_anchor(&mut self) -> Held {
        let lazy = self.open.as_ref().is_some_and(|open| open.level != Level::Sync);
        let poisoned = self.is_poisoned();
        let Some((result, _)) = self.outcome("anchor", Store::anchor)? else { return Ok(()) };
        match result {
            Ok(anchor) if anchor.seq != self.now().seq() => {
                broken("an anchor is of the last commit", format!("{}", anchor.seq))
            }
            Ok(anchor) => {
                if !lazy && !poisoned {
                    self.anchor = Some(anchor);
                }
                Ok(())
            }
            Err(_) if poisoned => Ok(()),
            Err(error) => broken("a healthy store has an anchor", error.to_string()),
        }
    }
}

/// Returns true if the backup would be of the same state under the same key, so that nothing
/// rotates.
fn is_unchanged(newest: &Kept, now: &Kept) -> bool {
    Kept { form: now.form, ..newest.clone() }.looks_like(now)
}

fn name(key: u8) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

fn text_name(key: u8) -> Vec<u8> {
    format!("u{}", key % 4).into_bytes()
}

fn value(seed: u64, len: u16) -> Vec<u8> {
    let mut value = MARK.to_vec();
    value.extend(format!("{:06x}", seed & 0xFF_FFFF).into_bytes());
    value.resize(usize::from(len), b'.');
    value
}

fn prefix(seed: u64) -> &'static [u8] {
    if seed.is_multiple_of(2) { b"u" } else { b"k3" }
}

fn grown(value: Option<String>, seed: u64) -> Option<String> {
    match value {
        Some(value) if value.len() > 60 => None,
        Some(value) => Some(value + "+ten bytes"),
        None => Some(String::from_utf8(value_of(seed)).expect("text")),
    }
}

fn value_of(seed: u64) -> Vec<u8> {
    value(seed, 20)
}

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("text")
}

/// Applies the step to the contents.
fn apply(step: Step, seed: u64, contents: &mut Contents) {
    match step {
        Step::Set { key, len } => drop(contents.insert(name(key), value(seed, len))),
        Step::Remove(key) => drop(contents.remove(&name(key))),
        Step::RemovePrefix => contents.retain(|key, _| !key.starts_with(prefix(seed))),
        Step::Clear => contents.clear(),
        Step::Batch => {
            contents.insert(b"p".to_vec(), value(seed, 30));
            contents.insert(b"q".to_vec(), value(seed, 900));
            contents.remove(&b"k1"[..]);
        }
        Step::Update(key) | Step::Exchange(key) => {
            let name = text_name(key);
            match grown(contents.get(&name).map(|value| text(value)), seed) {
                Some(value) => drop(contents.insert(name, value.into_bytes())),
                None => drop(contents.remove(&name)),
            }
        }
        _ => {}
    }
}

fn run(step: Step, seed: u64, store: &Store, now: &Contents) -> Result<()> {
    match step {
        Step::Set { key, len } => store.set_bytes(name(key), value(seed, len)),
        Step::Remove(key) => store.remove(name(key)).map(drop),
        Step::RemovePrefix => store.remove_prefix(prefix(seed)).map(drop),
        Step::Clear => store.clear(),
        Step::Batch => {
            let mut batch = store.batch();
            batch.set_bytes("p", value(seed, 30))?.set_bytes("q", value(seed, 900))?;
            batch.remove("k1")?;
            batch.commit().map(drop)
        }
        Step::Update(key) => {
            store.update(text_name(key), |value: Option<String>| grown(value, seed)).map(drop)
        }
        Step::Exchange(key) => {
            let current = now.get(&text_name(key)).map(|value| text(value));
            let new = grown(current.clone(), seed);
            store.compare_exchange(text_name(key), current.as_ref(), new.as_ref()).map(drop)
        }
        _ => Ok(()),
    }
}
