//! Snapshots: the head is sealed and a new one goes on, for one volume or several at one instant.

use admin_api::names::check_name;
use admin_api::snapshots::GROUP_VOLUMES_MAX;
use coordination::keys::Key;
use coordination::records::{LayerRecord, SnapshotRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::{LayerId, VolumeId};

use super::rest::AtRest;
use super::{Decision, OperationError, Plan, Volumes, event, find};
use crate::moment::wall_clock_ms;

/// A volume of which a snapshot is being made.
struct Member {
    id: VolumeId,
    name: String,
    new_head: LayerId,
}

impl Volumes {
    /// Makes a snapshot of a volume.
    pub async fn snapshot(&self, name: &str, snapshot: &str) -> Result<VolumeId, OperationError> {
        let volumes = self.group_snapshot(&[name.to_owned()], snapshot).await?;
        volumes
            .first()
            .copied()
            .ok_or_else(|| OperationError::Internal("a snapshot of no volume".to_owned()))
    }

    /// Makes a snapshot of each of several volumes, all at one instant: every one of them holds
    /// still before the first is sealed, and one transaction seals them all.
    pub async fn group_snapshot(
        &self,
        names: &[String],
        snapshot: &str,
    ) -> Result<Vec<VolumeId>, OperationError> {
        check_name(snapshot)?;
        let map = self.fresh_map().await?;
        let members = self.members(&map, names).await?;
        let ids: Vec<VolumeId> = members.iter().map(|member| member.id).collect();
        // Before anybody is made to wait: is there anything that would refuse?
        check(&map, &members, snapshot)?;
        let group = (members.len() > 1).then(|| members.first().map_or(0, |member| member.new_head.0));
        let rest = self.owners.bring_to_rest(&ids).await?;
        let done = self
            .carry_out(|map| plan(map, &members, snapshot, group, rest.as_ref()))
            .await;
        rest.end(self.map().revision()).await;
        done.map(|()| ids)
    }

    async fn members(&self, map: &ClusterMap, names: &[String]) -> Result<Vec<Member>, OperationError> {
        if names.is_empty() || names.len() > GROUP_VOLUMES_MAX {
            let message = format!("name 1 to {GROUP_VOLUMES_MAX} volumes, not {}", names.len());
            return Err(OperationError::Invalid(message));
        }
        let mut members: Vec<Member> = Vec::with_capacity(names.len());
        for name in names {
            let id = find(map, name)?;
            if members.iter().any(|member| member.id == id) {
                return Err(OperationError::Invalid(format!("volume {name:?} is named twice")));
            }
            members.push(Member {
                id,
                name: name.clone(),
                new_head: self.new_layer().await?,
            });
        }
        Ok(members)
    }
}

fn check(map: &ClusterMap, members: &[Member], snapshot: &str) -> Result<(), OperationError> {
    for member in members {
        let volume = super::volume(map, member.id)?;
        if map.snapshot(member.id, snapshot).is_some() {
            let message = format!(
                "volume {:?} has a snapshot {snapshot:?} already: use another name",
                member.name
            );
            return Err(OperationError::AlreadyExists(message));
        }
        super::refuse_unfinished_shrink(&volume.record)?;
        super::retype::refuse_moving(map, member.id, &member.name)?;
    }
    Ok(())
}

fn plan(
    map: &ClusterMap,
    members: &[Member],
    snapshot: &str,
    group: Option<u64>,
    rest: &dyn AtRest,
) -> Result<Decision<()>, OperationError> {
    check(map, members, snapshot)?;
    let now = wall_clock_ms();
    let mut transaction = Transaction::new();
    for member in members {
        let volume = super::volume(map, member.id)?;
        let family = volume.record.family;
        let mut record = volume.record.clone();
        let sealed = SnapshotRecord {
            layer: record.head,
            size: record.size,
            group,
            created_ms: now,
        };
        let new_head = LayerRecord {
            parent: Some(record.head),
            created_ms: now,
        };
        record.head = member.new_head;
        let key = Key::Volume(member.id).to_text();
        let snapshot_key = Key::Snapshot(family, member.id, snapshot.to_owned()).to_text();
        // A snapshot of that name would have changed the volume's record since: it needs no condition of its
        // own, of which a transaction for many volumes has none to spare.
        transaction.compares.extend(super::at_rest(rest, member.id)?);
        transaction = transaction
            .when(Compare::Modified(key.clone(), volume.modified))
            .put(key, encode(&record)?)
            .put(snapshot_key, encode(&sealed)?)
            .put(Key::Layer(family, member.new_head).to_text(), encode(&new_head)?);
    }
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    let subject = format!("{}@{snapshot}", names.join(","));
    let message = match names.as_slice() {
        [name] => format!("snapshot {name}@{snapshot} was made"),
        _ => format!(
            "snapshots {snapshot} of {} were made at one instant",
            names.join(", ")
        ),
    };
    Ok(Plan::decide(
        transaction,
        event("snapshot_created", subject, message),
        (),
    ))
}
