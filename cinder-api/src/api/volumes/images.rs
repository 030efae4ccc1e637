//! Volumes and images: what a volume is made from, what it is overwritten by, and what it becomes.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::actions::Act;
use super::{find_for, later};
use crate::fault::Fault;
use crate::images::checks;
use crate::images::glance::{CORE, Glance, GlanceError, Image, NewImage};
use crate::records::job::{ImageOrigin, Task};
use crate::records::volume::VolumeStatus;
use crate::records::{Instant, Tables, Volume};
use crate::request::Context;
use crate::request::body::{TEXT_MAX, is_uuid};
use crate::service::Service;

/// What an image's `disk_format` may be that a volume becomes.
const UPLOAD_FORMATS: &[&str] = &["raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx"];
/// Who may see an image.
const VISIBILITIES: &[&str] = &["community", "public", "private", "shared"];

/// Where Glance is, for whoever asks.
fn endpoint(service: &Service, context: &Context) -> Result<String, Fault> {
    let configured = service.settings.glance_url.as_ref();
    let found = configured.or(context.caller.image_endpoint.as_ref());
    let none = || Fault::unavailable("There is no image service in the catalogue, and none is configured.");
    found.cloned().ok_or_else(none)
}

fn glance<'a>(service: &'a Service, context: &'a Context, endpoint: &'a str) -> Glance<'a> {
    Glance {
        client: service.keystone.client(),
        endpoint,
        token: &context.caller.token,
    }
}

/// An image that a volume of so many GiB can be made from, as whoever asks sees it.
pub(super) async fn origin(
    service: &Service,
    context: &Context,
    id: &str,
    gib: u64,
) -> Result<ImageOrigin, Fault> {
    let endpoint = endpoint(service, context)?;
    let asked = glance(service, context, &endpoint).image(id).await;
    let image = asked.map_err(|error| match error {
        GlanceError::Away(_) => Fault::unavailable(format!("{error}. Try again.")),
        GlanceError::Refused(status, _) if status.is_server_error() => {
            Fault::unavailable(format!("{error}. Try again."))
        }
        _ => Fault::bad_request("Invalid image identifier or unable to access requested image."),
    })?;
    checks::check_description(&image, gib, &service.settings.image_formats)
        .map_err(|why| Fault::bad_request(format!("Invalid input received: {why}")))?;
    Ok(ImageOrigin {
        id: image.id.clone(),
        endpoint,
        metadata: image.volume_metadata(),
    })
}

/// `os-reimage`: a volume's bytes become an image's.
pub(super) async fn reimage(act: &Act<'_>) -> Result<(), Fault> {
    let fields = act.fields;
    fields.only(&["image_id", "reimage_reserved"])?;
    let image = fields.uuid("image_id")?;
    let image = image.ok_or_else(|| fields.required("image_id"))?;
    let reserved = fields.boolean("reimage_reserved")?.unwrap_or(false);
    let rule = if reserved {
        "volume:reimage_reserved"
    } else {
        "volume:reimage"
    };
    let size = {
        act.service.records.fresh().await?;
        let tables = act.service.records.tables();
        let volume = find_for(act.service, &tables, act.context, rule, act.id)?;
        check_plain(volume)?;
        volume.size
    };
    let origin = origin(act.service, act.context, &image, size).await?;
    act.on_volume(rule, |edit, volume| {
        let is_good = match volume.status {
            VolumeStatus::Available | VolumeStatus::Error => true,
            VolumeStatus::Reserved => reserved,
            _ => false,
        };
        if !is_good {
            return Err(Fault::conflict(format!(
                "Invalid volume: Volume {} must be available or error to be reimaged, and it is {}.",
                volume.id, volume.status
            )));
        }
        edit.change(volume, |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::Downloading;
        });
        let task = Task::ReimageVolume {
            volume: volume.id.clone(),
            image: origin.clone(),
        };
        later(edit, act.context, &volume.project_id, task);
        Ok(())
    })
    .await
}

/// What is asked for of an image that a volume becomes.
struct Wanted {
    name: String,
    force: bool,
    disk_format: String,
    container_format: String,
    access: Option<(String, bool)>,
}

const UPLOAD: &str = "volume_extension:volume_actions:upload_image";

/// `os-volume_upload_image`: a volume becomes an image.
pub(super) async fn upload(act: &Act<'_>) -> Result<Response, Fault> {
    let wanted = read(act)?;
    let (service, context) = (act.service, act.context);
    let new = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        let volume = find_for(service, &tables, context, UPLOAD, act.id)?;
        check_plain(volume)?;
        check_source(volume, wanted.force)?;
        new_image(&wanted, &volume.image_metadata)
    };
    let endpoint = endpoint(service, context)?;
    let glance = glance(service, context, &endpoint);
    let image = glance.create(&new).await.map_err(|error| match error {
        GlanceError::Refused(status, why) if status == StatusCode::FORBIDDEN => Fault::forbidden(why),
        GlanceError::Refused(status, why) if status.is_client_error() => Fault::bad_request(why),
        other => Fault::unavailable(format!("{other}. Try again.")),
    })?;
    let promised = promise(act, &wanted, &image, &endpoint).await;
    let volume = match promised {
        Ok(volume) => volume,
        Err(fault) => {
            if let Err(error) = glance.delete(&image.id).await {
                tracing::warn!(image = image.id, %error, "an image without bytes stays");
            }
            return Err(fault);
        }
    };
    let tables = service.records.tables();
    let shown = json!({"os-volume_upload_image": view(&tables, (&wanted, &image), &volume)});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

fn read(act: &Act<'_>) -> Result<Wanted, Fault> {
    let (fields, version) = (act.fields, act.context.version);
    let mut known = vec!["image_name", "force", "disk_format", "container_format"];
    if version.is(1) {
        known.extend(["visibility", "protected"]);
    }
    fields.only(&known)?;
    let one_of = |name: &'static str, possible: &[&str], default: &str| {
        let said = fields.text(name, 0..=TEXT_MAX)?;
        let said = said.unwrap_or_else(|| default.to_owned());
        if possible.contains(&said.as_str()) {
            return Ok(said);
        }
        let why = format!("'{said}' is not one of {possible:?}");
        Err(Fault::field(name, &json!(said), &why))
    };
    let access = if version.is(1) {
        let visibility = one_of("visibility", VISIBILITIES, "private")?;
        if visibility == "public" {
            let rule = "volume_extension:volume_actions:upload_public";
            act.service.check(rule, act.context)?;
        }
        Some((visibility, fields.boolean("protected")?.unwrap_or(false)))
    } else {
        None
    };
    Ok(Wanted {
        name: fields.required_text("image_name", 1..=TEXT_MAX)?,
        force: fields.boolean("force")?.unwrap_or(false),
        disk_format: one_of("disk_format", UPLOAD_FORMATS, "raw")?,
        container_format: one_of("container_format", &["bare"], "bare")?,
        access,
    })
}

/// Between an image and an encrypted volume somebody would have to decrypt or encrypt: only hosts do that.
fn check_plain(volume: &Volume) -> Result<(), Fault> {
    if volume.encryption_key_id.is_none() {
        return Ok(());
    }
    Err(Fault::bad_request(
        "Invalid volume: an encrypted volume becomes no image here, and no image is written to one: only the server that has it \
         sees what is in it. Copy inside of a server.",
    ))
}

fn check_source(volume: &Volume, force: bool) -> Result<(), Fault> {
    match volume.status {
        VolumeStatus::Available => Ok(()),
        VolumeStatus::InUse if force => Ok(()),
        other => Err(Fault::bad_request(format!(
            "Invalid volume: Invalid volume status: available/in-use (with force) is needed, and it is {other}."
        ))),
    }
}

fn new_image(wanted: &Wanted, known: &BTreeMap<String, String>) -> NewImage {
    let is_theirs = |key: &&String| {
        // Glance keeps these for itself, and for whoever has signed an image.
        !CORE.contains(&key.as_str()) && !key.starts_with("os_glance") && !key.starts_with("img_signature")
    };
    NewImage {
        name: wanted.name.clone(),
        disk_format: wanted.disk_format.clone(),
        container_format: wanted.container_format.clone(),
        access: wanted.access.clone(),
        properties: known
            .iter()
            .filter(|(key, _)| is_theirs(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

async fn promise(act: &Act<'_>, wanted: &Wanted, image: &Image, endpoint: &str) -> Result<Volume, Fault> {
    if !is_uuid(&image.id) {
        return Err(Fault::internal(&"Glance gave an image an identity that is none"));
    }
    let promised = act.service.records.edit(|edit| {
        let volume = find_for(act.service, edit.tables, act.context, UPLOAD, act.id)?.clone();
        check_source(&volume, wanted.force)?;
        let changed = edit.change(&volume, |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::Uploading;
        });
        let task = Task::UploadImage {
            volume: volume.id.clone(),
            image: image.id.clone(),
            endpoint: endpoint.to_owned(),
            disk_format: wanted.disk_format.clone(),
        };
        later(edit, act.context, &volume.project_id, task);
        Ok(changed)
    });
    promised.await
}

fn view(tables: &Tables, (wanted, image): (&Wanted, &Image), volume: &Volume) -> Value {
    let kind = tables.types.get(&volume.type_id);
    let kind = kind.map(|kind| {
        json!({
            "id": kind.id,
            "name": kind.name,
            "description": kind.description,
            "is_public": kind.is_public,
            "extra_specs": kind.extra_specs,
            "qos_specs_id": kind.qos_id,
            "created_at": kind.created_at.to_string(),
            "updated_at": kind.updated_at.as_ref().map(Instant::to_string),
            "deleted": false,
            "deleted_at": Value::Null,
        })
    });
    let mut shown = json!({
        "id": volume.id,
        "updated_at": volume.updated_at.as_ref().map(Instant::to_string),
        "status": VolumeStatus::Uploading,
        "display_description": volume.description,
        "size": volume.size,
        "volume_type": kind,
        "image_id": image.id,
        "container_format": wanted.container_format,
        "disk_format": wanted.disk_format,
        "image_name": wanted.name,
    });
    if let Some((visibility, protected)) = &wanted.access {
        shown["visibility"] = json!(visibility);
        shown["protected"] = json!(protected);
    }
    shown
}
