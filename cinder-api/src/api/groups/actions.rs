//! `POST /groups/ID/action`.

use axum::extract::{Path, State};
use axum::response::Response;

use super::{SINCE, find, volumes_of};
use crate::api::group_types::AskedAs;
use crate::api::volumes;
use crate::door;
use crate::fault::Fault;
use crate::records::group::GroupStatus;
use crate::records::job::Task;
use crate::records::volume::VolumeStatus;
use crate::request::{Body, Context, Fields};
use crate::service::{Service, Shared};

pub(super) async fn act(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    context.since(SINCE)?;
    let (name, inside) = body.action()?;
    let fields = Fields::inside(inside);
    match name {
        "delete" => delete(&service, &context, &id, fields).await?,
        "reset_status" if context.version.is(20) => reset(&service, &context, &id, fields).await?,
        "enable_replication"
        | "disable_replication"
        | "failover_replication"
        | "list_replication_targets" => {
            return Err(Fault::bad_request(
                "Invalid group type: replication is not enabled for it.",
            ));
        }
        _ => return Err(Fault::bad_request(format!("There is no such action: {name}."))),
    }
    Ok(door::accepted())
}

async fn delete(service: &Service, context: &Context, id: &str, fields: Fields<'_>) -> Result<(), Fault> {
    fields.only(&["delete-volumes"])?;
    let with_volumes = fields.boolean("delete-volumes")?.unwrap_or(false);
    begin_deletion(service, context, id, with_volumes, AskedAs::Group).await
}

/// Promises that a group will be gone, and its volumes with it if that is said.
pub(in crate::api) async fn begin_deletion(
    service: &Service,
    context: &Context,
    id: &str,
    with_volumes: bool,
    asked_as: AskedAs,
) -> Result<(), Fault> {
    let accepted = service.records.edit(|edit| {
        let tables = edit.tables;
        let group = find(tables, context, id)?;
        service.check_for("group:delete", context, &group.project_id)?;
        asked_as.check(tables, &group.type_id)?;
        let invalid = |why: &str| Err(Fault::bad_request(format!("Invalid group: {why}")));
        if !matches!(
            group.status,
            GroupStatus::Available | GroupStatus::Error | GroupStatus::ErrorDeleting
        ) {
            return invalid(&format!(
                "it is {}, and must be available or in error.",
                group.status
            ));
        }
        if tables.group_snapshots.of_parent(id).next().is_some() {
            return invalid("it has group snapshots: delete these first.");
        }
        for volume in volumes_of(tables, group) {
            if !with_volumes {
                return invalid("it has volumes; say \"delete-volumes\": true, or remove them first.");
            }
            let is_busy = tables.attachments.of_parent(&volume.id).next().is_some()
                || tables.snapshots.of_parent(&volume.id).next().is_some()
                || !matches!(
                    volume.status,
                    VolumeStatus::Available | VolumeStatus::Error | VolumeStatus::ErrorDeleting
                );
            if is_busy {
                return invalid(&format!("its volume {} is in use, or has snapshots.", volume.id));
            }
            volumes::begin_deletion(edit, context, volume);
        }
        edit.change(group, |group| group.status = GroupStatus::Deleting);
        let task = Task::DeleteGroup { group: id.to_owned() };
        volumes::later(edit, context, &group.project_id, task);
        Ok(())
    });
    accepted.await
}

async fn reset(service: &Service, context: &Context, id: &str, fields: Fields<'_>) -> Result<(), Fault> {
    const RULE: &str = "group:reset_status";
    service.check(RULE, context)?;
    let status = fields.status(GroupStatus::parse)?;
    let changed = service.records.edit(|edit| {
        let group = find(edit.tables, context, id)?;
        service.check_for(RULE, context, &group.project_id)?;
        edit.change(group, |group| group.status = status);
        Ok(())
    });
    changed.await
}
