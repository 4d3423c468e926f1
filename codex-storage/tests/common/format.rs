//! The files of format version 1 as plain bytes, written by hand from `docs/FORMAT.md`: the offsets
//! of their parts, and checksums that are corrected after a change, as a person without the key can
//! do. No other test writes the format by hand.

use std::ops::Range;

/// The length of a header in bytes.
pub const HEADER_LEN: usize = 512;
/// The length of the footer of an image and its second header, in bytes.
pub const TAIL_LEN: usize = 96 + HEADER_LEN;
/// The offset of the envelope of the root key in a header.
pub const ENVELOPE: Range<usize> = 224..480;

/// Returns the number of 4 bytes at `at`.
pub fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*file[at..].first_chunk().unwrap())
}

/// Returns whether the file is a ledger or a segment.
pub fn is_log(file: &[u8]) -> bool {
    file[10] == 2
}

/// Corrects the checksum of the header, and copies the header of an image to its end.
pub fn resum_header(file: &mut [u8]) {
    resum_header_at(file, 0);
    if !is_log(file) && file.len() >= HEADER_LEN + TAIL_LEN {
        let second = file.len() - HEADER_LEN;
        file.copy_within(..HEADER_LEN, second);
    }
}

/// Like [`resum_header`], for the single header at `at`.
pub fn resum_header_at(file: &mut [u8], at: usize) {
    put_sum(file, at + 508, crc32c::crc32c(&file[at..at + 508]));
}

/// Returns the ranges of the frames of a log.
pub fn frames(file: &[u8]) -> Vec<(usize, usize)> {
    let mut at = HEADER_LEN;
    let mut found = Vec::new();
    while at + 64 <= file.len() && file[at..].starts_with(b"CDXF") {
        let end = (at + 65 + u32_at(file, at + 52) as usize).next_multiple_of(64);
        found.push((at, end));
        at = end;
    }
    found
}

/// Corrects both checksums of the frame at `at` for its bytes and its place in this file.
pub fn resum_frame(file: &mut [u8], at: usize) {
    let len = u32_at(file, at + 52) as usize;
    let Some(payload) = file.get(at + 64..at + 64 + len) else { return };
    put_sum(file, at + 56, crc32c::crc32c(payload));
    resum_frame_head(file, at);
}

/// Corrects the checksum of the header of the frame at `at`, for any payload.
pub fn resum_frame_head(file: &mut [u8], at: usize) {
    let place = (at as u64).to_le_bytes();
    let bound = [&file[32..56], &place, &file[at..at + 60]].concat();
    put_sum(file, at + 60, crc32c::crc32c(&bound));
}

/// Corrects numbers, checksums and chain of all frames, so that only authentication can find the
/// change.
pub fn rechain(file: &mut [u8]) {
    let mut chain = file[88..96].to_vec();
    let mut seq = u64::from_le_bytes(*file[56..].first_chunk().unwrap()) + 1;
    for (at, _) in frames(file) {
        file[at + 8..at + 16].copy_from_slice(&seq.to_le_bytes());
        file[at + 16..at + 24].copy_from_slice(&(seq - 1).to_le_bytes());
        file[at + 40..at + 48].copy_from_slice(&chain);
        resum_frame(file, at);
        chain = file[at + 56..at + 64].to_vec();
        seq += u64::from(u32_at(file, at + 48));
    }
}

/// Writes a frame of this kind (1 for a group of one batch, 2 for a resume) of commit 1 at `at`.
/// The frame claims a payload of `len` bytes. Returns its chain value.
pub fn put_frame(
    file: &mut [u8],
    at: usize,
    kind: u8,
    previous: u64,
    len: u32,
    payload: &[u8],
) -> u64 {
    let mut head = b"CDXF".to_vec();
    head.extend_from_slice(&[kind, 0, 0, 0]);
    for number in [1, 0, 7, 1, previous] {
        head.extend_from_slice(&u64::to_le_bytes(number));
    }
    head.extend_from_slice(&u32::from(kind == 1).to_le_bytes());
    head.extend_from_slice(&len.to_le_bytes());
    let payload_crc = crc32c::crc32c(payload);
    head.extend_from_slice(&payload_crc.to_le_bytes());
    file[at..at + 60].copy_from_slice(&head);
    resum_frame_head(file, at);
    file[at + 64..at + 64 + payload.len()].copy_from_slice(payload);
    file[at + 64 + payload.len()] = 0xA5;
    u64::from(u32_at(file, at + 60)) << 32 | u64::from(payload_crc)
}

/// Returns the ranges of the blocks of an image and of the sections after them.
pub fn parts(file: &[u8]) -> Vec<(usize, usize)> {
    let mut at = HEADER_LEN;
    let mut found = Vec::new();
    while file[at..].starts_with(b"CDXB") || file[at..].starts_with(b"CDXS") {
        let end = at + 32 + u32_at(file, at + 12) as usize;
        if end + TAIL_LEN > file.len() {
            break;
        }
        found.push((at, end));
        at = end;
    }
    found
}

/// Corrects the checksum of the header of the block or section at `at`.
pub fn resum_part_head(file: &mut [u8], at: usize) {
    put_sum(file, at + 28, bound_sum(file, at..at + 28));
}

/// Corrects the checksum of the footer.
pub fn resum_footer(file: &mut [u8]) {
    let at = file.len() - TAIL_LEN;
    put_sum(file, at + 92, bound_sum(file, at..at + 92));
}

/// Corrects numbers and checksums of all blocks, of the sections and of the footer, and makes the
/// second header the same as the first.
pub fn resum_image(file: &mut [u8]) {
    let (mut of_all, mut blocks, mut sections) = (0, 0_u32, 0_u32);
    for (at, end) in parts(file) {
        let crc = crc32c::crc32c(&file[at + 32..end]);
        put_sum(file, at + 24, crc);
        if file[at..].starts_with(b"CDXB") {
            file[at + 4..at + 8].copy_from_slice(&blocks.to_le_bytes());
            of_all = crc32c::crc32c_append(of_all, &crc.to_le_bytes());
            blocks += 1;
        } else {
            sections += 1;
        }
        resum_part_head(file, at);
    }
    let len = file.len() as u64;
    let foot = file.len() - TAIL_LEN;
    put_sum(file, foot + 4, of_all);
    file[foot + 8..foot + 16].copy_from_slice(&u64::from(blocks).to_le_bytes());
    file[foot + 40..foot + 48].copy_from_slice(&len.to_le_bytes());
    file[foot + 80..foot + 84].copy_from_slice(&sections.to_le_bytes());
    resum_footer(file);
    let second = file.len() - HEADER_LEN;
    file.copy_within(..HEADER_LEN, second);
}

/// Returns the checksum of these bytes of an image, bound to the id of the file.
fn bound_sum(file: &[u8], of: Range<usize>) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&file[32..48]), &file[of])
}

fn put_sum(file: &mut [u8], at: usize, sum: u32) {
    file[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}
