//! Attaching and detaching as older clients do it, without attachments of their own making.

use super::Act;
use crate::api::attachments::{connection, guard};
use crate::api::volumes::find_for;
use crate::fault::Fault;
use crate::records::attachment::AttachMode;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::records::{Attachment, Instant};
use crate::request::body::TEXT_MAX;

fn invalid<T>(why: impl AsRef<str>) -> Result<T, Fault> {
    Err(Fault::bad_request(format!("Invalid volume: {}", why.as_ref())))
}

pub(super) async fn reserve(act: &Act<'_>) -> Result<(), Fault> {
    act.on_volume("volume_extension:volume_actions:reserve", |edit, volume| {
        let is_shared = volume.status == VolumeStatus::InUse && volume.multiattach;
        if volume.status != VolumeStatus::Available && !is_shared {
            return invalid(format!(
                "Volume status must be available to reserve, and it is {}.",
                volume.status
            ));
        }
        edit.change(volume, |volume| volume.status = VolumeStatus::Attaching);
        Ok(())
    })
    .await
}

pub(super) async fn unreserve(act: &Act<'_>) -> Result<(), Fault> {
    act.on_volume("volume_extension:volume_actions:unreserve", |edit, volume| {
        if volume.status != VolumeStatus::Attaching {
            return Ok(());
        }
        let tables = edit.tables;
        let mut attachments = tables.attachments.of_parent(&volume.id);
        let is_attached = attachments.any(|attachment| attachment.status == AttachStatus::Attached);
        edit.change(volume, |volume| {
            volume.status = if is_attached {
                VolumeStatus::InUse
            } else {
                VolumeStatus::Available
            };
        });
        Ok(())
    })
    .await
}

pub(super) async fn begin_detaching(act: &Act<'_>) -> Result<(), Fault> {
    act.on_volume(
        "volume_extension:volume_actions:begin_detaching",
        |edit, volume| {
            if volume.status != VolumeStatus::InUse || volume.attach_status != AttachStatus::Attached {
                return invalid(format!(
                    "it must be in-use and attached to be detached, and it is {}.",
                    volume.status
                ));
            }
            edit.change(volume, |volume| volume.status = VolumeStatus::Detaching);
            Ok(())
        },
    )
    .await
}

pub(super) async fn roll_detaching(act: &Act<'_>) -> Result<(), Fault> {
    act.on_volume(
        "volume_extension:volume_actions:roll_detaching",
        |edit, volume| {
            if volume.status == VolumeStatus::Detaching {
                edit.change(volume, |volume| volume.status = VolumeStatus::InUse);
            }
            Ok(())
        },
    )
    .await
}

pub(super) async fn attach(act: &Act<'_>) -> Result<(), Fault> {
    let mount_point = act.fields.required_text("mountpoint", 1..=TEXT_MAX)?;
    let instance = act.fields.uuid("instance_uuid")?;
    let host = act.fields.text("host_name", 1..=TEXT_MAX)?;
    if instance.is_some() == host.is_some() {
        return Err(Fault::bad_request(
            "Invalid request to attach volume to an invalid target: name a server or a host.",
        ));
    }
    let mode = match act.fields.value("mode") {
        None => AttachMode::ReadWrite,
        Some(value) => {
            let mode = value.as_str().and_then(AttachMode::parse);
            mode.ok_or_else(|| Fault::field("mode", value, "it must be rw or ro"))?
        }
    };
    act.on_volume("volume_extension:volume_actions:attach", |edit, volume| {
        let is_shared = volume.status == VolumeStatus::InUse && volume.multiattach;
        let is_free = matches!(volume.status, VolumeStatus::Available | VolumeStatus::Attaching);
        if !is_free && !is_shared {
            return invalid(format!(
                "Volume status must be available or attaching to attach, and it is {}.",
                volume.status
            ));
        }
        if volume.read_only == Some(true) && mode == AttachMode::ReadWrite {
            return invalid("it is read-only, and cannot be attached for writing.");
        }
        edit.insert(&Attachment {
            id: uuid::Uuid::new_v4().to_string(),
            project_id: volume.project_id.clone(),
            volume_id: volume.id.clone(),
            instance_id: instance.clone(),
            host: host.clone(),
            mount_point: Some(mount_point.clone()),
            status: AttachStatus::Attached,
            mode: Some(mode),
            connector: None,
            connection: None,
            created_at: Instant::now(),
            attached_at: Some(Instant::now()),
        });
        edit.change(volume, |volume| {
            volume.status = VolumeStatus::InUse;
            volume.attach_status = AttachStatus::Attached;
            volume.read_only = Some(volume.read_only.unwrap_or(mode == AttachMode::ReadOnly));
        });
        Ok(())
    })
    .await
}

/// With force an administrator ends also what was never finished.
pub(super) async fn detach(act: &Act<'_>, force: bool) -> Result<(), Fault> {
    let rule = if force {
        "volume_extension:volume_admin_actions:force_detach"
    } else {
        "volume_extension:volume_actions:detach"
    };
    let named = act.fields.uuid("attachment_id")?;
    let service = act.service;
    service.records.fresh().await?;
    let attachment = {
        let tables = service.records.tables();
        let volume = find_for(service, &tables, act.context, rule, act.id)?;
        let mut attachments = tables.attachments.of_parent(&volume.id);
        let found = if let Some(named) = &named {
            attachments.find(|attachment| attachment.id == *named)
        } else {
            let first = attachments.next();
            if attachments.next().is_some() {
                return invalid(
                    "Detach volume failed: More than one attachment, but no attachment_id provided.",
                );
            }
            first
        };
        found.map(|found| found.record.clone())
    };
    let Some(attachment) = attachment else {
        return release(act, rule, named.as_deref()).await;
    };
    guard::check(service, act.context, &attachment).await?;
    connection::disconnect(service, act.context, &attachment.id).await
}

/// Detaches what has no attachment: a volume that was only reserved, or whose attachment is gone already.
async fn release(act: &Act<'_>, rule: &str, named: Option<&str>) -> Result<(), Fault> {
    act.on_volume(rule, |edit, volume| {
        if let Some(named) = named {
            return Err(Fault::not_found(format!(
                "Volume attachment could not be found: {named}."
            )));
        }
        if !matches!(
            volume.status,
            VolumeStatus::InUse | VolumeStatus::Detaching | VolumeStatus::Attaching | VolumeStatus::Reserved
        ) {
            return invalid(format!("it is {}, and attached to nothing.", volume.status));
        }
        edit.change(volume, |volume| {
            volume.status = VolumeStatus::Available;
            volume.attach_status = AttachStatus::Detached;
        });
        Ok(())
    })
    .await
}
