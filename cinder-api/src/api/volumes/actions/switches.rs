//! What a volume is to be: bootable, read only.

use super::Act;
use crate::fault::Fault;
use crate::records::volume::VolumeStatus;

pub(super) async fn bootable(act: &Act<'_>) -> Result<(), Fault> {
    let said = act
        .fields
        .boolean("bootable")?
        .ok_or_else(|| act.fields.required("bootable"))?;
    act.set("volume:update", |volume| volume.bootable = said).await
}

pub(super) async fn read_only(act: &Act<'_>) -> Result<(), Fault> {
    let said = act
        .fields
        .boolean("readonly")?
        .ok_or_else(|| act.fields.required("readonly"))?;
    act.on_volume("volume:update_readonly_flag", |edit, volume| {
        if volume.status != VolumeStatus::Available {
            return Err(Fault::bad_request(format!(
                "Invalid volume: Volume {} status must be available to update readonly flag, but current status is: {}.",
                volume.id, volume.status
            )));
        }
        edit.change(volume, |volume| volume.read_only = Some(said));
        Ok(())
    })
    .await
}
