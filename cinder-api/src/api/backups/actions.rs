//! `POST /backups/ID/action`.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::Value;

use super::{begin_deletion, find_for};
use crate::door;
use crate::fault::Fault;
use crate::records::backup::BackupStatus;
use crate::request::{Body, Context, Fields};
use crate::service::{Service, Shared};

/// The statuses that an operator may say a backup has.
const SETTABLE: &[BackupStatus] = &[
    BackupStatus::Creating,
    BackupStatus::Available,
    BackupStatus::Deleting,
    BackupStatus::Error,
    BackupStatus::ErrorDeleting,
];

pub(super) async fn act(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let (name, inside) = body.action()?;
    let fields = Fields::inside(inside);
    match name {
        "os-reset_status" => reset_status(&service, &context, &id, fields).await?,
        "os-force_delete" => force_delete(&service, &context, &id).await?,
        _ => return Err(Fault::bad_request(format!("There is no such action: {name}."))),
    }
    Ok(door::accepted())
}

async fn reset_status(
    service: &Service,
    context: &Context,
    id: &str,
    fields: Fields<'_>,
) -> Result<(), Fault> {
    const RULE: &str = "volume_extension:backup_admin_actions:reset_status";
    service.check(RULE, context)?;
    let value = fields.value("status").ok_or_else(|| fields.required("status"))?;
    let status = value.as_str().and_then(BackupStatus::parse);
    let status = status.filter(|status| SETTABLE.contains(status));
    let status = status.ok_or_else(|| wrong(value))?;
    let changed = service.records.edit(|edit| {
        let stored = find_for(service, edit.tables, context, RULE, id)?;
        edit.change(stored, |backup| backup.status = status);
        Ok(())
    });
    changed.await
}

fn wrong(value: &Value) -> Fault {
    Fault::field("status", value, "a backup is not made so by hand")
}

async fn force_delete(service: &Service, context: &Context, id: &str) -> Result<(), Fault> {
    const RULE: &str = "volume_extension:backup_admin_actions:force_delete";
    service.check(RULE, context)?;
    let accepted = service.records.edit(|edit| {
        let tables = edit.tables;
        let stored = find_for(service, tables, context, RULE, id)?;
        begin_deletion(edit, context, stored)
    });
    accepted.await
}
