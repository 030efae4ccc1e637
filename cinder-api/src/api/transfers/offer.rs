//! Volumes are offered, and offers taken back.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::passage::{self, Towards};
use super::{SNAPSHOTS_SINCE, accepted, detail, find, key};
use crate::api::volumes::{self};
use crate::door;
use crate::fault::Fault;
use crate::records::snapshot::SnapshotStatus;
use crate::records::transfer::Transfer;
use crate::records::volume::VolumeStatus;
use crate::records::{Instant, Tables, Volume};
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context};
use crate::service::Shared;

pub(super) async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    body.only(&["transfer"])?;
    let fields = body.object("transfer")?;
    let mut known = vec!["volume_id", "name"];
    if context.version.is(SNAPSHOTS_SINCE) {
        known.push("no_snapshots");
    }
    fields.only(&known)?;
    let volume = fields
        .uuid("volume_id")?
        .ok_or_else(|| fields.required("volume_id"))?;
    let name = fields.text("name", 1..=TEXT_MAX)?;
    let no_snapshots = fields.boolean("no_snapshots")?.unwrap_or(false);
    let (salt, auth_key) = (key::generate(), key::generate());
    let id = uuid::Uuid::new_v4().to_string();
    let moved = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        let stored = volumes::find_for(&service, &tables, &context, "volume:create_transfer", &volume)?;
        check(&tables, &context, stored, no_snapshots)?;
        stored.encryption_key_id.clone()
    };
    // Nobody's token but this service's opens it until somebody takes it.
    let moved = passage::begin(&service, &context, moved, Towards::Service).await?;
    let offered = service.records.edit(|edit| {
        let stored =
            volumes::find_for(&service, edit.tables, &context, "volume:create_transfer", &volume)?.clone();
        check(edit.tables, &context, &stored, no_snapshots)?;
        let transfer = Transfer {
            id: id.clone(),
            volume_id: stored.id.clone(),
            name: name.clone(),
            key_hash: key::hash(&salt, &auth_key),
            salt: salt.clone(),
            source_project_id: stored.project_id.clone(),
            destination_project_id: None,
            accepted: false,
            no_snapshots,
            created_at: Instant::now(),
        };
        let key = passage::fits(&stored, moved.as_ref())?;
        edit.change(&stored, |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::AwaitingTransfer;
            volume.encryption_key_id.clone_from(&key);
        });
        edit.insert(&transfer);
        Ok::<_, Fault>(transfer)
    });
    let offered = offered.await;
    passage::end(&service, &context, moved, offered.is_ok()).await;
    let mut shown = detail(&context, &offered?);
    shown["auth_key"] = json!(auth_key);
    Ok(accepted(&shown))
}

/// Refuses an offer of what cannot go to another project.
fn check(tables: &Tables, context: &Context, volume: &Volume, no_snapshots: bool) -> Result<(), Fault> {
    let invalid = |why: &str| Err(Fault::bad_request(format!("Invalid volume: {why}")));
    if volume.status != VolumeStatus::Available {
        return invalid("status must be available");
    }
    if volume.group_id.is_some() {
        return invalid("it is in a group, which stays where it is: take it out first.");
    }
    if volume.encryption_key_id.is_some() && (no_snapshots || !context.version.is(70)) {
        return invalid("transferring an encrypted volume is not supported in this way");
    }
    let mut snapshots = tables.snapshots.of_parent(&volume.id);
    let busy = snapshots.find(|snapshot| snapshot.status != SnapshotStatus::Available);
    match busy.filter(|_| !no_snapshots) {
        None => Ok(()),
        Some(snapshot) => Err(Fault::bad_request(format!(
            "Invalid snapshot: snapshot: {} status must be available",
            snapshot.id
        ))),
    }
}

pub(super) async fn delete(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let moved = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        let transfer = find(&tables, &context, &id)?;
        service.check_for("volume:delete_transfer", &context, &transfer.source_project_id)?;
        passage::key_of(&tables, transfer)
    };
    let moved = passage::begin(&service, &context, moved, Towards::Caller).await?;
    let taken_back = service.records.edit(|edit| {
        let tables = edit.tables;
        let transfer = find(tables, &context, &id)?;
        service.check_for("volume:delete_transfer", &context, &transfer.source_project_id)?;
        let volume = tables.volumes.get(&transfer.volume_id);
        // An operator may have said otherwise meanwhile.
        if let Some(volume) = volume.filter(|volume| volume.status == VolumeStatus::AwaitingTransfer) {
            let key = passage::fits(volume, moved.as_ref())?;
            edit.change(volume, |volume| {
                volume.status = VolumeStatus::Available;
                volume.encryption_key_id.clone_from(&key);
            });
        }
        edit.remove(transfer);
        Ok::<_, Fault>(())
    });
    let taken_back = taken_back.await;
    passage::end(&service, &context, moved, taken_back.is_ok()).await;
    taken_back?;
    Ok(door::accepted())
}
