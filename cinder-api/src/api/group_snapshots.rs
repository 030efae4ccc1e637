//! `/group_snapshots` (3.14): all volumes of a group, at one instant.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::group_types::AskedAs;
use super::{groups, volumes};
use crate::door;
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::group::{GroupSnapshot, GroupStatus};
use crate::records::job::Task;
use crate::records::snapshot::SnapshotStatus;
use crate::records::{Edit, Instant, Snapshot, Stored, Tables};
use crate::request::filter::filters;
use crate::request::listing::{self, Key, Page};
use crate::request::{Body, Context, Fields, Query};
use crate::routes::{Routes, get, post};
use crate::service::{Service, Shared, seen};

/// The version in which group snapshots came.
const SINCE: u8 = 14;
/// What group snapshots can be sorted by.
const SORT_KEYS: &[&str] = &["id", "name", "status", "group_id", "created_at", "updated_at"];
/// Filters for everybody.
pub const FILTERS: &[&str] = &["name", "status", "group_id"];

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/group_snapshots", get(list).post(create))
        .route("/group_snapshots/detail", get(list_detail))
        .route("/group_snapshots/{id}", get(show).delete(delete))
        .route("/group_snapshots/{id}/action", post(act))
}

/// A group snapshot that a caller may know of.
pub fn find<'a>(
    tables: &'a Tables,
    context: &Context,
    id: &str,
) -> Result<&'a Arc<Stored<GroupSnapshot>>, Fault> {
    seen(&tables.group_snapshots, context, id)
        .ok_or_else(|| Fault::not_found(format!("GroupSnapshot {id} could not be found.")))
}

fn detail(service: &Service, context: &Context, snapshot: &GroupSnapshot) -> Value {
    let mut shown = json!({
        "id": snapshot.id,
        "group_id": snapshot.group_id,
        "group_type_id": snapshot.group_type_id,
        "status": snapshot.status,
        "created_at": snapshot.created_at.to_string(),
        "name": snapshot.name,
        "description": snapshot.description,
    });
    let rule = "group:group_snapshot_project_attribute";
    if context.version.is(58) && service.allows(rule, &context.caller, &snapshot.project_id) {
        shown["project_id"] = json!(snapshot.project_id);
    }
    shown
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    let show = |snapshot: &GroupSnapshot| json!({"id": snapshot.id, "name": snapshot.name});
    let names = ("group_snapshots", "group_snapshots");
    answer(&service, &context, &query, names, AskedAs::Group, show).await
}

async fn list_detail(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    let show = |snapshot: &GroupSnapshot| detail(&service, &context, snapshot);
    let names = ("group_snapshots", "group_snapshots/detail");
    answer(&service, &context, &query, names, AskedAs::Group, show).await
}

/// A listing, under the name of the collection and its path.
pub(super) async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    names: (&str, &str),
    asked_as: AskedAs,
    show: impl Fn(&GroupSnapshot) -> Value,
) -> Result<Json<Value>, Fault> {
    service.check("group:get_all_group_snapshots", context)?;
    let page = Page::read(query, SORT_KEYS)?;
    let filters = filters(context, query, FILTERS)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |snapshot: &GroupSnapshot| {
        asked_as.check(&tables, &snapshot.group_type_id).is_ok()
            && filters.iter().all(|filter| match filter.name.as_str() {
                "id" => filter.fits(&snapshot.id),
                "name" => filter.fits_some(snapshot.name.as_deref()),
                "status" => filter.fits(snapshot.status.as_str()),
                "group_id" => filter.fits(&snapshot.group_id),
                "project_id" => filter.fits(&snapshot.project_id),
                _ => false,
            })
    };
    let whose = volumes::whose(context, query)?;
    let selected = page.select(tables.group_snapshots.of(whose.as_deref()), keep, key)?;
    let show = |snapshot: &Stored<GroupSnapshot>| show(snapshot);
    Ok(Json(listing::answer(context, query, names, &selected, show)))
}

fn key<'a>(snapshot: &'a GroupSnapshot, name: &str) -> Key<'a> {
    match name {
        "id" => snapshot.id.as_str().into(),
        "name" => snapshot.name.as_deref().into(),
        "status" => snapshot.status.as_str().into(),
        "group_id" => snapshot.group_id.as_str().into(),
        _ => Key::Moment(snapshot.created_at),
    }
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let snapshot = find(&tables, &context, &id)?;
    service.check_for("group:get_group_snapshot", &context, &snapshot.project_id)?;
    AskedAs::Group.check(&tables, &snapshot.group_type_id)?;
    Ok(Json(
        json!({"group_snapshot": detail(&service, &context, snapshot)}),
    ))
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    context.since(SINCE)?;
    body.only(&["group_snapshot"])?;
    let fields = body.object("group_snapshot")?;
    fields.only(&["group_id", "name", "description"])?;
    let group = fields
        .uuid("group_id")?
        .ok_or_else(|| fields.required("group_id"))?;
    let name = fields.short_text("name")?;
    let description = fields.short_text("description")?;
    let wanted = Wanted {
        group,
        name,
        description,
    };
    let id = make(&service, &context, &wanted, AskedAs::Group).await?;
    let shown = json!({"group_snapshot": {
        "id": id, "name": wanted.name, "group_type_id": group_type(&service, &id),
    }});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// What is to be made.
pub(super) struct Wanted {
    pub(super) group: String,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
}

/// Promises a snapshot of a group; gives its identity.
pub(super) async fn make(
    service: &Service,
    context: &Context,
    wanted: &Wanted,
    asked_as: AskedAs,
) -> Result<String, Fault> {
    let id = uuid::Uuid::new_v4().to_string();
    let promised = service.records.edit(|edit| {
        let group = groups::find(edit.tables, context, &wanted.group)?.clone();
        service.check_for("group:create_group_snapshot", context, &group.project_id)?;
        asked_as.check(edit.tables, &group.type_id)?;
        if group.status != GroupStatus::Available {
            return Err(Fault::bad_request(format!(
                "Invalid group: it is {}, and must be available.",
                group.status
            )));
        }
        let snapshot = GroupSnapshot {
            id: id.clone(),
            project_id: group.project_id.clone(),
            user_id: context.caller.user_id.clone(),
            name: wanted.name.clone(),
            description: wanted.description.clone(),
            status: GroupStatus::Creating,
            group_id: group.id.clone(),
            group_type_id: group.type_id.clone(),
            created_at: Instant::now(),
            updated_at: None,
        };
        promise_parts(edit, context, &group, &snapshot)?;
        edit.touch(&group);
        edit.insert(&snapshot);
        let task = Task::CreateGroupSnapshot {
            group_snapshot: id.clone(),
        };
        volumes::later(edit, context, &group.project_id, task);
        Ok::<_, Fault>(())
    });
    promised.await?;
    Ok(id)
}

fn group_type(service: &Service, id: &str) -> Option<String> {
    let tables = service.records.tables();
    tables
        .group_snapshots
        .get(id)
        .map(|snapshot| snapshot.group_type_id.clone())
}

/// A snapshot of each volume; all have one name in the storage.
fn promise_parts(
    edit: &mut Edit<'_>,
    context: &Context,
    group: &crate::records::group::Group,
    snapshot: &GroupSnapshot,
) -> Result<(), Fault> {
    let tables = edit.tables;
    let mut count = 0;
    for volume in groups::volumes_of(tables, group) {
        if !volumes::AVAILABLE_OR_IN_USE.contains(&volume.status) {
            return Err(Fault::bad_request(format!(
                "Invalid volume: volume {} is {}, and must be available or in-use.",
                volume.id, volume.status
            )));
        }
        quota::take(
            edit,
            &volume.project_id,
            &Amounts::snapshot(&volume.type_id, volume.size),
        )?;
        edit.touch(volume);
        edit.insert(&Snapshot {
            id: uuid::Uuid::new_v4().to_string(),
            project_id: volume.project_id.clone(),
            user_id: context.caller.user_id.clone(),
            name: snapshot.name.clone(),
            description: snapshot.description.clone(),
            volume_id: volume.id.clone(),
            size: volume.size,
            status: SnapshotStatus::Creating,
            progress: "0%".to_owned(),
            created_at: Instant::now(),
            updated_at: None,
            metadata: std::collections::BTreeMap::new(),
            type_id: volume.type_id.clone(),
            group_snapshot_id: Some(snapshot.id.clone()),
            consumes_quota: true,
            storage_name: format!("group-snapshot-{}", snapshot.id),
        });
        count += 1;
    }
    if count == 0 {
        return Err(Fault::bad_request(
            "Invalid group: it has no volumes, and nothing to take a snapshot of.",
        ));
    }
    Ok(())
}

async fn delete(State(service): Shared, context: Context, Path(id): Path<String>) -> Result<Response, Fault> {
    context.since(SINCE)?;
    begin_deletion(&service, &context, &id, AskedAs::Group).await?;
    Ok(door::accepted())
}

/// Promises that a group snapshot will be gone.
pub(super) async fn begin_deletion(
    service: &Service,
    context: &Context,
    id: &str,
    asked_as: AskedAs,
) -> Result<(), Fault> {
    let accepted = service.records.edit(|edit| {
        let snapshot = find(edit.tables, context, id)?.clone();
        service.check_for("group:delete_group_snapshot", context, &snapshot.project_id)?;
        asked_as.check(edit.tables, &snapshot.group_type_id)?;
        if !matches!(
            snapshot.status,
            GroupStatus::Available | GroupStatus::Error | GroupStatus::ErrorDeleting
        ) {
            return Err(Fault::bad_request(format!(
                "Invalid group snapshot: it is {}, and must be available or in error.",
                snapshot.status
            )));
        }
        edit.change(&snapshot, |snapshot| snapshot.status = GroupStatus::Deleting);
        let task = Task::DeleteGroupSnapshot {
            group_snapshot: id.to_owned(),
        };
        volumes::later(edit, context, &snapshot.project_id, task);
        Ok(())
    });
    accepted.await
}

async fn act(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    const RULE: &str = "group:reset_group_snapshot_status";
    context.since(19)?;
    let inside = body.0.get("reset_status").filter(|_| body.0.len() == 1);
    let inside = inside.ok_or_else(|| Fault::bad_request("There is no such action."))?;
    service.check(RULE, &context)?;
    let status = Fields::inside(inside).status(GroupStatus::parse)?;
    let changed = service.records.edit(|edit| {
        let snapshot = find(edit.tables, &context, &id)?;
        edit.change(snapshot, |snapshot| snapshot.status = status);
        Ok::<_, Fault>(())
    });
    changed.await?;
    Ok(door::accepted())
}
