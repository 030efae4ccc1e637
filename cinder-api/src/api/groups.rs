//! `/groups` (3.13): volumes that belong together.

use std::collections::BTreeSet;
use std::sync::Arc;

use admin_api::snapshots::GROUP_VOLUMES_MAX;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::group_types::{self, AskedAs};
use super::{types, volumes};
use crate::door;
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::group::{Group, GroupStatus};
use crate::records::{Edit, Instant, Stored, Tables, Volume};
use crate::request::body::TEXT_MAX;
use crate::request::filter::filters;
use crate::request::listing::{self, Key, Page};
use crate::request::{Body, Context, Fields, Query};
use crate::routes::{Routes, get, post};
use crate::service::{Service, Shared, seen};

pub(super) mod actions;
pub(super) mod source;

/// The version in which groups came.
const SINCE: u8 = 13;
/// What groups can be sorted by.
const SORT_KEYS: &[&str] = &["id", "name", "status", "created_at", "updated_at"];
/// Filters for everybody.
pub const FILTERS: &[&str] = &["name"];
/// The most types that a group names.
const TYPES_MAX: usize = 64;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/groups", get(list).post(create))
        .route("/groups/detail", get(list_detail))
        .route("/groups/action", post(source::create))
        .route("/groups/{id}", get(show).put(update))
        .route("/groups/{id}/action", post(actions::act))
}

/// A group that a caller may know of.
pub fn find<'a>(tables: &'a Tables, context: &Context, id: &str) -> Result<&'a Arc<Stored<Group>>, Fault> {
    seen(&tables.groups, context, id)
        .ok_or_else(|| Fault::not_found(format!("Group {id} could not be found.")))
}

/// The volumes of a group, oldest first.
pub fn volumes_of<'a>(tables: &'a Tables, group: &'a Group) -> impl Iterator<Item = &'a Arc<Stored<Volume>>> {
    let of_project = tables.volumes.of_project(&group.project_id);
    of_project.filter(|volume| volume.group_id.as_ref() == Some(&group.id))
}

fn detail(service: &Service, tables: &Tables, context: &Context, query: &Query, group: &Group) -> Value {
    let mut shown = json!({
        "id": group.id,
        "status": group.status,
        "availability_zone": group.availability_zone,
        "created_at": group.created_at.to_string(),
        "name": group.name,
        "description": group.description,
        "group_type": group.type_id,
        "volume_types": group.volume_types,
    });
    let version = context.version;
    if version.is(14) {
        shown["group_snapshot_id"] = json!(group.group_snapshot_id);
        shown["source_group_id"] = json!(group.source_group_id);
    }
    if version.is(25) && query.says_yes("list_volume") {
        shown["volumes"] = volumes_of(tables, group).map(|volume| json!(volume.id)).collect();
    }
    if version.is(38) {
        shown["replication_status"] = json!("disabled");
    }
    if version.is(58)
        && service.allows(
            "group:group_project_attribute",
            &context.caller,
            &group.project_id,
        )
    {
        shown["project_id"] = json!(group.project_id);
    }
    shown
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    let show = |_: &Tables, group: &Group| json!({"id": group.id, "name": group.name});
    answer(
        &service,
        &context,
        &query,
        ("groups", "groups"),
        AskedAs::Group,
        show,
    )
    .await
}

async fn list_detail(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    let show = |tables: &Tables, group: &Group| detail(&service, tables, &context, &query, group);
    answer(
        &service,
        &context,
        &query,
        ("groups", "groups/detail"),
        AskedAs::Group,
        show,
    )
    .await
}

/// A listing, under the name of the collection and its path.
pub(super) async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    names: (&str, &str),
    asked_as: AskedAs,
    show: impl Fn(&Tables, &Group) -> Value,
) -> Result<Json<Value>, Fault> {
    service.check("group:get_all", context)?;
    let page = Page::read(query, SORT_KEYS)?;
    // Whether volumes are listed is no filter.
    let query_filters = Query(
        query
            .0
            .iter()
            .filter(|(key, _)| key != "list_volume")
            .cloned()
            .collect(),
    );
    let filters = filters(context, &query_filters, FILTERS)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |group: &Group| {
        asked_as.check(&tables, &group.type_id).is_ok()
            && filters.iter().all(|filter| match filter.name.as_str() {
                "id" => filter.fits(&group.id),
                "name" => filter.fits_some(group.name.as_deref()),
                "status" => filter.fits(group.status.as_str()),
                "group_type_id" => filter.fits(&group.type_id),
                "project_id" => filter.fits(&group.project_id),
                _ => false,
            })
    };
    let whose = volumes::whose(context, query)?;
    let selected = page.select(tables.groups.of(whose.as_deref()), keep, key)?;
    let show = |group: &Stored<Group>| show(&tables, group);
    Ok(Json(listing::answer(context, query, names, &selected, show)))
}

fn key<'a>(group: &'a Group, name: &str) -> Key<'a> {
    match name {
        "id" => group.id.as_str().into(),
        "name" => group.name.as_deref().into(),
        "status" => group.status.as_str().into(),
        "updated_at" => group.updated_at.map_or(Key::None, Key::Moment),
        _ => Key::Moment(group.created_at),
    }
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let group = find(&tables, &context, &id)?;
    service.check_for("group:get", &context, &group.project_id)?;
    AskedAs::Group.check(&tables, &group.type_id)?;
    Ok(Json(
        json!({"group": detail(&service, &tables, &context, &query, group)}),
    ))
}

/// Refuses another zone than the one that there is.
pub(super) fn check_zone(service: &Service, fields: Fields<'_>) -> Result<(), Fault> {
    let zone = fields.text("availability_zone", 0..=TEXT_MAX)?;
    match zone.filter(|zone| *zone != service.settings.availability_zone) {
        Some(zone) => Err(Fault::bad_request(format!(
            "Availability zone '{zone}' is invalid."
        ))),
        None => Ok(()),
    }
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("group:create", &context)?;
    body.only(&["group"])?;
    let fields = body.object("group")?;
    fields.only(&[
        "name",
        "description",
        "group_type",
        "volume_types",
        "availability_zone",
    ])?;
    let name = fields.short_text("name")?;
    let description = fields.short_text("description")?;
    let kind = fields.required_text("group_type", 1..=TEXT_MAX)?;
    check_zone(&service, fields)?;
    let wanted = match fields.value("volume_types") {
        Some(Value::Array(types)) if !types.is_empty() && types.len() <= TYPES_MAX => types.clone(),
        Some(other) => {
            return Err(Fault::field(
                "volume_types",
                other,
                "it must be a list of types, and not empty",
            ));
        }
        None => return Err(fields.required("volume_types")),
    };
    let wanted: BTreeSet<String> = wanted
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let wanted = Wanted {
        name,
        description,
        kind,
        types: wanted,
    };
    let id = make(&service, &context, &wanted, AskedAs::Group).await?;
    let shown = json!({"group": {"id": id, "name": wanted.name}});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// What a group is to be like.
pub(super) struct Wanted {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    /// The type of the group, by its identity or its name.
    pub(super) kind: String,
    /// Types of its volumes, in the same way.
    pub(super) types: BTreeSet<String>,
}

/// Makes a group of a type that may be asked for in this way; gives its identity.
pub(super) async fn make(
    service: &Service,
    context: &Context,
    wanted: &Wanted,
    asked_as: AskedAs,
) -> Result<String, Fault> {
    let id = uuid::Uuid::new_v4().to_string();
    let made = service.records.edit(|edit| {
        let project = context.project()?;
        let tables = edit.tables;
        let kind = group_types::find(tables, context, &wanted.kind)?.clone();
        asked_as.check(tables, &kind.id)?;
        let mut volume_types = BTreeSet::new();
        for wanted in &wanted.types {
            let kind = types::find(tables, context, wanted)?;
            edit.rely(kind);
            volume_types.insert(kind.id.clone());
        }
        quota::take(edit, project, &Amounts::plain(quota::GROUPS, 1))?;
        edit.touch(&kind);
        edit.insert(&Group {
            id: id.clone(),
            project_id: project.to_owned(),
            user_id: context.caller.user_id.clone(),
            name: wanted.name.clone(),
            description: wanted.description.clone(),
            // There is nothing in the storage that would have to be made for a group.
            status: GroupStatus::Available,
            availability_zone: service.settings.availability_zone.clone(),
            type_id: kind.id.clone(),
            volume_types: volume_types.into_iter().collect(),
            group_snapshot_id: None,
            source_group_id: None,
            created_at: Instant::now(),
            updated_at: None,
        });
        Ok::<_, Fault>(())
    });
    made.await?;
    Ok(id)
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    context.since(SINCE)?;
    body.only(&["group"])?;
    let fields = body.object("group")?;
    let known = ["name", "description", "add_volumes", "remove_volumes"];
    fields.only(&known)?;
    fields.any_of(&known)?;
    change(&service, &context, &id, fields, AskedAs::Group).await?;
    Ok(door::accepted())
}

/// Changes what a body names: name, description, and which volumes are in the group.
pub(super) async fn change(
    service: &Service,
    context: &Context,
    id: &str,
    fields: Fields<'_>,
    asked_as: AskedAs,
) -> Result<(), Fault> {
    let name = volumes::Wish::read(fields, "name")?;
    let description = volumes::Wish::read(fields, "description")?;
    let add = ids(fields.text("add_volumes", 0..=usize::MAX)?.as_deref())?;
    let remove = ids(fields.text("remove_volumes", 0..=usize::MAX)?.as_deref())?;
    if let Some(both) = add.iter().find(|id| remove.contains(*id)) {
        return Err(Fault::bad_request(format!(
            "Invalid volume: {both} cannot be added and removed at once."
        )));
    }
    let updated = service.records.edit(|edit| {
        let group = find(edit.tables, context, id)?.clone();
        service.check_for("group:update", context, &group.project_id)?;
        asked_as.check(edit.tables, &group.type_id)?;
        if group.status != GroupStatus::Available {
            return Err(Fault::bad_request(format!(
                "Invalid group: it is {}, and must be available.",
                group.status
            )));
        }
        move_volumes(edit, context, &group, &add, &remove)?;
        edit.change(&group, |group| {
            name.apply(&mut group.name);
            description.apply(&mut group.description);
        });
        Ok(())
    });
    updated.await
}

/// Volumes that are named one after the other, with commas between.
fn ids(text: Option<&str>) -> Result<BTreeSet<String>, Fault> {
    let ids: BTreeSet<String> = text
        .unwrap_or_default()
        .split(',')
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
        .collect();
    if ids.len() > GROUP_VOLUMES_MAX {
        return Err(too_many());
    }
    Ok(ids)
}

fn too_many() -> Fault {
    Fault::bad_request(format!(
        "Invalid group: a group has {GROUP_VOLUMES_MAX} volumes at most: more cannot be snapshotted at one instant."
    ))
}

fn move_volumes(
    edit: &mut Edit<'_>,
    context: &Context,
    group: &Stored<Group>,
    add: &BTreeSet<String>,
    remove: &BTreeSet<String>,
) -> Result<(), Fault> {
    let tables = edit.tables;
    let invalid = |id: &str, why: &str| Err(Fault::bad_request(format!("Invalid volume: volume {id} {why}")));
    for id in remove {
        let volume = volumes::find(tables, context, id)?;
        if volume.group_id.as_ref() != Some(&group.id) {
            return invalid(id, "is not in the group.");
        }
        edit.change(volume, |volume| volume.group_id = None);
    }
    for id in add {
        let volume = volumes::find(tables, context, id)?;
        if volume.group_id.as_ref().is_some_and(|other| *other != group.id) {
            return invalid(id, "is in another group.");
        }
        if volume.project_id != group.project_id {
            return invalid(id, "is another project's.");
        }
        if !group.volume_types.contains(&volume.type_id) {
            return invalid(id, "has a type that the group does not name.");
        }
        if !volumes::AVAILABLE_OR_IN_USE.contains(&volume.status) {
            return invalid(
                id,
                &format!("is {}, and must be available or in-use.", volume.status),
            );
        }
        edit.change(volume, |volume| volume.group_id = Some(group.id.clone()));
    }
    let stay = volumes_of(tables, group).filter(|volume| !remove.contains(&volume.id));
    let stay: BTreeSet<&str> = stay.map(|volume| volume.id.as_str()).collect();
    let all: BTreeSet<&str> = stay.into_iter().chain(add.iter().map(String::as_str)).collect();
    if all.len() > GROUP_VOLUMES_MAX {
        return Err(too_many());
    }
    Ok(())
}
