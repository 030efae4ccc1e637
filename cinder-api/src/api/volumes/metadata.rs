//! `/volumes/ID/metadata`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{change, find_for};
use crate::api::metadata::{self, Metadata};
use crate::door;
use crate::fault::Fault;
use crate::records::volume::VolumeStatus;
use crate::request::{Body, Context};
use crate::service::{Service, Shared};

const READ: &str = "volume:get_volume_metadata";
const WRITE: &str = "volume:update_volume_metadata";
const DELETE: &str = "volume:delete_volume_metadata";

pub(super) async fn all(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let volume = find_for(&service, &tables, &context, READ, &id)?;
    Ok(metadata::answer(&context, &volume.metadata))
}

pub(super) async fn merge(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let more = metadata::all(&body)?;
    edit(&service, &context, (WRITE, &id), &headers, |metadata| {
        metadata.extend(more.clone());
        Ok(())
    })
    .await
    .map(|metadata| metadata::answer(&context, &metadata))
}

pub(super) async fn replace(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let new = metadata::all(&body)?;
    edit(&service, &context, (WRITE, &id), &headers, |metadata| {
        metadata.clone_from(&new);
        Ok(())
    })
    .await
    .map(|metadata| metadata::answer(&context, &metadata))
}

pub(super) async fn one(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let volume = find_for(&service, &tables, &context, READ, &id)?;
    let value = volume.metadata.get(&key).ok_or_else(|| metadata::no_key(&key))?;
    Ok(Json(json!({"meta": {key: value}})))
}

pub(super) async fn set(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Fault> {
    let value = metadata::one(&body, &key)?;
    edit(&service, &context, (WRITE, &id), &headers, |metadata| {
        metadata.insert(key.clone(), value.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"meta": {key: value}})))
}

pub(super) async fn remove(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    edit(&service, &context, (DELETE, &id), &headers, |metadata| {
        metadata
            .remove(&key)
            .map(|_| ())
            .ok_or_else(|| metadata::no_key(&key))
    })
    .await?;
    Ok(door::empty(StatusCode::OK).into_response())
}

async fn edit(
    service: &Service,
    context: &Context,
    (rule, id): (&str, &str),
    headers: &HeaderMap,
    becomes: impl Fn(&mut Metadata) -> Result<(), Fault>,
) -> Result<Metadata, Fault> {
    let edited = service.records.edit(|edit| {
        let stored = find_for(service, edit.tables, context, rule, id)?;
        if matches!(stored.status, VolumeStatus::Maintenance | VolumeStatus::Uploading) {
            return Err(Fault::bad_request(format!(
                "Invalid volume: its status is {}.",
                stored.status
            )));
        }
        metadata::check_match(context, headers, &stored.metadata)?;
        let mut new = stored.metadata.clone();
        becomes(&mut new)?;
        change(edit, stored, |volume| volume.metadata.clone_from(&new));
        Ok(new)
    });
    edited.await
}
