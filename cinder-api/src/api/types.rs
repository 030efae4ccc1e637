//! `/types`: kinds of volumes, as operators offer them.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::config::DEFAULT_TYPE;
use crate::fault::Fault;
use crate::records::job::Task;
use crate::records::volume_type::TypeName;
use crate::records::{Edit, Instant, Records, RecordsError, Stored, Tables, VolumeType};
use crate::request::Context;
use crate::routes::{Routes, get, post, put};
use crate::service::{Service, Shared};

mod access;
mod change;
mod defaults;
mod encryption;
mod extra_specs;
mod list;
pub(crate) mod specs;
mod view;

pub use list::FILTERS;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/types", get(list::list).post(change::create))
        .route("/types/default", get(show_default))
        .route(
            "/types/{id}",
            get(show).put(change::update).delete(change::delete),
        )
        .route("/types/{id}/action", post(access::act))
        .route("/types/{id}/os-volume-type-access", get(access::all))
        .route(
            "/types/{id}/extra_specs",
            get(extra_specs::all).post(extra_specs::merge),
        )
        .route(
            "/types/{id}/extra_specs/{key}",
            get(extra_specs::one)
                .put(extra_specs::set)
                .delete(extra_specs::remove),
        )
        .route(
            "/types/{id}/encryption",
            get(encryption::all).post(encryption::create),
        )
        .route(
            "/types/{id}/encryption/{key}",
            get(encryption::one)
                .put(encryption::update)
                .delete(encryption::delete),
        )
        .route("/default-types", get(defaults::list))
        .route(
            "/default-types/{project}",
            put(defaults::set).get(defaults::show).delete(defaults::unset),
        )
}

/// A type that a caller may know of, by its identity, even while it is being deleted: whoever began with that may have died.
fn look<'a>(tables: &'a Tables, context: &Context, id: &str) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    let seen = tables.types.get(id).filter(|kind| is_seen(context, kind));
    seen.ok_or_else(|| no_type(id))
}

fn is_seen(context: &Context, kind: &VolumeType) -> bool {
    let project = context.caller.project_id.as_deref();
    context.caller.is_admin || project.is_some_and(|project| kind.is_for(project))
}

fn no_type(named: &str) -> Fault {
    Fault::not_found(format!("Volume type {named} could not be found."))
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Fault> {
    service.check("volume_extension:type_get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let kind = look(&tables, &context, &id)?;
    Ok(axum::Json(
        json!({"volume_type": view::full(&service, &context, kind)}),
    ))
}

async fn show_default(State(service): Shared, context: Context) -> Result<axum::Json<Value>, Fault> {
    service.check("volume_extension:type_get", &context)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let kind = default_for(&service, &tables, context.project()?)?;
    Ok(axum::Json(
        json!({"volume_type": view::full(&service, &context, kind)}),
    ))
}

/// Whether volumes have a type, or are about to get it.
fn has_volumes(tables: &Tables, id: &str) -> bool {
    let is_to_get = |task: &Task| matches!(task, Task::RetypeVolume { type_id, .. } if type_id == id);
    tables.volumes.iter().any(|volume| volume.type_id == id)
        || tables.jobs.iter().any(|job| is_to_get(&job.task))
}

/// Changes or removes a type that no volume has, so that none gets it meanwhile: the type is first marked so that nobody
/// gives it to a volume any more, and only then is looked whether volumes have it. `may` refuses what makes no sense;
/// `becomes` writes the type as it is to be, without the mark.
async fn unused(
    service: &Service,
    context: &Context,
    id: &str,
    in_use: &str,
    may: impl Fn(&Tables, &VolumeType) -> Result<(), Fault>,
    becomes: impl Fn(&mut Edit<'_>, &Stored<VolumeType>),
) -> Result<(), Fault> {
    let marked = service.records.edit(|edit| {
        let stored = look(edit.tables, context, id)?;
        may(edit.tables, stored)?;
        if has_volumes(edit.tables, id) {
            return Err(Fault::bad_request(in_use));
        }
        let mut kind = stored.record.clone();
        kind.deleting = true;
        edit.replace(stored, &kind);
        Ok(())
    });
    marked.await?;
    // Whoever relied on the type before it was marked has written his volume by now, and this edit sees it.
    let decided = service.records.edit(|edit| {
        let stored = look(edit.tables, context, id)?.clone();
        if !stored.deleting {
            let message = "Somebody else changes the volume type at the same time: try again.";
            return Err(Fault::conflict(message));
        }
        if may(edit.tables, &stored).is_ok() && !has_volumes(edit.tables, id) {
            becomes(edit, &stored);
            return Ok(true);
        }
        let mut kind = stored.record.clone();
        kind.deleting = false;
        edit.replace(&stored, &kind);
        Ok::<_, Fault>(false)
    });
    if decided.await? {
        return Ok(());
    }
    Err(Fault::bad_request(in_use))
}

/// A type that a caller may use, by its identity or its name.
pub fn find<'a>(
    tables: &'a Tables,
    context: &Context,
    named: &str,
) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    let by_name = || by_name(tables, named);
    let found = tables
        .types
        .get(named)
        .or_else(by_name)
        .filter(|kind| !kind.deleting);
    found
        .filter(|kind| is_seen(context, kind))
        .ok_or_else(|| no_type(named))
}

/// A type by its name.
pub fn by_name<'a>(tables: &'a Tables, name: &str) -> Option<&'a Arc<Stored<VolumeType>>> {
    let id = tables.type_names.get(&TypeName::key(name))?;
    tables.types.get(&id.type_id)
}

/// The type that a project's volumes get if nobody names one.
pub fn default_for<'a>(
    service: &Service,
    tables: &'a Tables,
    project: &str,
) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    let own = tables
        .default_types
        .get(project)
        .and_then(|default| tables.types.get(&default.type_id));
    let found = own.or_else(|| by_name(tables, &service.settings.default_volume_type));
    let found = found
        .or_else(|| by_name(tables, DEFAULT_TYPE))
        .filter(|kind| !kind.deleting);
    found.ok_or_else(|| {
        Fault::not_found("Default volume type could not be found: an administrator must make one.")
    })
}

/// Makes the type that is always there, if it is not.
pub async fn settle_default(records: &Records) -> Result<(), RecordsError> {
    let id = uuid::Uuid::new_v4().to_string();
    let settled = records.edit(|edit| {
        if by_name(edit.tables, DEFAULT_TYPE).is_none() {
            edit.insert(&TypeName::new(DEFAULT_TYPE, &id));
            edit.insert(&VolumeType {
                id: id.clone(),
                name: DEFAULT_TYPE.to_owned(),
                description: Some("Default Volume Type".to_owned()),
                is_public: true,
                projects: std::collections::BTreeSet::new(),
                extra_specs: std::collections::BTreeMap::new(),
                qos_id: None,
                encryption: None,
                deleting: false,
                created_at: Instant::now(),
                updated_at: None,
            });
        }
        Ok::<_, RecordsError>(())
    });
    settled.await
}
