//! What people and programs write on a volume. The record keeps it, and nobody here reads it.

use admin_api::labels::ChangeLabels;
use coordination::keys::Key;
use coordination::records::encode;
use coordination::{ClusterMap, Compare, Transaction};
use protocol::VolumeId;

use super::{Decision, OperationError, Plan, Volumes, event, find};

impl Volumes {
    /// Changes the labels of a volume that are named. It may be open.
    pub async fn label(&self, name: &str, change: &ChangeLabels) -> Result<VolumeId, OperationError> {
        self.carry_out(|map| plan(map, name, change)).await
    }
}

fn plan(map: &ClusterMap, name: &str, change: &ChangeLabels) -> Result<Decision<VolumeId>, OperationError> {
    let id = find(map, name)?;
    let volume = super::volume(map, id)?;
    let labels = change
        .apply(&volume.record.labels)
        .map_err(|error| OperationError::Invalid(error.to_string()))?;
    if labels == volume.record.labels {
        return Ok(Decision::Unchanged(id));
    }
    let mut record = volume.record.clone();
    record.labels = labels;
    let key = Key::Volume(id).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), volume.modified))
        .put(key, encode(&record)?);
    let named: Vec<&str> = change.labels.keys().map(String::as_str).collect();
    let message = format!("volume {name} has other labels: {}", named.join(", "));
    Ok(Plan::decide(
        transaction,
        event("volume_labelled", name, message),
        id,
    ))
}
