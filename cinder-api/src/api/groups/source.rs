//! `POST /groups/action`: a group from another one, or from a group's snapshot.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{find, volumes_of};
use crate::api::{group_snapshots, volumes};
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::group::{Group, GroupStatus};
use crate::records::job::Task;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::records::{Edit, Instant, Volume};
use crate::request::{Body, Context};
use crate::service::Shared;

/// The version in which groups can be made from others.
const SINCE: u8 = 14;

pub(super) async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("group:create", &context)?;
    body.only(&["create-from-src"])?;
    let fields = body.object("create-from-src")?;
    fields.only(&["group_snapshot_id", "source_group_id", "name", "description"])?;
    let name = fields.short_text("name")?;
    let description = fields.short_text("description")?;
    let snapshot = fields.uuid("group_snapshot_id")?;
    let source = fields.uuid("source_group_id")?;
    if snapshot.is_some() == source.is_some() {
        return Err(Fault::bad_request(
            "Either 'group_snapshot_id' or 'source_group_id' must be provided to create group from source, not both.",
        ));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let promised = service.records.edit(|edit| {
        let tables = edit.tables;
        let (from, originals) = if let Some(snapshot) = &snapshot {
            let snapshot = group_snapshots::find(tables, &context, snapshot)?;
            if snapshot.status != GroupStatus::Available {
                return Err(Fault::bad_request(format!(
                    "Invalid group snapshot: it is {}.",
                    snapshot.status
                )));
            }
            edit.touch(snapshot);
            let parts = tables.snapshots.of_project(&snapshot.project_id);
            let parts = parts.filter(|part| part.group_snapshot_id.as_ref() == Some(&snapshot.id));
            let originals: Vec<(&Volume, Option<&str>)> = parts
                .filter_map(|part| {
                    Some((
                        &tables.volumes.get(&part.volume_id)?.record,
                        Some(part.id.as_str()),
                    ))
                })
                .collect();
            (find(tables, &context, &snapshot.group_id)?, originals)
        } else {
            let group = find(tables, &context, source.as_deref().unwrap_or_default())?;
            if group.status != GroupStatus::Available {
                return Err(Fault::bad_request(format!(
                    "Invalid group: it is {}.",
                    group.status
                )));
            }
            edit.touch(group);
            (
                group,
                volumes_of(tables, group)
                    .map(|volume| (&volume.record, None))
                    .collect(),
            )
        };
        if originals.is_empty() {
            return Err(Fault::bad_request("Invalid group: it has no volumes."));
        }
        let group = Group {
            id: id.clone(),
            project_id: context.project()?.to_owned(),
            user_id: context.caller.user_id.clone(),
            name: name.clone(),
            description: description.clone(),
            status: GroupStatus::Creating,
            group_snapshot_id: snapshot.clone(),
            source_group_id: source.clone(),
            created_at: Instant::now(),
            updated_at: None,
            ..from.record.clone()
        };
        quota::take(edit, &group.project_id, &Amounts::plain(quota::GROUPS, 1))?;
        for (original, snapshot) in originals {
            copy(edit, &group, original, snapshot)?;
        }
        edit.insert(&group);
        let task = Task::CreateGroup { group: id.clone() };
        volumes::later(edit, &context, &group.project_id, task);
        Ok(())
    });
    promised.await?;
    let shown = json!({"group": {"id": id, "name": name}});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// A volume of the new group. The group's job makes it, with the others.
fn copy(edit: &mut Edit<'_>, group: &Group, original: &Volume, snapshot: Option<&str>) -> Result<(), Fault> {
    let id = uuid::Uuid::new_v4().to_string();
    let tables = edit.tables;
    quota::take(
        edit,
        &group.project_id,
        &Amounts::volume(&original.type_id, original.size),
    )?;
    if let Some(kind) = tables.types.get(&original.type_id) {
        edit.rely(kind);
    }
    edit.insert(&Volume {
        project_id: group.project_id.clone(),
        user_id: group.user_id.clone(),
        status: VolumeStatus::Creating,
        previous_status: None,
        attach_status: AttachStatus::Detached,
        migration_status: None,
        created_at: Instant::now(),
        updated_at: None,
        snapshot_id: snapshot.map(str::to_owned),
        source_id: snapshot.is_none().then(|| original.id.clone()),
        group_id: Some(group.id.clone()),
        pool: None,
        storage_name: format!("volume-{id}"),
        chap: None,
        read_only: None,
        id,
        ..original.clone()
    });
    Ok(())
}
