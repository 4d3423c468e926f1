//! The steps on the files of a closed store, and the checks of these files.

use std::path::Path;

use codex_core::vfs::fault::Space;
use codex_core::vfs::{Dir, Vfs};
use codex_core::{BackupEntry, Backups, Conversion, Form, RestorePoint, Store};

use crate::model::{Bak, Kept, World, add};
use crate::run::{Broken, COPIES, Held, MARK, NAME, Run, broken};
use crate::step::{Pick, To};
use crate::words::{class, describe, key, key_problem, keyed, observed, said};

impl Run<'_> {
    // Conversions.

    pub fn convert(&mut self, pick: Pick, form: Option<Form>, to: To) -> Held {
        for given in self.picked(pick) {
            if self.is_off || self.is_killed || self.convert_with(given, form, to)? {
                break;
            }
        }
        Ok(())
    }

    /// Converts with one key. Returns true if it succeeded.
    fn convert_with(&mut self, given: Option<u8>, form: Option<Form>, to: To) -> Held<bool> {
        let (conversion, new_key) = conversion(given, form, to);
        let vfs = self.vfs();
        let before = self.before();
        let result = conversion.convert_in(&vfs, NAME);
        let disturbed = self.disturbed(&before)?;
        self.counts.done("conversion", &result, disturbed);
        self.note(|| format!("    key {given:?}: {}", said(&result)));
        let is_open = self.open.is_some();
        let fits = |kept: &Kept| key_problem(kept.key, given).is_none();
        let mut converted = Vec::new();
        for world in &self.worlds {
            if let Some(kept) = world.finished().filter(|kept| fits(kept)) {
                add(&mut converted, World::of(kept.converted(form, new_key)));
            }
        }
        match result {
            Ok(_) if is_open => broken("an open store is not converted", ""),
            Ok(done) => {
                let told = |world: &World| {
                    let kept = world.store.as_ref();
                    kept.is_some_and(|k| (k.seq(), k.form) == (done.anchor.seq, done.form))
                };
                converted.retain(told);
                if converted.is_empty() {
                    return broken(
                        "a conversion keeps the state",
                        format!("{done:?}\n{}", self.possible()),
                    );
                }
                self.worlds = converted;
                (self.seen, self.closed_cleanly) = (None, false);
                if new_key.is_some() {
                    let told: Vec<String> = done.plain.iter().map(|path| file_name(path)).collect();
                    self.plain_files_are_told(&told)?;
                }
                Ok(true)
            }
            Err(error) => {
                (self.seen, self.closed_cleanly) = (None, false);
                if disturbed && !is_open {
                    let worlds = converted.into_iter();
                    worlds.for_each(|world| add(&mut self.worlds, world));
                    return Ok(false);
                }
                let class = class(&error);
                let is_told = is_open
                    || self.worlds.iter().any(|world| match (&world.pending, &world.store) {
                        (Some(_), _) => true,
                        (None, None) => class == "NotFound",
                        (None, Some(kept)) => key_problem(kept.key, given) == Some(&class),
                    });
                if !is_told {
                    let what = format!("{error}\n{}", self.possible());
                    return broken("a conversion succeeds on a healthy disk", what);
                }
                Ok(false)
            }
        }
    }

    /// Checks that plain files beside an encrypted store have a name that marks them as plain.
    pub fn nothing_plain_stays(&self) -> Held {
        if self.now().key.is_none() {
            return Ok(());
        }
        let known = |name: &String| {
            ["a.db.bak.", "a.db.replaced.", "copy-"].iter().any(|start| name.starts_with(start))
        };
        match self.plain_files().into_iter().find(|name| !known(name)) {
            Some(name) => broken("nothing plain stays beside an encrypted store", name),
            None => Ok(()),
        }
    }

    fn plain_files_are_told(&self, told: &[String]) -> Held {
        let mut plain = self.plain_files().into_iter().filter(|name| name.starts_with(NAME));
        match plain.find(|name| !told.contains(name)) {
            Some(name) => broken("a conversion tells which files stay plain", name),
            None => Ok(()),
        }
    }

    fn plain_files(&self) -> Vec<String> {
        let twin = self.disk.duplicate();
        let holds = |name: &String| {
            let bytes = twin.peek(name).unwrap_or_default();
            bytes.windows(MARK.len()).any(|window| window == MARK)
        };
        let mut names = twin.list().unwrap_or_default();
        names.sort();
        names.into_iter().filter(holds).collect()
    }

    // Backups.

    /// Compares the backups with the model.
    pub fn look(&mut self) -> Held {
        let twin = self.disk.duplicate();
        twin.set_space(Space::Unlimited);
        let vfs = twin.vfs(self.seed);
        let listed = backups(&vfs, None).list();
        let listed = listed.map_err(|error| bad(format!("the list: {error}")))?;
        let mut found = Vec::new();
        for entry in &listed {
            match &entry.facts {
                Ok(facts) => found.push((entry, format!("{facts:?}"))),
                Err(error) => return Err(bad(format!("{}: {error}", entry.name))),
            }
        }
        let Some(pairs) = self.assign(&vfs, &found, 0)? else {
            let seen: Vec<String> =
                found.iter().map(|(e, facts)| format!("{} {facts}", e.name)).collect();
            let model =
                self.baks.iter().map(|bak| format!("{} sure {}", describe(&bak.kept), bak.sure));
            let model: Vec<String> = model.collect();
            return Err(bad(format!("seen {seen:#?}\nexpected {model:#?}")));
        };
        self.baks.iter_mut().for_each(|bak| bak.facts = None);
        for (bak, (entry, facts)) in pairs.iter().zip(&found) {
            self.baks[*bak].sure |= self.names_last;
            self.baks[*bak].facts = Some(facts.clone());
            if self.seed.is_multiple_of(2) {
                let given = self.baks[*bak].kept.key;
                let proof = backups(&vfs, given).verify(entry.index);
                proof.map_err(|error| bad(format!("{} verified: {error}", entry.name)))?;
            }
        }
        self.counts.add("looks at backups");
        if self.cleared_up {
            let mut at = 0;
            self.baks.retain(|_| {
                at += 1;
                pairs.contains(&(at - 1))
            });
            if self.baks.len() < self.floor {
                let what = format!("{} of {} are left", self.baks.len(), self.floor);
                return Err(bad(what));
            }
            self.floor = 0;
        }
        Ok(())
    }

    /// Returns the backup of the model for each backup that was found, or `None` if they do not
    /// match.
    fn assign(
        &self,
        vfs: &Vfs,
        found: &[(&BackupEntry, String)],
        from: usize,
    ) -> Held<Option<Vec<usize>>> {
        let Some(bak) = self.baks.get(from) else {
            return Ok(found.is_empty().then(Vec::new));
        };
        // A backup without its number is not listed, and is newer than all that are. So of two
        // backups of one state the listed one is the older.
        if !bak.sure
            && let Some(pairs) = self.assign(vfs, found, from + 1)?
        {
            return Ok(Some(pairs));
        }
        if let Some(((entry, facts), rest)) = found.split_first()
            && Self::is_of(vfs, entry, facts, bak)
            && let Some(mut pairs) = self.assign(vfs, rest, from + 1)?
        {
            pairs.insert(0, from);
            return Ok(Some(pairs));
        }
        Ok(None)
    }

    fn is_of(vfs: &Vfs, entry: &BackupEntry, facts: &str, bak: &Bak) -> bool {
        if bak.facts.as_deref() == Some(facts) {
            return true;
        }
        let options = keyed(Store::options(), bak.kept.key).read_only(true);
        let opened = options.open_in(vfs, &entry.name);
        opened.is_ok_and(|store| observed(&store, bak.kept.key).looks_like(&bak.kept))
    }

    pub fn prune(&mut self, keep: u32) -> Held {
        self.look()?;
        let vfs = self.vfs();
        let before = self.before();
        let result = Backups::of_in(&vfs, NAME).prune(keep);
        let disturbed = self.disturbed(&before)?;
        self.counts.done("prune", &result, disturbed);
        self.note(|| format!("    {}", said(&result)));
        let keep = keep as usize;
        self.floor = self.floor.min(keep);
        match result {
            Ok(_) => {
                // A backup that an interrupted rotation has left has a number now.
                self.keep_newest(keep, true);
                self.cleared_up = true;
                self.look()?;
                if self.baks.len() > keep {
                    return Err(bad(format!("{} are left of {keep}", self.baks.len())));
                }
                Ok(())
            }
            Err(_) if disturbed => {
                self.keep_newest(keep, true);
                (self.cleared_up, self.names_last) = (false, false);
                Ok(())
            }
            Err(error) => {
                let pending = self.worlds.iter().any(|world| world.pending.is_some());
                if pending && class(&error) == "RestorePending" {
                    return Ok(());
                }
                broken("backups are pruned on a healthy disk", error.to_string())
            }
        }
    }

    // Restores.

    pub fn restore(&mut self, index: u32) -> Held {
        if self.open.is_none() {
            self.look()?;
        }
        let twin = self.disk.duplicate();
        let listed = Backups::of_in(&twin.vfs(self.seed), NAME).list().unwrap_or_default();
        let at = listed.iter().position(|entry| entry.index == index);
        let facts =
            at.and_then(|at| listed[at].facts.as_ref().ok()).map(|facts| format!("{facts:?}"));
        let wanted = self.baks.iter().find(|bak| facts.is_some() && bak.facts == facts);
        let wanted = wanted.map(|bak| bak.kept.settled());
        let is_lone = listed.is_empty() && index == 1 && self.open.is_none();
        let wanted = wanted.or_else(|| is_lone.then(|| self.waiting()).flatten());
        let vfs = self.vfs();
        let before = self.before();
        let result = Backups::of_in(&vfs, NAME).restore(index);
        let disturbed = self.disturbed(&before)?;
        self.counts.done("restore", &result, disturbed);
        self.note(|| format!("    {}", said(&result)));
        let is_open = self.open.is_some();
        match (result, wanted) {
            (Ok(_), Some(kept)) if !is_open => {
                self.now_is(vec![World::of(kept)]);
                Ok(())
            }
            (Ok(_), _) => broken("only a backup of a closed store is restored", ""),
            (Err(error), wanted) => {
                if disturbed && !is_open {
                    if let Some(kept) = wanted {
                        self.may_be_restored(|_| Some(kept.clone()));
                    }
                    return Ok(());
                }
                let class = class(&error);
                let pending = self.worlds.iter().any(|world| world.pending.is_some());
                let told = is_open
                    || (class == "Missing" && at.is_none())
                    || (class == "RestorePending" && pending);
                if told {
                    return Ok(());
                }
                broken("a backup is restored on a healthy disk", error.to_string())
            }
        }
    }

    /// Returns the only backup, which does not have its name yet.
    fn waiting(&self) -> Option<Kept> {
        let twin = self.disk.duplicate();
        twin.set_space(Space::Unlimited);
        let vfs = twin.vfs(self.seed);
        Backups::of_in(&vfs, NAME).restore(1).ok()?;
        let listed = Backups::of_in(&vfs, NAME).list().ok()?;
        let entry = listed.first()?;
        let facts = format!("{:?}", entry.facts.as_ref().ok()?);
        let bak = self.baks.iter().find(|bak| Self::is_of(&vfs, entry, &facts, bak))?;
        Some(bak.kept.settled())
    }

    fn now_is(&mut self, worlds: Vec<World>) {
        self.worlds = worlds;
        (self.anchor, self.seen, self.closed_cleanly) = (None, None, false);
    }

    /// Records an interrupted restore, which was not decided, is pending, or is done.
    fn may_be_restored(&mut self, restored: impl Fn(&Kept) -> Option<Kept>) {
        (self.anchor, self.seen, self.closed_cleanly) = (None, None, false);
        for world in self.worlds.clone() {
            let Some(kept) = world.store.as_ref().and_then(&restored) else { continue };
            add(&mut self.worlds, World { pending: Some(kept.clone()), ..world.clone() });
            add(&mut self.worlds, World::of(kept));
        }
    }

    pub fn restore_until(&mut self, at: u8) -> Held {
        let Some(kept) = self.worlds.last().and_then(|world| world.finished()).cloned() else {
            return Ok(());
        };
        // At the base of a converted ledger there is no state to restore.
        let first = kept.history.first().map_or(0, |(seq, _)| if *seq == 0 { 0 } else { seq + 1 });
        let range = (kept.seq() + 2).saturating_sub(first).max(1);
        let seq = first + u64::from(at) % range;
        self.note(|| format!("    until {seq}"));
        let given = kept.key;
        let vfs = self.vfs();
        let before = self.before();
        let result = backups(&vfs, given).restore_until(RestorePoint::Seq(seq));
        let disturbed = self.disturbed(&before)?;
        self.counts.done("restore until", &result, disturbed);
        self.note(|| format!("    {}", said(&result)));
        let is_open = self.open.is_some();
        // The ledger has this commit. At the base of a converted ledger, no state of a commit is
        // known.
        let until = |kept: &Kept| {
            let base = kept.history.first().map_or(0, |(seq, _)| *seq);
            let known = (seq > base || base == 0) && seq <= kept.seq();
            (known && kept.form == Form::Ledger).then(|| kept.until(seq))
        };
        match result {
            Ok(_) if is_open => broken("only a closed store is restored", ""),
            Ok(_) => {
                let mut worlds = Vec::new();
                for world in &self.worlds {
                    if let (None, Some(kept)) =
                        (&world.pending, world.store.as_ref().and_then(until))
                    {
                        add(&mut worlds, World::of(kept));
                    }
                }
                if worlds.is_empty() {
                    let what = format!("until {seq}\n{}", self.possible());
                    return broken("a ledger is restored to a commit that it has", what);
                }
                self.now_is(worlds);
                Ok(())
            }
            Err(_) if is_open => Ok(()),
            Err(_) if disturbed => {
                self.may_be_restored(until);
                Ok(())
            }
            Err(error) => {
                let refused = |world: &World| {
                    world.pending.is_some()
                        || world.store.as_ref().is_none_or(|kept| {
                            let fits = key_problem(kept.key, given).is_none();
                            !fits || until(kept).is_none() || seq == 0
                        })
                };
                if self.worlds.iter().any(refused) {
                    return Ok(());
                }
                let what = format!("until {seq}: {error}\n{}", self.possible());
                broken("a ledger is restored on a healthy disk", what)
            }
        }
    }

    // Hot copies.

    pub fn open_copy(&mut self, which: usize) -> Held {
        let twin = self.disk.duplicate();
        let mut refused = String::new();
        for may in &self.copies[which] {
            let given = may.as_ref().and_then(|kept| kept.key);
            let options = keyed(Store::options(), given).read_only(true);
            match (options.open_in(&twin.vfs(self.seed), COPIES[which]), may) {
                (Ok(store), Some(kept)) => {
                    let found = observed(&store, given);
                    if found.looks_like(kept) {
                        self.counts.add("copies opened");
                        return Ok(());
                    }
                    refused = describe(&found);
                }
                (Ok(_), None) => "a copy that was not made".clone_into(&mut refused),
                (Err(error), None) if class(&error) == "NotFound" => return Ok(()),
                (Err(error), _) => refused = error.to_string(),
            }
        }
        broken("a hot copy opens as it was made", refused)
    }

    pub fn remove_copy(&mut self, which: usize) {
        let vfs = self.vfs();
        let removed = vfs.dir.remove(COPIES[which]).and_then(|()| vfs.dir.sync());
        if removed.is_ok() {
            self.copies[which] = vec![None];
        } else {
            self.copies[which].push(None);
        }
    }
}

/// Returns the conversion, and the new key.
fn conversion(given: Option<u8>, form: Option<Form>, to: To) -> (Conversion, Option<u8>) {
    let mut conversion = Conversion::new();
    if let Some(form) = form {
        conversion = conversion.form(form);
    }
    if let Some(n) = given {
        conversion = conversion.key(key(n));
    }
    match to {
        To::Same => (conversion, given),
        To::Plain => (conversion.decrypt(), None),
        To::Key(n) => (conversion.encrypt(key(n)), Some(n)),
    }
}

fn backups(vfs: &Vfs, given: Option<u8>) -> Backups {
    let backups = Backups::of_in(vfs, NAME);
    match given {
        Some(n) => backups.key(key(n)),
        None => backups,
    }
}

fn bad(what: String) -> Broken {
    Broken { promise: "a backup that was good stays good", what }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
