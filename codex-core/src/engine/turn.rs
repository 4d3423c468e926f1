//! The turn of a request that uses the disk.

use codex_storage::Result;

use super::Engine;
use super::commit::Disk;
use super::leader::{Leader, UNWOUND};
use super::queue::{Admission, Refusal, Wake};
use crate::commit::Commit;
use crate::locks::PersistGuard;

impl Engine {
    /// Waits for the turn of the caller in the queue, then calls `work` with the disk locked.
    ///
    /// # Errors
    /// The error of `work`; `Closed` or `Poisoned`, if `admission` requires an open store.
    pub(super) fn exclusive<R>(
        &self,
        admission: Admission,
        work: impl FnOnce(&mut PersistGuard<'_, Disk>) -> Result<R>,
    ) -> Result<R> {
        self.exclusive_as_leader(admission, |_, disk| work(disk))
    }

    /// Does the same with a `work` that also uses the leader.
    pub(super) fn exclusive_as_leader<R>(
        &self,
        admission: Admission,
        work: impl FnOnce(&mut Leader<'_>, &mut PersistGuard<'_, Disk>) -> Result<R>,
    ) -> Result<R> {
        if let Wake::Done(outcome) = self.enter(admission, None)? {
            return Err(outcome.expect_err("a leader answers only commits, unless it unwinds"));
        }
        // Order: begin before the lock. A panic after this line poisons the store (promise 5).
        let mut leader = Leader::begin(self, None);
        let mut disk = self.lock_disk();
        // Check the admission again, because the state may have changed during the wait.
        let allowed = self.allow(admission, &disk);
        let done = allowed.and_then(|()| work(&mut leader, &mut disk));
        let effects = Self::unlock_disk(disk, &mut leader);
        // Order: unlock the disk before the lead is handed over, so that the next leader does not
        // wait for the lock.
        leader.hand_over();
        leader.wake();
        self.notice(effects);
        done
    }

    /// Waits until the calling thread leads, or until another thread has made its commit.
    pub(super) fn enter(&self, admission: Admission, commit: Option<Commit>) -> Result<Wake> {
        let entered = self.queue.enter(admission, commit, || self.now());
        entered.map_err(|refusal| self.refused(refusal))
    }

    /// Checks the admission again with the disk locked. The store may have been closed or poisoned
    /// during the wait.
    fn allow(&self, admission: Admission, disk: &Disk) -> Result<()> {
        let refusal = match admission {
            Admission::ToClose => None,
            _ if disk.unwound => Some(Refusal::Poisoned(UNWOUND.into())),
            Admission::WhileOpen => self.queue.lock().poisoned().map(Refusal::Poisoned),
            Admission::ToFinish => None,
        };
        let refusal = refusal.or_else(|| {
            let closed = admission != Admission::ToClose && disk.storage.is_none();
            closed.then_some(Refusal::Closed)
        });
        refusal.map_or(Ok(()), |refusal| Err(self.refused(refusal)))
    }
}
