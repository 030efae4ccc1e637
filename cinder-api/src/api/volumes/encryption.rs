//! `/volumes/ID/encryption`: how a host decrypts what it reads.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::find_for;
use crate::fault::Fault;
use crate::request::Context;
use crate::service::{Service, Shared};

const READ: &str = "volume_extension:volume_encryption_metadata";

pub(super) async fn all(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    look(&service, &context, &id).map(Json)
}

pub(super) async fn one(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let all = look(&service, &context, &id)?;
    match all.get(&key) {
        Some(value) => Ok(Json(json!({key: value}))),
        None => Err(Fault::not_found(format!(
            "Volume {id} has no encryption metadata {key}."
        ))),
    }
}

fn look(service: &Service, context: &Context, id: &str) -> Result<Value, Fault> {
    let tables = service.records.tables();
    let volume = find_for(service, &tables, context, READ, id)?;
    let kind = tables.types.get(&volume.type_id);
    Ok(match kind.and_then(|kind| kind.encryption.as_ref()) {
        Some(encryption) => json!({
            "encryption_key_id": volume.encryption_key_id,
            "control_location": encryption.control_location,
            "cipher": encryption.cipher,
            "key_size": encryption.key_size,
            "provider": encryption.provider,
        }),
        None => json!({"encryption_key_id": null}),
    })
}
