//! Volumes of the storage become OpenStack's.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::listing::{self, Row};
use super::{Reference, check_host, gib, host, nothing_listed};
use crate::api::volumes::{detail, later};
use crate::api::{storage_fault, types};
use crate::fault::Fault;
use crate::quota::{self, Amounts};
use crate::records::job::Task;
use crate::records::managed::Managed;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::records::{Edit, Instant, Stored, Tables, Volume, VolumeType};
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context, Query, Version};
use crate::service::{Service, Shared};

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, false).await
}

pub(super) async fn list_detail(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, true).await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    with_detail: bool,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:list_manageable", context)?;
    check_host(service, host(query), nothing_listed)?;
    let pool = host(query)
        .and_then(|host| host.split_once('#'))
        .map(|(_, pool)| pool);
    let stored = service
        .storage
        .directory()
        .volumes()
        .await
        .map_err(|error| storage_fault(&error))?;
    service.records.fresh().await?;
    let rows = {
        let tables = service.records.tables();
        let known = known(&tables);
        let in_pool = stored
            .iter()
            .filter(|volume| pool.is_none_or(|pool| pool == volume.pool))
            .filter(|volume| !is_copy(&tables, &volume.name));
        in_pool.map(|volume| row(volume, &known)).collect()
    };
    let page = listing::page(query, rows)?;
    let shown: Vec<Value> = page.iter().map(|row| row.view(with_detail)).collect();
    Ok(Json(json!({"manageable-volumes": shown})))
}

/// Whether a volume of the storage is an image's copy: nobody's, and never to be somebody's.
fn is_copy(tables: &Tables, storage_name: &str) -> bool {
    let mut copies = tables.image_copies.iter();
    copies.any(|copy| copy.storage_name == storage_name)
}

/// OpenStack's volumes, by their names in the storage.
pub(super) fn known(tables: &Tables) -> BTreeMap<&str, &str> {
    let all = tables.volumes.iter();
    all.map(|volume| (volume.storage_name.as_str(), volume.id.as_str()))
        .collect()
}

fn row(volume: &admin_api::volumes::Volume, known: &BTreeMap<&str, &str>) -> Row {
    let known_as = known.get(volume.name.as_str()).map(|id| (*id).to_owned());
    let obstacle = match (&known_as, &volume.owner) {
        (Some(_), _) => Some("already managed".to_owned()),
        (None, Some(_)) => Some("volume in use".to_owned()),
        (None, None) => None,
    };
    Row {
        name: volume.name.clone(),
        parent: None,
        size: gib(volume.size),
        known_as,
        obstacle,
    }
}

/// What is asked for.
struct Wanted {
    reference: Reference,
    name: Option<String>,
    description: Option<String>,
    kind: Option<String>,
    bootable: bool,
    metadata: BTreeMap<String, String>,
}

pub(super) async fn manage(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    service.check("volume_extension:volume_manage", &context)?;
    let wanted = read(&service, &context, &body)?;
    let found = look(&service, &wanted.reference).await?;
    if found.owner.is_some() {
        return Err(invalid("Somebody has the volume open: let it be closed first."));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let promised = service
        .records
        .edit(|edit| promise(&service, edit, &context, &wanted, (&id, &found)));
    let volume = promised.await?;
    // The answer is the same in all versions.
    let context = Context {
        version: Version(0),
        ..context
    };
    let tables = service.records.tables();
    let shown = json!({"volume": detail(&service, &tables, &context, &volume)});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

fn read(service: &Service, context: &Context, body: &Body) -> Result<Wanted, Fault> {
    body.only(&["volume"])?;
    let fields = body.object("volume")?;
    let mut known = vec![
        "description",
        "availability_zone",
        "bootable",
        "volume_type",
        "name",
        "host",
        "ref",
        "metadata",
    ];
    if context.version.is(16) {
        known.push("cluster");
    }
    fields.only(&known)?;
    let host = fields.text("host", 0..=TEXT_MAX)?;
    // Cinder's word for it, which clients know, though there is nothing to wait for.
    let no_host = |host: &str| Fault::unavailable(format!("Host '{host}' not found"));
    check_host(service, host.as_deref(), no_host)?;
    let zone = fields.short_text("availability_zone")?;
    let zone = zone.filter(|zone| !zone.is_empty() && *zone != service.settings.availability_zone);
    if let Some(zone) = zone {
        return Err(Fault::bad_request(format!(
            "Availability zone '{zone}' is invalid."
        )));
    }
    Ok(Wanted {
        reference: Reference::read(fields, "")?,
        name: fields.short_text("name")?,
        description: fields.short_text("description")?,
        kind: fields.short_text("volume_type")?.filter(|kind| !kind.is_empty()),
        bootable: fields.boolean("bootable")?.unwrap_or(false),
        metadata: fields.metadata("metadata")?.unwrap_or_default(),
    })
}

async fn look(service: &Service, reference: &Reference) -> Result<admin_api::volumes::Volume, Fault> {
    let found = match reference {
        Reference::Name(name) => service
            .storage
            .volume(name)
            .await
            .map_err(|error| storage_fault(&error))?,
        Reference::Number(number) => {
            let all = service
                .storage
                .directory()
                .volumes()
                .await
                .map_err(|error| storage_fault(&error))?;
            all.into_iter().find(|volume| volume.id == *number)
        }
    };
    found
        .ok_or_else(|| invalid("Manage existing volume failed: the storage has no volume of that reference."))
}

fn invalid(why: &str) -> Fault {
    Fault::bad_request(format!("Invalid volume: {why}"))
}

fn choose_type<'a>(
    service: &Service,
    tables: &'a Tables,
    context: &Context,
    wanted: &Wanted,
) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    let kind = match &wanted.kind {
        Some(named) => types::find(tables, context, named).map_err(|_| {
            Fault::bad_request(format!(
                "Invalid volume type: Cannot find requested '{named}' volume type"
            ))
        })?,
        None => types::default_for(service, tables, context.project()?)?,
    };
    if kind.encryption.is_some() {
        return Err(Fault::bad_request(
            "Invalid volume type: Managing to an encrypted volume type is not supported.",
        ));
    }
    Ok(kind)
}

fn promise(
    service: &Service,
    edit: &mut Edit<'_>,
    context: &Context,
    wanted: &Wanted,
    (id, found): (&str, &admin_api::volumes::Volume),
) -> Result<Volume, Fault> {
    let project = context.project()?;
    let tables = edit.tables;
    if known(tables).contains_key(found.name.as_str()) {
        return Err(invalid(
            "Unable to manage existing volume. The volume is already managed",
        ));
    }
    if is_copy(tables, &found.name) {
        return Err(invalid(
            "Unable to manage existing volume. It is an image's copy.",
        ));
    }
    let kind = choose_type(service, tables, context, wanted)?;
    let size = gib(found.size);
    quota::check_size(tables, project, size)?;
    quota::take(edit, project, &Amounts::volume(&kind.id, size))?;
    edit.rely(kind);
    let volume = Volume {
        id: id.to_owned(),
        project_id: project.to_owned(),
        user_id: context.caller.user_id.clone(),
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        size,
        status: VolumeStatus::Managing,
        previous_status: None,
        attach_status: AttachStatus::Detached,
        migration_status: None,
        availability_zone: service.settings.availability_zone.clone(),
        created_at: Instant::now(),
        updated_at: None,
        type_id: kind.id.clone(),
        snapshot_id: None,
        source_id: None,
        metadata: wanted.metadata.clone(),
        image_metadata: BTreeMap::new(),
        read_only: None,
        bootable: wanted.bootable,
        multiattach: kind.says_yes("multiattach"),
        group_id: None,
        encryption_key_id: None,
        consumes_quota: true,
        pool: Some(found.pool.clone()),
        storage_name: found.name.clone(),
        chap: None,
    };
    // Who takes over the same one at the same time fails, and decides anew.
    edit.insert(&Managed::new(&found.name, id));
    edit.insert(&volume);
    let task = Task::ManageVolume {
        volume: id.to_owned(),
    };
    later(edit, context, project, task);
    Ok(volume)
}
