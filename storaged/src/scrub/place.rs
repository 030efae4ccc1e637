//! What a finding is of, in words that people know: which volumes and snapshots show it, and where in them.

use admin_api::scrubs::{FindingKind, ScrubFinding};
use coordination::ClusterMap;
use coordination::records::Severity;
use protocol::rows::{is_rows, range_index};
use protocol::{BLOCK_SIZE, CHUNK_SIZE, DiskId, OBJECT_SIZE, ObjectId};
use replication::scrub::{Finding, Reason};

/// Names of volumes and snapshots in a sentence; a layer may have many clones.
const NAMES_MAX: usize = 8;

/// How bad it is.
pub(super) fn severity(kind: FindingKind) -> Severity {
    match kind {
        FindingKind::Mended => Severity::Warning,
        FindingKind::Unmended | FindingKind::Differs | FindingKind::ParityDiffers => Severity::Error,
    }
}

/// The event's kind.
pub(super) fn event_kind(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Mended => "damage_mended",
        FindingKind::Unmended => "damage_found",
        FindingKind::Differs => "copies_differ",
        FindingKind::ParityDiffers => "parity_differs",
    }
}

/// A finding of a disk, for people.
pub(super) fn describe(map: &ClusterMap, disk: DiskId, finding: &Finding) -> ScrubFinding {
    let (object, offset, length) = range(finding);
    let (volumes, snapshots) = shown_by(map, object);
    let names: Vec<String> = volumes
        .iter()
        .map(|name| format!("volume {name}"))
        .chain(snapshots.iter().map(|name| format!("snapshot {name}")))
        .collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut shown = names.get(..NAMES_MAX).unwrap_or(&names).join(", ");
    if more > 0 {
        shown = format!("{shown} and {more} more");
    }
    if names.is_empty() {
        shown = format!("{object}, which nothing shows any more");
    }
    let at = format!("{length} bytes at {offset} of {shown}");
    let (kind, message) = match finding {
        Finding::Mended { blocks, from, .. } => (
            FindingKind::Mended,
            format!(
                "{disk}: {} damaged blocks in {at} were stored again from {from}'s copy",
                blocks.count_ones()
            ),
        ),
        Finding::Unmended { blocks, reason, .. } => (
            FindingKind::Unmended,
            format!(
                "{disk}: {} blocks in {at} are damaged and stay so: {}",
                blocks.count_ones(),
                words(*reason)
            ),
        ),
        Finding::Differs {
            stamp,
            disk: other,
            there,
            ..
        } => (
            FindingKind::Differs,
            format!(
                "{disk} and {other} have different copies of {at} (last write {stamp} here, {there} there), \
                 although nobody writes there: one of them lost a write or kept one that was not confirmed; \
                 nothing was changed"
            ),
        ),
        Finding::ParityDiffers { .. } => (
            FindingKind::ParityDiffers,
            format!(
                "{disk}: the parity of a row in {at} is not what its data make of it, although all checksums hold: \
                 one of the shards was written wrong; nothing was changed. Reads are right while all data are there; \
                 compare them with a backup before a disk is replaced, and write them again"
            ),
        ),
    };
    ScrubFinding {
        disk: disk.0,
        kind,
        volumes,
        snapshots,
        offset,
        length,
        message,
    }
}

fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::NoCopy => {
            "no other copy in sync is good; write over them, or restore them from a backup, if the volume needs them"
        }
        Reason::Changing => {
            "they were written all the time, or other copies differ; the next scrub tries again"
        }
        Reason::Unreachable => "the disks with other copies did not answer; the next scrub tries again",
        Reason::Refused => "the disk takes no more writes; look at its room and at its state",
    }
}

/// Which object, and where in a volume that shows it.
fn range(finding: &Finding) -> (ObjectId, u64, u64) {
    let start = |object: &ObjectId| u64::from(range_index(object.index)) * u64::from(OBJECT_SIZE);
    match finding {
        Finding::Mended {
            object,
            chunk,
            blocks,
            ..
        }
        | Finding::Unmended {
            object,
            chunk,
            blocks,
            ..
        } if !is_rows(object.index) => {
            let first = u64::from(blocks.trailing_zeros().min(15));
            let end = u64::from(16 - blocks.leading_zeros());
            let chunk = start(object) + u64::from(*chunk) * u64::from(CHUNK_SIZE);
            let block = u64::from(BLOCK_SIZE);
            (*object, chunk + first * block, end.saturating_sub(first) * block)
        }
        // A chunk of a rows object is a shard of a row, and no range of the volume.
        Finding::Mended { object, .. }
        | Finding::Unmended { object, .. }
        | Finding::Differs { object, .. }
        | Finding::ParityDiffers { object, .. } => (*object, start(object), u64::from(OBJECT_SIZE)),
    }
}

/// The volumes and snapshots whose chains have the object's layer.
fn shown_by(map: &ClusterMap, object: ObjectId) -> (Vec<String>, Vec<String>) {
    let Some(family) = map.family(object.family) else {
        return (Vec::new(), Vec::new());
    };
    let shows = |layer| {
        let chain = family.chain(layer);
        chain.is_some_and(|chain| chain.layers().contains(&object.layer))
    };
    let volumes = family.volumes();
    let heads = volumes.values().filter(|volume| shows(volume.record.head));
    let snapshots = family
        .snapshots()
        .iter()
        .filter(|(_, snapshot)| shows(snapshot.record.layer));
    let names = snapshots.filter_map(|((volume, name), _)| {
        let volume = volumes.get(volume)?;
        Some(format!("{}@{name}", volume.record.name))
    });
    (
        heads.map(|volume| volume.record.name.clone()).collect(),
        names.collect(),
    )
}

#[cfg(test)]
mod tests {
    //! A place is told as a guest knows it.
    use protocol::{FamilyId, LayerId};

    use super::*;

    #[test]
    fn blocks_of_a_chunk_are_told_as_a_range_of_the_volume() {
        let object = ObjectId {
            family: FamilyId(1),
            index: 2,
            layer: LayerId(1),
        };
        let finding = Finding::Unmended {
            object,
            chunk: 3,
            blocks: 0b0110,
            reason: Reason::NoCopy,
        };
        let start = 2 * 4_194_304 + 3 * 65_536 + 4096;
        assert_eq!(range(&finding), (object, start, 8192));
        let described = describe(&ClusterMap::default(), DiskId(4), &finding);
        assert!(
            described
                .message
                .starts_with(&format!("disk-4: 2 blocks in 8192 bytes at {start} of ")),
            "{}",
            described.message
        );
    }

    /// Defect guarded: the index of a rows object was taken for a place in the volume, 8 PiB behind its end.
    #[test]
    fn what_is_found_in_rows_is_told_as_the_range_that_they_are_of() {
        let object = ObjectId {
            family: FamilyId(1),
            index: protocol::rows::rows_index(2),
            layer: LayerId(1),
        };
        let place = (object, 2 * 4_194_304, 4_194_304);
        assert_eq!(range(&Finding::ParityDiffers { object, chunk: 43 }), place);
        let damaged = Finding::Unmended {
            object,
            chunk: 43,
            blocks: 1,
            reason: Reason::NoCopy,
        };
        assert_eq!(range(&damaged), place);
    }
}
