//! `/snapshots/ID/metadata`: what of it is snapshots' own.

use std::sync::Arc;

use super::find_for;
use crate::api::metadata::{Bearer, Metadata};
use crate::fault::Fault;
use crate::records::{Edit, Snapshot, Stored, Tables};
use crate::request::Context;
use crate::service::Service;

impl Bearer for Snapshot {
    const READ: &'static str = "volume:get_snapshot_metadata";
    const WRITE: &'static str = "volume:update_snapshot_metadata";
    const DELETE: &'static str = "volume:delete_snapshot_metadata";

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

    fn set_metadata(edit: &mut Edit<'_>, stored: &Stored<Self>, metadata: &Metadata) {
        edit.change(stored, |snapshot| snapshot.metadata.clone_from(metadata));
    }
}
