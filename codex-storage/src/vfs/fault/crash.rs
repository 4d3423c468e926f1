//! The disks that a power cut can leave: choices among the changes that no sync has made durable.

use std::collections::HashSet;
use std::fmt;

use super::FaultDir;
use super::disk::Disk;
use super::image::{Base, Pick, Style};
use crate::vfs::entropy::mix;
use crate::vfs::{SeededEntropy, SimClock};

/// Selects the disks that [`FaultDir::crash_images`] returns among all that a power cut can leave.
///
/// The units of a choice are the changes of bytes and lengths (one for each write, `set_len` and
/// `allocate` that no sync has made durable) and the changes of names (one for each create, rename
/// and remove). If there are few units, all subsets of both are tried first; otherwise, prefixes of
/// each. Samples follow, in turn of three kinds: any subset; any version of each 512-byte sector
/// and any length; any subset with one sector torn at a byte. A version of a sector is its content
/// in the cache after one of the writes to it, or its durable content. Equal images are returned
/// only once.
#[derive(Debug, Clone)]
pub struct CrashChoice {
    /// The seed that determines the samples.
    pub seed: u64,
    /// The maximum number of images.
    pub images_max: usize,
    /// The maximum number of units of bytes, and of names, for which all subsets are tried.
    pub subset_units_max: usize,
    /// The number of samples.
    pub samples: u64,
    /// The changes of names that can be lost.
    pub names: NameModel,
}

impl Default for CrashChoice {
    /// Returns at most 1,024 images, subsets of up to 8 units, 96 samples, independent names, seed
    /// 0.
    fn default() -> Self {
        let names = NameModel::Independent;
        Self { seed: 0, images_max: 1_024, subset_units_max: 8, samples: 96, names }
    }
}

/// The changes of names that a power cut can lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameModel {
    /// Any of them, independently of the others. This is harsher than any journaling file system.
    Independent,
    /// The last ones only, as with ext4 and XFS.
    Ordered,
}

/// The changes that no sync has made durable, and that still survive a [`FaultDir::reboot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Any names, any version of each sector and any length; the seed determines the choice.
    Seeded(u64),
}

/// An iterator over the disks that a power cut can leave. Each is a healthy disk of its own with an
/// empty cache.
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

    /// Returns the number of the last returned image, for [`CrashImages::image`].
    pub fn number(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Returns the numbers of changes of bytes, and of names, that the power cut can lose.
    pub fn unsynced(&self) -> (usize, usize) {
        (self.base.units, self.base.name_units)
    }

    /// Returns the image with this number, even if the iterator has returned it already. It serves
    /// to inspect an image with which a test failed.
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
            // Different choices can result in the same disk.
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

/// Returns the disk after a power cut with the given survivors.
pub(super) fn reboot(disk: &Disk, survivors: Survivors, clock: SimClock) -> FaultDir {
    let base = Base::new(disk, clock);
    let (keeps, style) = match survivors {
        Survivors::Nothing => (false, Style::Whole),
        Survivors::Everything => (true, Style::Whole),
        Survivors::Seeded(seed) => (true, Style::Sectors(SeededEntropy::new(seed))),
    };
    // A seeded reboot keeps or loses each name independently.
    let mut names = vec![keeps; base.name_units];
    if let Style::Sectors(random) = &style {
        names.fill_with(|| random.below(2) == 1);
    }
    let pick = Pick { units: vec![keeps; base.units], names, style };
    base.build(&base.resolve(&pick))
}

/// The numbering of all choices that are tried: none, all, the structured ones, and the samples.
struct Candidates {
    /// The number of choices of bytes that are tried.
    units: u64,
    names: u64,
    /// Whether these choices are all subsets. If not, they are prefixes.
    all_units: bool,
    all_names: bool,
    /// Whether each choice of bytes is tried with each choice of names.
    is_grid: bool,
    structured: u64,
    total: u64,
}

impl Candidates {
    /// Counts the candidates of each kind.
    fn new(base: &Base, choice: &CrashChoice) -> Self {
        // 2^20 subsets exceed every budget, and the shifts below stay within range.
        let max = choice.subset_units_max.min(20);
        let count = |units: usize, all: bool| {
            if all { 1_u64 << units } else { u64::try_from(units).unwrap_or(u64::MAX - 1) + 1 }
        };
        let all_units = base.units <= max;
        let all_names = base.name_units <= max && choice.names == NameModel::Independent;
        let (units, names) = (count(base.units, all_units), count(base.name_units, all_names));
        // If the grid exceeds the budget, each choice of bytes is combined with no names and with
        // all names, and each choice of names with no bytes and with all bytes.
        let budget = u64::try_from(choice.images_max).unwrap_or(u64::MAX);
        let is_grid = units.saturating_mul(names) <= budget;
        let crossed = if is_grid { units * names } else { 2 * (units + names) };
        let structured = 2 + crossed;
        let total = structured + choice.samples;
        Self { units, names, all_units, all_names, is_grid, structured, total }
    }

    /// Returns the candidate with this number.
    fn pick(&self, base: &Base, choice: &CrashChoice, number: u64) -> Pick {
        let (all_units, all_names) = (self.units - 1, self.names - 1);
        // Candidate 0 loses all unsynced changes, and candidate 1 keeps all.
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
        // The first half has all choices of bytes, the second all choices of names. The
        // counterparts none and all alternate, so that a small budget includes some of each.
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
        // The seed and the index alone determine a sample, so that its number reproduces it.
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

/// Returns the units that the choice `number` keeps: a subset by its bits, or a prefix by its
/// length.
fn kept(count: usize, by_bits: bool, number: u64) -> Vec<bool> {
    let keeps = |unit: u64| if by_bits { number >> unit & 1 == 1 } else { unit < number };
    (0..).take(count).map(keeps).collect()
}

/// Returns element `index` of a permutation of `0..count` whose first elements are spread over the
/// whole range.
fn spread(index: u64, count: u64) -> u64 {
    // A stride without a common divisor with `count` visits each number once.
    let golden = count / 2 + count / 8;
    let stride = (golden..golden + count).find(|stride| gcd(*stride, count) == 1).unwrap_or(1);
    let place = u128::from(index) * u128::from(stride) % u128::from(count.max(1));
    u64::try_from(place).unwrap_or(0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
