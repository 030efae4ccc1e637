//! `POST /volumes`: what is asked for, whether it can be, and the promise of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use admin_api::snapshots::GROUP_VOLUMES_MAX;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{described, later, named, view};
use crate::api::types;
use crate::fault::Fault;
use crate::keys::{self, Made, Need};
use crate::quota::{self, Amounts};
use crate::records::backup::BackupStatus;
use crate::records::group::GroupStatus;
use crate::records::job::{ImageOrigin, Task};
use crate::records::snapshot::SnapshotStatus;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::records::{Backup, Edit, Instant, Snapshot, Stored, Tables, Volume, VolumeType};
use crate::request::body::{INTEGER_MAX, TEXT_MAX};
use crate::request::{Body, Context, Fields};
use crate::service::{Service, Shared};

/// Fields that a version knows.
const FIELDS: &[&str] = &[
    "size",
    "name",
    "description",
    "display_name",
    "display_description",
    "volume_type",
    "metadata",
    "snapshot_id",
    "source_volid",
    "imageRef",
    "image_id",
    "availability_zone",
    "consistencygroup_id",
    "multiattach",
    "user_id",
    "project_id",
    "status",
    "attach_status",
    "group_id",
    "backup_id",
    "OS-SCH-HNT:scheduler_hints",
    "source_replica",
];

/// An image's property that names its volumes' type.
const IMAGE_TYPE: &str = "cinder_img_volume_type";

/// What is asked for.
#[derive(Default)]
pub(crate) struct Wanted {
    name: Option<String>,
    description: Option<String>,
    size: Option<u64>,
    kind: Option<String>,
    snapshot: Option<String>,
    source: Option<String>,
    image: Option<String>,
    /// What Glance says of the image.
    origin: Option<ImageOrigin>,
    backup: Option<String>,
    group: Option<String>,
    zone: Option<String>,
    metadata: BTreeMap<String, String>,
    /// The key that was made for it.
    key: Option<Made>,
}

impl Wanted {
    /// A volume that is made from a backup, as large as that was.
    pub(crate) fn of_backup(name: String, backup: String) -> Self {
        Self {
            name: Some(name),
            backup: Some(backup),
            ..Self::default()
        }
    }

    /// Makes the key that it needs, if it needs one.
    pub(crate) async fn get_key(&mut self, service: &Service, context: &Context) -> Result<(), Fault> {
        let need = {
            service.records.fresh().await?;
            let tables = service.records.tables();
            let origin = Origin::find(&tables, context, self)?;
            let kind = choose_type(service, &tables, context, self, &origin)?;
            need(&tables, kind, &origin, self.image.is_some())?
        };
        self.key = keys::make(service, context, need.into_iter().collect())
            .await?
            .pop();
        Ok(())
    }

    /// What was promised; if nothing was, its key ends.
    pub(crate) async fn kept<T>(
        &self,
        service: &Service,
        context: &Context,
        promised: Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let (Err(_), Some(made)) = (&promised, &self.key) {
            keys::unmake(service, context, std::slice::from_ref(made)).await;
        }
        promised
    }
}

/// Makes a volume: the answer is that it will be there.
pub(super) async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    service.check("volume:create", &context)?;
    let mut wanted = read(&service, &context, &body)?;
    if let Some(image) = &wanted.image {
        service.check("volume:create_from_image", &context)?;
        let size = wanted.size.unwrap_or(0);
        let origin = super::images::origin(&service, &context, image, size).await?;
        // An image may say which type its volumes have unless whoever makes one says another.
        let kind = origin.metadata.get(IMAGE_TYPE).filter(|kind| !kind.is_empty());
        wanted.kind = wanted.kind.or_else(|| kind.cloned());
        wanted.origin = Some(origin);
    }
    wanted.get_key(&service, &context).await?;
    let id = uuid::Uuid::new_v4().to_string();
    let promised = service
        .records
        .edit(|edit| promise(&service, edit, &context, &wanted, &id));
    let volume = wanted.kept(&service, &context, promised.await).await?;
    let tables = service.records.tables();
    let shown = view::created(&service, &tables, &context, &volume);
    Ok((StatusCode::ACCEPTED, axum::Json(json!({"volume": shown}))).into_response())
}

fn read(service: &Service, context: &Context, body: &Body) -> Result<Wanted, Fault> {
    let fields = body.object("volume")?;
    if context.version.is(53) {
        body.only(&["volume", "OS-SCH-HNT:scheduler_hints"])?;
        fields.only(FIELDS)?;
    }
    if fields.boolean("multiattach")? == Some(true) {
        return Err(Fault::bad_request(
            "multiattach parameter has been removed. The default behavior is to use multiattach enabled volume types. Contact \
             your administrator to create a multiattach enabled volume type and use it to create multiattach volumes.",
        ));
    }
    let wanted = Wanted {
        name: named(fields)?.said(),
        description: described(fields)?.said(),
        size: size(fields)?,
        kind: fields
            .text("volume_type", 0..=TEXT_MAX)?
            .filter(|kind| !kind.is_empty()),
        snapshot: reference(fields, "snapshot_id", "Snapshot")?,
        source: reference(fields, "source_volid", "Volume")?,
        image: image(fields)?,
        origin: None,
        backup: if context.version.is(47) {
            reference(fields, "backup_id", "Backup")?
        } else {
            None
        },
        group: group(context, fields)?,
        key: None,
        zone: fields
            .text("availability_zone", 0..=TEXT_MAX)?
            .filter(|zone| !zone.is_empty()),
        metadata: fields.metadata("metadata")?.unwrap_or_default(),
    };
    let hints = body
        .0
        .get("OS-SCH-HNT:scheduler_hints")
        .or_else(|| fields.value("OS-SCH-HNT:scheduler_hints"));
    if hints.is_some_and(|hints| !hints.is_object() && !hints.is_null()) {
        return Err(Fault::bad_request(
            "Invalid input for field/attribute scheduler_hints. It is no object.",
        ));
    }
    if let Some(zone) = &wanted.zone
        && *zone != service.settings.availability_zone
    {
        return Err(Fault::bad_request(format!(
            "Availability zone '{zone}' is invalid."
        )));
    }
    let origins = [&wanted.snapshot, &wanted.source, &wanted.image, &wanted.backup];
    if origins.iter().filter(|origin| origin.is_some()).count() > 1 {
        return Err(Fault::bad_request(
            "Invalid input received: May specify only one of snapshot, imageRef, source volume or backup",
        ));
    }
    let needs_size = [&wanted.snapshot, &wanted.source, &wanted.backup]
        .iter()
        .all(|origin| origin.is_none());
    if wanted.size.is_none() && needs_size {
        return Err(Fault::bad_request(
            "Invalid input received: Invalid volume size provided for create request: None (size argument must be an \
             integer (or string representation of an integer) and greater than zero).",
        ));
    }
    Ok(wanted)
}

/// The group that it is to be in, under either of its names.
fn group(context: &Context, fields: Fields<'_>) -> Result<Option<String>, Fault> {
    let newer = if context.version.is(13) {
        fields.uuid("group_id")?
    } else {
        None
    };
    Ok(newer.or(fields.uuid("consistencygroup_id")?))
}

fn size(fields: Fields<'_>) -> Result<Option<u64>, Fault> {
    let size = fields.integer("size", 1..=INTEGER_MAX)?;
    Ok(size.and_then(|size| u64::try_from(size).ok()))
}

/// The identity of something that a volume is made from. What is no identity names nothing.
fn reference(fields: Fields<'_>, name: &str, kind: &str) -> Result<Option<String>, Fault> {
    match fields.text(name, 0..=TEXT_MAX)? {
        Some(id) if id.is_empty() => Ok(None),
        Some(id) if !crate::request::body::is_uuid(&id) => Err(Fault::missing(kind, &id)),
        other => Ok(other),
    }
}

fn image(fields: Fields<'_>) -> Result<Option<String>, Fault> {
    for name in ["imageRef", "image_id"] {
        let Some(image) = fields.text(name, 0..=TEXT_MAX)?.filter(|image| !image.is_empty()) else {
            continue;
        };
        // Older clients send the image's address.
        let id = image.rsplit('/').next().unwrap_or_default();
        if !crate::request::body::is_uuid(id) {
            return Err(Fault::bad_request(
                "Invalid image identifier or unable to access requested image.",
            ));
        }
        return Ok(Some(id.to_owned()));
    }
    Ok(None)
}

/// What a volume is made from, as far as it is there and in order.
struct Origin<'a> {
    snapshot: Option<&'a Arc<Stored<Snapshot>>>,
    volume: Option<&'a Arc<Stored<Volume>>>,
    backup: Option<&'a Arc<Stored<Backup>>>,
}

impl Origin<'_> {
    fn find<'a>(tables: &'a Tables, context: &Context, wanted: &Wanted) -> Result<Origin<'a>, Fault> {
        let mut origin = Origin {
            snapshot: None,
            volume: None,
            backup: None,
        };
        if let Some(id) = &wanted.snapshot {
            let snapshot = crate::api::snapshots::find(tables, context, id)?;
            if snapshot.status != SnapshotStatus::Available {
                return Err(Fault::bad_request(format!(
                    "Invalid snapshot: Originating snapshot status must be one of 'available' values, and it is {}.",
                    snapshot.status
                )));
            }
            origin.volume = tables.volumes.get(&snapshot.volume_id);
            origin.snapshot = Some(snapshot);
        }
        if let Some(id) = &wanted.source {
            let volume = super::find(tables, context, id)?;
            if !super::AVAILABLE_OR_IN_USE.contains(&volume.status) {
                return Err(Fault::bad_request(format!(
                    "Invalid volume: Invalid status: the source volume is {}, and must be available or in-use.",
                    volume.status
                )));
            }
            origin.volume = Some(volume);
        }
        if let Some(id) = &wanted.backup {
            let backup = crate::api::backups::find(tables, context, id)?;
            crate::api::backups::check_restorable(backup)?;
            origin.backup = Some(backup);
        }
        Ok(origin)
    }

    fn size(&self) -> u64 {
        let snapshot = self.snapshot.map(|snapshot| snapshot.size);
        snapshot
            .or_else(|| self.volume.map(|volume| volume.size))
            .or_else(|| self.backup.map(|backup| backup.size))
            .unwrap_or(0)
    }
}

pub(crate) fn promise(
    service: &Service,
    edit: &mut Edit<'_>,
    context: &Context,
    wanted: &Wanted,
    id: &str,
) -> Result<Volume, Fault> {
    let project = context.project()?;
    let tables = edit.tables;
    let origin = Origin::find(tables, context, wanted)?;
    let size = wanted.size.unwrap_or_else(|| origin.size());
    if size < origin.size() {
        return Err(Fault::bad_request(format!(
            "Invalid input received: Volume size '{size}'GB cannot be smaller than the size of what it is made from, {}GB.",
            origin.size()
        )));
    }
    let kind = choose_type(service, tables, context, wanted, &origin)?;
    let need = need(tables, kind, &origin, wanted.image.is_some())?;
    let key = keys::fits(need.as_ref(), wanted.key.as_ref())?;
    if key.is_some() && kind.says_yes("multiattach") {
        return Err(Fault::bad_request(
            "Invalid volume: Multiattach cannot be used with encrypted volumes.",
        ));
    }
    quota::check_size(tables, project, size)?;
    quota::take(edit, project, &Amounts::volume(&kind.id, size))?;
    check_group(edit, context, wanted, &kind.id)?;
    // Whoever deletes these at the same time decides anew.
    edit.rely(kind);
    if let Some(snapshot) = origin.snapshot {
        edit.touch(snapshot);
    }
    if let (Some(volume), None) = (origin.volume, origin.snapshot) {
        edit.touch(volume);
    }
    let task = task(edit, (&origin, wanted.origin.as_ref()), id);
    let volume = Volume {
        id: id.to_owned(),
        project_id: project.to_owned(),
        user_id: context.caller.user_id.clone(),
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        size,
        status: VolumeStatus::Creating,
        previous_status: None,
        attach_status: AttachStatus::Detached,
        migration_status: None,
        availability_zone: service.settings.availability_zone.clone(),
        created_at: Instant::now(),
        updated_at: None,
        type_id: kind.id.clone(),
        snapshot_id: wanted.snapshot.clone(),
        source_id: wanted.source.clone(),
        metadata: wanted.metadata.clone(),
        image_metadata: origin
            .volume
            .map(|volume| volume.image_metadata.clone())
            .unwrap_or_default(),
        read_only: None,
        bootable: origin.volume.is_some_and(|volume| volume.bootable),
        multiattach: kind.says_yes("multiattach"),
        group_id: wanted.group.clone(),
        encryption_key_id: key,
        consumes_quota: true,
        pool: None,
        storage_name: format!("volume-{id}"),
        chap: None,
    };
    edit.insert(&volume);
    later(edit, context, project, task);
    Ok(volume)
}

/// What a volume needs of the key manager: nothing if its type is not encrypted. What it is made from was encrypted in the same
/// way, or neither is: bytes are copied as they are.
fn need(
    tables: &Tables,
    kind: &VolumeType,
    origin: &Origin<'_>,
    of_image: bool,
) -> Result<Option<Need>, Fault> {
    let from_volume = origin
        .volume
        .map(|volume| (&volume.encryption_key_id, Some(&volume.type_id)));
    let of_backup = |backup: &'_ Stored<Backup>| backup.source.type_id.clone();
    let (key, before) = match (from_volume, origin.backup) {
        (Some((key, before)), _) => (key.clone(), before.cloned()),
        (None, Some(backup)) => (backup.encryption_key_id.clone(), of_backup(backup)),
        (None, None) => {
            let Some(encryption) = &kind.encryption else {
                return Ok(None);
            };
            if of_image {
                return Err(Fault::bad_request(
                    "Invalid volume type: images are not encrypted here on their way into a volume: make an empty volume of \
                     this type, and write the image inside of a server.",
                ));
            }
            return Need::new(encryption).map(Some);
        }
    };
    let before = before.and_then(|before| tables.types.get(&before));
    let before = before.and_then(|before| before.encryption.as_ref());
    match (key, &kind.encryption) {
        (None, None) => Ok(None),
        (Some(key), Some(encryption)) if before.is_none_or(|before| before.is_like(encryption)) => {
            Ok(Some(Need::Copy(key)))
        }
        _ => Err(Fault::bad_request(
            "Invalid volume type: Invalid volume_type provided; requested type is not compatible; either match what the \
             volume is made from, or omit type argument: bytes stay encrypted as they are.",
        )),
    }
}

/// What makes the volume. A backup that it is made from is held until then.
fn task(edit: &mut Edit<'_>, (origin, image): (&Origin<'_>, Option<&ImageOrigin>), id: &str) -> Task {
    let volume = id.to_owned();
    if let Some(image) = image {
        return Task::CreateFromImage {
            volume,
            image: image.clone(),
        };
    }
    match origin.backup {
        Some(backup) => {
            edit.change(backup, |backup| backup.status = BackupStatus::Restoring);
            Task::RestoreBackup {
                backup: backup.id.clone(),
                volume,
            }
        }
        None => Task::CreateVolume { volume },
    }
}

/// A volume that is made in a group has a type that the group names.
fn check_group(edit: &mut Edit<'_>, context: &Context, wanted: &Wanted, type_id: &str) -> Result<(), Fault> {
    let Some(id) = &wanted.group else {
        return Ok(());
    };
    let tables = edit.tables;
    let group = crate::api::groups::find(tables, context, id)?;
    let invalid = |why: &str| {
        Err(Fault::bad_request(format!(
            "Invalid input received: Invalid group: {why}"
        )))
    };
    if group.status != GroupStatus::Available {
        return invalid(&format!("it is {}, and must be available.", group.status));
    }
    if !group.volume_types.iter().any(|kind| kind == type_id) {
        return invalid("it does not name the volume's type.");
    }
    if crate::api::groups::volumes_of(tables, group).count() >= GROUP_VOLUMES_MAX {
        return invalid("it is full.");
    }
    edit.touch(group);
    Ok(())
}

fn choose_type<'a>(
    service: &Service,
    tables: &'a Tables,
    context: &Context,
    wanted: &Wanted,
    origin: &Origin<'a>,
) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    if let Some(named) = &wanted.kind {
        return types::find(tables, context, named);
    }
    let before = origin.volume.map(|volume| &volume.type_id);
    let before = before.or_else(|| origin.backup.and_then(|backup| backup.source.type_id.as_ref()));
    let inherited = before.and_then(|kind| tables.types.get(kind));
    if let Some(kind) = inherited.filter(|kind| !kind.deleting) {
        return Ok(kind);
    }
    types::default_for(service, tables, context.project()?)
}
