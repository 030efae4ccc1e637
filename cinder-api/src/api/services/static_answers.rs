//! What does not change while the program runs: zones, filters, and that there are no clusters.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::{attachments, backups, messages, snapshots, types, volumes};
use crate::fault::Fault;
use crate::request::{Body, Context, Fields, Query};
use crate::service::Shared;

/// Filters of groups, for everybody.
const GROUP_FILTERS: &[&str] = &["name"];
/// Filters of group snapshots, for everybody.
const GROUP_SNAPSHOT_FILTERS: &[&str] = &["name", "status", "group_id"];
/// Filters of pools, for administrators.
const POOL_FILTERS: &[&str] = &["name", "volume_type"];

pub(super) async fn zones(State(service): Shared) -> Json<Value> {
    Json(json!({"availabilityZoneInfo": [{
        "zoneName": service.settings.availability_zone,
        "zoneState": {"available": true},
    }]}))
}

pub(super) async fn resource_filters(context: Context, query: Query) -> Result<Json<Value>, Fault> {
    context.since(33)?;
    let all: [(&str, &[&str]); 9] = [
        ("volume", volumes::FILTERS),
        ("backup", backups::FILTERS),
        ("snapshot", snapshots::FILTERS),
        ("group", GROUP_FILTERS),
        ("group_snapshot", GROUP_SNAPSHOT_FILTERS),
        ("attachment", attachments::FILTERS),
        ("message", messages::FILTERS),
        ("pool", POOL_FILTERS),
        ("volume_type", types::FILTERS),
    ];
    let asked = query.get("resource");
    let shown: Vec<Value> = all
        .iter()
        .filter(|(resource, _)| asked.is_none_or(|asked| asked == *resource))
        .map(|(resource, filters)| json!({"resource": resource, "filters": filters}))
        .collect();
    Ok(Json(json!({"resource_filters": shown})))
}

/// The processes of this program have all in common, and are no cluster in Cinder's sense.
pub(super) async fn clusters(State(service): Shared, context: Context) -> Result<Json<Value>, Fault> {
    context.since(7)?;
    service.check("clusters:get_all", &context)?;
    Ok(Json(json!({"clusters": []})))
}

pub(super) async fn cluster(
    State(service): Shared,
    context: Context,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    context.since(7)?;
    service.check("clusters:get", &context)?;
    Err(Fault::not_found(format!("Cluster {name} could not be found.")))
}

/// What a process that has died has left is taken up by others by itself: there is nothing to clean up.
pub(super) async fn cleanup(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    context.since(24)?;
    service.check("workers:cleanup", &context)?;
    Fields(&body.0).only(&[
        "cluster_name",
        "disabled",
        "host",
        "is_up",
        "binary",
        "resource_id",
        "resource_type",
        "service_id",
    ])?;
    let shown = json!({"cleaning": [], "unavailable": []});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}
