//! Scrubs: disks look after their copies, and what they find.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Begins a scrub of a disk, or of a pool's disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartScrub {
    /// Whether all blocks are read; else stamps of copies are compared only.
    #[serde(default)]
    pub deep: bool,
}

/// Begins a check of all copies of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckVolume {
    /// Whether all blocks are read; else stamps of copies are compared only.
    #[serde(default)]
    pub deep: bool,
    /// Only what this snapshot shows; else what the volume shows now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// A scrub was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubStarted {
    /// Its task; its report is found by the same number.
    pub task: u64,
}

/// What a scrub found, so far or at its end: its task tells which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubReport {
    /// Its task.
    pub task: u64,
    /// What was looked at, for people.
    pub subject: String,
    /// Whether blocks were read.
    pub deep: bool,
    /// The disks whose copies were looked at.
    pub disks: Vec<u32>,
    /// Disks of other nodes with copies of the same, which did not take part. What they have was compared with, and was
    /// not read.
    pub elsewhere: Vec<u32>,
    /// Who did not look after all of its copies, and why, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
    /// Copies of objects of 4 MiB that were looked at.
    pub objects: u64,
    /// Blocks of 4 KiB that were read from the medium and compared with their checksums.
    pub blocks: u64,
    /// Damaged blocks that were stored again from other copies.
    pub mended: u64,
    /// Damaged blocks that stay damaged.
    pub unmended: u64,
    /// Objects that two disks in sync have at different stamps.
    pub differing: u64,
    /// Copies of objects that could not be looked at.
    pub skipped: u64,
    /// The first findings, at most [`FINDINGS_MAX`].
    pub findings: Vec<ScrubFinding>,
}

/// Findings in a report; of more only the numbers are told.
pub const FINDINGS_MAX: usize = 1000;

impl ScrubReport {
    /// Whether all that was to be looked at was, and is as it should be now.
    pub fn is_well(&self) -> bool {
        self.unmended == 0 && self.differing == 0 && self.skipped == 0 && self.silent.is_empty()
    }
}

/// What kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Blocks were damaged, and were stored again.
    Mended,
    /// Blocks are damaged, and stay so.
    Unmended,
    /// Two disks in sync have different copies.
    Differs,
    /// Parity is not what the data of its row make of it.
    ParityDiffers,
}

/// Something that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubFinding {
    /// The disk that found it, of its own copy.
    pub disk: u32,
    /// What.
    pub kind: FindingKind,
    /// Volumes that show it.
    pub volumes: Vec<String>,
    /// Snapshots that show it, as volume@snapshot.
    pub snapshots: Vec<String>,
    /// Where in these it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; blocks in between may be sound.
    pub length: u64,
    /// All of it in a sentence.
    pub message: String,
}
