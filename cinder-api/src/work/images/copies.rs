//! Images in the storage: each copied into a pool once, however many volumes are made from it and however many processes make
//! them; counted to nobody's quota; taken away when they are gone from Glance, or when there are many.

use std::time::Duration;

use tracing::{info, warn};

use super::{glance, own_token};
use crate::images::glance::{Glance, GlanceError};
use crate::images::scratch::{self, Scratch};
use crate::images::{Image, checks, flow};
use crate::records::image::{CopyStatus, ImageCopy};
use crate::records::job::ImageOrigin;
use crate::records::{Edit, Instant, Job, RecordsError, Stored};
use crate::service::Service;
use crate::storage::GIB;
use crate::work::Trouble;

/// The snapshot of a copy that volumes are cloned from.
pub(in crate::work) const SNAPSHOT: &str = "image";
/// The most copies that are kept; those that were not used for longest go first.
const COPIES_MAX: usize = 64;
/// Between looks for copies that can go.
const LOOK_EVERY: Duration = Duration::from_mins(10);
/// One that was used so lately is left alone, in seconds: somebody may be cloning it.
const LATELY_S: i64 = 60;
/// How long it is remembered that a copy could not be made, in seconds: as long as somebody may wait for it.
const FAILURE_KEPT_S: i64 = 3600;

/// What a job finds when it looks for a copy.
enum Found {
    /// It is there.
    Ready(ImageCopy),
    /// It is this job that makes it.
    Mine(ImageCopy),
    /// Another job makes it, or takes it away.
    Wait,
}

/// The copy of an image in a pool. The first job that asks for it makes it; others wait for that, and if that job ends
/// without having made it, the next one does.
pub(super) async fn ready(
    service: &Service,
    job: &Stored<Job>,
    (image, pool): (&ImageOrigin, &str),
    gib: u64,
) -> Result<ImageCopy, Trouble> {
    let mut changes = service.records.changes();
    let copy = loop {
        changes.borrow_and_update();
        let found = service.records.edit(|edit| find(edit, job, image, pool));
        match found.await? {
            Found::Ready(copy) => break copy,
            Found::Mine(copy) => break make(service, &copy, gib).await?,
            Found::Wait => {}
        }
        if changes.changed().await.is_err() {
            return Err(Trouble::Later("cinder-api is ending".to_owned()));
        }
    };
    if copy.size > gib {
        return Err(Trouble::Failed(format!(
            "the image is a disk of {} GiB, and the volume has {gib}",
            copy.size
        )));
    }
    Ok(copy)
}

fn find(edit: &mut Edit<'_>, job: &Stored<Job>, image: &ImageOrigin, pool: &str) -> Result<Found, Trouble> {
    let now = Instant::now();
    let tables = edit.tables;
    let new = ImageCopy {
        id: ImageCopy::key(&image.id, pool),
        image_id: image.id.clone(),
        pool: pool.to_owned(),
        storage_name: format!("image-{}-{}", image.id, short(&job.id)),
        status: CopyStatus::Copying,
        job_id: job.id.clone(),
        size: 0,
        endpoint: image.endpoint.clone(),
        fail_reason: None,
        created_at: now,
        used_at: now,
    };
    let Some(stored) = tables.image_copies.get(&new.id) else {
        edit.insert(&new);
        return Ok(Found::Mine(new));
    };
    match stored.status {
        CopyStatus::Ready => {
            let mut copy = stored.record.clone();
            if copy.used_at.plus_seconds(LATELY_S / 2) < now {
                copy.used_at = now;
                edit.replace(stored, &copy);
            }
            Ok(Found::Ready(copy))
        }
        CopyStatus::Leaving => Ok(Found::Wait),
        CopyStatus::Failed if stored.used_at > job.created_at => {
            Err(Trouble::Failed(stored.fail_reason.clone().unwrap_or_default()))
        }
        CopyStatus::Copying if stored.job_id == job.id => Ok(Found::Mine(stored.record.clone())),
        CopyStatus::Copying if tables.jobs.get(&stored.job_id).is_some() => Ok(Found::Wait),
        // What is left of the former attempt has the same name, and is overwritten.
        CopyStatus::Copying | CopyStatus::Failed => {
            let new = ImageCopy {
                storage_name: stored.storage_name.clone(),
                ..new
            };
            edit.replace(stored, &new);
            Ok(Found::Mine(new))
        }
    }
}

/// Enough of an identity to tell copies of one image apart.
fn short(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(8).collect()
}

async fn make(service: &Service, copy: &ImageCopy, gib: u64) -> Result<ImageCopy, Trouble> {
    info!(
        image = copy.image_id,
        pool = copy.pool,
        "an image is being copied into the storage"
    );
    let made = write(service, copy, gib).await;
    if let Err(Trouble::Failed(_)) = &made {
        service.storage.delete(&copy.storage_name).await?;
    }
    let becomes = match &made {
        Ok(size) => ImageCopy {
            status: CopyStatus::Ready,
            size: *size,
            used_at: Instant::now(),
            ..copy.clone()
        },
        Err(Trouble::Failed(why)) => ImageCopy {
            status: CopyStatus::Failed,
            fail_reason: Some(why.clone()),
            used_at: Instant::now(),
            ..copy.clone()
        },
        Err(Trouble::Later(why)) => return Err(Trouble::Later(why.clone())),
    };
    let settled = service.records.edit(|edit| {
        let stored = edit.tables.image_copies.get(&copy.id);
        let stored =
            stored.filter(|stored| stored.job_id == copy.job_id && stored.status == CopyStatus::Copying);
        if let Some(stored) = stored {
            edit.replace(stored, &becomes);
        }
        Ok::<_, RecordsError>(stored.is_some())
    });
    if !settled.await? {
        return Err(Trouble::Later("the copy was taken over".to_owned()));
    }
    made.map(|_| becomes)
}

/// Writes the copy; gives its size in GiB.
async fn write(service: &Service, copy: &ImageCopy, gib: u64) -> Result<u64, Trouble> {
    let token = own_token(service).await?;
    let glance = glance(service, &copy.endpoint, &token);
    let image = glance.image(&copy.image_id).await?;
    checks::check_description(&image, gib, &service.settings.image_formats).map_err(Trouble::Failed)?;
    let declared = image.disk_format.as_deref().unwrap_or_default();
    let format = checks::qemu_format(declared);
    let format = format.ok_or_else(|| Trouble::Failed(format!("there is no format {declared}")))?;
    // What a former attempt has left.
    service.storage.delete(&copy.storage_name).await?;
    let size = if format == "raw" {
        let size = image.size.unwrap_or(0).div_ceil(GIB).max(1);
        write_raw(service, copy, &glance, &image, size).await?;
        size
    } else {
        convert(service, copy, &glance, &image, (format, gib)).await?
    };
    service.storage.snapshot(&copy.storage_name, SNAPSHOT).await?;
    Ok(size)
}

async fn write_raw(
    service: &Service,
    copy: &ImageCopy,
    glance: &Glance<'_>,
    image: &Image,
    size: u64,
) -> Result<(), Trouble> {
    let body = glance.download(&image.id).await?;
    let (giver, taker) = flow::queue();
    let giving = flow::from_body(body, image.verifier(), image.size, giver);
    fill(service, copy, size, giving, taker).await
}

async fn convert(
    service: &Service,
    copy: &ImageCopy,
    glance: &Glance<'_>,
    image: &Image,
    (format, gib): (&str, u64),
) -> Result<u64, Trouble> {
    let work_dir = &service.settings.work_dir;
    let original = Scratch::new(work_dir).await?;
    let body = glance.download(&image.id).await?;
    flow::body_into_file(body, image.verifier(), image.size, original.path()).await?;
    let bytes = scratch::check(&original, format, gib.saturating_mul(GIB)).await?;
    let raw = Scratch::new(work_dir).await?;
    scratch::convert((&original, format), (&raw, "raw")).await?;
    drop(original);
    let size = bytes.div_ceil(GIB).max(1);
    let (giver, taker) = flow::queue();
    let giving = flow::from_file(raw.path(), giver);
    fill(service, copy, size, giving, taker).await?;
    Ok(size)
}

async fn fill(
    service: &Service,
    copy: &ImageCopy,
    size: u64,
    giving: impl Future<Output = Result<(), Trouble>>,
    taker: flow::Taker,
) -> Result<(), Trouble> {
    service
        .storage
        .create(&copy.storage_name, size, &copy.pool)
        .await?;
    let socket = &service.settings.session_socket;
    let taking = flow::into_volume(socket, &copy.storage_name, true, taker);
    flow::join(giving, taking).await
}

/// Takes copies away from time to time, until it is dropped. Every process does it; who comes second finds nothing.
pub(in crate::work) async fn run(service: &Service) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        scratch::sweep(&service.settings.work_dir).await;
        if let Err(trouble) = sweep(service).await {
            warn!(?trouble, "copies of images stay for now");
        }
    }
}

async fn sweep(service: &Service) -> Result<(), Trouble> {
    let mut copies: Vec<ImageCopy> = {
        let tables = service.records.tables();
        tables
            .image_copies
            .iter()
            .map(|copy| copy.record.clone())
            .collect()
    };
    copies.sort_by_key(|copy| copy.used_at);
    let now = Instant::now();
    let mut too_many = copies.len().saturating_sub(COPIES_MAX);
    for copy in copies {
        let goes = match copy.status {
            CopyStatus::Copying => false,
            CopyStatus::Leaving => true,
            CopyStatus::Failed => copy.used_at.plus_seconds(FAILURE_KEPT_S) < now,
            CopyStatus::Ready if copy.used_at.plus_seconds(LATELY_S) > now => false,
            CopyStatus::Ready => too_many > 0 || is_gone(service, &copy).await,
        };
        if goes {
            remove(service, &copy).await?;
            too_many = too_many.saturating_sub(1);
        }
    }
    Ok(())
}

/// Whether Glance has the image no more. If it cannot be asked, it has.
async fn is_gone(service: &Service, copy: &ImageCopy) -> bool {
    let Ok(token) = own_token(service).await else {
        return false;
    };
    let asked = glance(service, &copy.endpoint, &token)
        .image(&copy.image_id)
        .await;
    matches!(asked, Err(GlanceError::Missing))
}

async fn remove(service: &Service, copy: &ImageCopy) -> Result<(), Trouble> {
    let leaving = service.records.edit(|edit| {
        let stored = edit.tables.image_copies.get(&copy.id);
        let stored = stored.filter(|stored| stored.record == *copy);
        if let Some(stored) = stored {
            let leaving = ImageCopy {
                status: CopyStatus::Leaving,
                ..copy.clone()
            };
            edit.replace(stored, &leaving);
        }
        Ok::<_, RecordsError>(stored.is_some())
    });
    if !leaving.await? {
        return Ok(());
    }
    info!(
        image = copy.image_id,
        pool = copy.pool,
        "an image's copy is taken out of the storage"
    );
    service.storage.delete(&copy.storage_name).await?;
    let gone = service.records.edit(|edit| {
        let stored = edit.tables.image_copies.get(&copy.id);
        if let Some(stored) = stored.filter(|stored| stored.status == CopyStatus::Leaving) {
            edit.remove(stored);
        }
        Ok::<_, RecordsError>(())
    });
    gone.await?;
    Ok(())
}
