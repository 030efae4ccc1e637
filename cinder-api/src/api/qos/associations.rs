//! Which types have which limits. The types say it; a change of that writes both records, so that limits do not go while a
//! type gets them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::look;
use crate::api::volumes::later;
use crate::door;
use crate::fault::Fault;
use crate::records::job::Task;
use crate::records::qos::{Consumer, QosSpecs};
use crate::records::{Edit, Instant, Stored, Tables, VolumeType};
use crate::request::{Context, Query};
use crate::service::{Service, Shared};

/// The most types that lose their limits in one transaction.
const TYPES_AT_ONCE: usize = 50;

/// The types that have these limits.
pub(super) fn of<'a>(
    tables: &'a Tables,
    id: &str,
) -> impl Iterator<Item = &'a Arc<Stored<VolumeType>>> + use<'a> {
    let id = id.to_owned();
    let types = tables.types.iter();
    types.filter(move |kind| kind.qos_id.as_ref() == Some(&id))
}

pub(super) async fn all(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:qos_specs_manage:get_all", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    look(&tables, &id)?;
    let show = |kind: &Arc<Stored<VolumeType>>| json!({"association_type": "volume_type", "name": kind.name, "id": kind.id});
    let shown: Vec<Value> = of(&tables, &id).map(show).collect();
    Ok(Json(json!({"qos_associations": shown})))
}

fn type_id(query: &Query) -> Result<&str, Fault> {
    let id = query.get("vol_type_id").filter(|id| !id.is_empty());
    id.ok_or_else(|| Fault::bad_request("Volume Type id must not be None."))
}

fn kind<'a>(tables: &'a Tables, id: &str) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    let found = tables.types.get(id);
    found.ok_or_else(|| Fault::not_found(format!("Volume type {id} could not be found.")))
}

pub(super) async fn add(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Fault> {
    service.check("volume_extension:qos_specs_manage:update", &context)?;
    let type_id = type_id(&query)?;
    let added = service.records.edit(|edit| {
        let tables = edit.tables;
        let qos = look(tables, &id)?;
        let kind = kind(tables, type_id)?;
        match &kind.qos_id {
            Some(known) if *known == id => return Ok(()),
            Some(other) => {
                return Err(Fault::bad_request(format!(
                    "Invalid volume type: Type {type_id} is already associated with another qos specs: {other}"
                )));
            }
            None => {}
        }
        edit.touch(qos);
        set(edit, &context, kind, Some(qos));
        Ok(())
    });
    added.await?;
    Ok(door::accepted())
}

/// Gives a type these limits, or none any more; its volumes follow.
fn set(edit: &mut Edit<'_>, context: &Context, stored: &Stored<VolumeType>, qos: Option<&Stored<QosSpecs>>) {
    let mut kind = stored.record.clone();
    kind.qos_id = qos.map(|qos| qos.id.clone());
    kind.updated_at = Some(Instant::now());
    edit.replace(stored, &kind);
    let former = stored.qos_id.as_ref().and_then(|id| edit.tables.qos.get(id));
    let both = qos.into_iter().chain(former.map(AsRef::as_ref));
    if both.map(|qos| qos.consumer).any(Consumer::is_for_back_end) {
        let task = Task::LimitVolumesOfType {
            type_id: kind.id.clone(),
        };
        follow(edit, context, task);
    }
}

/// Has the volumes follow, later: for nobody's project if the caller works in none.
pub(super) fn follow(edit: &mut Edit<'_>, context: &Context, task: Task) {
    let project = context.project().unwrap_or_default().to_owned();
    later(edit, context, &project, task);
}

pub(super) async fn remove(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Fault> {
    service.check("volume_extension:qos_specs_manage:update", &context)?;
    let type_id = type_id(&query)?;
    let removed = service.records.edit(|edit| {
        let tables = edit.tables;
        look(tables, &id)?;
        let kind = kind(tables, type_id)?;
        if kind.qos_id.as_ref() == Some(&id) {
            set(edit, &context, kind, None);
        }
        Ok::<_, Fault>(())
    });
    removed.await?;
    Ok(door::accepted())
}

pub(super) async fn remove_all(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    service.check("volume_extension:qos_specs_manage:update", &context)?;
    service.records.fresh().await?;
    look(&service.records.tables(), &id)?;
    clear(&service, &context, &id).await?;
    Ok(door::accepted())
}

/// Takes these limits from all types that have them, some at a time: a transaction has a limit, too.
pub(super) async fn clear(service: &Service, context: &Context, id: &str) -> Result<(), Fault> {
    loop {
        let cleared = service.records.edit(|edit| {
            let kinds: Vec<_> = of(edit.tables, id).take(TYPES_AT_ONCE).collect();
            for kind in &kinds {
                set(edit, context, kind, None);
            }
            Ok::<_, Fault>(kinds.len())
        });
        if cleared.await? < TYPES_AT_ONCE {
            return Ok(());
        }
    }
}
