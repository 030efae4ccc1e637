//! What only administrators do to volumes.

use axum::response::Response;
use serde_json::Value;

use super::Act;
use crate::api::volumes::begin_deletion;
use crate::fault::Fault;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::work;

pub(super) async fn reset_status(act: &Act<'_>) -> Result<(), Fault> {
    const RULE: &str = "volume_extension:volume_admin_actions:reset_status";
    act.service.check(RULE, act.context)?;
    act.fields
        .any_of(&["status", "attach_status", "migration_status"])?;
    let status = act.fields.named("status", VolumeStatus::parse)?;
    let attach_status = act.fields.named("attach_status", AttachStatus::parse)?;
    let migration = match act.fields.value("migration_status") {
        None => None,
        Some(Value::String(text)) if MIGRATION_STATUSES.contains(&text.as_str()) => Some(text.clone()),
        Some(other) => return Err(Fault::field("migration_status", other, "there is no such status")),
    };
    act.set(RULE, |volume| {
        volume.status = status.unwrap_or(volume.status);
        volume.attach_status = attach_status.unwrap_or(volume.attach_status);
        if let Some(migration) = &migration {
            volume.migration_status = Some(migration.clone()).filter(|migration| migration != "none");
        }
    })
    .await
}

/// What a volume's migration may be at.
const MIGRATION_STATUSES: &[&str] = &["migrating", "error", "success", "completing", "none", "starting"];

pub(super) async fn force_delete(act: &Act<'_>) -> Result<(), Fault> {
    const RULE: &str = "volume_extension:volume_admin_actions:force_delete";
    act.on_volume(RULE, |edit, volume| {
        begin_deletion(edit, act.context, volume);
        Ok(())
    })
    .await
}

/// The volume stays in the storage, and is OpenStack's no more.
pub(super) async fn unmanage(act: &Act<'_>) -> Result<(), Fault> {
    act.on_volume("volume_extension:volume_unmanage", |edit, volume| {
        if volume.encryption_key_id.is_some() {
            return Err(Fault::bad_request(
                "Invalid volume: Unmanaging encrypted volumes is not supported.",
            ));
        }
        let tables = edit.tables;
        let invalid = |why: &str| Err(Fault::bad_request(format!("Invalid volume: {why}")));
        if !matches!(volume.status, VolumeStatus::Available | VolumeStatus::Error) {
            return invalid(&format!(
                "it is {}, and must be available or in error.",
                volume.status
            ));
        }
        if tables.attachments.of_parent(&volume.id).next().is_some() {
            return invalid("it is attached.");
        }
        if tables.snapshots.of_parent(&volume.id).next().is_some() {
            return invalid("it has snapshots: give them up first.");
        }
        work::forget_volume(edit, &volume.id);
        Ok(())
    })
    .await
}

/// There is one host: what is to go to another pool is given another type, what is to go elsewhere cannot.
pub(super) async fn migrate(act: &Act<'_>) -> Result<(), Fault> {
    let host = act.fields.text("host", 0..=255)?;
    act.fields.boolean("force_host_copy")?;
    act.fields.boolean("lock_volume")?;
    act.on_volume("volume_extension:volume_admin_actions:migrate_volume", |_, volume| {
        let here = crate::api::volumes::view::host(act.service, volume);
        if host.is_some() && host == here {
            return Err(Fault::bad_request("Invalid host: the volume is there already."));
        }
        Err(Fault::bad_request(
            "Invalid host: No valid host was found. All pools are one storage: give the volume a type of another pool instead.",
        ))
    })
    .await
}

/// Only a migration that copies to a second volume has an end that somebody else says.
pub(super) async fn complete_migration(act: &Act<'_>) -> Result<Response, Fault> {
    act.fields.required_text("new_volume", 1..=255)?;
    act.fields.boolean("error")?;
    act.on_volume(
        "volume_extension:volume_admin_actions:migrate_volume_completion",
        |edit, volume| {
            edit.change(volume, |volume| volume.migration_status = None);
            Err(Fault::bad_request("Invalid volume: it is not migrating."))
        },
    )
    .await?;
    Ok(Response::default())
}
