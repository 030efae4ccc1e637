//! Types made, changed and deleted.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{by_name, look, unused, view};
use crate::config::DEFAULT_TYPE;
use crate::door;
use crate::fault::Fault;
use crate::records::volume_type::TypeName;
use crate::records::{Edit, Instant, Stored, Tables, VolumeType};
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context};
use crate::service::{Service, Shared};

pub(super) async fn create(
    State(service): Shared,
    context: Context,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:type_create", &context)?;
    body.only(&["volume_type"])?;
    let fields = body.object("volume_type")?;
    fields.only(&[
        "name",
        "description",
        "extra_specs",
        "os-volume-type-access:is_public",
    ])?;
    let kind = VolumeType {
        id: uuid::Uuid::new_v4().to_string(),
        name: fields.required_text("name", 1..=TEXT_MAX)?,
        description: fields.short_text("description")?,
        is_public: fields.boolean("os-volume-type-access:is_public")?.unwrap_or(true),
        projects: BTreeSet::new(),
        extra_specs: match fields.value("extra_specs") {
            None => super::specs::Specs::new(),
            Some(Value::Object(map)) => super::specs::read(map, true)?,
            Some(other) => return Err(Fault::field("extra_specs", other, "it is no object")),
        },
        qos_id: None,
        encryption: None,
        deleting: false,
        created_at: Instant::now(),
        updated_at: None,
    };
    let made = service.records.edit(|edit| {
        if by_name(edit.tables, &kind.name).is_some() {
            return Err(taken(&kind.name));
        }
        edit.insert(&TypeName::new(&kind.name, &kind.id));
        edit.insert(&kind);
        Ok(())
    });
    made.await?;
    Ok(Json(
        json!({"volume_type": view::made(&service, &context, &kind)}),
    ))
}

fn taken(name: &str) -> Fault {
    Fault::conflict(format!("Volume Type {name} already exists."))
}

/// What is to be different about a type.
struct Wanted {
    name: Option<String>,
    description: Option<String>,
    is_public: Option<bool>,
}

pub(super) async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:type_update", &context)?;
    body.only(&["volume_type"])?;
    let fields = body.object("volume_type")?;
    fields.only(&["name", "description", "is_public"])?;
    let wanted = Wanted {
        name: fields.short_text("name")?,
        description: fields.short_text("description")?,
        is_public: fields.boolean("is_public")?,
    };
    if wanted.name.as_deref() == Some("") {
        return Err(Fault::bad_request("Volume type name can not be empty."));
    }
    if wanted.name.is_none() && wanted.description.is_none() && wanted.is_public.is_none() {
        return Err(Fault::bad_request(
            "Specify volume type name, description, is_public or a combination thereof.",
        ));
    }
    let changed = service.records.edit(|edit| {
        let stored = look(edit.tables, &context, &id)?.clone();
        apply(&service, edit, &stored, &wanted)
    });
    let kind = changed.await?;
    Ok(Json(
        json!({"volume_type": view::changed(&service, &context, &kind)}),
    ))
}

fn apply(
    service: &Service,
    edit: &mut Edit<'_>,
    stored: &Stored<VolumeType>,
    wanted: &Wanted,
) -> Result<VolumeType, Fault> {
    let tables = edit.tables;
    let mut kind = stored.record.clone();
    if let Some(name) = wanted.name.as_ref().filter(|name| **name != kind.name) {
        if by_name(tables, name).is_some() {
            return Err(taken(name));
        }
        if is_default(service, &kind) {
            return Err(Fault::bad_request(format!(
                "Invalid volume type: {} is the default type, which volumes get by its name: it cannot have another one.",
                kind.name
            )));
        }
        if let Some(old) = tables.type_names.get(&TypeName::key(&kind.name)) {
            edit.remove(old);
        }
        edit.insert(&TypeName::new(name, &kind.id));
        kind.name.clone_from(name);
    }
    if wanted.description.is_some() {
        kind.description.clone_from(&wanted.description);
    }
    kind.is_public = wanted.is_public.unwrap_or(kind.is_public);
    kind.updated_at = Some(Instant::now());
    edit.replace(stored, &kind);
    Ok(kind)
}

/// Whether volumes get a type without asking, for that is what the configuration says.
fn is_default(service: &Service, kind: &VolumeType) -> bool {
    kind.name == DEFAULT_TYPE || kind.name == service.settings.default_volume_type
}

pub(super) async fn delete(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    service.check("volume_extension:type_delete", &context)?;
    let may_go = |tables: &Tables, kind: &VolumeType| {
        let mut defaults = tables.default_types.iter();
        if is_default(&service, kind) {
            return Err(Fault::bad_request(format!(
                "The volume type {} is the default volume type and cannot be deleted.",
                kind.name
            )));
        }
        if let Some(default) = defaults.find(|default| default.type_id == kind.id) {
            return Err(Fault::bad_request(format!(
                "The volume type {} is the default of project {} and cannot be deleted.",
                kind.name, default.project_id
            )));
        }
        Ok(())
    };
    unused(
        &service,
        &context,
        &id,
        "Target volume type is still in use.",
        may_go,
        |edit, stored| {
            let tables = edit.tables;
            if let Some(name) = tables.type_names.get(&TypeName::key(&stored.name)) {
                edit.remove(name);
            }
            edit.remove(stored);
        },
    )
    .await?;
    Ok(door::accepted())
}
