//! Puts a volume back to one of its snapshots: a new, empty head on the snapshot's layer.

use admin_api::names::check_name;
use coordination::keys::Key;
use coordination::records::{LayerRecord, encode};
use coordination::{ClusterMap, Compare};
use protocol::{LayerId, VolumeId};

use super::{Decision, OperationError, Plan, Volumes, event, find};
use crate::moment::wall_clock_ms;

impl Volumes {
    /// Gives a volume that nobody has open the data and the size of one of its snapshots. All its
    /// snapshots stay, later ones too.
    pub async fn roll_back(&self, name: &str, snapshot: &str) -> Result<VolumeId, OperationError> {
        check_name(snapshot)?;
        let map = self.fresh_map().await?;
        let id = find(&map, name)?;
        super::snapshot(&map, id, name, snapshot)?;
        self.refuse_used(id, name).await?;
        let layer = self.new_layer().await?;
        let rest = self.owners.bring_to_rest(&[id]).await?;
        let holds = super::at_rest(rest.as_ref(), id)?;
        let done = self
            .carry_out(|map| plan(map, id, name, snapshot, layer, &holds))
            .await;
        rest.end(self.map().revision()).await;
        done.map(|()| id)
    }
}

fn plan(
    map: &ClusterMap,
    id: VolumeId,
    name: &str,
    snapshot: &str,
    layer: LayerId,
    holds: &[Compare],
) -> Result<Decision<()>, OperationError> {
    let volume = super::volume(map, id)?;
    let sealed = super::snapshot(map, id, name, snapshot)?;
    let family = volume.record.family;
    let mut record = volume.record.clone();
    record.head = layer;
    record.size = sealed.record.size;
    // What was to be discarded was in the old head.
    record.discard_to = None;
    let new_layer = LayerRecord {
        parent: Some(sealed.record.layer),
        created_ms: wall_clock_ms(),
    };
    let key = Key::Volume(id).to_text();
    let snapshot_key = Key::Snapshot(family, id, snapshot.to_owned()).to_text();
    let transaction = super::on(holds)
        .when(Compare::Modified(key.clone(), volume.modified))
        .when(Compare::Modified(snapshot_key, sealed.modified))
        .put(key, encode(&record)?)
        // A front end that stood still meanwhile has a guest that remembers other data: it may not go on.
        .delete(Key::LastOwner(id).to_text())
        .put(Key::Layer(family, layer).to_text(), encode(&new_layer)?);
    let message = format!("volume {name} was rolled back to snapshot {snapshot}");
    Ok(Plan::decide(
        transaction,
        event("volume_rolled_back", name, message),
        (),
    ))
}
