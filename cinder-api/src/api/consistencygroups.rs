//! `/consistencygroups`: what groups were called before 3.13. They are groups of one type, which is theirs alone; here are only
//! their paths, bodies and answers.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::group_types::{self, AskedAs};
use super::groups::{self, actions, source};
use crate::door;
use crate::fault::Fault;
use crate::records::Tables;
use crate::records::group::Group;
use crate::request::{Body, Context, Fields, Query};
use crate::routes::{Routes, get, post, put};
use crate::service::{Service, Shared};

/// The version in which a name and a description may become empty.
const EMPTY_SINCE: u8 = 6;
/// The longest list of types, in characters: as many identities as a group may name.
const TYPES_TEXT_MAX: usize = 64 * 37;
/// What a listing's links are called, as nothing else calls them.
const LINKS: [&str; 2] = ["consistencygroups_links", "consistencygroup_links"];

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/consistencygroups", get(list).post(create))
        .route("/consistencygroups/detail", get(list_detail))
        .route("/consistencygroups/create_from_src", post(create_from_source))
        .route("/consistencygroups/{id}", get(show).put(update))
        .route("/consistencygroups/{id}/delete", post(delete))
        .route("/consistencygroups/{id}/update", put(update))
}

fn summary(_: &Tables, group: &Group) -> Value {
    json!({"id": group.id, "name": group.name})
}

fn detail(_: &Tables, group: &Group) -> Value {
    json!({
        "id": group.id,
        "status": group.status,
        "availability_zone": group.availability_zone,
        "created_at": group.created_at.to_string(),
        "name": group.name,
        "description": group.description,
        "volume_types": group.volume_types,
    })
}

fn accepted(id: &str, name: Option<&String>) -> Response {
    let shown = json!({"consistencygroup": {"id": id, "name": name}});
    (StatusCode::ACCEPTED, Json(shown)).into_response()
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "consistencygroups", summary).await
}

async fn list_detail(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "consistencygroups/detail", detail).await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    path: &str,
    show: impl Fn(&Tables, &Group) -> Value,
) -> Result<Json<Value>, Fault> {
    let names = ("consistencygroups", path);
    let Json(mut shown) =
        groups::answer(service, context, query, names, AskedAs::ConsistencyGroup, show).await?;
    let [ours, theirs] = LINKS;
    if let Some(fields) = shown.as_object_mut()
        && let Some(links) = fields.remove(ours)
    {
        fields.insert(theirs.to_owned(), links);
    }
    Ok(Json(shown))
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let group = groups::find(&tables, &context, &id)?;
    service.check_for("group:get", &context, &group.project_id)?;
    Ok(Json(json!({"consistencygroup": detail(&tables, group)})))
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    service.check("group:create", &context)?;
    let fields = body.object("consistencygroup")?;
    let name = fields.short_text("name")?;
    let types = fields.text("volume_types", 0..=TYPES_TEXT_MAX)?;
    let types: BTreeSet<String> = types
        .unwrap_or_default()
        .split(',')
        .map(|kind| kind.trim().to_owned())
        .filter(|kind| !kind.is_empty())
        .collect();
    if types.is_empty() {
        return Err(Fault::bad_request(format!(
            "volume_types must be provided to create consistency group {}.",
            name.unwrap_or_default()
        )));
    }
    groups::check_zone(&service, fields)?;
    let kind = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        group_types::reserved(&tables).map(|kind| kind.id.clone())
    };
    let kind = kind.ok_or_else(|| {
        let name = group_types::RESERVED;
        Fault::bad_request(format!(
            "Group type {name} not found. Start cinder-api anew: it makes it."
        ))
    })?;
    let wanted = groups::Wanted {
        name,
        description: fields.short_text("description")?,
        kind,
        types,
    };
    let id = groups::make(&service, &context, &wanted, AskedAs::ConsistencyGroup).await?;
    Ok(accepted(&id, wanted.name.as_ref()))
}

async fn create_from_source(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    service.check("group:create", &context)?;
    let fields = body.object("consistencygroup-from-src")?;
    let wanted = source::Wanted {
        name: fields.short_text("name")?,
        description: fields.short_text("description")?,
        snapshot: named(fields, "cgsnapshot_id")?,
        source: named(fields, "source_cgid")?,
    };
    let called = || wanted.name.clone().unwrap_or_default();
    match (&wanted.snapshot, &wanted.source) {
        (None, None) => Err(Fault::bad_request(format!(
            "Either 'cgsnapshot_id' or 'source_cgid' must be provided to create consistency group {} from source.",
            called()
        ))),
        (Some(_), Some(_)) => Err(Fault::bad_request(format!(
            "Cannot provide both 'cgsnapshot_id' and 'source_cgid' to create consistency group {} from source.",
            called()
        ))),
        _ => {
            let id = source::make(&service, &context, &wanted, AskedAs::ConsistencyGroup).await?;
            Ok(accepted(&id, wanted.name.as_ref()))
        }
    }
}

/// An identity; what is no identity names nothing, and is not found.
fn named(fields: Fields<'_>, name: &str) -> Result<Option<String>, Fault> {
    let id = fields.short_text(name)?;
    Ok(id.filter(|id| !id.is_empty()))
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let fields = body.object("consistencygroup")?;
    let is_said = |name: &str| {
        let value = fields.value(name).filter(|value| !value.is_null());
        value.is_some_and(|value| context.version.is(EMPTY_SINCE) || *value != json!(""))
    };
    let volumes = ["add_volumes", "remove_volumes"];
    let is_volume_said = |name: &&str| {
        fields
            .value(name)
            .is_some_and(|value| !value.is_null() && *value != json!(""))
    };
    if !is_said("name") && !is_said("description") && !volumes.iter().any(is_volume_said) {
        return Err(Fault::bad_request(if context.version.is(EMPTY_SINCE) {
            "Must specify one or more of the following keys to update: name, description, add_volumes, remove_volumes."
        } else {
            "Name, description, add_volumes, and remove_volumes can not be all empty in the request body."
        }));
    }
    groups::change(&service, &context, &id, fields, AskedAs::ConsistencyGroup).await?;
    Ok(door::accepted())
}

async fn delete(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let force = if body.0.is_empty() {
        None
    } else {
        body.object("consistencygroup")?.boolean("force")?
    };
    actions::begin_deletion(
        &service,
        &context,
        &id,
        force.unwrap_or(false),
        AskedAs::ConsistencyGroup,
    )
    .await?;
    Ok(door::accepted())
}
