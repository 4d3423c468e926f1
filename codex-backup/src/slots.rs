//! The existing backups in a directory, and the file that each belongs to.

use codex_storage::names::{Names, Role};
use codex_storage::vfs::{Dir, Kind, Metadata, Open};

use crate::copy::{Watch, kind_in_words};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts, Inspect, InspectError, Reading, Trust};
use crate::meter::sign_of_life;

/// An existing file with a name of the form `NAME.bak.<n>`.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) found: Metadata,
    /// The identity of the file, or a description of the file if its identity cannot be read.
    pub(crate) owner: Owner,
}

/// The identity of a file, or a description of the file if its identity cannot be read.
type Owner = std::result::Result<Vec<u8>, String>;

/// Returns all files with names of the form `NAME.bak.<n>`, newest first. Reads the header of each.
pub(crate) fn scan(dir: &dyn Dir, names: &Names, inspect: &dyn Inspect) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for candidate in dir.list().named("list the folder of", dir, names.main())? {
        let Some(Role::Backup(index)) = names.role(&candidate) else { continue };
        // A rotation may rename the file between the two calls.
        let Some(found) = dir.metadata(&candidate).named("look at", dir, &candidate)? else {
            continue;
        };
        let owner = if found.kind == Kind::File {
            match owner(dir, &candidate, inspect) {
                // The file may also be renamed or removed before it is opened.
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

/// Returns the identity of the file `name`, or `None` if it is not a regular file or has no
/// readable identity.
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

/// Returns [`Error::Foreign`] if one of the backups up to the index `upto` does not belong to the
/// file `id`.
pub(crate) fn own(dir: &dyn Dir, name: &str, slots: &[Slot], id: &[u8], upto: u32) -> Result<()> {
    let mut near = slots.iter().filter(|slot| slot.index <= upto);
    near.try_for_each(|slot| own_one(dir, name, slot, Some(id)))
}

/// Returns [`Error::Foreign`] if `slot` is not a backup of the file `id`. If `id` is `None`, a
/// backup of any file is accepted.
pub(crate) fn own_one(dir: &dyn Dir, name: &str, slot: &Slot, id: Option<&[u8]>) -> Result<()> {
    let what = match &slot.owner {
        Ok(owner) if id.is_none_or(|id| owner == id) => return Ok(()),
        Ok(_) => "a file of another origin",
        Err(what) => what,
    };
    let (path, of) = (dir.path(&slot.name), dir.path(name));
    Err(Error::Foreign { path, of, what: what.to_owned() })
}

/// Returns the smallest index from 1 that has no backup.
pub(crate) fn first_gap(slots: &[Slot]) -> u32 {
    let mut gap = 1;
    for slot in slots {
        if slot.index == gap {
            gap = gap.saturating_add(1);
        }
    }
    gap
}

/// Returns the facts of the file `name`.
pub(crate) fn facts(
    dir: &dyn Dir,
    name: &str,
    inspect: &dyn Inspect,
    reading: &mut Reading<'_>,
) -> Result<Facts> {
    let file = dir.open(name, Open::Read).named("open", dir, name)?;
    inspect.facts(&file, reading).map_err(|error| Error::from_inspect(dir.path(name), error))
}

/// Returns the facts of the backup `slot` if it is of the version `about`, complete and authentic;
/// a backup of that version is read to its last byte. Returns `None` after any other error than
/// [`Error::Stopped`].
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
    // The cheap check of the version comes first. Only a backup of the same version is read whole.
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

/// Returns whether the header of the file `name` is authentic, as far as `inspect` can check it.
pub(crate) fn trust(dir: &dyn Dir, name: &str, inspect: &dyn Inspect) -> Result<Trust> {
    let file = dir.open(name, Open::Read).named("open", dir, name)?;
    inspect.trust(&file).map_err(|error| Error::from_inspect(dir.path(name), error))
}

/// Returns whether the file `name` counts as a backup. A file that cannot be read does not.
pub(crate) fn counts(dir: &dyn Dir, name: &str, inspect: &dyn Inspect) -> bool {
    trust(dir, name, inspect).is_ok_and(Trust::counts)
}

/// Reads and checks every byte of the file `name`.
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

/// Returns the identity of the file `name`, or a description of the file if its identity cannot be
/// read. Only an error of the disk is an error.
fn owner(dir: &dyn Dir, name: &str, inspect: &dyn Inspect) -> Result<Owner> {
    let file = dir.open(name, Open::Read).named("open", dir, name)?;
    match inspect.identity(&file) {
        Ok(id) => Ok(Ok(id)),
        Err(InspectError::Read(source)) => Err(source).named("read", dir, name),
        Err(InspectError::Stopped) => Err(Error::Stopped { path: dir.path(name) }),
        Err(
            InspectError::Damaged { what, .. }
            | InspectError::UnknownFormat { what }
            | InspectError::NeedsKey { what }
            | InspectError::Unauthentic { what },
        ) => Ok(Err(format!("a file whose identity cannot be read ({what})"))),
    }
}
