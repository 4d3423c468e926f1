//! One disk that a power cut can leave, built from a choice among the changes of names and bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FaultDir;
use super::bytes::{Bytes, SECTOR};
use super::disk::{Disk, Ino, NameChange, NameMap, NameState};
use super::inode::Inode;
use crate::vfs::entropy::mix;
use crate::vfs::{SeededEntropy, SimClock};

/// A choice among all changes.
pub(super) struct Pick {
    /// For each change of bytes, over all files, whether it reached the disk.
    pub(super) units: Vec<bool>,
    /// For each change of names that can be lost, whether it reached the disk.
    pub(super) names: Vec<bool>,
    pub(super) style: Style,
}

/// The way in which the changes of bytes reached the disk.
pub(super) enum Style {
    /// Each change as a whole or not at all.
    Whole,
    /// Each change as a whole or not at all, except for one sector that was being written.
    Torn(SeededEntropy),
    /// Each sector independently.
    Sectors(SeededEntropy),
}

/// A disk at the time of the power cut, with the choices that it allows.
pub(super) struct Base {
    durable_names: NameMap,
    name_changes: Vec<NameChange>,
    pub(super) name_units: usize,
    inodes: BTreeMap<Ino, Inode>,
    files: Vec<Dirty>,
    pub(super) units: usize,
    /// The properties of the disk that are equal in all images.
    rest: Disk,
    clock: SimClock,
}

/// A file with changes that may be lost.
struct Dirty {
    ino: Ino,
    /// The index of its first change among the changes of all files.
    first_unit: usize,
    sectors: Vec<DirtySector>,
}

/// A sector with all versions that it may have.
struct DirtySector {
    number: usize,
    /// The hash of the durable version. Hashes include the file, the sector number and the bytes.
    durable: u64,
    /// For each change that touched the sector, its index in the file and the hash of that version.
    versions: Vec<(usize, u64)>,
}

/// A choice with its results: the names, the content of each file, and a hash of the whole disk.
pub(super) struct Resolved {
    names: NameMap,
    files: Vec<ResolvedFile>,
    pub(super) hash: u64,
}

struct ResolvedFile {
    len: u64,
    /// For each dirty sector the index of the change whose version it has; `None` is the durable
    /// one.
    versions: Vec<Option<usize>>,
    torn: Option<(usize, Vec<u8>)>,
}

impl Base {
    pub(super) fn new(disk: &Disk, clock: SimClock) -> Self {
        let (mut files, mut units) = (Vec::new(), 0);
        for (&ino, inode) in disk.inodes.iter().filter(|(_, inode)| !inode.changes.is_empty()) {
            files.push(Dirty::new(ino, inode, units));
            units += inode.changes.len();
        }
        let losable = |change: &&NameChange| change.state != NameState::Settled;
        Self {
            durable_names: disk.durable_names.clone(),
            name_changes: disk.name_changes.clone(),
            name_units: disk.name_changes.iter().filter(losable).count(),
            inodes: disk.inodes.clone(),
            files,
            units,
            rest: Disk { last_ino: disk.last_ino, space: disk.space, ..Disk::default() },
            clock,
        }
    }

    /// Determines the names and files of a choice, and a hash that is equal for equal disks.
    pub(super) fn resolve(&self, pick: &Pick) -> Resolved {
        let mut names = self.durable_names.clone();
        // Settled changes always survive. Each of the other changes has its own entry in the
        // choice.
        let mut kept = pick.names.iter();
        for change in &self.name_changes {
            if change.state == NameState::Settled || kept.next() == Some(&true) {
                change.what.apply(&mut names);
            }
        }
        // Hashes are added, so that their sum does not depend on the order of names and files.
        let hash_name = |(name, ino): (&Arc<str>, &Ino)| mix(hash(name.as_bytes()) ^ mix(*ino));
        let mut sum = names.iter().map(hash_name).fold(0, u64::wrapping_add);
        let mut files = Vec::with_capacity(self.files.len());
        // A file without a name is not visible, so it does not count in the hash.
        for dirty in &self.files {
            let file = self.resolve_file(dirty, pick);
            if names.values().any(|ino| *ino == dirty.ino) {
                sum = sum.wrapping_add(dirty.hash(&file));
            }
            files.push(file);
        }
        Resolved { names, files, hash: sum }
    }

    /// Determines the length of one file and the version of each of its dirty sectors.
    fn resolve_file(&self, dirty: &Dirty, pick: &Pick) -> ResolvedFile {
        let Some(inode) = self.inodes.get(&dirty.ino) else {
            return ResolvedFile { len: 0, versions: Vec::new(), torn: None };
        };
        let units = pick.units.iter().skip(dirty.first_unit);
        let kept: Vec<bool> = units.take(inode.changes.len()).copied().collect();
        let kept_len = |random: Option<&SeededEntropy>| {
            let keeps = kept.iter().map(|kept| random.map_or(*kept, |r| r.below(2) == 1));
            let changes = inode.changes.iter().zip(keeps);
            changes
                .filter(|(_, keeps)| *keeps)
                .fold(inode.durable.len(), |len, (change, _)| change.len.apply(len))
        };
        if let Style::Sectors(random) = &pick.style {
            // The length and each sector are independent of the kept changes. The share of sectors
            // with the latest version differs between samples.
            let len = cut_short(inode.durable.len(), kept_len(Some(random)), random);
            let latest = random.below(8);
            let version = |sector: &DirtySector| sector.random_version(latest, random);
            let versions = dirty.sectors.iter().map(version).collect();
            return ResolvedFile { len, versions, torn: None };
        }
        // Otherwise each sector has the version of the last kept change, and at most one is torn.
        let version = |sector: &DirtySector| sector.last_version(&kept);
        let versions: Vec<_> = dirty.sectors.iter().map(version).collect();
        let torn = match &pick.style {
            Style::Torn(random) => dirty.tear(inode, &versions, random),
            Style::Whole | Style::Sectors(_) => None,
        };
        ResolvedFile { len: kept_len(None), versions, torn }
    }

    /// Builds the disk of a choice, with an empty cache and without unsynced changes.
    pub(super) fn build(&self, resolved: &Resolved) -> FaultDir {
        let mut disk = self.rest.clone();
        for (name, &ino) in &resolved.names {
            let Some(inode) = self.inodes.get(&ino) else {
                continue;
            };
            let found = self.files.iter().zip(&resolved.files).find(|(file, _)| file.ino == ino);
            let bytes = match found {
                Some((dirty, file)) => dirty.bytes(inode, file),
                None => inode.durable.clone(),
            };
            let mut inode = inode.after_boot(bytes);
            inode.label = Arc::clone(name);
            disk.inodes.insert(ino, inode);
        }
        disk.names.clone_from(&resolved.names);
        disk.durable_names.clone_from(&resolved.names);
        FaultDir::with_disk(disk, self.clock.clone())
    }
}

impl Dirty {
    /// Collects the versions that each touched sector may have.
    fn new(ino: Ino, inode: &Inode, first_unit: usize) -> Self {
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, change) in inode.changes.iter().enumerate() {
            for number in change.touched() {
                touched.entry(number).or_default().push(index);
            }
        }
        let hash_at = |number: usize, bytes: &[u8]| {
            mix(hash(bytes) ^ mix(mix(ino) ^ u64::try_from(number).unwrap_or(u64::MAX)))
        };
        let sectors = touched.into_iter().map(|(number, changes)| {
            let version = |index: usize| {
                let bytes = inode.changes.get(index)?.sector(number)?;
                Some((index, hash_at(number, bytes)))
            };
            let durable = hash_at(number, &inode.durable.sectors(number, 1));
            let versions = changes.into_iter().filter_map(version).collect();
            DirtySector { number, durable, versions }
        });
        Self { ino, first_unit, sectors: sectors.collect() }
    }

    /// Returns the bytes of the file in one image.
    fn bytes(&self, inode: &Inode, file: &ResolvedFile) -> Bytes {
        let mut bytes = inode.durable.clone();
        for (sector, version) in self.sectors.iter().zip(&file.versions) {
            let change = version.and_then(|index| inode.changes.get(index));
            if let Some(found) = change.and_then(|change| change.sector(sector.number)) {
                bytes.put_sectors(found, sector.number);
            }
        }
        if let Some((number, torn)) = &file.torn {
            bytes.put_sectors(torn, *number);
        }
        bytes.trim_to(file.len);
        bytes
    }

    /// Chooses a written sector and tears its last version at a byte: the first bytes are new, the
    /// others are from the version before it.
    fn tear(
        &self,
        inode: &Inode,
        versions: &[Option<usize>],
        random: &SeededEntropy,
    ) -> Option<(usize, Vec<u8>)> {
        let written: Vec<_> =
            self.sectors.iter().zip(versions).filter(|(_, version)| version.is_some()).collect();
        let index = random.below(u64::try_from(written.len()).ok()?);
        let (sector, version) = written.get(usize::try_from(index).ok()?)?;
        let new = inode.changes.get((**version)?)?.sector(sector.number)?;
        // The old content is that of the change before, or the durable one.
        let older = sector.versions.iter().rev().find(|(change, _)| Some(*change) < **version);
        let mut torn = match older {
            Some((change, _)) => inode.changes.get(*change)?.sector(sector.number)?.to_vec(),
            None => inode.durable.sectors(sector.number, 1),
        };
        // At least one byte is new and at least one is old.
        let cut = usize::try_from(1 + random.below(511)).ok()?;
        torn.get_mut(..cut)?.copy_from_slice(new.get(..cut)?);
        Some((sector.number, torn))
    }

    /// Hashes the visible part of the file: the sectors before its end.
    fn hash(&self, file: &ResolvedFile) -> u64 {
        let behind = usize::try_from(file.len).unwrap_or(usize::MAX).div_ceil(SECTOR);
        let mut sum = mix(mix(self.ino).wrapping_add(file.len));
        for (sector, version) in self.sectors.iter().zip(&file.versions) {
            if sector.number < behind {
                sum = sum.wrapping_add(sector.hash_of(*version));
            }
        }
        let torn = file.torn.as_ref().filter(|(number, _)| *number < behind);
        torn.map_or(sum, |(number, bytes)| {
            let place = mix(u64::try_from(*number).unwrap_or(u64::MAX));
            sum.wrapping_add(mix(hash(bytes) ^ place ^ 1))
        })
    }
}

impl DirtySector {
    /// Returns the last kept change of the sector, or `None` for the durable version.
    fn last_version(&self, kept: &[bool]) -> Option<usize> {
        let is_kept = |change: &usize| kept.get(*change) == Some(&true);
        self.versions.iter().rev().map(|(change, _)| *change).find(is_kept)
    }

    /// Returns the latest version in about `latest` of 8 cases, otherwise any version.
    fn random_version(&self, latest: u64, random: &SeededEntropy) -> Option<usize> {
        let count = u64::try_from(self.versions.len()).unwrap_or(u64::MAX);
        let takes_latest = random.below(8) < latest;
        let number = if takes_latest { count } else { random.below(count + 1) };
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.versions.get(index).map(|(change, _)| *change)
    }

    /// Returns the hash of a version of the sector.
    fn hash_of(&self, version: Option<usize>) -> u64 {
        let found = self.versions.iter().find(|(change, _)| Some(*change) == version);
        found.map_or(self.durable, |(_, hash)| *hash)
    }
}

/// Returns the length of a file that grew from `from` to `to`. In one of four cases it is a sector
/// boundary between them.
fn cut_short(from: u64, to: u64, random: &SeededEntropy) -> u64 {
    const SECTOR_LEN: u64 = 512;
    if to <= from || random.below(4) > 0 {
        return to;
    }
    let len = from + random.below(to - from);
    (len / SECTOR_LEN * SECTOR_LEN).max(from)
}

/// Hashes `bytes`, to distinguish images. [`mix`] over the result gives the hash its quality.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = 0x243F_6A88_85A3_08D3_u64;
    for word in words {
        sum = (sum.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    for byte in rest {
        sum = (sum.rotate_left(23) ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    mix(sum)
}
