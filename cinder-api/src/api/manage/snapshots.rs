//! Snapshots of the storage become OpenStack's: those of volumes that are.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::listing::{self, Row};
use super::{Reference, check_host, gib, host, nothing_listed};
use crate::api::{snapshots, storage_fault, volumes};
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::snapshot::SnapshotStatus;
use crate::records::{Instant, Snapshot, Tables};
use crate::request::{Body, Context, Query, Version};
use crate::service::{Service, Shared};

const RULE: &str = "snapshot_extension:snapshot_manage";
/// What Cinder's drivers put before names of snapshots: clients know them so.
const PREFIX: &str = "_";

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, false).await
}

pub(super) async fn list_detail(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, true).await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    with_detail: bool,
) -> Result<Json<Value>, Fault> {
    service.check("snapshot_extension:list_manageable", context)?;
    check_host(service, host(query), nothing_listed)?;
    let mut stored = Vec::new();
    let volumes = service
        .storage
        .directory()
        .volumes()
        .await
        .map_err(|error| storage_fault(&error))?;
    for volume in volumes.iter().filter(|volume| volume.snapshots > 0) {
        let snapshots = service.storage.directory().snapshots(&volume.name).await;
        // A volume that has gone meanwhile has none.
        stored.extend(
            snapshots
                .map_err(|error| storage_fault(&error))?
                .unwrap_or_default(),
        );
    }
    service.records.fresh().await?;
    let rows = {
        let tables = service.records.tables();
        let volumes = super::volumes::known(&tables);
        let known = known(&tables);
        stored
            .iter()
            .map(|snapshot| row(snapshot, &volumes, &known))
            .collect()
    };
    let page = listing::page(query, rows)?;
    let shown: Vec<Value> = page.iter().map(|row| row.view(with_detail)).collect();
    Ok(Json(json!({"manageable-snapshots": shown})))
}

/// OpenStack's snapshots, by their volume and their name in the storage.
fn known(tables: &Tables) -> BTreeMap<(&str, &str), &str> {
    let all = tables.snapshots.iter();
    all.map(|snapshot| {
        let place = (snapshot.volume_id.as_str(), snapshot.storage_name.as_str());
        (place, snapshot.id.as_str())
    })
    .collect()
}

fn row(
    snapshot: &admin_api::snapshots::Snapshot,
    volumes: &BTreeMap<&str, &str>,
    known: &BTreeMap<(&str, &str), &str>,
) -> Row {
    let volume = volumes.get(snapshot.volume.as_str());
    let known_as = volume.and_then(|volume| known.get(&(*volume, snapshot.name.as_str())));
    let obstacle = match (volume, known_as) {
        (_, Some(_)) => Some("already managed".to_owned()),
        (None, None) => Some("its volume is not managed".to_owned()),
        (Some(_), None) => None,
    };
    Row {
        name: snapshot.name.clone(),
        parent: Some(snapshot.volume.clone()),
        size: gib(snapshot.size),
        known_as: known_as.map(|id| (*id).to_owned()),
        obstacle,
    }
}

pub(super) async fn manage(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    service.check(RULE, &context)?;
    body.only(&["snapshot"])?;
    let fields = body.object("snapshot")?;
    fields.only(&["description", "metadata", "name", "volume_id", "ref"])?;
    let volume_id = fields
        .uuid("volume_id")?
        .ok_or_else(|| fields.required("volume_id"))?;
    let reference = Reference::read(fields, PREFIX)?;
    let name = fields.short_text("name")?;
    let description = fields.short_text("description")?;
    let metadata = fields.metadata("metadata")?.unwrap_or_default();
    service.records.fresh().await?;
    let storage_name = {
        let tables = service.records.tables();
        let volume = volumes::find_for(&service, &tables, &context, RULE, &volume_id)?;
        volume.storage_name.clone()
    };
    let found = look(&service, &storage_name, &reference).await?;
    let id = uuid::Uuid::new_v4().to_string();
    let taken_over = service.records.edit(|edit| {
        let tables = edit.tables;
        let volume = volumes::find_for(&service, tables, &context, RULE, &volume_id)?;
        let mut known = tables.snapshots.of_parent(&volume.id);
        if volume.storage_name != storage_name || known.any(|known| known.storage_name == found.name) {
            return Err(invalid("The snapshot is already managed."));
        }
        if !volumes::AVAILABLE_OR_IN_USE.contains(&volume.status) {
            return Err(Fault::bad_request(format!(
                "Invalid volume: Volume {} status must be available or in-use, and it is {}.",
                volume.id, volume.status
            )));
        }
        let snapshot = Snapshot {
            id: id.clone(),
            project_id: volume.project_id.clone(),
            user_id: context.caller.user_id.clone(),
            name: name.clone(),
            description: description.clone(),
            volume_id: volume.id.clone(),
            size: gib(found.size),
            status: SnapshotStatus::Available,
            progress: "100%".to_owned(),
            created_at: Instant::now(),
            updated_at: None,
            metadata: metadata.clone(),
            type_id: volume.type_id.clone(),
            group_snapshot_id: None,
            consumes_quota: true,
            storage_name: found.name.clone(),
        };
        let amounts = Amounts::snapshot(&snapshot.type_id, snapshot.size);
        quota::take(edit, &volume.project_id, &amounts)?;
        // Who takes over the same one, or deletes the volume, at the same time decides anew.
        edit.touch(volume);
        edit.insert(&snapshot);
        Ok(snapshot)
    });
    let snapshot = taken_over.await?;
    // The answer is the same in all versions.
    let context = Context {
        version: Version(0),
        ..context
    };
    let shown = json!({"snapshot": snapshots::summary(&context, &snapshot)});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

async fn look(
    service: &Service,
    volume: &str,
    reference: &Reference,
) -> Result<admin_api::snapshots::Snapshot, Fault> {
    let all = service.storage.directory().snapshots(volume).await;
    let all = all.map_err(|error| storage_fault(&error))?.unwrap_or_default();
    let is_meant = |snapshot: &admin_api::snapshots::Snapshot| match reference {
        Reference::Name(name) => snapshot.name == *name,
        Reference::Number(number) => snapshot.id == *number,
    };
    all.into_iter()
        .find(is_meant)
        .ok_or_else(|| invalid("the storage has no snapshot of that reference."))
}

fn invalid(why: &str) -> Fault {
    Fault::bad_request(format!(
        "Invalid snapshot: Manage existing snapshot failed: {why}"
    ))
}
