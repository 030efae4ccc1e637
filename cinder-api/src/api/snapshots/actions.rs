//! `POST /snapshots/ID/action`.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::Value;

use super::{begin_deletion, find_for};
use crate::door;
use crate::fault::Fault;
use crate::records::snapshot::SnapshotStatus;
use crate::request::{Body, Context, Fields};
use crate::service::{Service, Shared};
use crate::work;

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
        "os-update_snapshot_status" => update_status(&service, &context, &id, fields).await?,
        "os-unmanage" => unmanage(&service, &context, &id).await?,
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
    const RULE: &str = "volume_extension:snapshot_admin_actions:reset_status";
    service.check(RULE, context)?;
    let status = fields.status(SnapshotStatus::parse)?;
    let changed = service.records.edit(|edit| {
        let stored = find_for(service, edit.tables, context, RULE, id)?;
        edit.change(stored, |snapshot| snapshot.status = status);
        Ok(())
    });
    changed.await
}

async fn force_delete(service: &Service, context: &Context, id: &str) -> Result<(), Fault> {
    const RULE: &str = "volume_extension:snapshot_admin_actions:force_delete";
    let accepted = service.records.edit(|edit| {
        let stored = find_for(service, edit.tables, context, RULE, id)?.clone();
        begin_deletion(edit, context, &stored);
        Ok(())
    });
    accepted.await
}

/// What Nova says of a snapshot that it takes for a storage that cannot: only the steps that such a snapshot goes through.
async fn update_status(
    service: &Service,
    context: &Context,
    id: &str,
    fields: Fields<'_>,
) -> Result<(), Fault> {
    use SnapshotStatus::{Available, Creating, Deleting, Error, ErrorDeleting};
    const RULE: &str = "volume_extension:snapshot_actions:update_snapshot_status";
    let to = fields.status(SnapshotStatus::parse)?;
    let progress = match fields.value("progress") {
        None => None,
        Some(Value::String(text)) if is_percentage(text) => Some(text.clone()),
        Some(other) => return Err(Fault::field("progress", other, "it must be a percentage: 50%")),
    };
    let changed = service.records.edit(|edit| {
        let stored = find_for(service, edit.tables, context, RULE, id)?;
        let is_step = match stored.status {
            Creating => matches!(to, Creating | Available | Error),
            Deleting => matches!(to, Deleting | Error | ErrorDeleting),
            _ => false,
        };
        if !is_step {
            return Err(Fault::bad_request(format!(
                "Invalid snapshot: a snapshot that is {} does not become {to} in this way.",
                stored.status
            )));
        }
        edit.change(stored, |snapshot| {
            snapshot.status = to;
            if let Some(progress) = &progress {
                snapshot.progress.clone_from(progress);
            }
        });
        Ok(())
    });
    changed.await
}

fn is_percentage(text: &str) -> bool {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.parse::<u8>().ok());
    number.is_some_and(|number| number <= 100)
}

/// The snapshot stays in the storage, and is OpenStack's no more.
async fn unmanage(service: &Service, context: &Context, id: &str) -> Result<(), Fault> {
    const RULE: &str = "snapshot_extension:snapshot_unmanage";
    let given_up = service.records.edit(|edit| {
        let stored = find_for(service, edit.tables, context, RULE, id)?;
        if !matches!(stored.status, SnapshotStatus::Available | SnapshotStatus::Error) {
            return Err(Fault::bad_request(format!(
                "Invalid snapshot: it is {}.",
                stored.status
            )));
        }
        work::forget_snapshot(edit, id);
        Ok(())
    });
    given_up.await
}
