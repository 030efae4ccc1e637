//! `/volumes/ID/metadata`: what of it is volumes' own.

use std::sync::Arc;

use super::find_for;
use crate::api::metadata::{Bearer, Metadata};
use crate::fault::Fault;
use crate::records::volume::VolumeStatus;
use crate::records::{Edit, Stored, Tables, Volume};
use crate::request::Context;
use crate::service::Service;

impl Bearer for Volume {
    const READ: &'static str = "volume:get_volume_metadata";
    const WRITE: &'static str = "volume:update_volume_metadata";
    const DELETE: &'static str = "volume:delete_volume_metadata";

    fn find_for<'a>(
        service: &Service,
        tables: &'a Tables,
        context: &Context,
        rule: &str,
        id: &str,
    ) -> Result<&'a Arc<Stored<Self>>, Fault> {
        find_for(service, tables, context, rule, id)
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn check_changeable(&self) -> Result<(), Fault> {
        if matches!(self.status, VolumeStatus::Maintenance | VolumeStatus::Uploading) {
            return Err(Fault::bad_request(format!(
                "Invalid volume: its status is {}.",
                self.status
            )));
        }
        Ok(())
    }

    fn set_metadata(edit: &mut Edit<'_>, stored: &Stored<Self>, metadata: &Metadata) {
        edit.change(stored, |volume| volume.metadata.clone_from(metadata));
    }
}
