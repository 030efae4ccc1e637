//! `/group_types`: kinds of groups, as operators offer them (3.11).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::door;
use crate::fault::Fault;
use crate::records::group::GroupType;
use crate::records::{Instant, Records, RecordsError, Stored, Tables};
use crate::request::body::TEXT_MAX;
use crate::request::listing::{self, Key, Page};
use crate::request::{Body, Context, Query};
use crate::routes::{Routes, get};
use crate::service::{Service, Shared};

/// The version in which groups' types came.
const SINCE: u8 = 11;
/// What types can be sorted by.
const SORT_KEYS: &[&str] = &["id", "name", "created_at", "updated_at"];

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/group_types", get(list).post(create))
        .route("/group_types/default", get(default))
        .route("/group_types/{id}", get(show).put(update).delete(delete))
        .route("/group_types/{id}/group_specs", get(specs).post(add_specs))
        .route(
            "/group_types/{id}/group_specs/{key}",
            get(spec).put(set_spec).delete(remove_spec),
        )
}

/// A type that a caller may know of, by its identity or its name.
pub fn find<'a>(
    tables: &'a Tables,
    context: &Context,
    named: &str,
) -> Result<&'a Arc<Stored<GroupType>>, Fault> {
    let by_name = || tables.group_types.iter().find(|kind| kind.name == named);
    let found = tables.group_types.get(named).or_else(by_name);
    let seen = found.filter(|kind| kind.is_public || context.caller.is_admin);
    seen.ok_or_else(|| Fault::not_found(format!("Group type {named} could not be found.")))
}

fn view(service: &Service, context: &Context, kind: &GroupType) -> Value {
    let mut shown = json!({
        "id": kind.id,
        "name": kind.name,
        "description": kind.description,
        "is_public": kind.is_public,
    });
    let project = context.caller.project_id.as_deref();
    if service
        .policy
        .allows("group:access_group_types_specs", &context.caller, project)
    {
        shown["group_specs"] = json!(kind.specs);
    }
    shown
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    let page = Page::read(&query, SORT_KEYS)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let wanted = query.get("is_public").map(str::to_lowercase);
    let keep = |kind: &GroupType| match wanted.as_deref() {
        _ if !context.caller.is_admin => kind.is_public,
        None => kind.is_public,
        Some("none") => true,
        Some(text) => crate::request::body::boolean(text) == Some(kind.is_public),
    };
    let selected = page.select(tables.group_types.iter(), keep, key)?;
    let show = |kind: &Stored<GroupType>| view(&service, &context, kind);
    Ok(Json(listing::answer(
        &context,
        &query,
        ("group_types", "group_types"),
        &selected,
        show,
    )))
}

fn key<'a>(kind: &'a GroupType, name: &str) -> Key<'a> {
    match name {
        "id" => kind.id.as_str().into(),
        "name" => kind.name.as_str().into(),
        _ => Key::Moment(kind.created_at),
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
    let kind = find(&tables, &context, &id)?;
    Ok(Json(json!({"group_type": view(&service, &context, kind)})))
}

/// No type is the default of groups: that of consistency groups is for these alone.
async fn default(State(_): Shared, context: Context) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    Err(Fault::not_found("Default group type can not be found."))
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types:create", &context)?;
    body.only(&["group_type"])?;
    let fields = body.object("group_type")?;
    fields.only(&["name", "description", "is_public", "group_specs"])?;
    let name = fields.required_text("name", 1..=TEXT_MAX)?;
    let description = fields.short_text("description")?;
    let is_public = fields.boolean("is_public")?.unwrap_or(true);
    let specs = fields.metadata("group_specs")?.unwrap_or_default();
    let kind = GroupType {
        id: uuid::Uuid::new_v4().to_string(),
        name,
        description,
        is_public,
        specs,
        created_at: Instant::now(),
        updated_at: None,
    };
    let made = service.records.edit(|edit| {
        check_name(edit.tables, &kind.name, None)?;
        edit.insert(&kind);
        edit.insert(&name_record(&kind.name, &kind.id));
        Ok::<_, Fault>(())
    });
    made.await?;
    let shown = json!({"group_type": view(&service, &context, &kind)});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// That a name is taken: what two requests at once cannot both make.
fn name_record(name: &str, id: &str) -> crate::records::volume_type::TypeName {
    crate::records::volume_type::TypeName::for_group(name, id)
}

/// The type of consistency groups, by its name.
pub const RESERVED: &str = "default_cgsnapshot_type";

/// The type of consistency groups, unless an operator has removed it.
pub fn reserved(tables: &Tables) -> Option<&Arc<Stored<GroupType>>> {
    tables.group_types.iter().find(|kind| kind.name == RESERVED)
}

/// By which name somebody asks for groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedAs {
    /// As groups: those by the older name are none.
    Group,
    /// As consistency groups, by which name all can be had, as in Cinder.
    ConsistencyGroup,
}

impl AskedAs {
    /// Refuses groups of a type that cannot be had by this name.
    pub fn check(self, tables: &Tables, type_id: &str) -> Result<(), Fault> {
        if self == Self::Group && is_reserved(tables, type_id) {
            return Err(Fault::bad_request(format!(
                "Group_type {type_id} is reserved for migrating CGs to groups. Migrated group can only be operated by CG APIs."
            )));
        }
        Ok(())
    }
}

/// Whether a type is that of consistency groups.
pub fn is_reserved(tables: &Tables, type_id: &str) -> bool {
    reserved(tables).is_some_and(|kind| kind.id == type_id)
}

/// Makes the type of consistency groups, if it is not there.
pub async fn settle_reserved(records: &Records) -> Result<(), RecordsError> {
    let kind = GroupType {
        id: uuid::Uuid::new_v4().to_string(),
        name: RESERVED.to_owned(),
        description: Some("Default group type for migrating cgsnapshot".to_owned()),
        is_public: true,
        specs: BTreeMap::from([(
            "consistent_group_snapshot_enabled".to_owned(),
            "<is> True".to_owned(),
        )]),
        created_at: Instant::now(),
        updated_at: None,
    };
    let settled = records.edit(|edit| {
        if reserved(edit.tables).is_none() {
            edit.insert(&kind);
            edit.insert(&name_record(&kind.name, &kind.id));
        }
        Ok::<_, RecordsError>(())
    });
    settled.await
}

fn check_name(tables: &Tables, name: &str, except: Option<&str>) -> Result<(), Fault> {
    let mut others = tables
        .group_types
        .iter()
        .filter(|kind| Some(kind.id.as_str()) != except);
    if others.any(|kind| kind.name == name) {
        return Err(Fault::conflict(format!("Group Type {name} already exists.")));
    }
    Ok(())
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types:update", &context)?;
    let fields = body.object("group_type")?;
    fields.only(&["name", "description", "is_public"])?;
    fields.any_of(&["name", "description", "is_public"])?;
    let name = fields.text("name", 1..=TEXT_MAX)?;
    let description = fields.short_text("description")?;
    let is_public = fields.boolean("is_public")?;
    let changed = service.records.edit(|edit| {
        let stored = find(edit.tables, &context, &id)?.clone();
        let mut kind = stored.record.clone();
        if let Some(name) = name.as_ref().filter(|name| **name != kind.name) {
            check_name(edit.tables, name, Some(&kind.id))?;
            let old = name_record(&kind.name, &kind.id);
            if let Some(old) = edit.tables.type_names.get(&old.id) {
                edit.remove(old);
            }
            edit.insert(&name_record(name, &kind.id));
            kind.name.clone_from(name);
        }
        if description.is_some() {
            kind.description.clone_from(&description);
        }
        kind.is_public = is_public.unwrap_or(kind.is_public);
        kind.updated_at = Some(Instant::now());
        edit.replace(&stored, &kind);
        Ok::<_, Fault>(kind)
    });
    let kind = changed.await?;
    Ok(Json(json!({"group_type": view(&service, &context, &kind)})))
}

async fn delete(State(service): Shared, context: Context, Path(id): Path<String>) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types:delete", &context)?;
    let deleted = service.records.edit(|edit| {
        let kind = find(edit.tables, &context, &id)?.clone();
        if edit.tables.groups.of_parent(&kind.id).next().is_some() {
            return Err(Fault::bad_request(format!(
                "Target group type is still in use: {}.",
                kind.name
            )));
        }
        let name = name_record(&kind.name, &kind.id);
        if let Some(name) = edit.tables.type_names.get(&name.id) {
            edit.remove(name);
        }
        edit.remove(&kind);
        Ok(())
    });
    deleted.await?;
    Ok(door::accepted())
}

type Specs = BTreeMap<String, String>;

fn no_spec(key: &str) -> Fault {
    Fault::not_found(format!("Group Type has no group specs with key {key}."))
}

async fn specs(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types_specs:get_all", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    Ok(Json(json!({"group_specs": find(&tables, &context, &id)?.specs})))
}

async fn spec(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types_specs:get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let value = find(&tables, &context, &id)?
        .specs
        .get(&key)
        .ok_or_else(|| no_spec(&key))?;
    Ok(Json(json!({key: value})))
}

async fn add_specs(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types_specs:create", &context)?;
    let fields = body.object("group_specs")?;
    let more = crate::request::body::metadata("group_specs", fields.0)?;
    edit_specs(&service, &context, &id, |specs| {
        specs.extend(more.clone());
        Ok(())
    })
    .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"group_specs": more}))).into_response())
}

async fn set_spec(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types_specs:update", &context)?;
    let map: Map<String, Value> = body.0;
    let mut map = crate::request::body::metadata("group_specs", &map)?;
    if map.len() != 1 {
        return Err(Fault::bad_request("Request body contains too many items"));
    }
    let value = map
        .remove(&key)
        .ok_or_else(|| Fault::bad_request("Request body and URI mismatch"))?;
    edit_specs(&service, &context, &id, |specs| {
        specs.insert(key.clone(), value.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({key: value})))
}

async fn remove_spec(
    State(service): Shared,
    context: Context,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("group:group_types_specs:delete", &context)?;
    edit_specs(&service, &context, &id, |specs| {
        specs.remove(&key).map(|_| ()).ok_or_else(|| no_spec(&key))
    })
    .await?;
    Ok(door::accepted())
}

async fn edit_specs(
    service: &Service,
    context: &Context,
    id: &str,
    becomes: impl Fn(&mut Specs) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let edited = service.records.edit(|edit| {
        let stored = find(edit.tables, context, id)?.clone();
        let mut kind = stored.record.clone();
        becomes(&mut kind.specs)?;
        kind.updated_at = Some(Instant::now());
        edit.replace(&stored, &kind);
        Ok(())
    });
    edited.await
}
