//! Little-endian fields of fixed width, read from and written to byte slices of known length.

/// Reads fields in order. After the end of the bytes it returns zeros, so callers check the length
/// once before the first field.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads the next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.rest.split_first_chunk::<N>() else {
            // No part of a field is returned: the last bytes are skipped, and every later field is
            // zero.
            self.rest = &[];
            return [0; N];
        };
        self.rest = rest;
        *field
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }
}

/// Writes a field at its offset, in a buffer that this program laid out.
///
/// # Panics
/// If the field is not inside the buffer. A wrong offset stops the writer before a byte of the
/// buffer is written to the disk.
#[inline]
#[expect(clippy::indexing_slicing, reason = "a field lies in the buffer that was made for it")]
pub(crate) fn put<const N: usize>(to: &mut [u8], at: usize, bytes: [u8; N]) {
    to[at..at + N].copy_from_slice(&bytes);
}

/// Converts a length in memory to the width that files use.
pub(crate) fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("no machine has addresses of more than 64 bits")
}

/// Converts the length of a buffer, or a smaller number, to the width of memory.
pub(crate) fn usize_of(len: u64) -> usize {
    usize::try_from(len).expect("a buffer fits the memory")
}

/// Returns whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Compared in blocks, because this runs over all the reserved space of a log.
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.starts_with(chunk))
}

/// Returns the length of `bytes` without the zeros at the end.
pub(crate) fn len_without_zeros(bytes: &[u8]) -> usize {
    let mut end = bytes.len();
    for chunk in bytes.rchunks(ZEROS.len()) {
        let start = end - chunk.len();
        if !is_zero(chunk) {
            return chunk.iter().rposition(|&byte| byte != 0).map_or(start, |at| start + at + 1);
        }
        end = start;
    }
    end
}

static ZEROS: [u8; 512] = [0; 512];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_end_in_zeros() {
        let mut fields = Fields::new(&[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!((fields.u8(), fields.u16(), fields.u32()), (1, 2, 3));
        assert_eq!(fields.u64(), 0, "one byte is left: too few, so zeros");
        assert_eq!(fields.array::<4>(), [0; 4]);
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_field_behind_the_end_of_its_buffer_stops_the_writer() {
        put(&mut [0; 64], 57, [1; 8]);
    }

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        for len in (0..40).chain(500..530) {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            assert_eq!(len_without_zeros(&bytes), 0);
            for at in 0..len {
                bytes[at] = 0x10;
                assert!(!is_zero(&bytes), "{at} of {len}");
                assert_eq!(len_without_zeros(&bytes), at + 1);
                bytes[at] = 0;
            }
        }
    }
}
