//! A new volume on a snapshot's layer, in the same family: no byte is copied.

use std::collections::BTreeMap;

use admin_api::names::check_name;
use coordination::keys::Key;
use coordination::records::{LayerRecord, NameRecord, NewerFields, Origin, VolumeRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::limits::VolumeLimits;
use protocol::{LayerId, VolumeId};

use super::create::refuse_taken;
use super::{Decision, OperationError, Plan, Volumes, event, find};
use crate::moment::wall_clock_ms;

impl Volumes {
    /// Makes a volume that begins with a snapshot's data and size.
    pub async fn clone_snapshot(
        &self,
        source: &str,
        snapshot: &str,
        name: &str,
    ) -> Result<VolumeId, OperationError> {
        check_name(name)?;
        check_name(snapshot)?;
        let (volume, layer) = (self.new_volume().await?, self.new_layer().await?);
        self.carry_out(|map| plan(map, source, snapshot, name, volume, layer))
            .await
    }
}

fn plan(
    map: &ClusterMap,
    source: &str,
    snapshot: &str,
    name: &str,
    volume: VolumeId,
    layer: LayerId,
) -> Result<Decision<VolumeId>, OperationError> {
    let source_id = find(map, source)?;
    refuse_taken(map, name)?;
    let source_volume = super::volume(map, source_id)?;
    let sealed = super::snapshot(map, source_id, source, snapshot)?;
    let family = source_volume.record.family;
    let now = wall_clock_ms();
    let record = VolumeRecord {
        name: name.to_owned(),
        family,
        head: layer,
        size: sealed.record.size,
        discard_to: None,
        origin: Some(Origin {
            volume: source_id,
            volume_name: source.to_owned(),
            snapshot: snapshot.to_owned(),
        }),
        labels: BTreeMap::new(),
        // Those of its source are its source's.
        limits: VolumeLimits::default(),
        created_ms: now,
        newer: NewerFields::default(),
    };
    let snapshot_key = Key::Snapshot(family, source_id, snapshot.to_owned()).to_text();
    let name_key = Key::VolumeName(name.to_owned()).to_text();
    let transaction = Transaction::new()
        // While the snapshot stands its layer stands, and stays what it is.
        .when(Compare::Modified(snapshot_key, sealed.modified))
        .when(Compare::Absent(name_key.clone()))
        .put(Key::Volume(volume).to_text(), encode(&record)?)
        .put(name_key, encode(&NameRecord { id: volume.0 })?)
        .put(
            Key::Layer(family, layer).to_text(),
            encode(&LayerRecord {
                parent: Some(sealed.record.layer),
                created_ms: now,
            })?,
        );
    let message = format!("volume {name} was cloned from {source}@{snapshot}");
    Ok(Plan::decide(
        transaction,
        event("volume_cloned", name, message),
        volume,
    ))
}
