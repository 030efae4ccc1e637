//! What takes its time: larger, another type, back to a snapshot.

use super::Act;
use crate::api::types;
use crate::api::volumes::{AVAILABLE_OR_IN_USE, later};
use crate::connections::agent::LOCAL;
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::job::Task;
use crate::records::snapshot::SnapshotStatus;
use crate::records::volume::VolumeStatus;
use crate::request::body::{INTEGER_MAX, TEXT_MAX};

pub(super) async fn extend(act: &Act<'_>) -> Result<(), Fault> {
    let size = act.fields.integer("new_size", 1..=INTEGER_MAX)?;
    let size = size
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| act.fields.required("new_size"))?;
    act.on_volume("volume:extend", |edit, volume| {
        let context = act.context;
        let is_live = volume.status == VolumeStatus::InUse && context.version.is(42);
        if is_live {
            act.service.check_for("volume:extend_attached_volume", context, &volume.project_id)?;
            let mut attached = edit.tables.attachments.of_parent(&volume.id);
            if attached.any(|attachment| attachment.kind() == Some(LOCAL)) {
                return Err(Fault::bad_request(format!(
                    "Invalid volume: Volume {} is a block device of its server's host, and Nova grows none of those under a server: detach it first.",
                    volume.id
                )));
            }
        } else if volume.status != VolumeStatus::Available {
            return Err(Fault::bad_request(format!(
                "Invalid volume: Volume {} status must be available to extend, and it is {}.",
                volume.id, volume.status
            )));
        }
        if size <= volume.size {
            return Err(Fault::bad_request(format!(
                "Invalid input received: New size for extend must be greater than current size. (current: {}, extended: {size}).",
                volume.size
            )));
        }
        quota::check_size(edit.tables, &volume.project_id, size)?;
        quota::take(edit, &volume.project_id, &Amounts::growth(&volume.type_id, size - volume.size))?;
        edit.change(volume, |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::Extending;
        });
        let task = Task::ExtendVolume {
            volume: volume.id.clone(),
            size,
        };
        later(edit, context, &volume.project_id, task);
        Ok(())
    })
    .await
}

/// Nova says that the server has seen the new size. The storage had grown the volume before Nova was told, so there is
/// nothing to undo if it has not.
pub(super) async fn complete_extend(act: &Act<'_>) -> Result<(), Fault> {
    act.fields
        .boolean("error")?
        .ok_or_else(|| act.fields.required("error"))?;
    act.on_volume("volume:extend_volume_completion", |_, volume| {
        if volume.status == VolumeStatus::Extending {
            return Ok(());
        }
        Err(Fault::bad_request(format!(
            "Invalid volume: it is {}, and must be extending.",
            volume.status
        )))
    })
    .await
}

pub(super) async fn retype(act: &Act<'_>) -> Result<(), Fault> {
    let wanted = act.fields.required_text("new_type", 1..=TEXT_MAX)?;
    let policy = act.fields.text("migration_policy", 0..=TEXT_MAX)?;
    if let Some(policy) = policy
        && !matches!(policy.as_str(), "never" | "on-demand")
    {
        return Err(Fault::bad_request(format!(
            "migration_policy must be 'on-demand' or 'never', passed: {policy}"
        )));
    }
    act.on_volume("volume:retype", |edit, volume| {
        let context = act.context;
        let tables = edit.tables;
        let kind = types::find(tables, context, &wanted)?;
        let invalid = |why: String| Err(Fault::bad_request(format!("Invalid input received: {why}")));
        if !AVAILABLE_OR_IN_USE.contains(&volume.status) {
            return invalid(format!(
                "Invalid volume: its status must be available or in-use, and is {}.",
                volume.status
            ));
        }
        if kind.id == volume.type_id {
            return invalid("Retype needs another volume type than the present one.".to_owned());
        }
        if volume.group_id.is_some() {
            return invalid("The volume is in a group.".to_owned());
        }
        let present = tables.types.get(&volume.type_id);
        let present = present.and_then(|present| present.encryption.as_ref());
        let is_alike = match (present, &kind.encryption) {
            (None, None) => true,
            (Some(present), Some(new)) => present.is_like(new),
            _ => false,
        };
        if !is_alike {
            return invalid("Retype cannot change encryption: copy the volume instead.".to_owned());
        }
        if kind.encryption.is_some() && kind.says_yes("multiattach") {
            return invalid(
                "Retype requested both encryption and multi-attach, which is not supported.".to_owned(),
            );
        }
        if volume.status == VolumeStatus::InUse && volume.multiattach != kind.says_yes("multiattach") {
            return invalid("Retype cannot change multiattach of a volume in use.".to_owned());
        }
        quota::take(edit, &volume.project_id, &Amounts::volume(&kind.id, volume.size))?;
        edit.rely(kind);
        edit.change(volume, |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::Retyping;
        });
        let task = Task::RetypeVolume {
            volume: volume.id.clone(),
            type_id: kind.id.clone(),
        };
        later(edit, context, &volume.project_id, task);
        Ok(())
    })
    .await
}

pub(super) async fn revert(act: &Act<'_>) -> Result<(), Fault> {
    let id = act
        .fields
        .uuid("snapshot_id")?
        .ok_or_else(|| act.fields.required("snapshot_id"))?;
    act.on_volume("volume:revert_to_snapshot", |edit, volume| {
        let tables = edit.tables;
        let snapshot = crate::api::snapshots::find(tables, act.context, &id)?;
        let invalid = |why: &str| Err(Fault::bad_request(format!("Invalid volume: {why}")));
        let newest = tables.snapshots.of_parent(&volume.id).next_back();
        if snapshot.volume_id != volume.id {
            return invalid("the snapshot is one of another volume.");
        }
        if newest.is_none_or(|newest| newest.id != snapshot.id) {
            return Err(Fault::bad_request(format!(
                "Invalid input received: Specified snapshot_id={id} is not the latest one of the volume."
            )));
        }
        if snapshot.size != volume.size {
            return invalid("its size is not that of the snapshot any more.");
        }
        match volume.status {
            VolumeStatus::Available => {}
            VolumeStatus::InUse => {
                return Err(Fault::conflict("Invalid volume: it is in use: detach it first."));
            }
            _ => return invalid(&format!("it is {}, and must be available.", volume.status)),
        }
        if snapshot.status != SnapshotStatus::Available {
            return Err(Fault::bad_request(format!(
                "Invalid snapshot: it is {}.",
                snapshot.status
            )));
        }
        edit.touch(snapshot);
        edit.change(volume, |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::Reverting;
        });
        let task = Task::RevertVolume {
            volume: volume.id.clone(),
            snapshot: id.clone(),
        };
        later(edit, act.context, &volume.project_id, task);
        Ok(())
    })
    .await
}
