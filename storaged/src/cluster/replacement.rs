//! Files of a work directory that are replaced as a whole: after a crash there is the old one or the new one. What is in
//! them is not known here.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Only who runs this program reads them: the memory has CHAP secrets in it.
const MODE: u32 = 0o600;

/// Puts a file with these bytes in the place of the one of that name, durably.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.unfinished"));
    let mut file = File::create(&unfinished)?;
    // Before anything is in it; also where an earlier one was left behind.
    file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.write_all(bytes)?;
    // The name must not appear before what it names.
    file.sync_all()?;
    std::fs::rename(&unfinished, folder.join(name))?;
    File::open(folder)?.sync_all()
}
