//! Names from other libraries. A call of one does not compile, and the error names the method that
//! does the same here.
//!
//! ```compile_fail,E0277
//! let store = codex_core::Store::in_memory()?;
//! store.delete("a")?; // error: the method is named `remove`
//! # Ok::<(), codex_core::Error>(())
//! ```

use crate::batch::Batch;
use crate::error::Result;
use crate::options::OpenOptions;
use crate::store::Store;

/// Defines methods that no call can use, because no type implements the trait in their bound. The
/// text is the message of the error, and of a warning, for calls in which the compiler cannot infer
/// the type and so reports that first. The methods are hidden in the documentation and in
/// completion.
macro_rules! signposts {
    ($for:ty; $($way:ident $text:literal fn $name:ident<T>($($args:tt)*) -> $result:ty;)+) => {
        $(
            #[diagnostic::on_unimplemented(message = $text, label = "not a method here")]
            pub trait $way {}
        )+

        #[allow(clippy::unused_self, reason = "no call can use it")]
        impl $for {
            $(
                #[doc(hidden)]
                #[deprecated = $text]
                pub fn $name<T: $way>($($args)*) -> $result {
                    unreachable!("no type implements the bound, so no call compiles")
                }
            )+
        }
    };
}

signposts! {
    Store;
    Builder "the method is named `options`"
        fn builder<T>() -> OpenOptions;
    OpenReadOnly "use `Store::options().read_only(true).open(path)`"
        fn open_read_only<T>(_path: T) -> Result<Store>;
    Restore "use `Backups::of(path)?.restore(1)`, after the store is closed"
        fn restore<T>(_from: T, _to: impl Sized) -> Result<()>;
    Insert "the method is named `set`, or `replace`, which returns the old value"
        fn insert<T>(&self, _key: impl Sized, _value: impl Sized) -> Result<T>;
    Put "the method is named `set`, or `replace`, which returns the old value"
        fn put<T>(&self, _key: impl Sized, _value: impl Sized) -> Result<T>;
    Delete "the method is named `remove`, or `take`, which returns the old value"
        fn delete<T>(&self, _key: impl Sized) -> Result<T>;
    Exists "the method is named `contains_key`, and returns a bool without a `Result`"
        fn exists<T>(&self, _key: impl Sized) -> Result<T>;
    GetOr "use `store.get(key)?.unwrap_or(default)`"
        fn get_or<T>(&self, _key: impl Sized, _default: impl Sized) -> Result<T>;
    Increment "use `store.update(key, |n: Option<u64>| Some(n.unwrap_or(0) + 1))`"
        fn increment<T>(&self, _key: impl Sized, _by: impl Sized) -> Result<T>;
    EntryOf "use `store.update(key, |value| ..)` or `store.get_or_insert_with(key, || ..)`"
        fn entry<T>(&self, _key: T) -> Result<()>;
    InsertIfAbsent "use `store.compare_exchange(key, None, Some(&value))`"
        fn insert_if_absent<T>(&self, _key: impl Sized, _value: impl Sized) -> Result<T>;
    CompareAndSwap "the method is named `compare_exchange`, and returns a bool"
        fn compare_and_swap<T>(
            &self, _key: impl Sized, _old: impl Sized, _new: impl Sized
        ) -> Result<T>;
    UpdateAndFetch "the method is named `update`"
        fn update_and_fetch<T>(&self, _key: impl Sized, _change: impl Sized) -> Result<T>;
    GenerateId "the method is named `next_id`, and takes the key of the counter"
        fn generate_id<T>(&self) -> Result<T>;
    BeginWrite "use `store.transaction(|tx| ..)`, or `store.batch()` if nothing is read"
        fn begin_write<T>(&self) -> Result<T>;
    BeginRead "the method is named `snapshot`, and returns no `Result`"
        fn begin_read<T>(&self) -> Result<T>;
    Backup "use `store.backup_to(path)` for a copy, or `store.back_up()` for the rotating backups"
        fn backup<T>(&self, _path: T) -> Result<()>;
    FlushAsync "the async methods are those of `AsyncStore`: `AsyncStore::from(store).flush()`"
        fn flush_async<T>(&self) -> Result<T>;
    WatchPrefix "the method is named `watch`, and takes a prefix"
        fn watch_prefix<T>(&self, _prefix: T) -> Result<T>;
    Subscribe "the method is named `watch`, and takes a prefix"
        fn subscribe<T>(&self, _prefix: T) -> Result<T>;
    SizeOnDisk "use `store.stats()`, whose field `storage` has the sizes of the files"
        fn size_on_disk<T>(&self) -> Result<T>;
    Expiry "use `set_with_expiry`, with the time: `SystemTime::now() + ttl`"
        fn set_with_ttl<T>(&self, _key: impl Sized, _value: impl Sized, _ttl: impl Sized)
            -> Result<T>;
}

signposts! {
    OpenOptions;
    Password "use `.key(Key::passphrase(\"..\")?)`, with `codex_core::crypto::Key`"
        fn password<T>(self, _password: T) -> Self;
    Passphrase "use `.key(Key::passphrase(\"..\")?)`, with `codex_core::crypto::Key`"
        fn passphrase<T>(self, _passphrase: T) -> Self;
    EncryptionKey "use `.key(Key::raw(&bytes)?)`, with `codex_core::crypto::Key`"
        fn encryption_key<T>(self, _key: T) -> Self;
}

signposts! {
    Batch;
    NewBatch "use `store.batch()`, and `batch.commit()`"
        fn new<T>() -> Batch;
}

#[diagnostic::on_unimplemented(message = "use `Store::open(path)`", label = "not a function here")]
pub trait Open {}

#[doc(hidden)]
pub fn open<T: Open>(_path: T) -> Result<Store> {
    unreachable!("no type implements the bound, so no call compiles")
}
