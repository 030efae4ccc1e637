//! Which states volumes and attachments have while servers take and leave volumes. Pure decisions over records.

use crate::fault::Fault;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::records::{Attachment, Edit, Instant, Stored, Volume};
use crate::request::Context;
use crate::service::Service;

/// Holds a volume for a server: the volume is reserved then, unless the same server has it already, as in a live migration.
pub fn reserve(
    service: &Service,
    edit: &mut Edit<'_>,
    context: &Context,
    volume: &Stored<Volume>,
    instance: Option<&str>,
) -> Result<(), Fault> {
    let tables = edit.tables;
    let is_shared = volume.status == VolumeStatus::InUse && volume.multiattach;
    if matches!(volume.status, VolumeStatus::Available | VolumeStatus::Downloading) || is_shared {
        if is_shared && volume.bootable {
            service.check_for("volume:multiattach_bootable_volume", context, &volume.project_id)?;
        }
        edit.change(volume, |volume| volume.status = VolumeStatus::Reserved);
        return Ok(());
    }
    let is_taken = matches!(volume.status, VolumeStatus::InUse | VolumeStatus::Reserved);
    let mut attachments = tables.attachments.of_parent(&volume.id);
    let is_same =
        instance.is_some() && attachments.any(|attachment| attachment.instance_id.as_deref() == instance);
    if is_taken && is_same {
        edit.touch(volume);
        return Ok(());
    }
    Err(Fault::bad_request(format!(
        "Invalid volume: Volume {} status must be available or downloading to reserve, but the current status is {}.",
        volume.id, volume.status
    )))
}

/// The host of an attachment has its way: it is being attached.
pub fn connected(edit: &mut Edit<'_>, to: &Attachment) {
    let tables = edit.tables;
    let Some(stored) = tables.attachments.get(&to.id) else {
        return;
    };
    edit.replace(stored, to);
    if let Some(volume) = tables.volumes.get(&to.volume_id)
        && to.status == AttachStatus::Attaching
        && matches!(volume.status, VolumeStatus::Reserved | VolumeStatus::Available)
    {
        edit.change(volume, |volume| {
            volume.status = VolumeStatus::Attaching;
            volume.attach_status = AttachStatus::Attaching;
        });
    } else if let Some(volume) = tables.volumes.get(&to.volume_id) {
        edit.touch(volume);
    }
}

/// The server has the volume.
pub fn complete(edit: &mut Edit<'_>, attachment: &Stored<Attachment>) -> Result<(), Fault> {
    if attachment.connector.is_none() {
        return Err(Fault::bad_request(format!(
            "Invalid volume: attachment {} has no connector: its host has not asked for a connection.",
            attachment.id
        )));
    }
    let mut attached = attachment.record.clone();
    attached.status = AttachStatus::Attached;
    attached.attached_at = Some(attachment.attached_at.unwrap_or_else(Instant::now));
    edit.replace(attachment, &attached);
    let tables = edit.tables;
    if let Some(volume) = tables.volumes.get(&attachment.volume_id) {
        edit.change(volume, |volume| {
            volume.status = VolumeStatus::InUse;
            volume.attach_status = AttachStatus::Attached;
        });
    }
    Ok(())
}

/// An attachment is over: the volume is what those make it that are left.
pub fn remove(edit: &mut Edit<'_>, attachment: &Stored<Attachment>) {
    let tables = edit.tables;
    edit.remove(attachment);
    let Some(volume) = tables.volumes.get(&attachment.volume_id) else {
        return;
    };
    let left = tables
        .attachments
        .of_parent(&volume.id)
        .filter(|left| left.id != attachment.id);
    let strongest = left
        .map(|left| left.status)
        .max_by_key(|status| strength(*status));
    let (status, attach_status) = match strongest {
        Some(AttachStatus::Attached) => (VolumeStatus::InUse, AttachStatus::Attached),
        Some(AttachStatus::Attaching) => (VolumeStatus::Attaching, AttachStatus::Attaching),
        Some(AttachStatus::Reserved) => (VolumeStatus::Reserved, AttachStatus::Detached),
        _ => (VolumeStatus::Available, AttachStatus::Detached),
    };
    // What is being deleted, or is in error, does not become available by the end of an attachment.
    let follows = matches!(
        volume.status,
        VolumeStatus::InUse
            | VolumeStatus::Attaching
            | VolumeStatus::Detaching
            | VolumeStatus::Reserved
            | VolumeStatus::Available
    );
    edit.change(volume, |volume| {
        volume.attach_status = attach_status;
        if follows {
            volume.status = status;
        }
        if attach_status == AttachStatus::Detached {
            volume.previous_status = Some(VolumeStatus::Available);
        }
    });
}

fn strength(status: AttachStatus) -> u8 {
    match status {
        AttachStatus::Attached => 3,
        AttachStatus::Attaching => 2,
        AttachStatus::Reserved => 1,
        _ => 0,
    }
}
