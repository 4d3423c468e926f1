//! What a rotation costs: with a second name it must not depend on the size of the image.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use codex_backup::vfs::{File, Mode, Open, Vfs};
use codex_backup::{
    Backups, Depth, Facts, Flaw, Inspect, Method, Options, Reading, Source, unwatched,
};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

/// An image whose first 8 bytes are its version, and whose writer has checked the rest.
#[derive(Debug)]
struct Numbered;

impl Inspect for Numbered {
    fn identity(&self, _file: &Arc<dyn File>) -> Result<Vec<u8>, Flaw> {
        Ok(b"bench".to_vec())
    }

    fn facts(&self, file: &Arc<dyn File>, _reading: &mut Reading<'_>) -> Result<Facts, Flaw> {
        let mut seq = [0; 8];
        file.read_exact_at(&mut seq, 0)?;
        Ok(Facts::new(*b"bench", u64::from_le_bytes(seq)))
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        _depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, Flaw> {
        let mut buffer = vec![0; 1 << 20];
        let len = file.len()?;
        for at in (0..len).step_by(buffer.len()) {
            let here = (len - at).min(buffer.len() as u64);
            let chunk = buffer.get_mut(..usize::try_from(here).unwrap_or(0)).unwrap_or_default();
            file.read_exact_at(chunk, at)?;
            black_box(&chunk);
        }
        self.facts(file, reading)
    }
}

/// A store in a folder of its own, with images of one size to take turns; they are sparse, which
/// makes no difference to a second name and favours a copy.
struct Bench {
    vfs: Vfs,
    backups: Backups,
    turn: u64,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(len: u64, link_above: u64) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let vfs = Vfs::os(folder.path()).unwrap();
        for image in 0..IMAGES {
            let name = format!("image.{image}");
            let file = vfs.dir.open(&name, Open::CreateNew(Mode::Frozen)).unwrap();
            file.set_len(len).unwrap();
            file.write_all_at(&image.to_le_bytes(), 0).unwrap();
            file.sync().unwrap();
        }
        let options = Options { link_above, ..Options::default() };
        let backups = Backups::new(vfs.clone(), "a.db", Arc::new(Numbered), options).unwrap();
        Self { vfs, backups, turn: 0, _folder: folder }
    }

    /// The store gets its next image, as after a checkpoint.
    fn next_image(&mut self) {
        let _ = self.vfs.dir.remove("a.db");
        self.vfs.dir.link(&format!("image.{}", self.turn % IMAGES), "a.db").unwrap();
        self.vfs.dir.sync().unwrap();
        self.turn += 1;
    }

    fn rotate(&self) -> Option<Method> {
        let source = Source::Frozen { name: "a.db", proven: true };
        self.backups.rotate(source, None, &mut unwatched).unwrap().method
    }
}

fn rotation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rotation");
    group.sample_size(20);
    let cases = [
        ("second_name", 100 * MB, 0),
        ("second_name", 1_000 * MB, 0),
        ("copy", 10 * MB, u64::MAX),
        ("copy", 100 * MB, u64::MAX),
    ];
    for (name, len, link_above) in cases {
        let bench = std::cell::RefCell::new(Bench::new(len, link_above));
        let id = BenchmarkId::new(name, format!("{}_MB", len / MB));
        group.bench_function(id, |bencher| {
            bencher.iter_batched(
                || bench.borrow_mut().next_image(),
                |()| assert!(bench.borrow().rotate().is_some()),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

const MB: u64 = 1_000_000;

/// More than are kept, so that no two names among the backups stand for one file.
const IMAGES: u64 = 5;

criterion_group!(benches, rotation);
criterion_main!(benches);
