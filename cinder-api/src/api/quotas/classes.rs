//! `/os-quota-class-sets/CLASS`. There is one class, and projects that have no limits of their own are in it.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{read, set_of};
use crate::fault::Fault;
use crate::quota;
use crate::records::quota::{DEFAULT_CLASS, Limits};
use crate::request::{Body, Context};
use crate::service::Shared;

pub(super) async fn show(
    State(service): Shared,
    context: Context,
    Path(class): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:quota_classes:get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let mut set = set_of(&tables, |resource| quota::default_limit(&tables, resource));
    set.insert("id".to_owned(), class.into());
    Ok(Json(json!({"quota_class_set": set})))
}

pub(super) async fn update(
    State(service): Shared,
    context: Context,
    Path(class): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:quota_classes:update", &context)?;
    if class != DEFAULT_CLASS {
        return Err(Fault::bad_request(format!(
            "Invalid input received: {class} is no quota class: the only one is {DEFAULT_CLASS}."
        )));
    }
    body.only(&["quota_class_set"])?;
    let fields = body.object("quota_class_set")?;
    let changed = service.records.edit(|edit| {
        let tables = edit.tables;
        let stored = tables.limits.get(DEFAULT_CLASS);
        let mut limits = stored.map_or_else(
            || Limits {
                project_id: DEFAULT_CLASS.to_owned(),
                ..Limits::default()
            },
            |stored| stored.record.clone(),
        );
        for (_, resource, limit) in read(tables, fields, "quota class set")? {
            limits.limits.insert(resource, limit);
        }
        edit.put(&limits);
        Ok::<_, Fault>(())
    });
    changed.await?;
    let tables = service.records.tables();
    let set = set_of(&tables, |resource| quota::default_limit(&tables, resource));
    Ok(Json(json!({"quota_class_set": set})))
}
