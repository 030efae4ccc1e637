//! `/os-quota-sets/PROJECT`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{check_project, read, set_of};
use crate::door;
use crate::fault::Fault;
use crate::quota::{self, PER_VOLUME_GIGABYTES};
use crate::records::quota::Limits;
use crate::request::{Body, Context, Query};
use crate::service::Shared;

fn answer(mut set: Map<String, Value>, project: &str) -> Json<Value> {
    set.insert("id".to_owned(), project.into());
    Json(json!({"quota_set": set}))
}

pub(super) async fn show(
    State(service): Shared,
    context: Context,
    Path(project): Path<String>,
    query: Query,
) -> Result<Json<Value>, Fault> {
    service.check_for("volume_extension:quotas:show", &context, &project)?;
    let with_usage = query.boolean("usage")?.unwrap_or(false);
    service.records.fresh().await?;
    let tables = service.records.tables();
    let set = set_of(&tables, |resource| {
        let limit = quota::limit(&tables, &project, resource);
        if with_usage {
            let used = quota::used(&tables, &project, resource);
            json!({"limit": limit, "in_use": used, "reserved": 0})
        } else {
            json!(limit)
        }
    });
    Ok(answer(set, &project))
}

pub(super) async fn defaults(
    State(service): Shared,
    context: Context,
    Path(project): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check_for("volume_extension:quotas:show", &context, &project)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let set = set_of(&tables, |resource| quota::default_limit(&tables, resource));
    Ok(answer(set, &project))
}

pub(super) async fn update(
    State(service): Shared,
    context: Context,
    Path(project): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check_for("volume_extension:quotas:update", &context, &project)?;
    check_project(&project)?;
    body.only(&["quota_set"])?;
    let fields = body.object("quota_set")?;
    if fields.0.is_empty() {
        return Err(Fault::bad_request(
            "Invalid input for field/attribute quota_set. Value: {}. {} does not have enough properties",
        ));
    }
    let changed = service.records.edit(|edit| {
        let tables = edit.tables;
        let stored = tables.limits.get(&project);
        let mut limits = stored.map_or_else(
            || Limits {
                project_id: project.clone(),
                ..Limits::default()
            },
            |stored| stored.record.clone(),
        );
        for (shown, resource, limit) in read(tables, fields, "quota set")? {
            let used = quota::used(tables, &project, &resource);
            if limit >= 0 && limit < used && resource != PER_VOLUME_GIGABYTES {
                return Err(Fault::bad_request(format!(
                    "Quota {shown} limit must be equal or greater than existing resources. Current usage is {used} and the \
                     requested limit is {limit}."
                )));
            }
            limits.limits.insert(resource, limit);
        }
        edit.put(&limits);
        Ok(())
    });
    changed.await?;
    let tables = service.records.tables();
    let set = set_of(&tables, |resource| quota::limit(&tables, &project, resource));
    Ok(Json(json!({"quota_set": set})))
}

pub(super) async fn delete(
    State(service): Shared,
    context: Context,
    Path(project): Path<String>,
) -> Result<Response, Fault> {
    service.check_for("volume_extension:quotas:delete", &context, &project)?;
    check_project(&project)?;
    let deleted = service.records.edit(|edit| {
        let tables = edit.tables;
        if let Some(limits) = tables.limits.get(&project) {
            edit.remove(limits);
        }
        Ok::<_, Fault>(())
    });
    deleted.await?;
    Ok(door::empty(StatusCode::OK))
}
