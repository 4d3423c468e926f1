//! The comparisons and conversions of handles that deref to bytes: keys and values.

/// Makes `$handle`, which derefs to bytes, equal to, ordered and hashed like these bytes.
macro_rules! handle_of_bytes {
    ($handle:ident) => {
        impl AsRef<[u8]> for $handle {
            fn as_ref(&self) -> &[u8] {
                self
            }
        }

        impl std::borrow::Borrow<[u8]> for $handle {
            fn borrow(&self) -> &[u8] {
                self
            }
        }

        /// Compares the bytes, with those of any type: a handle, a slice, an array, a string.
        impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for $handle {
            fn eq(&self, other: &T) -> bool {
                **self == *other.as_ref()
            }
        }

        impl Eq for $handle {}

        /// Compares the bytes, with those of any type: a handle, a slice, an array, a string.
        impl<T: AsRef<[u8]> + ?Sized> PartialOrd<T> for $handle {
            fn partial_cmp(&self, other: &T) -> Option<std::cmp::Ordering> {
                Some((**self).cmp(other.as_ref()))
            }
        }

        impl Ord for $handle {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                (**self).cmp(&**other)
            }
        }

        impl std::hash::Hash for $handle {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                (**self).hash(state);
            }
        }

        /// Copies the bytes.
        impl From<$handle> for Vec<u8> {
            fn from(handle: $handle) -> Self {
                handle.to_vec()
            }
        }

        $crate::handle::handle_of_bytes! { @mirror $handle:
            [u8], &[u8], Vec<u8>, str, &str, String,
        }

        impl<const N: usize> PartialEq<$handle> for [u8; N] {
            fn eq(&self, other: &$handle) -> bool {
                other == self
            }
        }

        impl<const N: usize> PartialEq<$handle> for &[u8; N] {
            fn eq(&self, other: &$handle) -> bool {
                other == self
            }
        }
    };
    (@mirror $handle:ident: $($bytes:ty),+ $(,)?) => {$(
        impl PartialEq<$handle> for $bytes {
            fn eq(&self, other: &$handle) -> bool {
                other == self
            }
        }
    )+};
}
pub(crate) use handle_of_bytes;
