//! A volume that was offered is taken: it goes to another project with its snapshots, and both projects' quotas say so, in
//! one transaction.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::Value;

use super::passage::{self, Towards};
use super::{accepted, key, missing, summary};
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::transfer::Transfer;
use crate::records::volume::VolumeStatus;
use crate::records::{Edit, Snapshot, Stored, Tables, Volume};
use crate::request::{Body, Context};
use crate::service::Shared;

/// The most snapshots that a volume takes along: a transaction of the coordination store has a limit of steps.
const SNAPSHOTS_MAX: usize = 100;

pub(super) async fn accept(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    service.check("volume:accept_transfer", &context)?;
    let project = context.project()?;
    body.only(&["accept"])?;
    let fields = body.object("accept")?;
    fields.only(&["auth_key"])?;
    let auth_key = match fields.value("auth_key") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => return Err(Fault::field("auth_key", other, "it is no text")),
        None => return Err(fields.required("auth_key")),
    };
    let moved = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        let transfer = find(&tables, &id, &auth_key)?;
        passage::key_of(&tables, transfer)
    };
    let moved = passage::begin(&service, &context, moved, Towards::Caller).await?;
    let taken = service.records.edit(|edit| {
        let tables = edit.tables;
        let transfer = find(tables, &id, &auth_key)?;
        let volume = tables.volumes.get(&transfer.volume_id);
        let volume = volume.ok_or_else(|| Fault::missing("Volume", &transfer.volume_id))?;
        let key = passage::fits(volume, moved.as_ref())?;
        hand_over(edit, &context, (project, key), transfer, volume)?;
        Ok::<_, Fault>(transfer.record.clone())
    });
    let taken = taken.await;
    passage::end(&service, &context, moved, taken.is_ok()).await;
    Ok(accepted(&summary(&context, &taken?)))
}

/// An offer, for who has its key.
fn find<'a>(tables: &'a Tables, id: &str, auth_key: &str) -> Result<&'a Arc<Stored<Transfer>>, Fault> {
    let transfer = tables.transfers.get(id).ok_or_else(|| missing(id))?;
    if key::is_right(&transfer.salt, auth_key, &transfer.key_hash) {
        return Ok(transfer);
    }
    Err(Fault::bad_request(format!(
        "Invalid auth key: Attempt to transfer {id} with invalid auth key."
    )))
}

fn hand_over(
    edit: &mut Edit<'_>,
    context: &Context,
    (project, key): (&str, Option<String>),
    transfer: &Stored<Transfer>,
    volume: &Stored<Volume>,
) -> Result<(), Fault> {
    let invalid = |why: &str| Err(Fault::bad_request(format!("Invalid volume: {why}")));
    if volume.status != VolumeStatus::AwaitingTransfer {
        return invalid(&format!(
            "it is {}, and must be awaiting-transfer.",
            volume.status
        ));
    }
    if volume.group_id.is_some() {
        return invalid("it is in a group.");
    }
    let tables = edit.tables;
    let snapshots: Vec<&Arc<Stored<Snapshot>>> = if transfer.no_snapshots {
        Vec::new()
    } else {
        tables.snapshots.of_parent(&volume.id).collect()
    };
    if snapshots.len() > SNAPSHOTS_MAX {
        return invalid(&format!(
            "it has {} snapshots, and takes at most {SNAPSHOTS_MAX} of them along: delete some, or offer it without \
             (no_snapshots).",
            snapshots.len()
        ));
    }
    quota::check_size(tables, project, volume.size)?;
    let amounts = amounts(volume, &snapshots);
    quota::give_back(edit, &volume.project_id, &amounts);
    quota::take(edit, project, &amounts)?;
    edit.change(volume, |volume| {
        project.clone_into(&mut volume.project_id);
        volume.user_id.clone_from(&context.caller.user_id);
        volume.status = VolumeStatus::Available;
        volume.encryption_key_id.clone_from(&key);
        // Who had it knows how hosts showed who they are.
        volume.chap = None;
    });
    for stored in snapshots {
        edit.change(stored, |snapshot| {
            project.clone_into(&mut snapshot.project_id);
            snapshot.user_id.clone_from(&context.caller.user_id);
        });
    }
    edit.remove(transfer);
    Ok(())
}

/// What a volume takes of a quota, with the snapshots that go along.
fn amounts(volume: &Volume, snapshots: &[&Arc<Stored<Snapshot>>]) -> Amounts {
    let own = if volume.consumes_quota {
        Amounts::volume(&volume.type_id, volume.size)
    } else {
        Amounts::default()
    };
    let counted = snapshots.iter().filter(|snapshot| snapshot.consumes_quota);
    counted.fold(own, |sum, snapshot| {
        sum.with(&Amounts::snapshot(&snapshot.type_id, snapshot.size))
    })
}
