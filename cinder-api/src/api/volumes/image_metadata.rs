//! What a volume knows of the image that it was made from, and what users say of that.

use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::actions::Act;
use super::find_for;
use crate::fault::Fault;
use crate::request::body::TEXT_MAX;

pub(super) async fn set(act: &Act<'_>) -> Result<Response, Fault> {
    const RULE: &str = "volume_extension:volume_image_metadata:set";
    let more = act
        .fields
        .metadata("metadata")?
        .ok_or_else(|| act.fields.required("metadata"))?;
    act.set(RULE, |volume| volume.image_metadata.extend(more.clone()))
        .await?;
    answer(act, RULE)
}

pub(super) async fn unset(act: &Act<'_>) -> Result<(), Fault> {
    let key = act.fields.required_text("key", 1..=TEXT_MAX)?;
    act.on_volume("volume_extension:volume_image_metadata:remove", |edit, volume| {
        if !volume.image_metadata.contains_key(&key) {
            return Err(Fault::not_found(format!(
                "Metadata item was not found: there is no key {key}."
            )));
        }
        edit.change(volume, |volume| {
            volume.image_metadata.remove(&key);
        });
        Ok(())
    })
    .await
}

pub(super) async fn show(act: &Act<'_>) -> Result<Response, Fault> {
    act.service.records.fresh().await?;
    answer(act, "volume_extension:volume_image_metadata:show")
}

fn answer(act: &Act<'_>, rule: &str) -> Result<Response, Fault> {
    let tables = act.service.records.tables();
    let volume = find_for(act.service, &tables, act.context, rule, act.id)?;
    Ok(axum::Json(json!({"metadata": volume.image_metadata})).into_response())
}
