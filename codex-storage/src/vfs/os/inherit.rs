//! The owner and the permissions of a file that replaces another.

use std::fs::File as StdFile;
use std::io::{self, ErrorKind};
use std::os::unix::fs::fchown;

use rustix::fs;
use rustix::io::retry_on_intr;

use crate::vfs::Mode;

/// Gives `to` the owner and the permissions of the file with `stat`. See
/// [`Dir::inherit`](crate::vfs::Dir::inherit).
pub(super) fn take_over(stat: &fs::Stat, to: &StdFile, mode: Option<Mode>) -> io::Result<()> {
    let own = fs::fstat(to)?;
    let (uid, gid) = (stat.st_uid, stat.st_gid);
    let refused = |done: io::Result<()>| match done {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(true),
        done => done.map(|()| false),
    };
    // Order: the owner before the permissions, so that the former owner never has the new
    // permissions.
    let no_owner = own.st_uid != uid && refused(fchown(to, Some(uid), Some(gid)))?;
    // The group is set together with the owner. If the owner is refused, the group is tried alone.
    let has_group = own.st_gid == gid || (own.st_uid != uid && !no_owner);
    let no_group = !has_group && refused(fchown(to, None, Some(gid)))?;
    let mut bits = stat.st_mode & 0o777;
    match mode {
        Some(Mode::Private) => bits |= 0o600,
        Some(Mode::Frozen) => bits = (bits & !0o222) | 0o400,
        None => {}
    }
    // The permissions of a group must not apply to another group.
    if no_group {
        bits &= !0o070;
    }
    if bits != own.st_mode & 0o777 {
        retry_on_intr(|| fs::fchmod(to, fs::Mode::from_raw_mode(bits)))?;
    }
    Ok(())
}
