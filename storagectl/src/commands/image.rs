//! `storagectl import` and `export`: qemu-img reads and writes the image, storaged-nbd the volume, and
//! both skip holes. Nothing passes through this process but the progress.

mod door;
mod qemu_img;

use std::path::Path;

use admin_api::names::Reference;
use admin_api::routes::{self, fill};
use admin_api::sizes::{SizeInput, format_size};
use admin_api::tasks::Deleted;
use admin_api::volumes::{CreateVolume, Volume, VolumeAnswer};
use anyhow::{Context, Result, bail, ensure};

use crate::api::Api;
use crate::arguments::{ExportArguments, ImageFormat, ImportArguments};
use crate::output::{Form, exact_size, with_notes};
use door::Door;
use qemu_img::Transfer;

/// Makes a volume from an image.
pub(super) async fn import(api: &Api, form: Form, arguments: ImportArguments) -> Result<()> {
    let ImportArguments {
        image,
        volume,
        format,
        size,
        pool,
        nbd,
    } = arguments;
    let info = qemu_img::info(&image, format).await?;
    let size = size.map_or(SizeInput::Bytes(info.virtual_size), SizeInput::Text);
    let bytes = size.volume_size()?.bytes;
    ensure!(
        bytes >= info.virtual_size,
        "the image holds a disk of {}, which does not fit into {}",
        exact_size(info.virtual_size),
        format_size(bytes)
    );
    let request = CreateVolume {
        name: volume.clone(),
        size,
        pool,
        limits: None,
    };
    let answer: VolumeAnswer = api.post(routes::VOLUMES, &request).await?;
    let filled = async {
        let door = Door::open(api.place(), &nbd).await?;
        let transfer = Transfer::into_volume(&image, &info.format, &door.export(&volume));
        let moved = transfer.run(&format!("import {volume}")).await;
        door.close().await;
        moved
    };
    if let Err(error) = filled.await {
        // A volume with half an image in it looks whole. Nobody but us has seen it yet.
        let removed = api.delete::<Deleted>(&fill(routes::VOLUME, &[&volume])).await;
        let fate = match removed {
            Ok(_) => format!("the volume {volume} was removed again"),
            Err(error) => format!("the volume {volume} is incomplete and could not be removed: {error}"),
        };
        return Err(error.context(fate));
    }
    form.show(&answer, |answer| {
        let sentence = format!("{} imported as volume {volume}", image.display());
        with_notes(
            format!("{sentence}, {}", exact_size(answer.volume.size)),
            &answer.notes,
        )
    })
}

/// Writes a volume or a snapshot into an image.
pub(super) async fn export(api: &Api, form: Form, arguments: ExportArguments) -> Result<()> {
    let ExportArguments {
        source,
        image,
        format,
        nbd,
    } = arguments;
    let format = format.unwrap_or_else(|| by_name(&image));
    ensure!(
        !image.exists(),
        "{} is there already: name another file, or remove it first",
        image.display()
    );
    let volume = source_size(api, &source).await?;
    let door = Door::open(api.place(), &nbd).await?;
    let transfer = Transfer::into_image(&door.export(&source.to_string()), &image, format);
    let moved = transfer.run(&format!("export {source}")).await;
    door.close().await;
    if let Err(error) = moved {
        // Half an image looks like a whole one. It was not there before, so it is ours to remove.
        let removed = std::fs::remove_file(&image);
        let fate = if removed.is_ok() {
            "the image was removed again"
        } else {
            "the image is incomplete"
        };
        return Err(error.context(fate));
    }
    form.show(&volume, |volume| {
        format!(
            "{source} exported to {} ({}), {}",
            image.display(),
            format.name(),
            exact_size(volume.size)
        )
    })
}

/// The volume, after checking that what is to be exported is there: a sentence by storaged is better
/// than one by an NBD client.
async fn source_size(api: &Api, source: &Reference) -> Result<Volume> {
    let volume = super::volume::get(api, &source.volume).await?;
    if source.snapshot.is_some() {
        let path = super::snapshot::path(routes::VOLUME_SNAPSHOT, source);
        api.get::<serde_json::Value>(&path).await?;
    } else if let Some(owner) = &volume.owner {
        bail!(
            "{source} is in use by {}, so an export would mix different times: make a snapshot and export that",
            owner.client
        );
    }
    Ok(volume)
}

fn by_name(image: &Path) -> ImageFormat {
    if image.extension().is_some_and(|extension| extension == "qcow2") {
        ImageFormat::Qcow2
    } else {
        ImageFormat::Raw
    }
}

/// How an error says which program is missing.
fn missing(program: &str, package: &str) -> String {
    format!("cannot start {program}: is it installed? (Debian: {package})")
}

/// Waits for Ctrl-C.
pub(super) async fn interrupted() -> Result<()> {
    tokio::signal::ctrl_c().await.context("wait for an interrupt")?;
    bail!("interrupted")
}
