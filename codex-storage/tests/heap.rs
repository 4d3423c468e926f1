//! A number that a file only claims allocates nothing. This test has its own program, because it
//! counts the heap of the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use codex_storage::batch::Op;
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, Config, Error, Result};
use peak_alloc::PeakAlloc;

use common::format::{
    TAIL_LEN, frames, parts, rechain, resum_footer, resum_frame_head, resum_header, resum_image,
    resum_part_head,
};
use common::log::{Sample, dense};
use common::store::Store;
use common::{Bed, NAME, bytes, put};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The heap that reading a file may take besides the state: the promise for a store without
/// entries.
fn limit(file_len: usize) -> usize {
    4 * file_len + (1 << 20)
}

/// Returns the peak of the heap while this file is opened, read and verified as a store, and the
/// result.
fn cost(vfs: &Vfs, file: &[u8]) -> (usize, Result<u64>) {
    put(vfs, NAME, file);
    let config = Config { access: Access::ReadOnly, ..Config::new(vfs.clone(), NAME) };
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let mut ops = 0;
    let mut count = |_: Op<'_>| {
        ops += 1;
        Ok(())
    };
    let mut opened = codex_storage::open(&config, &mut count).map(drop);
    if let Err(error) = codex_storage::verify(vfs, NAME, None) {
        opened = opened.and(Err(error));
    }
    (HEAP.peak_usage() - before, opened.map(|()| ops))
}

/// The numbers that a field of this width may claim.
fn claims(width: usize) -> Vec<u64> {
    let most = u64::MAX >> (64 - 8 * width as u32);
    [most, most / 2, 1 << 30, 1 << 28, 1 << 24].into_iter().filter(|&claim| claim <= most).collect()
}

/// In its own program, so that no other test allocates at the same time.
#[test]
fn a_frame_that_claims_a_gigabyte_allocates_no_more_than_the_file_has() {
    let sample = Sample::new(false, Durability::Sync, &[dense(1, 100), dense(2, 100)], false);
    let vfs = Vfs::mem(3);
    let (_, whole) = cost(&vfs, &sample.bytes);
    assert_eq!(whole.unwrap(), 2);
    let mut forged = sample.bytes.clone();
    let frame = sample.ends[1];
    forged[frame + 52..frame + 56].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    resum_frame_head(&mut forged, frame);
    let (taken, _) = cost(&vfs, &forged);
    assert!(taken <= limit(forged.len()), "reading a small file took {taken} bytes of heap");
    // The end of the frame is missing, so the frame is torn.
    assert_eq!(sample.read(&forged).unwrap().recovered.seq, 1);

    let (mut cases, mut most) = (0, 0);
    let mut check = |file: &[u8], what: &str| {
        let (taken, opened) = cost(&vfs, file);
        let is_named = !matches!(opened, Err(Error::Contradiction(_)));
        assert!(is_named && taken <= limit(file.len()), "{what}: {taken} bytes, {opened:?}");
        (cases, most) = (cases + 1, most.max(taken));
    };
    forge_frames(&sample, &mut check);
    forge_images(&sample.bytes, &mut check);
    println!("{cases} cases, at most {most} bytes");
    assert!(cases > 300, "{cases}");
}

/// Every field of 4 bytes of the frames and of their batches.
fn forge_frames(sample: &Sample, check: &mut dyn FnMut(&[u8], &str)) {
    for (frame, _) in frames(&sample.bytes) {
        for (at, width) in [(48, 4), (52, 4), (64, 4), (68, 4), (114, 4)] {
            for claim in claims(width) {
                let mut file = sample.bytes.clone();
                let place = frame + at..frame + at + width;
                file[place].copy_from_slice(&claim.to_le_bytes()[..width]);
                if at == 52 {
                    resum_frame_head(&mut file, frame);
                } else {
                    rechain(&mut file);
                }
                check(&file, &format!("{claim} at {at} of a frame"));
            }
        }
    }
}

/// Fields of the blocks, the sections and the footer of an image, and of both headers.
fn forge_images(ledger: &[u8], check: &mut dyn FnMut(&[u8], &str)) {
    let bed = Bed::mem(Form::Snapshot, false);
    let mut store = Store::open(bed.config()).unwrap();
    for n in 0..3 {
        store.set(&format!("key {n}"), "value").unwrap();
        store.storage.anchor();
    }
    store.close().unwrap();
    let image = bytes(&bed.vfs, NAME);
    for (part, _) in parts(&image) {
        for (at, width) in [(4, 4), (8, 4), (12, 4), (16, 8), (34, 2), (36, 4)] {
            for claim in claims(width) {
                let mut file = image.clone();
                let place = part + at..part + at + width;
                file[place].copy_from_slice(&claim.to_le_bytes()[..width]);
                if at < 28 {
                    resum_part_head(&mut file, part);
                } else {
                    resum_image(&mut file);
                }
                check(&file, &format!("{claim} at {at} of a part"));
            }
        }
    }
    for at in (8..88).step_by(4) {
        for claim in claims(4).into_iter().chain([1 << 40, 1 << 62]) {
            let mut file = image.clone();
            let place = file.len() - TAIL_LEN + at;
            file[place..place + 4].copy_from_slice(&claim.to_le_bytes()[..4]);
            resum_footer(&mut file);
            check(&file, &format!("{claim} at {at} of the footer"));
        }
    }
    for whole in [image.as_slice(), ledger] {
        for at in [48, 56, 64, 72, 80, 88, 208] {
            for claim in claims(8) {
                let mut file = whole.to_vec();
                file[at..at + 8].copy_from_slice(&claim.to_le_bytes());
                resum_header(&mut file);
                check(&file, &format!("{claim} at {at} of the header"));
            }
        }
    }
}
