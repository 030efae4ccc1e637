//! Which volumes are LUNs of which target. A volume is a LUN once at most: its reservations are the volume's, and two
//! targets would not agree upon them.

use admin_api::iscsi::{AddLun, BLOCK_SIZE_DEFAULT, BLOCK_SIZES, LUN_NUMBER_MAX, LUNS_MAX, normalise_name};
use coordination::keys::Key;
use coordination::records::{LunOfRecord, LunRecord, TargetRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::VolumeId;

use super::secrets::Secrets;
use super::{Iscsi, find_target, replacing};
use crate::volumes::{Decision, OperationError, Plan, event, find};

impl Iscsi {
    /// Makes a volume a LUN. Returns its number.
    pub async fn add_lun(&self, target: &str, request: &AddLun) -> Result<u16, OperationError> {
        let target = normalise_name(target)?;
        let block_size = request.block_size.unwrap_or(BLOCK_SIZE_DEFAULT);
        if !BLOCK_SIZES.contains(&block_size) {
            let [small, large] = BLOCK_SIZES;
            return Err(OperationError::Invalid(format!(
                "the blocks of a LUN have {small} or {large} bytes, not {block_size}"
            )));
        }
        if let Some(number) = request.number.filter(|number| *number > LUN_NUMBER_MAX) {
            return Err(OperationError::Invalid(format!(
                "a LUN's number is from 0 to {LUN_NUMBER_MAX}, not {number}"
            )));
        }
        let plan = |map: &ClusterMap| plan_addition(map, &self.secrets, &target, request, block_size);
        self.volumes.carry_out(plan).await
    }

    /// Removes a LUN with its reservations. The volume stays.
    pub async fn remove_lun(&self, target: &str, number: u16) -> Result<(), OperationError> {
        let target = normalise_name(target)?;
        let plan = |map: &ClusterMap| plan_removal(map, &self.secrets, &target, number);
        self.volumes.carry_out(plan).await
    }
}

fn plan_addition(
    map: &ClusterMap,
    secrets: &Secrets,
    target: &str,
    request: &AddLun,
    block_size: u32,
) -> Result<Decision<u16>, OperationError> {
    let read = find_target(map, target)?;
    let name = &request.volume;
    let volume = find(map, name)?;
    if let Some(lun) = map.iscsi().lun_of(volume) {
        return Err(OperationError::InUse(format!(
            "volume {name:?} is LUN {} of the iSCSI target {} already, and is a LUN once at most: remove it there first",
            lun.record.number, lun.record.target
        )));
    }
    let mut record = read.record.clone();
    let number = free_number(&record, request.number, target)?;
    record.luns.push(LunRecord {
        number,
        volume,
        read_only: request.read_only,
        block_size,
    });
    record.luns.sort_by_key(|lun| lun.number);
    let note = LunOfRecord {
        target: target.to_owned(),
        number,
    };
    let note_key = Key::IscsiLun(volume).to_text();
    let transaction = replacing(map, secrets, target, read, record)?
        .when(Compare::Present(Key::Volume(volume).to_text()))
        .when(Compare::Absent(note_key.clone()))
        .put(note_key, encode(&note)?);
    let message = format!("volume {name} became LUN {number} of the iSCSI target {target}");
    Ok(Plan::decide(
        transaction,
        event("iscsi_lun_added", target, message),
        number,
    ))
}

fn free_number(record: &TargetRecord, wanted: Option<u16>, target: &str) -> Result<u16, OperationError> {
    let taken = |number: u16| record.luns.iter().any(|lun| lun.number == number);
    match wanted {
        Some(number) if taken(number) => Err(OperationError::AlreadyExists(format!(
            "the iSCSI target {target} has a LUN {number} already: use another number, or none for the lowest free one"
        ))),
        Some(number) => Ok(number),
        None => (0..=LUN_NUMBER_MAX).find(|number| !taken(*number)).ok_or_else(|| {
            OperationError::Conflict(format!(
                "the iSCSI target {target} has {LUNS_MAX} LUNs, and no target has more: make another target"
            ))
        }),
    }
}

fn plan_removal(
    map: &ClusterMap,
    secrets: &Secrets,
    target: &str,
    number: u16,
) -> Result<Decision<()>, OperationError> {
    let read = find_target(map, target)?;
    let mut record = read.record.clone();
    let Some(position) = record.luns.iter().position(|lun| lun.number == number) else {
        return Err(OperationError::NotFound(format!(
            "the iSCSI target {target} has no LUN {number}"
        )));
    };
    let lun = record.luns.remove(position);
    let transaction = without_lun(replacing(map, secrets, target, read, record)?, lun.volume);
    let volume = map
        .volume(lun.volume)
        .map_or("that is gone", |(_, volume)| volume.record.name.as_str());
    let message = format!("LUN {number} of the iSCSI target {target}, volume {volume}, was removed");
    Ok(Plan::decide(
        transaction,
        event("iscsi_lun_removed", target, message),
        (),
    ))
}

/// With what stands of a LUN besides its target's record.
pub(super) fn without_lun(transaction: Transaction, volume: VolumeId) -> Transaction {
    transaction
        .delete(Key::IscsiLun(volume).to_text())
        .delete(Key::IscsiReservation(volume).to_text())
}
