//! Volumes from images, images from volumes. An image is copied into each pool once ([`copies`]); volumes are clones of that.

use axum::http::StatusCode;
use tokio::sync::mpsc;

use super::{Trouble, conclude};
use crate::identity::Secret;
use crate::images::glance::{Glance, GlanceError};
use crate::images::scratch::{self, Scratch};
use crate::images::{checks, flow};
use crate::records::job::{ImageOrigin, Task};
use crate::records::volume::VolumeStatus;
use crate::records::{Job, Stored, Volume};
use crate::service::Service;

pub(super) mod copies;

/// Pieces of a body that wait for who takes it.
const PIECES_WAITING: usize = 4;

impl From<GlanceError> for Trouble {
    fn from(error: GlanceError) -> Self {
        match &error {
            GlanceError::Away(_) => Self::Later(error.to_string()),
            GlanceError::Refused(status, _)
                if status.is_server_error() || *status == StatusCode::UNAUTHORIZED =>
            {
                Self::Later(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Our own token, to ask Glance long after the request.
async fn own_token(service: &Service) -> Result<Secret, Trouble> {
    let token = service.keystone.service_token().await;
    token.map_err(|refusal| Trouble::Later(format!("Keystone gives no token: {refusal:?}")))
}

fn glance<'a>(service: &'a Service, endpoint: &'a str, token: &'a Secret) -> Glance<'a> {
    Glance {
        client: service.keystone.client(),
        endpoint,
        token,
    }
}

/// Makes a volume from an image.
pub(super) async fn create(
    service: &Service,
    job: &Stored<Job>,
    (id, image): (&str, &ImageOrigin),
) -> Result<(), Trouble> {
    let is_meant = |volume: &Volume| {
        use VolumeStatus::{Creating, Downloading, Reserved};
        volume.pool.is_none() && matches!(volume.status, Creating | Downloading | Reserved)
    };
    let volume = {
        let tables = service.records.tables();
        let volume = tables.volumes.get(id).filter(|volume| is_meant(volume));
        volume.map(|volume| volume.record.clone())
    };
    let Some(volume) = volume else {
        return conclude(service, job, |_| {}).await;
    };
    let Some(pool) = super::volumes::choose_pool(service, &volume.type_id).await? else {
        return super::volumes::no_backend(service, job, id).await;
    };
    let shown = service.records.edit(|edit| {
        edit.amend::<Volume>(id, |volume| {
            if volume.status == VolumeStatus::Creating {
                volume.status = VolumeStatus::Downloading;
            }
        });
        Ok::<_, Trouble>(())
    });
    shown.await?;
    let copy = copies::ready(service, job, (image, &pool), volume.size).await?;
    let from = (copy.storage_name.as_str(), copies::SNAPSHOT);
    let cloned = service
        .storage
        .clone_snapshot(from, &volume.storage_name, volume.size)
        .await;
    if let Err(error) = cloned {
        // The copy may have been taken away meanwhile; then another one is made.
        return Err(Trouble::Later(error.to_string()));
    }
    super::limits::settle(service, &volume.storage_name, &volume.type_id, volume.size).await?;
    conclude(service, job, |edit| {
        edit.amend::<Volume>(id, |volume| {
            if matches!(volume.status, VolumeStatus::Creating | VolumeStatus::Downloading) {
                volume.status = VolumeStatus::Available;
            }
            volume.pool = Some(pool.clone());
            volume.bootable = true;
            volume.image_metadata.clone_from(&image.metadata);
        });
    })
    .await
}

/// Overwrites a volume with an image, and tells Nova.
pub(super) async fn reimage(
    service: &Service,
    job: &Stored<Job>,
    (id, image): (&str, &ImageOrigin),
) -> Result<(), Trouble> {
    let volume = super::volumes::look(service, id, VolumeStatus::Downloading);
    if let Some(volume) = &volume {
        let pool = service.storage.volume(&volume.storage_name).await?;
        let pool = pool.ok_or_else(|| Trouble::Failed("the volume is gone from the storage".to_owned()))?;
        let copy = copies::ready(service, job, (image, &pool.pool), volume.size).await?;
        let socket = &service.settings.session_socket;
        let (giver, taker) = flow::queue();
        let from = (copy.storage_name.as_str(), Some(copies::SNAPSHOT));
        let giving = flow::from_volume(socket, from, giver);
        let taking = flow::into_volume(socket, &volume.storage_name, false, taker);
        flow::join(giving, taking).await?;
    }
    conclude(service, job, |edit| {
        edit.amend::<Volume>(id, |volume| {
            if volume.status == VolumeStatus::Downloading {
                volume.status = before(volume);
                volume.bootable = true;
                volume.image_metadata.clone_from(&image.metadata);
            }
        });
    })
    .await?;
    if volume.is_some() {
        super::volumes::tell_servers(service, "volume-reimaged", id, |_| true).await;
    }
    Ok(())
}

/// The status that a volume had before it was overwritten.
fn before(volume: &Volume) -> VolumeStatus {
    match volume.previous_status {
        Some(VolumeStatus::Reserved) => VolumeStatus::Reserved,
        _ => VolumeStatus::Available,
    }
}

/// An image that is to have a volume's bytes.
pub(super) struct Target<'a> {
    /// The image.
    pub(super) image: &'a str,
    /// Where Glance is.
    pub(super) endpoint: &'a str,
    /// How the disk is to lie in the image's bytes, as Glance calls it.
    pub(super) disk_format: &'a str,
}

/// Gives an image a volume's bytes, as they are at one moment.
pub(super) async fn upload(
    service: &Service,
    job: &Stored<Job>,
    (id, target): (&str, Target<'_>),
) -> Result<(), Trouble> {
    if let Some(volume) = super::volumes::look(service, id, VolumeStatus::Uploading) {
        let token = own_token(service).await?;
        let glance = glance(service, target.endpoint, &token);
        let image = glance.image(target.image).await?;
        // Another process may have been here, and died before it could say so.
        if image.status != "active" {
            let snapshot = snapshot_name(target.image);
            service.storage.snapshot(&volume.storage_name, &snapshot).await?;
            send(service, (&volume, &snapshot), &glance, &target).await?;
        }
    }
    remove_snapshot(service, id, target.image).await?;
    conclude(service, job, |edit| {
        edit.amend::<Volume>(id, |volume| {
            if volume.status == VolumeStatus::Uploading {
                volume.status = super::volumes::back(volume);
            }
        });
    })
    .await
}

fn snapshot_name(image: &str) -> String {
    format!("upload-{image}")
}

async fn remove_snapshot(service: &Service, volume: &str, image: &str) -> Result<(), Trouble> {
    let name = {
        let tables = service.records.tables();
        let volume = tables.volumes.get(volume);
        volume.map(|volume| volume.storage_name.clone())
    };
    if let Some(name) = name {
        let snapshot = snapshot_name(image);
        service.storage.delete_snapshot(&name, &snapshot).await?;
    }
    Ok(())
}

async fn send(
    service: &Service,
    (volume, snapshot): (&Volume, &str),
    glance: &Glance<'_>,
    target: &Target<'_>,
) -> Result<(), Trouble> {
    let settings = &service.settings;
    let from = (volume.storage_name.as_str(), Some(snapshot));
    let format = checks::qemu_format(target.disk_format)
        .ok_or_else(|| Trouble::Failed(format!("there is no format {}", target.disk_format)))?;
    let (giver, taker) = flow::queue();
    let reading = flow::from_volume(&settings.session_socket, from, giver);
    if format == "raw" {
        return flow::join(reading, send_body(glance, target.image, taker)).await;
    }
    let raw = Scratch::new(&settings.work_dir).await?;
    flow::join(reading, flow::into_file(raw.path(), taker)).await?;
    let made = Scratch::new(&settings.work_dir).await?;
    scratch::convert((&raw, "raw"), (&made, format)).await?;
    drop(raw);
    let (giver, taker) = flow::queue();
    let reading = flow::from_file(made.path(), giver);
    flow::join(reading, send_body(glance, target.image, taker)).await
}

async fn send_body(glance: &Glance<'_>, image: &str, taker: flow::Taker) -> Result<(), Trouble> {
    let (body, pieces) = mpsc::channel(PIECES_WAITING);
    let sending = async { Ok(glance.upload(image, pieces).await?) };
    flow::join(flow::into_body(taker, body), sending).await
}

/// Says that a job about a volume and an image failed.
pub(super) async fn give_up(service: &Service, job: &Stored<Job>, why: &str) -> Result<(), Trouble> {
    let id = job.task.subject();
    tracing::warn!(volume = id, why, "a job about an image failed");
    match &job.task {
        Task::UploadImage { image, endpoint, .. } => {
            remove_snapshot(service, id, image).await?;
            let token = own_token(service).await?;
            // An image without bytes is of no use. If it stays, it is seen as what it is.
            if let Err(error) = glance(service, endpoint, &token).delete(image).await {
                tracing::warn!(image, %error, "an image without bytes stays");
            }
            conclude(service, job, |edit| {
                edit.amend::<Volume>(id, |volume| {
                    if volume.status == VolumeStatus::Uploading {
                        volume.status = super::volumes::back(volume);
                    }
                });
            })
            .await
        }
        _ => super::volumes::not_copied(service, job, id).await,
    }
}
