//! `/types/ID/extra_specs`: what the scheduler and clients go by.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::specs::{self, Specs};
use super::{has_volumes, look, view};
use crate::door;
use crate::fault::Fault;
use crate::records::Instant;
use crate::request::{Body, Context};
use crate::service::{Service, Shared};

pub(super) async fn all(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:types_extra_specs:index", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let kind = look(&tables, &context, &id)?;
    Ok(Json(
        json!({"extra_specs": view::specs(&service, &context, kind)}),
    ))
}

pub(super) async fn one(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:types_extra_specs:show", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let kind = look(&tables, &context, &id)?;
    let specs = view::specs(&service, &context, kind);
    let value = specs.get(&key).ok_or_else(|| no_key(&id, &key))?;
    Ok(Json(json!({key: value})))
}

fn no_key(id: &str, key: &str) -> Fault {
    Fault::not_found(format!("Volume Type {id} has no extra specs with key {key}."))
}

pub(super) async fn merge(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:types_extra_specs:create", &context)?;
    body.only(&["extra_specs"])?;
    let specs = specs::read(body.object("extra_specs")?.0, false)?;
    edit(&service, &context, &id, |known| {
        known.extend(specs.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"extra_specs": specs})))
}

pub(super) async fn set(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:types_extra_specs:update", &context)?;
    if body.0.len() != 1 {
        return Err(Fault::bad_request("Request body contains too many items"));
    }
    let specs = specs::read(&body.0, false)?;
    if !body.0.contains_key(&key) {
        return Err(Fault::bad_request("Request body and URI mismatch"));
    }
    edit(&service, &context, &id, |known| {
        known.extend(specs.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!(specs)))
}

pub(super) async fn remove(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response, Fault> {
    service.check("volume_extension:types_extra_specs:delete", &context)?;
    edit(&service, &context, &id, |known| {
        known.remove(&key).map(|_| ()).ok_or_else(|| no_key(&id, &key))
    })
    .await?;
    Ok(door::accepted())
}

/// What volumes were made by is not changed under them.
async fn edit(
    service: &Service,
    context: &Context,
    id: &str,
    becomes: impl Fn(&mut Specs) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let edited = service.records.edit(|edit| {
        let stored = look(edit.tables, context, id)?;
        if has_volumes(edit.tables, id) {
            return Err(Fault::bad_request("Volume Type is currently in use."));
        }
        let mut kind = stored.record.clone();
        becomes(&mut kind.extra_specs)?;
        if kind.says_yes("multiattach") && kind.says_yes("cacheable") {
            return Err(Fault::bad_request("cacheable cannot be set with multiattach."));
        }
        kind.updated_at = Some(Instant::now());
        edit.replace(stored, &kind);
        Ok(())
    });
    edited.await
}
