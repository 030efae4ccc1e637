//! Names and descriptions of exports: `volume`, or `volume@snapshot`.

use std::fmt;

use client::device::DeviceInfo;
use protocol::session::ExportEntry;

use crate::wire::{PAYLOAD_MAX, TransmissionFlags};

/// What an export's name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExportName {
    /// The volume's name.
    pub volume: String,
    /// A snapshot's name, if the snapshot is meant.
    pub snapshot: Option<String>,
}

impl ExportName {
    /// Splits a name at its first `@`, or gives nothing if a part is empty. Whether there is such
    /// a volume is found out by whoever opens it.
    pub fn parse(text: &str) -> Option<Self> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot)),
            None => (text, None),
        };
        if volume.is_empty() || snapshot.is_some_and(str::is_empty) {
            return None;
        }
        Some(Self {
            volume: volume.to_owned(),
            snapshot: snapshot.map(str::to_owned),
        })
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.volume)?;
        match &self.snapshot {
            Some(snapshot) => write!(f, "@{snapshot}"),
            None => Ok(()),
        }
    }
}

/// The names that a volume can be reached by: its own, and one for each snapshot.
pub fn names_of(entry: &ExportEntry) -> impl Iterator<Item = ExportName> {
    let snapshots = entry.snapshots.iter().map(|snapshot| Some(snapshot.clone()));
    let volume = entry.name.clone();
    std::iter::once(None)
        .chain(snapshots)
        .map(move |snapshot| ExportName {
            volume: volume.clone(),
            snapshot,
        })
}

/// What a client is told of an export before it uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The canonical name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether nothing may change.
    pub read_only: bool,
    /// The least block size in bytes.
    pub alignment: u32,
}

/// What requests should be a multiple of to be fast, in bytes: smaller ones are read first and merged.
const PREFERRED_BLOCK: u32 = protocol::BLOCK_SIZE;

impl Description {
    /// Of a device that is open.
    pub fn of(info: &DeviceInfo) -> Self {
        Self {
            name: info.name.clone(),
            size: info.size,
            read_only: info.read_only,
            alignment: info.alignment,
        }
    }

    /// Which commands the export takes.
    pub fn flags(&self, structured: bool) -> TransmissionFlags {
        TransmissionFlags::of_export(self.read_only, structured)
    }

    /// The least, the preferred and the greatest length of a request, in bytes.
    pub fn block_sizes(&self) -> [u32; 3] {
        [self.alignment, PREFERRED_BLOCK.max(self.alignment), PAYLOAD_MAX]
    }

    /// A sentence for people.
    pub fn sentence(&self) -> String {
        let kind = if self.name.contains('@') {
            "snapshot"
        } else {
            "volume"
        };
        let rights = if self.read_only {
            "read only"
        } else {
            "read and write"
        };
        format!("storaged {kind}, {} bytes, {rights}", self.size)
    }
}

#[cfg(test)]
mod tests {
    //! The laws of names: what is parsed prints as it was, and empty parts are nothing.
    use super::*;

    #[test]
    fn a_name_may_mean_a_snapshot() {
        let name = ExportName::parse("disk@before").unwrap();
        assert_eq!(
            (name.volume.as_str(), name.snapshot.as_deref()),
            ("disk", Some("before"))
        );
        assert_eq!(name.to_string(), "disk@before");
        assert_eq!(ExportName::parse("disk").unwrap().snapshot, None);
    }

    #[test]
    fn an_empty_part_is_no_name() {
        assert_eq!(ExportName::parse(""), None);
        assert_eq!(ExportName::parse("@x"), None);
        assert_eq!(ExportName::parse("x@"), None);
    }

    #[test]
    fn a_volume_is_listed_before_its_snapshots() {
        let entry = ExportEntry {
            name: "v".into(),
            size: 0,
            snapshots: vec!["a".into(), "b".into()],
        };
        let names: Vec<String> = names_of(&entry).map(|name| name.to_string()).collect();
        assert_eq!(names, ["v", "v@a", "v@b"]);
    }
}
