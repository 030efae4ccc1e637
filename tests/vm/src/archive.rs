//! Writes an initramfs: a cpio archive in the "newc" form that Linux unpacks at boot.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

/// What every header begins with.
const MAGIC: &str = "070701";
/// The name of the last entry.
const TRAILER: &str = "TRAILER!!!";

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive under construction. Folders above an entry come by themselves.
pub struct Archive<W> {
    out: W,
    folders: BTreeSet<String>,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            folders: BTreeSet::new(),
            entries: 0,
        }
    }

    /// A folder.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.folders_above(path)?;
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[])
        } else {
            Ok(())
        }
    }

    /// A file that is not run.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(path, FILE, content)
    }

    /// A file that is run.
    pub fn program(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(path, PROGRAM, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(path, LINK, target.as_bytes())
    }

    /// The end. Gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn folders_above(&mut self, path: &str) -> io::Result<()> {
        match Path::new(path).parent().and_then(Path::to_str) {
            Some(parent) if !parent.is_empty() => self.folder(parent),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let links = if mode == FOLDER { 2 } else { 1 };
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        // Inode, mode, owner, group, links, time, size, device (2), special device (2), name, check sum.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = MAGIC.to_owned();
        for field in fields {
            // Writing to a string cannot fail.
            let _ = write!(header, "{field:08x}");
        }
        self.padded(&[header.as_bytes(), path.as_bytes(), &[0]].concat())?;
        self.padded(content)
    }

    /// Name and content each end at a multiple of four bytes.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..rest])
    }
}

#[cfg(test)]
mod tests {
    //! The archive is read back by the program that defines the form.
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_unpacks_what_was_written() {
        let mut archive = Archive::new(Vec::new());
        archive.program("usr/bin/tool", b"#!/bin/sh\n").unwrap();
        archive.file("etc/odd", b"12345").unwrap();
        archive.link("bin/tool", "/usr/bin/tool").unwrap();
        archive.folder("usr/bin").unwrap();
        let bytes = archive.finish().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let spawned = Command::new("cpio")
            .args(["-idm", "--quiet"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut cpio) = spawned else {
            // Without cpio here, the guests themselves are the proof.
            assert!(bytes.starts_with(b"0707010"));
            return;
        };
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(std::fs::read(folder.path().join("etc/odd")).unwrap(), b"12345");
        assert_eq!(
            std::fs::read_link(folder.path().join("bin/tool"))
                .unwrap()
                .to_str()
                .unwrap(),
            "/usr/bin/tool"
        );
        assert!(folder.path().join("usr/bin/tool").is_file());
    }
}
