//! Deleting volumes and snapshots: the records go at once, the layers when nobody needs them.

use admin_api::names::check_name;
use coordination::keys::Key;
use coordination::{ClusterMap, Compare, Transaction};
use protocol::VolumeId;

use super::{Decision, OperationError, Plan, Volumes, event, find};

/// Snapshots that go in one transaction; of a volume that has more, the oldest names go first, in
/// transactions of their own. Below the coordination store's limit, with room for the rest.
const SNAPSHOTS_PER_TRANSACTION: usize = 100;

impl Volumes {
    /// Deletes a volume that nobody has open; with its snapshots, if these may go. Clones stay.
    pub async fn delete(&self, name: &str, with_snapshots: bool) -> Result<(), OperationError> {
        let map = self.fresh_map().await?;
        let id = find(&map, name)?;
        self.owners.dismiss_caretaker(id).await;
        loop {
            let done = self
                .carry_out(|map| plan_volume(map, id, name, with_snapshots))
                .await?;
            if done {
                return Ok(());
            }
        }
    }

    /// Deletes a snapshot. Clones of it stay.
    pub async fn delete_snapshot(&self, name: &str, snapshot: &str) -> Result<(), OperationError> {
        check_name(snapshot)?;
        self.carry_out(|map| plan_snapshot(map, name, snapshot)).await
    }
}

/// Answers whether the volume is gone, or only some of its many snapshots.
fn plan_volume(
    map: &ClusterMap,
    id: VolumeId,
    name: &str,
    with_snapshots: bool,
) -> Result<Decision<bool>, OperationError> {
    // By identity: should another volume get the name meanwhile, that one is not meant.
    let volume = super::volume(map, id)?;
    refuse_lun(map, id, name)?;
    super::refuse_open(map, id, name)?;
    let family = volume.record.family;
    let snapshots: Vec<String> = map
        .family(family)
        .into_iter()
        .flat_map(|family| family.snapshots_of(id).map(|(snapshot, _)| snapshot.to_owned()))
        .collect();
    if !snapshots.is_empty() && !with_snapshots {
        let message = format!(
            "volume {name:?} has {}: delete them first, or say that they may go too",
            super::counted(snapshots.len(), "snapshot")
        );
        return Err(OperationError::HasSnapshots(message));
    }
    let key = Key::Volume(id).to_text();
    let mut transaction = Transaction::new()
        // A snapshot that is made meanwhile changes the volume's record too.
        .when(Compare::Modified(key.clone(), volume.modified))
        .when(Compare::Absent(Key::Owner(id).to_text()))
        .when(Compare::Absent(Key::IscsiLun(id).to_text()));
    for snapshot in snapshots.iter().take(SNAPSHOTS_PER_TRANSACTION) {
        transaction = transaction.delete(Key::Snapshot(family, id, snapshot.clone()).to_text());
    }
    if snapshots.len() > SNAPSHOTS_PER_TRANSACTION {
        let message = format!("{SNAPSHOTS_PER_TRANSACTION} snapshots of volume {name} were deleted");
        return Ok(Plan::decide(
            transaction,
            event("snapshots_deleted", name, message),
            false,
        ));
    }
    let transaction = super::retype::with_source(map, id, transaction)
        .delete(key)
        .delete(Key::LastOwner(id).to_text())
        .delete(Key::VolumeName(volume.record.name.clone()).to_text());
    let message = match snapshots.len() {
        0 => format!("volume {name} was deleted"),
        count => format!(
            "volume {name} was deleted with {}",
            super::counted(count, "snapshot")
        ),
    };
    Ok(Plan::decide(
        transaction,
        event("volume_deleted", name, message),
        true,
    ))
}

/// Refuses while initiators know the volume as a disk.
fn refuse_lun(map: &ClusterMap, id: VolumeId, name: &str) -> Result<(), OperationError> {
    match map.iscsi().lun_of(id) {
        None => Ok(()),
        Some(lun) => Err(OperationError::InUse(format!(
            "volume {name:?} is LUN {number} of the iSCSI target {target}: remove it there first (`storagectl iscsi lun \
             remove {target} {number}`)",
            number = lun.record.number,
            target = lun.record.target,
        ))),
    }
}

fn plan_snapshot(map: &ClusterMap, name: &str, snapshot: &str) -> Result<Decision<()>, OperationError> {
    let id = find(map, name)?;
    let family = super::volume(map, id)?.record.family;
    let sealed = super::snapshot(map, id, name, snapshot)?;
    let key = Key::Snapshot(family, id, snapshot.to_owned()).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), sealed.modified))
        .delete(key);
    let subject = format!("{name}@{snapshot}");
    let message = format!("snapshot {subject} was deleted");
    Ok(Plan::decide(
        transaction,
        event("snapshot_deleted", subject, message),
        (),
    ))
}
