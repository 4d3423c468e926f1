//! The backups that stand in a directory now, and whose they are.

use codex_storage::names::{Names, Role};
use codex_storage::vfs::{Dir, Kind, Metadata, Open};

use crate::copy::{Watch, kind_in_words};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts, Inspect, InspectError, Reading, Trust};
use crate::meter::sign_of_life;

/// One name of the form `NAME.bak.<n>`.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) found: Metadata,
    /// Whose it is, or in words what else it is.
    pub(crate) owner: Owner,
}

/// Whose a file is, or in words what else it is.
type Owner = std::result::Result<Vec<u8>, String>;

/// All names of the form `NAME.bak.<n>`, newest first, each header read.
pub(crate) fn scan(dir: &dyn Dir, names: &Names, inspect: &dyn Inspect) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for candidate in dir.list().named("list the folder of", dir, names.main())? {
        let Some(Role::Backup(index)) = names.role(&candidate) else { continue };
        // A rotation may move it between the two calls.
        let Some(found) = dir.metadata(&candidate).named("look at", dir, &candidate)? else {
            continue;
        };
        let owner = if found.kind == Kind::File {
            match owner(dir, &candidate, inspect) {
                Err(Error::Missing { .. }) => continue,
                owner => owner?,
            }
        } else {
            Err(kind_in_words(found.kind).to_owned())
        };
        slots.push(Slot { index, name: candidate, found, owner });
    }
    slots.sort_by_key(|slot| slot.index);
    Ok(slots)
}

/// Whose file `name` is, if that is a regular file whose header says so.
pub(crate) fn owner_of(
    dir: &dyn Dir,
    name: &str,
    inspect: &dyn Inspect,
) -> Result<Option<Vec<u8>>> {
    match dir.metadata(name).named("look at", dir, name)? {
        Some(found) if found.kind == Kind::File => Ok(owner(dir, name, inspect)?.ok()),
        _ => Ok(None),
    }
}

/// Refuses to go on when one of the names up to `upto` is not a backup of the file `id`.
pub(crate) fn own(dir: &dyn Dir, name: &str, slots: &[Slot], id: &[u8], upto: u32) -> Result<()> {
    let mut near = slots.iter().filter(|slot| slot.index <= upto);
    near.try_for_each(|slot| own_one(dir, name, slot, Some(id)))
}

/// Whether `slot` is a backup of the file `id`, or of any where that is not known.
pub(crate) fn own_one(dir: &dyn Dir, name: &str, slot: &Slot, id: Option<&[u8]>) -> Result<()> {
    let what = match &slot.owner {
        Ok(owner) if id.is_none_or(|id| owner == id) => return Ok(()),
        Ok(_) => "a file of another origin",
        Err(what) => what,
    };
    let (path, of) = (dir.path(&slot.name), dir.path(name));
    Err(Error::Foreign { path, of, what: what.to_owned() })
}

/// The smallest index from 1 without a backup.
pub(crate) fn first_gap(slots: &[Slot]) -> u32 {
    let mut gap = 1;
    for slot in slots {
        if slot.index == gap {
            gap = gap.saturating_add(1);
        }
    }
    gap
}

/// What the file `name` says of itself, or why it cannot.
pub(crate) fn facts(
    dir: &dyn Dir,
    name: &str,
    inspect: &dyn Inspect,
    reading: &mut Reading<'_>,
) -> Result<Facts> {
    let file = dir.open(name, Open::Read).named("open", dir, name)?;
    inspect.facts(&file, reading).map_err(|error| Error::from_inspect(dir.path(name), error))
}

/// The facts of the backup `slot` if it is of the version `about`, whole and authentic: if so, it
/// is read to its last byte. The only error is [`Error::Stopped`].
pub(crate) fn facts_if_good(
    dir: &dyn Dir,
    slot: &Slot,
    about: &Facts,
    inspect: &dyn Inspect,
    watch: &mut Watch<'_>,
) -> Result<Option<Facts>> {
    if slot.owner.is_err() || !counts(dir, &slot.name, inspect) {
        return Ok(None);
    }
    let reading = &mut |_| sign_of_life(watch);
    let verified = facts(dir, &slot.name, inspect, reading).and_then(|facts| {
        if !facts.same_version(about) {
            return Ok(None);
        }
        let facts = verify(dir, &slot.name, inspect, inspect.deepest(), reading)?;
        Ok(Some(facts).filter(|facts| facts.same_version(about)))
    });
    match verified {
        Err(stopped @ Error::Stopped { .. }) => Err(stopped),
        found => Ok(found.unwrap_or_default()),
    }
}

/// Whether the header of the file `name` is authentic, as far as `inspect` can tell.
pub(crate) fn trust(dir: &dyn Dir, name: &str, inspect: &dyn Inspect) -> Result<Trust> {
    let file = dir.open(name, Open::Read).named("open", dir, name)?;
    inspect.trust(&file).map_err(|error| Error::from_inspect(dir.path(name), error))
}

/// Whether the file `name` counts as a backup; one that cannot be read does not.
pub(crate) fn counts(dir: &dyn Dir, name: &str, inspect: &dyn Inspect) -> bool {
    trust(dir, name, inspect).is_ok_and(Trust::counts)
}

/// Reads every byte of the file `name` and checks it.
pub(crate) fn verify(
    dir: &dyn Dir,
    name: &str,
    inspect: &dyn Inspect,
    depth: Depth,
    reading: &mut Reading<'_>,
) -> Result<Facts> {
    let file = dir.open(name, Open::Read).named("open", dir, name)?;
    inspect
        .verify(&file, depth, reading)
        .map_err(|error| Error::from_inspect(dir.path(name), error))
}

fn owner(dir: &dyn Dir, name: &str, inspect: &dyn Inspect) -> Result<Owner> {
    let file = dir.open(name, Open::Read).named("open", dir, name)?;
    match inspect.identity(&file) {
        Ok(id) => Ok(Ok(id)),
        Err(InspectError::Read(source)) => Err(source).named("read", dir, name),
        Err(InspectError::Stopped) => Err(Error::Stopped { path: dir.path(name) }),
        Err(
            InspectError::Damaged { what, .. }
            | InspectError::Alien { what }
            | InspectError::NeedsKey { what }
            | InspectError::Unauthentic { what },
        ) => Ok(Err(format!("a file that does not say whose it is ({what})"))),
    }
}
