//! Beginnings of keys of tables.

use super::key::{TableKey, escape_part};

/// The beginning of keys of the type `K`, for [`Table::prefix`](crate::Table::prefix): of a string
/// or bytes a shorter one, of a tuple its first elements as a tuple.
///
/// ```
/// # use codex_core::Store;
/// let store = Store::in_memory()?;
/// let files = store.table::<(u32, String), u64>("files")?;
/// files.set((7, "src/lib.rs"), &1)?;
/// files.set((7, "src/main.rs"), &2)?;
/// files.set((8, "src/lib.rs"), &3)?;
/// assert_eq!(files.prefix((7,)).count(), 2);
/// assert_eq!(files.prefix((7, "src/m")).count(), 1);
/// # Ok::<(), codex_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a beginning of keys of the type `{K}`",
    note = "of a tuple, give its first elements as a tuple: `(7,)`"
)]
pub trait TablePrefix<K> {
    /// Appends the bytes with which the encodings of these keys begin that
    /// [`encode_last`](TableKey::encode_last) appends.
    fn encode_prefix(&self, into: &mut Vec<u8>);

    /// Appends the bytes with which the encodings of these keys begin that
    /// [`encode`](TableKey::encode) appends. The default is
    /// [`encode_prefix`](Self::encode_prefix).
    fn encode_prefix_within(&self, into: &mut Vec<u8>) {
        self.encode_prefix(into);
    }
}

impl TablePrefix<String> for &str {
    fn encode_prefix(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.as_bytes());
    }

    fn encode_prefix_within(&self, into: &mut Vec<u8>) {
        escape_part(self.as_bytes(), into);
    }
}

impl TablePrefix<Vec<u8>> for &[u8] {
    fn encode_prefix(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self);
    }

    fn encode_prefix_within(&self, into: &mut Vec<u8>) {
        escape_part(self, into);
    }
}

macro_rules! tuple_prefixes {
    ($([$($key:ident $at:tt),+] of [$($all:ident),+];)+) => {$(
        impl<$($all: TableKey),+> TablePrefix<($($all,)+)> for ($($key::Ref<'_>,)+) {
            fn encode_prefix(&self, into: &mut Vec<u8>) {
                $($key::encode(&self.$at, into);)+
            }
        }
    )+};
}

tuple_prefixes! {
    [A 0] of [A, B];
    [A 0] of [A, B, C];
    [A 0] of [A, B, C, D];
    [A 0, B 1] of [A, B, C];
    [A 0, B 1] of [A, B, C, D];
    [A 0, B 1, C 2] of [A, B, C, D];
}

impl<A: TableKey> TablePrefix<(A, String)> for (A::Ref<'_>, &str) {
    fn encode_prefix(&self, into: &mut Vec<u8>) {
        A::encode(&self.0, into);
        self.1.encode_prefix(into);
    }

    fn encode_prefix_within(&self, into: &mut Vec<u8>) {
        A::encode(&self.0, into);
        self.1.encode_prefix_within(into);
    }
}

impl<A: TableKey> TablePrefix<(A, Vec<u8>)> for (A::Ref<'_>, &[u8]) {
    fn encode_prefix(&self, into: &mut Vec<u8>) {
        A::encode(&self.0, into);
        self.1.encode_prefix(into);
    }

    fn encode_prefix_within(&self, into: &mut Vec<u8>) {
        A::encode(&self.0, into);
        self.1.encode_prefix_within(into);
    }
}
