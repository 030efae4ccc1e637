//! `/types/ID/encryption`: how volumes of a type are encrypted, for the hosts that do it.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{look, unused};
use crate::door;
use crate::fault::Fault;
use crate::records::volume_type::Encryption;
use crate::records::{Instant, Tables, VolumeType};
use crate::request::body::{INTEGER_MAX, TEXT_MAX};
use crate::request::{Body, Context, Fields};
use crate::service::Shared;

/// Where encryption can be done.
const LOCATIONS: &[&str] = &["front-end", "back-end"];
/// The refusal where volumes are there already: they are as they were made.
const IN_USE: &str = "Cannot change encryption specs. Volume type in use.";

/// All that is said of a type's encryption; nothing if it has none.
fn full(kind: &VolumeType) -> Map<String, Value> {
    let Some(encryption) = &kind.encryption else {
        return Map::new();
    };
    let shown = json!({
        "volume_type_id": kind.id,
        "encryption_id": encryption.id,
        "key_size": encryption.key_size,
        "provider": encryption.provider,
        "control_location": encryption.control_location,
        "cipher": encryption.cipher,
        "deleted": false,
        "created_at": encryption.created_at.to_string(),
        "updated_at": encryption.updated_at.as_ref().map(Instant::to_string),
        "deleted_at": Value::Null,
    });
    match shown {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

pub(super) async fn all(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:volume_type_encryption:get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    Ok(Json(full(look(&tables, &context, &id)?).into()))
}

pub(super) async fn one(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:volume_type_encryption:get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let mut shown = full(look(&tables, &context, &id)?);
    let value = shown.remove(&key).ok_or_else(|| none(&id))?;
    Ok(Json(json!({key: value})))
}

fn none(id: &str) -> Fault {
    Fault::not_found(format!("Volume type encryption for type {id} does not exist."))
}

/// What a body says; what it does not say is nothing here.
struct Wanted {
    provider: Option<String>,
    control_location: Option<String>,
    cipher: Option<String>,
    key_size: Option<u64>,
}

fn read(body: &Body) -> Result<Wanted, Fault> {
    body.only(&["encryption"])?;
    let fields = body.object("encryption")?;
    let control_location = fields.short_text("control_location")?;
    if let Some(location) = &control_location
        && !LOCATIONS.contains(&location.as_str())
    {
        let value = Value::String(location.clone());
        return Err(Fault::field(
            "control_location",
            &value,
            &format!("'{location}' is not one of {LOCATIONS:?}"),
        ));
    }
    Ok(Wanted {
        provider: fields.text("provider", 0..=TEXT_MAX)?,
        control_location,
        cipher: fields.short_text("cipher")?,
        key_size: fields
            .integer("key_size", 0..=INTEGER_MAX)?
            .and_then(|size| u64::try_from(size).ok()),
    })
}

pub(super) async fn create(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:volume_type_encryption:create", &context)?;
    let wanted = read(&body)?;
    let required = |name: &str| Fields(&body.0).required(name);
    let encryption = Encryption {
        id: uuid::Uuid::new_v4().to_string(),
        provider: wanted.provider.ok_or_else(|| required("provider"))?,
        control_location: wanted
            .control_location
            .ok_or_else(|| required("control_location"))?,
        cipher: wanted.cipher,
        key_size: wanted.key_size,
        created_at: Instant::now(),
        updated_at: None,
    };
    let may_be = |_: &Tables, kind: &VolumeType| {
        if kind.encryption.is_none() {
            return Ok(());
        }
        Err(Fault::bad_request(format!(
            "Volume type encryption for type {} already exists.",
            kind.id
        )))
    };
    unused(&service, &context, &id, IN_USE, may_be, |edit, stored| {
        let mut kind = stored.record.clone();
        kind.encryption = Some(encryption.clone());
        kind.deleting = false;
        edit.replace(stored, &kind);
    })
    .await?;
    Ok(Json(json!({"encryption": {
        "volume_type_id": id,
        "encryption_id": encryption.id,
        "key_size": encryption.key_size,
        "provider": encryption.provider,
        "control_location": encryption.control_location,
        "cipher": encryption.cipher,
    }})))
}

pub(super) async fn update(
    State(service): Shared,
    context: Context,
    Path((id, encryption_id)): Path<(String, String)>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:volume_type_encryption:update", &context)?;
    let wanted = read(&body)?;
    let fields = body.object("encryption")?;
    let is_there = |_: &Tables, kind: &VolumeType| has(kind, &encryption_id);
    unused(&service, &context, &id, IN_USE, is_there, |edit, stored| {
        let mut kind = stored.record.clone();
        kind.deleting = false;
        if let Some(encryption) = &mut kind.encryption {
            if let Some(provider) = &wanted.provider {
                encryption.provider.clone_from(provider);
            }
            if let Some(location) = &wanted.control_location {
                encryption.control_location.clone_from(location);
            }
            if fields.has("cipher") {
                encryption.cipher.clone_from(&wanted.cipher);
            }
            if fields.has("key_size") {
                encryption.key_size = wanted.key_size;
            }
            encryption.updated_at = Some(Instant::now());
        }
        edit.replace(stored, &kind);
    })
    .await?;
    let mut shown = fields.0.clone();
    if fields.has("key_size") {
        shown.insert("key_size".to_owned(), json!(wanted.key_size));
    }
    Ok(Json(json!({"encryption": shown})))
}

fn has(kind: &VolumeType, encryption_id: &str) -> Result<(), Fault> {
    let encryption = kind.encryption.as_ref();
    let is_meant = encryption.is_some_and(|encryption| encryption.id == encryption_id);
    if is_meant { Ok(()) } else { Err(none(&kind.id)) }
}

pub(super) async fn delete(
    State(service): Shared,
    context: Context,
    Path((id, encryption_id)): Path<(String, String)>,
) -> Result<Response, Fault> {
    service.check("volume_extension:volume_type_encryption:delete", &context)?;
    let is_there = |_: &Tables, kind: &VolumeType| has(kind, &encryption_id);
    unused(&service, &context, &id, IN_USE, is_there, |edit, stored| {
        let mut kind = stored.record.clone();
        kind.deleting = false;
        kind.encryption = None;
        edit.replace(stored, &kind);
    })
    .await?;
    Ok(door::accepted())
}
