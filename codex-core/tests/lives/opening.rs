//! The openings of a history: which succeed, and with which result.

use std::time::Duration;

use codex_core::internals::without_threads;
use codex_core::vfs::fault::{Space, Survivors};
use codex_core::{
    Anchor, BackupPolicy, CheckpointPolicy, Compression, Durability, Error, Form, OpenOptions,
    Store,
};

use crate::model::{Kept, World, add};
use crate::run::{Held, NAME, OpenStore, Run, broken};
use crate::step::{AnchorPick, Create, KEYS, Level, Opening, Pick};
use crate::words::{class, describe, key_problem, keyed, observed, said};

impl Run<'_> {
    pub fn open(&mut self, opening: Opening) -> Held {
        if self.open.is_some() {
            return self.open_again(opening);
        }
        let peeked = if self.seed.is_multiple_of(3) && !self.limited { self.peek()? } else { None };
        self.counts.add("lives");
        let opening = Opening {
            anchor: if self.anchor.is_some() { opening.anchor } else { AnchorPick::None },
            ..opening
        };
        let creating = self.worlds.iter().any(|world| world.finished().is_none());
        let keys = if creating { vec![self.plan.key] } else { self.picked(opening.key) };
        let opening = if creating {
            Opening { form: Some(self.plan.form), anchor: AnchorPick::None, ..opening }
        } else {
            opening
        };
        for key in keys {
            if self.is_off || self.is_killed {
                break;
            }
            if self.open_with(opening, key, peeked.as_ref())? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the keys to try, in order.
    pub fn picked(&self, pick: Pick) -> Vec<Option<u8>> {
        let mut keys: Vec<Option<u8>> = Vec::new();
        for world in &self.worlds {
            let key = world.finished().and_then(|kept| kept.key);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let last = keys.last().copied().flatten();
        match pick {
            Pick::Earlier => keys,
            Pick::Later => {
                keys.reverse();
                keys
            }
            Pick::Other(further) => vec![Some((last.unwrap_or(0) + further) % KEYS)],
            Pick::None => vec![None],
        }
    }

    fn options(&self, opening: Opening, key: Option<u8>) -> OpenOptions {
        let mut options = keyed(without_threads(Store::options()), key);
        if let Some(form) = opening.form {
            options = options.form(form);
        }
        options = match opening.create {
            Create::IfMissing => options,
            Create::Never => options.create(false),
            Create::New if opening.read_only => options,
            Create::New => options.create_new(true),
        };
        match (opening.anchor, self.anchor) {
            // A crash or a ledger may lose the record that the anchor was given.
            (AnchorPick::Noted, Some(anchor)) => {
                options = options.anchor(anchor).accept_unknown_anchor(true);
            }
            (AnchorPick::Beyond, Some(anchor)) => {
                options = options.anchor(Anchor::new(anchor.store_id, 1 << 40, anchor.value));
            }
            _ => {}
        }
        if opening.read_only {
            return options.read_only(true);
        }
        if opening.packed {
            options = options.compression(Compression::Lz4);
        }
        options = match opening.level {
            Level::Sync => options,
            Level::Interval => options.durability(Durability::Interval(HOUR)),
            Level::Os => options.durability(Durability::Os),
        };
        if opening.keeps_log && opening.form.is_none_or(|form| form == Form::Wal) {
            options = options.checkpoint(CheckpointPolicy::default().close_into_image_bytes_max(0));
        }
        let options = options.backups(BackupPolicy::keep(self.plan.keep));
        options.fall_back_to_backup(opening.fall_back)
    }

    /// Opens with one key. Returns true if it succeeded.
    fn open_with(
        &mut self,
        opening: Opening,
        key: Option<u8>,
        peeked: Option<&Kept>,
    ) -> Held<bool> {
        let vfs = self.vfs();
        let before = self.before();
        let result = self.options(opening, key).open_in(&vfs, NAME);
        let disturbed = self.disturbed(&before)?;
        let what = if opening.read_only { "open to read" } else { "open" };
        self.counts.done(what, &result, disturbed);
        self.note(|| format!("    key {key:?}: {}", said(&result)));
        let predicted: Vec<Vec<&str>> =
            self.worlds.iter().map(|world| problems(world, opening, key)).collect();
        match result {
            Ok(store) => {
                let open = OpenStore { store, level: opening.level, read_only: opening.read_only };
                self.opened(open, key, &predicted, disturbed, peeked)?;
                Ok(true)
            }
            Err(error) => {
                if !opening.read_only {
                    self.may_have_begun(opening, key);
                }
                let class = class(&error);
                if !disturbed && !predicted.iter().any(|problems| problems.contains(&&*class)) {
                    return self.does_not_open(&error);
                }
                Ok(false)
            }
        }
    }

    fn does_not_open<T>(&self, error: &Error) -> Held<T> {
        let promise = if error.is_damage() {
            "nothing damages a store that was whole"
        } else {
            "a store opens with its key"
        };
        broken(promise, format!("{error}\n{}", self.possible()))
    }

    /// Records a failed opening, which may still have created the store or finished a restore.
    fn may_have_begun(&mut self, opening: Opening, key: Option<u8>) {
        let form = opening.form.unwrap_or(self.plan.form);
        for world in self.worlds.clone() {
            match (world.pending, world.store) {
                (Some(pending), _) => add(&mut self.worlds, World::of(pending)),
                (None, None) if opening.create != Create::Never => {
                    add(&mut self.worlds, World::of(Kept::new(form, key)));
                }
                _ => {}
            }
        }
        self.closed_cleanly = false;
        self.seen = None;
    }

    fn opened(
        &mut self,
        open: OpenStore,
        key: Option<u8>,
        predicted: &[Vec<&str>],
        disturbed: bool,
        peeked: Option<&Kept>,
    ) -> Held {
        let found = observed(&open.store, key);
        let (mut kept, mut was_pending) = (None, false);
        for (world, problems) in self.worlds.iter().zip(predicted) {
            let target = match (open.read_only, world.finished()) {
                (true, _) => world.store.clone(),
                (false, Some(kept)) => Some(kept.clone()),
                (false, None) => Some(Kept::new(found.form, key)),
            };
            let fits = |target: &Kept| problems.is_empty() && target.looks_like(&found);
            if let Some(target) = target.filter(fits) {
                kept.get_or_insert(target);
                was_pending |= world.pending.is_some();
            }
        }
        let Some(kept) = kept else {
            let what = format!("opened {}\n{}", describe(&found), self.possible());
            return broken("what is opened is a state that was acknowledged", what);
        };
        for (who, other) in [("a reader", self.seen.as_ref()), ("a peek", peeked)] {
            // While a key is being changed, both keys may open the store.
            let same = |other: &&Kept| Kept { key, ..(**other).clone() }.looks_like(&found);
            if let Some(other) = other.filter(|other| !same(other)) {
                let what = format!("{who} saw {}, now {}", describe(other), describe(&found));
                return broken("a reader and a writer see the same", what);
            }
        }
        if open.read_only {
            self.seen = Some(found);
            self.open = Some(open);
            return Ok(());
        }
        if open.store.restored().is_some() && !was_pending {
            let what = format!("{:?}", open.store.restored());
            return broken("nothing is restored that nobody asked for", what);
        }
        if self.closed_cleanly && !disturbed && !open.store.recovered().clean {
            return broken("a clean close is recognised", describe(&kept));
        }
        self.worlds = vec![World::of(kept.settled())];
        (self.seen, self.closed_cleanly) = (None, false);
        self.open = Some(open);
        if !disturbed {
            (self.cleared_up, self.names_last) = (true, true);
            self.nothing_plain_stays()?;
            if self.seed.is_multiple_of(4) {
                self.reopens_the_same(key)?;
            }
        }
        Ok(())
    }

    /// Checks that a power cut now, in which all unsynced data is lost, changes nothing.
    fn reopens_the_same(&mut self, key: Option<u8>) -> Held {
        let disk = self.disk.duplicate().reboot(Survivors::Nothing);
        disk.set_space(Space::Unlimited);
        let now = self.now().clone();
        let options = keyed(without_threads(Store::options()), key);
        match options.open_in(&disk.vfs(self.seed), NAME) {
            Ok(store) if observed(&store, key).looks_like(&now) => Ok(()),
            Ok(store) => broken(
                "opening twice gives the same",
                format!("{}, then {}", describe(&now), describe(&observed(&store, key))),
            ),
            Err(error) => broken("opening twice gives the same", error.to_string()),
        }
    }

    /// Opens a second handle, which must be refused unless both handles only read.
    fn open_again(&mut self, opening: Opening) -> Held {
        let both_read = opening.read_only && self.open.as_ref().is_some_and(|open| open.read_only);
        let before = self.before();
        let key = self.worlds.first().and_then(|world| world.store.as_ref()).and_then(|k| k.key);
        let opening = Opening { read_only: opening.read_only, ..Opening::plain() };
        let result = self.options(opening, key).open_in(&self.vfs(), NAME);
        let disturbed = self.disturbed(&before)?;
        self.counts.done("second open", &result, disturbed);
        self.note(|| format!("    {}", said(&result)));
        match result {
            Ok(_) if both_read => Ok(()),
            Ok(_) => broken("a second handle is refused", ""),
            // If the key has changed or a restore is pending, another error may come first.
            Err(_) => Ok(()),
        }
    }

    /// Returns the contents that a reader sees, on a copy of the disk, after comparing them with
    /// the model.
    fn peek(&mut self) -> Held<Option<Kept>> {
        let twin = self.disk.duplicate();
        let opening = Opening { read_only: true, ..Opening::plain() };
        let mut last = None;
        for key in self.picked(Pick::Later) {
            let predicted: Vec<Vec<&str>> =
                self.worlds.iter().map(|world| problems(world, opening, key)).collect();
            match self.options(opening, key).open_in(&twin.vfs(self.seed), NAME) {
                Ok(store) => {
                    let found = observed(&store, key);
                    let fits = |world: &World| {
                        world.store.as_ref().is_some_and(|kept| kept.looks_like(&found))
                    };
                    if !self.worlds.iter().any(fits) {
                        let what = format!("read {}\n{}", describe(&found), self.possible());
                        return broken("what is opened is a state that was acknowledged", what);
                    }
                    self.counts.add("peeks");
                    return Ok(Some(found));
                }
                Err(error) => {
                    let class = class(&error);
                    if !predicted.iter().any(|problems| problems.contains(&&*class)) {
                        last = Some(error);
                    }
                }
            }
        }
        match last {
            Some(error) => self.does_not_open(&error),
            None => Ok(None),
        }
    }
}

/// Returns the reasons why an opening of this world fails. Empty if it succeeds.
fn problems(world: &World, opening: Opening, key: Option<u8>) -> Vec<&'static str> {
    let mut found = Vec::new();
    if opening.read_only && world.pending.is_some() {
        return vec!["RestorePending"];
    }
    let lazy = opening.level == Level::Os && !opening.read_only;
    if lazy && opening.form == Some(Form::Snapshot) {
        found.push("Contradiction");
    }
    if opening.anchor != AnchorPick::None && opening.create == Create::New && !opening.read_only {
        found.push("Contradiction");
    }
    let kept = if opening.read_only { world.store.as_ref() } else { world.finished() };
    let Some(kept) = kept else {
        if opening.read_only || opening.create == Create::Never {
            found.push("NotFound");
        }
        return found;
    };
    if opening.create == Create::New && !opening.read_only {
        found.push("AlreadyExists");
    }
    if lazy && kept.form == Form::Snapshot {
        found.push("Contradiction");
    }
    if opening.form.is_some_and(|form| form != kept.form) {
        found.push("WrongForm");
    }
    found.extend(key_problem(kept.key, key));
    if opening.anchor == AnchorPick::Beyond {
        found.push("AnchorMismatch");
    }
    found
}

/// An interval that the clock of a history never reaches, so that no thread syncs beside it.
const HOUR: Duration = Duration::from_secs(3600);
