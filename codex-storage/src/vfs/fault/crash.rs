//! What a power cut can leave: choices among the changes that no sync has made durable.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::FaultDir;
use super::bytes::{Bytes, SECTOR};
use super::disk::{Disk, Ino, NameChange, NameState, Names};
use super::inode::Inode;
use crate::vfs::entropy::mix;
use crate::vfs::{SeededEntropy, SimClock};

/// Which of the disks that a power cut can leave [`FaultDir::crash_images`] gives.
///
/// The units are the changes of bytes and lengths (one per write, `set_len` and `allocate` that no
/// sync has made durable) and those of names (one per create, rename, link and remove; a rename is
/// one unit). First come all subsets of both where they are few, else prefixes of each; then
/// samples, in turn: any subset; any version of each 512-byte sector and any length; any subset
/// with one sector torn at a byte. A sector holds what the cache held after one of the writes to
/// it, or what it held durably. Images that are equal come once.
#[derive(Debug, Clone)]
pub struct CrashChoice {
    /// Determines the samples.
    pub seed: u64,
    /// The number of images at which to stop.
    pub images_max: usize,
    /// Up to how many units of bytes, and of names, all their subsets are tried.
    pub subset_units_max: usize,
    /// How many samples are drawn.
    pub samples: u64,
    /// Which changes of names can be lost.
    pub names: NameModel,
}

impl Default for CrashChoice {
    /// At most 1,024 images, subsets of up to 8 units, 96 samples, independent names, seed 0.
    fn default() -> Self {
        let names = NameModel::Independent;
        Self { seed: 0, images_max: 1_024, subset_units_max: 8, samples: 96, names }
    }
}

/// Which changes of names a power cut can lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameModel {
    /// Each without the others, harsher than any journaling file system.
    Independent,
    /// The last ones only, as ext4 and XFS do.
    Ordered,
}

/// What of the changes that no sync has made durable outlives a [`FaultDir::reboot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Any names, any version of each sector and any length, by this seed.
    Seeded(u64),
}

/// The disks that a power cut can leave, each a healthy disk of its own with an empty cache.
pub struct CrashImages {
    base: Base,
    choice: CrashChoice,
    candidates: Candidates,
    next: u64,
    given: usize,
    seen: HashSet<u64>,
}

impl CrashImages {
    pub(super) fn new(disk: &Disk, choice: &CrashChoice, clock: SimClock) -> Self {
        let base = Base::new(disk, clock);
        let candidates = Candidates::new(&base, choice);
        let choice = choice.clone();
        Self { base, choice, candidates, next: 0, given: 0, seen: HashSet::new() }
    }

    /// The number of the image that came last, for [`CrashImages::image`].
    pub fn number(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// The image with this number, whether it came already or not: to look at one that failed.
    pub fn image(&self, number: u64) -> FaultDir {
        let pick = self.candidates.pick(&self.base, &self.choice, number);
        self.base.build(&self.base.resolve(&pick))
    }
}

impl Iterator for CrashImages {
    type Item = FaultDir;

    fn next(&mut self) -> Option<FaultDir> {
        while self.given < self.choice.images_max && self.next < self.candidates.total {
            let pick = self.candidates.pick(&self.base, &self.choice, self.next);
            self.next += 1;
            let resolved = self.base.resolve(&pick);
            if self.seen.insert(resolved.hash) {
                self.given += 1;
                return Some(self.base.build(&resolved));
            }
        }
        None
    }
}

impl fmt::Debug for CrashImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CrashImages");
        shown.field("next", &self.next).field("candidates", &self.candidates.total);
        shown.finish_non_exhaustive()
    }
}

pub(super) fn reboot(disk: &Disk, survivors: Survivors, clock: SimClock) -> FaultDir {
    let base = Base::new(disk, clock);
    let (keeps, style) = match survivors {
        Survivors::Nothing => (false, Style::Whole),
        Survivors::Everything => (true, Style::Whole),
        Survivors::Seeded(seed) => (true, Style::Sectors(SeededEntropy::new(seed))),
    };
    let mut names = vec![keeps; base.name_units];
    if let Style::Sectors(random) = &style {
        names.fill_with(|| random.below(2) == 1);
    }
    let pick = Pick { units: vec![keeps; base.units], names, style };
    base.build(&base.resolve(&pick))
}

/// One choice among all changes.
struct Pick {
    /// Which changes of bytes reached the disk, over all files.
    units: Vec<bool>,
    /// Which changes of names that can be lost reached it.
    names: Vec<bool>,
    style: Style,
}

/// How the changes of bytes reached the disk.
enum Style {
    /// Each wholly or not at all.
    Whole,
    /// Each wholly or not at all, but for one sector that was being written.
    Torn(SeededEntropy),
    /// Each sector by itself.
    Sectors(SeededEntropy),
}

/// The numbering of all choices that are tried.
struct Candidates {
    /// How many choices of bytes are tried with how many of names.
    units: u64,
    names: u64,
    /// Whether those are all subsets; else prefixes.
    all_units: bool,
    all_names: bool,
    /// Whether every choice of bytes is tried with every choice of names.
    is_grid: bool,
    structured: u64,
    total: u64,
}

impl Candidates {
    fn new(base: &Base, choice: &CrashChoice) -> Self {
        let max = choice.subset_units_max.min(20);
        let count = |units: usize, all: bool| {
            if all { 1_u64 << units } else { u64::try_from(units).unwrap_or(u64::MAX - 1) + 1 }
        };
        let all_units = base.units <= max;
        let all_names = base.name_units <= max && choice.names == NameModel::Independent;
        let (units, names) = (count(base.units, all_units), count(base.name_units, all_names));
        let budget = u64::try_from(choice.images_max).unwrap_or(u64::MAX);
        let is_grid = units.saturating_mul(names) <= budget;
        let crossed = if is_grid { units * names } else { 2 * (units + names) };
        let structured = 2 + crossed;
        let total = structured + choice.samples;
        Self { units, names, all_units, all_names, is_grid, structured, total }
    }

    fn pick(&self, base: &Base, choice: &CrashChoice, number: u64) -> Pick {
        let (all_units, all_names) = (self.units - 1, self.names - 1);
        let Some(crossed) = number.checked_sub(2) else {
            let (units, names) = if number == 0 { (0, 0) } else { (all_units, all_names) };
            return self.whole(base, units, names);
        };
        if number >= self.structured {
            return self.sample(base, choice, number - self.structured);
        }
        if self.is_grid {
            return self.whole(base, crossed % self.units, crossed / self.units);
        }
        // Taken in turn, so that a small budget sees some of each.
        let (index, turn) = (crossed / 2, crossed % 2 == 1);
        if index < self.units {
            let names = if turn { all_names } else { 0 };
            return self.whole(base, spread(index, self.units), names);
        }
        let units = if turn { all_units } else { 0 };
        self.whole(base, units, spread(index - self.units, self.names))
    }

    fn whole(&self, base: &Base, units: u64, names: u64) -> Pick {
        Pick {
            units: kept(base.units, self.all_units, units),
            names: kept(base.name_units, self.all_names, names),
            style: Style::Whole,
        }
    }

    fn sample(&self, base: &Base, choice: &CrashChoice, index: u64) -> Pick {
        let random = SeededEntropy::new(mix(choice.seed ^ mix(index)));
        let units = (0..base.units).map(|_| random.below(2) == 1).collect();
        let names = if choice.names == NameModel::Ordered {
            kept(base.name_units, self.all_names, random.below(self.names))
        } else {
            (0..base.name_units).map(|_| random.below(2) == 1).collect()
        };
        let style = match index % 3 {
            0 => Style::Sectors(random),
            1 => Style::Torn(random),
            _ => Style::Whole,
        };
        Pick { units, names, style }
    }
}

/// Choice number `number` of `count` units: a subset by its bits, or a prefix by its length.
fn kept(count: usize, by_bits: bool, number: u64) -> Vec<bool> {
    let keeps = |unit: u64| if by_bits { number >> unit & 1 == 1 } else { unit < number };
    (0..).take(count).map(keeps).collect()
}

/// A permutation of `0..count` whose beginnings are spread over the whole.
fn spread(index: u64, count: u64) -> u64 {
    let golden = count / 2 + count / 8;
    let stride = (golden..golden + count).find(|stride| gcd(*stride, count) == 1).unwrap_or(1);
    let place = u128::from(index) * u128::from(stride) % u128::from(count.max(1));
    u64::try_from(place).unwrap_or(0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A disk at the moment of the power cut, with its choices laid out.
struct Base {
    durable_names: Names,
    name_changes: Vec<NameChange>,
    name_units: usize,
    inodes: BTreeMap<Ino, Inode>,
    files: Vec<Dirty>,
    units: usize,
    /// What no image changes.
    rest: Disk,
    clock: SimClock,
}

/// A file with changes that may be lost.
struct Dirty {
    ino: Ino,
    /// The number of its first change among all changes.
    first_unit: usize,
    sectors: Vec<DirtySector>,
}

/// A sector with the versions that it may have.
struct DirtySector {
    number: usize,
    /// The durable one, and that after each change that touched it; the change and a hash of the
    /// file, the place and the bytes.
    durable: u64,
    versions: Vec<(usize, u64)>,
}

/// A choice, with what follows for each file.
struct Resolved {
    names: Names,
    files: Vec<ResolvedFile>,
    hash: u64,
}

struct ResolvedFile {
    len: u64,
    /// For each dirty sector the change whose version it has.
    versions: Vec<Option<usize>>,
    torn: Option<(usize, Vec<u8>)>,
}

impl Base {
    fn new(disk: &Disk, clock: SimClock) -> Self {
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

    fn resolve(&self, pick: &Pick) -> Resolved {
        let mut names = self.durable_names.clone();
        let mut kept = pick.names.iter();
        for change in &self.name_changes {
            if change.state == NameState::Settled || kept.next() == Some(&true) {
                change.what.apply(&mut names);
            }
        }
        let hash_name = |(name, ino): (&Arc<str>, &Ino)| mix(hash(name.as_bytes()) ^ mix(*ino));
        let mut sum = names.iter().map(hash_name).fold(0, u64::wrapping_add);
        let mut files = Vec::with_capacity(self.files.len());
        for dirty in &self.files {
            let file = self.resolve_file(dirty, pick);
            if names.values().any(|ino| *ino == dirty.ino) {
                sum = sum.wrapping_add(dirty.hash(&file));
            }
            files.push(file);
        }
        Resolved { names, files, hash: sum }
    }

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
            let len = cut_short(inode.durable.len(), kept_len(Some(random)), random);
            let latest = random.below(8);
            let version = |sector: &DirtySector| sector.random_version(latest, random);
            let versions = dirty.sectors.iter().map(version).collect();
            return ResolvedFile { len, versions, torn: None };
        }
        let version = |sector: &DirtySector| sector.last_version(&kept);
        let versions: Vec<_> = dirty.sectors.iter().map(version).collect();
        let torn = match &pick.style {
            Style::Torn(random) => dirty.tear(inode, &versions, random),
            Style::Whole | Style::Sectors(_) => None,
        };
        ResolvedFile { len: kept_len(None), versions, torn }
    }

    fn build(&self, resolved: &Resolved) -> FaultDir {
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

    /// Picks a sector that was written and tears its last version at a byte.
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
        let older = sector.versions.iter().rev().find(|(change, _)| Some(*change) < **version);
        let mut torn = match older {
            Some((change, _)) => inode.changes.get(*change)?.sector(sector.number)?.to_vec(),
            None => inode.durable.sectors(sector.number, 1),
        };
        let cut = usize::try_from(1 + random.below(511)).ok()?;
        torn.get_mut(..cut)?.copy_from_slice(new.get(..cut)?);
        Some((sector.number, torn))
    }

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
    fn last_version(&self, kept: &[bool]) -> Option<usize> {
        let is_kept = |change: &usize| kept.get(*change) == Some(&true);
        self.versions.iter().rev().map(|(change, _)| *change).find(is_kept)
    }

    /// The latest version in about `latest` of 8 cases, else any.
    fn random_version(&self, latest: u64, random: &SeededEntropy) -> Option<usize> {
        let count = u64::try_from(self.versions.len()).unwrap_or(u64::MAX);
        let takes_latest = random.below(8) < latest;
        let number = if takes_latest { count } else { random.below(count + 1) };
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.versions.get(index).map(|(change, _)| *change)
    }

    fn hash_of(&self, version: Option<usize>) -> u64 {
        let found = self.versions.iter().find(|(change, _)| Some(*change) == version);
        found.map_or(self.durable, |(_, hash)| *hash)
    }
}

/// In one of four cases a growing file reached a sector boundary on its way only.
fn cut_short(from: u64, to: u64, random: &SeededEntropy) -> u64 {
    const SECTOR_LEN: u64 = 512;
    if to <= from || random.below(4) > 0 {
        return to;
    }
    let len = from + random.below(to - from);
    (len / SECTOR_LEN * SECTOR_LEN).max(from)
}

/// A hash for telling images apart; its quality comes from [`mix`] over the result.
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
