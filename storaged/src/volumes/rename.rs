//! Another name for a volume. Its identity, and whoever has it open, stay.

use admin_api::names::check_name;
use coordination::keys::Key;
use coordination::records::{NameRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::VolumeId;

use super::create::refuse_taken;
use super::{Decision, OperationError, Plan, Volumes, event, find};

impl Volumes {
    /// Gives a volume another name. The name that it has already is no change.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<VolumeId, OperationError> {
        check_name(new_name)?;
        self.carry_out(|map| plan(map, name, new_name)).await
    }
}

fn plan(map: &ClusterMap, name: &str, new_name: &str) -> Result<Decision<VolumeId>, OperationError> {
    let id = find(map, name)?;
    if name == new_name {
        return Ok(Decision::Unchanged(id));
    }
    refuse_taken(map, new_name)?;
    let volume = super::volume(map, id)?;
    let mut record = volume.record.clone();
    new_name.clone_into(&mut record.name);
    let old_key = Key::VolumeName(name.to_owned()).to_text();
    let new_key = Key::VolumeName(new_name.to_owned()).to_text();
    let key = Key::Volume(id).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), volume.modified))
        .when(Compare::Absent(new_key.clone()))
        .put(key, encode(&record)?)
        .delete(old_key)
        .put(new_key, encode(&NameRecord { id: id.0 })?);
    let message = format!("volume {name} was renamed to {new_name}");
    Ok(Plan::decide(
        transaction,
        event("volume_renamed", new_name, message),
        id,
    ))
}
