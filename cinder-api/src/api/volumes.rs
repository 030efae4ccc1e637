//! `/volumes`: made, shown, listed, changed, deleted; what is done to them lies in [`actions`].

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::door;
use crate::fault::Fault;
use crate::records::job::Task;
use crate::records::volume::VolumeStatus;
use crate::records::{Edit, Instant, Job, Stored, Tables, Volume};
use crate::request::{Body, Context, Fields, Query};
use crate::routes::{Routes, get, post};
use crate::service::{Service, Shared, seen};
use crate::work;

pub mod actions;
pub(crate) mod create;
mod encryption;
mod image_metadata;
mod images;
mod list;
mod metadata;
mod view;

pub use list::FILTERS;
pub(crate) use list::whose;
pub use view::{detail, summary};

/// The statuses of a volume that nothing is being done to.
pub const AVAILABLE_OR_IN_USE: &[VolumeStatus] = &[VolumeStatus::Available, VolumeStatus::InUse];

/// The statuses in which a volume can be deleted.
const DELETABLE: &[VolumeStatus] = &[
    VolumeStatus::Available,
    VolumeStatus::Error,
    VolumeStatus::ErrorRestoring,
    VolumeStatus::ErrorExtending,
    VolumeStatus::ErrorManaging,
    VolumeStatus::ErrorDeleting,
];

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/volumes", get(list::list).post(create::create))
        .route("/volumes/detail", get(list::list_detail))
        .route("/volumes/summary", get(list::totals))
        .route("/volumes/{id}", get(show).put(update).delete(delete))
        .route("/volumes/{id}/action", post(actions::act))
        .merge(crate::api::metadata::routes::<Volume>("/volumes"))
        .route("/volumes/{id}/encryption", get(encryption::all))
        .route("/volumes/{id}/encryption/{key}", get(encryption::one))
}

/// A volume that a caller may know of.
pub fn find<'a>(tables: &'a Tables, context: &Context, id: &str) -> Result<&'a Arc<Stored<Volume>>, Fault> {
    seen(&tables.volumes, context, id).ok_or_else(|| Fault::missing("Volume", id))
}

/// A volume that a caller may know of, and do something with that a rule names.
pub fn find_for<'a>(
    service: &Service,
    tables: &'a Tables,
    context: &Context,
    rule: &str,
    id: &str,
) -> Result<&'a Arc<Stored<Volume>>, Fault> {
    let volume = find(tables, context, id)?;
    service.check_for(rule, context, &volume.project_id)?;
    Ok(volume)
}

/// Lets something be done after the answer.
pub(crate) fn later(edit: &mut Edit<'_>, context: &Context, project: &str, task: Task) {
    edit.insert(&Job {
        id: uuid::Uuid::new_v4().to_string(),
        task,
        project_id: project.to_owned(),
        request_id: context.request_id.clone(),
        created_at: Instant::now(),
    });
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let volume = find_for(&service, &tables, &context, "volume:get", &id)?;
    Ok(axum::Json(
        json!({"volume": detail(&service, &tables, &context, volume)}),
    ))
}

async fn update(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<axum::Json<Value>, Fault> {
    let fields = body.object("volume")?;
    let known = [
        "name",
        "description",
        "display_name",
        "display_description",
        "metadata",
    ];
    if context.version.is(53) {
        body.only(&["volume"])?;
        fields.only(&known)?;
        fields.any_of(&known)?;
    }
    let name = named(fields)?;
    let description = described(fields)?;
    let metadata = fields.metadata("metadata")?;
    let changed = service.records.edit(|edit| {
        let stored = find_for(&service, edit.tables, &context, "volume:update", &id)?;
        Ok::<_, Fault>(edit.change(stored, |volume| {
            name.apply(&mut volume.name);
            description.apply(&mut volume.description);
            if let Some(metadata) = &metadata {
                volume.metadata.clone_from(metadata);
            }
        }))
    });
    let volume = changed.await?;
    let tables = service.records.tables();
    Ok(axum::Json(
        json!({"volume": view::created(&service, &tables, &context, &volume)}),
    ))
}

/// The name in a body, under either of its names.
pub(crate) fn named(fields: Fields<'_>) -> Result<Wish, Fault> {
    either(fields, "name", "display_name")
}

/// The description in a body, in the same way.
pub(crate) fn described(fields: Fields<'_>) -> Result<Wish, Fault> {
    either(fields, "description", "display_description")
}

fn either(fields: Fields<'_>, name: &str, older: &str) -> Result<Wish, Fault> {
    let name = if fields.has(name) { name } else { older };
    Wish::read(fields, name)
}

/// What a body says of a text that may be nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing: it stays as it is.
    Unsaid,
    /// What it is to be.
    Said(Option<String>),
}

impl Wish {
    /// What a body says under a name.
    pub(crate) fn read(fields: Fields<'_>, name: &str) -> Result<Self, Fault> {
        if fields.has(name) {
            return fields.short_text(name).map(Self::Said);
        }
        Ok(Self::Unsaid)
    }

    /// What the text is in something new.
    pub(crate) fn said(self) -> Option<String> {
        match self {
            Self::Unsaid => None,
            Self::Said(text) => text,
        }
    }

    /// Changes the text of something old.
    pub(crate) fn apply(&self, text: &mut Option<String>) {
        if let Self::Said(said) = self {
            text.clone_from(said);
        }
    }
}

async fn delete(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Fault> {
    let cascade = query.says_yes("cascade");
    let force = context.version.is(23) && query.says_yes("force");
    let accepted = service.records.edit(|edit| {
        let rule = if force {
            "volume:force_delete"
        } else {
            "volume:delete"
        };
        let volume = find_for(&service, edit.tables, &context, rule, &id)?;
        if !force {
            check_deletable(edit.tables, volume, cascade)?;
        }
        begin_deletion(edit, &context, volume);
        Ok::<_, Fault>(())
    });
    accepted.await?;
    Ok(door::accepted())
}

fn check_deletable(tables: &Tables, volume: &Volume, cascade: bool) -> Result<(), Fault> {
    let invalid = |why: &str| {
        Err(Fault::bad_request(format!(
            "Invalid volume: Volume status must be available or error or error_restoring or error_extending or \
             error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or \
             be disassociated from snapshots after volume transfer: {why}"
        )))
    };
    if !DELETABLE.contains(&volume.status) {
        return invalid(&format!("its status is {}.", volume.status));
    }
    if tables.attachments.of_parent(&volume.id).next().is_some() {
        return invalid("it is attached.");
    }
    if volume.group_id.is_some() {
        return invalid("it is in a group.");
    }
    if volume
        .migration_status
        .as_deref()
        .is_some_and(|status| status != "success" && status != "error")
    {
        return invalid("it is migrating.");
    }
    let mut snapshots = tables.snapshots.of_parent(&volume.id);
    if cascade {
        use crate::records::snapshot::SnapshotStatus::{Available, Deleting, Error, ErrorDeleting};
        let busy = snapshots
            .find(|snapshot| ![Available, Error, ErrorDeleting, Deleting].contains(&snapshot.status));
        return match busy {
            Some(snapshot) => invalid(&format!("its snapshot {} is {}.", snapshot.id, snapshot.status)),
            None => Ok(()),
        };
    }
    match snapshots.next() {
        Some(_) => invalid("it has snapshots; delete them first, or with it (cascade)."),
        None => Ok(()),
    }
}

pub(crate) fn begin_deletion(edit: &mut Edit<'_>, context: &Context, volume: &Stored<Volume>) {
    if volume.storage_name.is_empty() && volume.encryption_key_id.is_none() {
        // Nothing of it is in the storage. Clients delete its type right afterwards.
        work::forget_volume(edit, &volume.id);
        return;
    }
    edit.change(volume, |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = VolumeStatus::Deleting;
    });
    let task = Task::DeleteVolume {
        volume: volume.id.clone(),
    };
    later(edit, context, &volume.project_id, task);
}
