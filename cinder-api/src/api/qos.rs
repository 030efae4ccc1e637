//! `/qos-specs`: limits of types.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::types::specs::{self, Specs};
use crate::door;
use crate::fault::Fault;
use crate::qos;
use crate::records::job::Task;
use crate::records::qos::{Consumer, QosName, QosSpecs};
use crate::records::{Edit, Instant, Stored, Tables};
use crate::request::body::TEXT_MAX;
use crate::request::filter::filters;
use crate::request::listing::{self, Key, Page};
use crate::request::{Body, Context, Query};
use crate::routes::{Routes, get, put};
use crate::service::Shared;

mod associations;

/// What they can be sorted by.
const SORT_KEYS: &[&str] = &["id", "name", "consumer", "created_at"];
/// Filters.
const FILTERS: &[&str] = &["id", "name", "consumer"];
/// The most keys that one request removes.
const KEYS_MAX: usize = 1000;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/qos-specs", get(list).post(create))
        .route("/qos-specs/{id}", get(show).put(update).delete(delete))
        .route("/qos-specs/{id}/delete_keys", put(delete_keys))
        .route("/qos-specs/{id}/associations", get(associations::all))
        .route("/qos-specs/{id}/associate", get(associations::add))
        .route("/qos-specs/{id}/disassociate", get(associations::remove))
        .route("/qos-specs/{id}/disassociate_all", get(associations::remove_all))
}

fn look<'a>(tables: &'a Tables, id: &str) -> Result<&'a Arc<Stored<QosSpecs>>, Fault> {
    let found = tables.qos.get(id);
    found.ok_or_else(|| Fault::not_found(format!("No such qos spec {id}.")))
}

fn summary(qos: &QosSpecs) -> Value {
    json!({"id": qos.id, "name": qos.name, "consumer": qos.consumer, "specs": qos.specs})
}

fn detail(context: &Context, qos: &QosSpecs) -> Json<Value> {
    Json(json!({
        "qos_specs": summary(qos),
        "links": context.links(&format!("qos-specs/{}", qos.id)),
    }))
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:qos_specs_manage:get_all", &context)?;
    let page = Page::read(&query, SORT_KEYS)?;
    let filters = filters(&context, &query, FILTERS)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |qos: &QosSpecs| {
        filters.iter().all(|filter| match filter.name.as_str() {
            "id" => filter.fits(&qos.id),
            "name" => filter.fits(&qos.name),
            "consumer" => filter.fits(qos.consumer.as_str()),
            _ => true,
        })
    };
    let selected = page.select(tables.qos.iter(), keep, key)?;
    let show = |qos: &Stored<QosSpecs>| summary(qos);
    Ok(Json(listing::answer(
        &context,
        &query,
        ("qos_specs", "qos-specs"),
        &selected,
        show,
    )))
}

fn key<'a>(qos: &'a QosSpecs, name: &str) -> Key<'a> {
    match name {
        "id" => qos.id.as_str().into(),
        "name" => qos.name.as_str().into(),
        "consumer" => qos.consumer.as_str().into(),
        _ => Key::Moment(qos.created_at),
    }
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:qos_specs_manage:get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    Ok(detail(&context, look(&tables, &id)?))
}

/// Who keeps to the limits, and the limits: both stand in one object.
fn read(map: &Map<String, Value>) -> Result<(Option<Consumer>, Specs), Fault> {
    let mut specs = specs::read(map, true)?;
    let consumer = match specs.remove("consumer") {
        None => None,
        Some(text) => Some(Consumer::parse(&text).ok_or_else(|| {
            Fault::bad_request(format!(
                "Invalid qos specs: Valid consumer of QoS specs are: ['front-end', 'back-end', 'both'], and {text} is none."
            ))
        })?),
    };
    Ok((consumer, specs))
}

/// Refuses what the storage could not keep to.
fn refuse_impossible(qos: &QosSpecs) -> Result<(), Fault> {
    qos::check(qos).map_err(|why| Fault::bad_request(format!("Invalid qos specs: {why}.")))
}

/// Changes specifications, and has the storage keep to what the volumes of their types are to have from now on.
fn change(
    edit: &mut Edit<'_>,
    context: &Context,
    stored: &Stored<QosSpecs>,
    qos: &QosSpecs,
) -> Result<(), Fault> {
    refuse_impossible(qos)?;
    edit.replace(stored, qos);
    let concerns = stored.consumer.is_for_back_end() || qos.consumer.is_for_back_end();
    if concerns && associations::of(edit.tables, &qos.id).next().is_some() {
        let task = Task::LimitVolumesOfQos { qos: qos.id.clone() };
        associations::follow(edit, context, task);
    }
    Ok(())
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:qos_specs_manage:create", &context)?;
    body.only(&["qos_specs"])?;
    let fields = body.object("qos_specs")?;
    let name = fields.required_text("name", 1..=TEXT_MAX)?;
    let mut rest = fields.0.clone();
    rest.remove("name");
    let (consumer, specs) = read(&rest)?;
    let qos = QosSpecs {
        id: uuid::Uuid::new_v4().to_string(),
        name,
        // Cinder's default.
        consumer: consumer.unwrap_or(Consumer::BackEnd),
        specs,
        created_at: Instant::now(),
    };
    refuse_impossible(&qos)?;
    let made = service.records.edit(|edit| {
        if edit.tables.qos_names.get(&QosName::key(&qos.name)).is_some() {
            return Err(Fault::conflict(format!("QoS Specs {} already exists.", qos.name)));
        }
        edit.insert(&QosName::new(&qos.name, &qos.id));
        edit.insert(&qos);
        Ok(())
    });
    made.await?;
    Ok(detail(&context, &qos))
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:qos_specs_manage:update", &context)?;
    body.only(&["qos_specs"])?;
    let fields = body.object("qos_specs")?;
    let (consumer, specs) = read(fields.0)?;
    let changed = service.records.edit(|edit| {
        let stored = look(edit.tables, &id)?;
        let mut qos = stored.record.clone();
        qos.consumer = consumer.unwrap_or(qos.consumer);
        qos.specs.extend(specs.clone());
        change(edit, &context, stored, &qos)
    });
    changed.await?;
    Ok(Json(json!({"qos_specs": fields.0})))
}

async fn delete_keys(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    service.check("volume_extension:qos_specs_manage:delete", &context)?;
    body.only(&["keys"])?;
    let keys = match body.0.get("keys") {
        Some(Value::Array(keys)) if keys.len() <= KEYS_MAX => keys,
        Some(other) => {
            return Err(Fault::field(
                "keys",
                other,
                &format!("it is no list of at most {KEYS_MAX}"),
            ));
        }
        None => return Err(Fault::bad_request("'keys' is a required property")),
    };
    let read = |key: &Value| match key {
        Value::String(key) => Ok(key.clone()),
        other => Err(Fault::field("keys", other, "it is no text")),
    };
    let keys: Vec<String> = keys.iter().map(read).collect::<Result<_, _>>()?;
    let changed = service.records.edit(|edit| {
        let stored = look(edit.tables, &id)?;
        let mut qos = stored.record.clone();
        for key in &keys {
            if qos.specs.remove(key).is_none() {
                return Err(Fault::not_found(format!(
                    "QoS spec {id} has no spec with key {key}."
                )));
            }
        }
        change(edit, &context, stored, &qos)
    });
    changed.await?;
    Ok(door::accepted())
}

async fn delete(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Fault> {
    service.check("volume_extension:qos_specs_manage:delete", &context)?;
    let force = query.boolean("force")?.unwrap_or(false);
    if force {
        service.records.fresh().await?;
        look(&service.records.tables(), &id)?;
        associations::clear(&service, &context, &id).await?;
    }
    let deleted = service.records.edit(|edit| {
        let tables = edit.tables;
        let stored = look(tables, &id)?;
        if associations::of(tables, &id).next().is_some() {
            return Err(Fault::bad_request("Qos specs still in use."));
        }
        if let Some(name) = tables.qos_names.get(&QosName::key(&stored.name)) {
            edit.remove(name);
        }
        edit.remove(stored);
        Ok(())
    });
    deleted.await?;
    Ok(door::accepted())
}
