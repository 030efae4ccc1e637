//! `/types`: kinds of volumes, as operators offer them.

use std::sync::Arc;

use axum::Router;

use crate::config::DEFAULT_TYPE;
use crate::fault::Fault;
use crate::records::volume_type::TypeName;
use crate::records::{Instant, Records, RecordsError, Stored, Tables, VolumeType};
use crate::request::Context;
use crate::service::Service;

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
}

/// A type that a caller may use, by its identity or its name.
pub fn find<'a>(
    tables: &'a Tables,
    context: &Context,
    named: &str,
) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    let by_name = || by_name(tables, named);
    let found = tables
        .types
        .get(named)
        .or_else(by_name)
        .filter(|kind| !kind.deleting);
    let is_for = |kind: &VolumeType| {
        let project = context.caller.project_id.as_deref();
        context.caller.is_admin || project.is_some_and(|project| kind.is_for(project))
    };
    let seen = found.filter(|kind| is_for(&kind.record));
    seen.ok_or_else(|| Fault::not_found(format!("Volume type {named} could not be found.")))
}

/// A type by its name.
pub fn by_name<'a>(tables: &'a Tables, name: &str) -> Option<&'a Arc<Stored<VolumeType>>> {
    let id = tables.type_names.get(&TypeName::key(name))?;
    tables.types.get(&id.type_id)
}

/// The type that a project's volumes get if nobody names one.
pub fn default_for<'a>(
    service: &Service,
    tables: &'a Tables,
    project: &str,
) -> Result<&'a Arc<Stored<VolumeType>>, Fault> {
    let own = tables
        .default_types
        .get(project)
        .and_then(|default| tables.types.get(&default.type_id));
    let found = own.or_else(|| by_name(tables, &service.settings.default_volume_type));
    let found = found
        .or_else(|| by_name(tables, DEFAULT_TYPE))
        .filter(|kind| !kind.deleting);
    found.ok_or_else(|| {
        Fault::not_found("Default volume type could not be found: an administrator must make one.")
    })
}

/// Makes the type that is always there, if it is not.
pub async fn settle_default(records: &Records) -> Result<(), RecordsError> {
    let id = uuid::Uuid::new_v4().to_string();
    let settled = records.edit(|edit| {
        if by_name(edit.tables, DEFAULT_TYPE).is_none() {
            edit.insert(&TypeName::new(DEFAULT_TYPE, &id));
            edit.insert(&VolumeType {
                id: id.clone(),
                name: DEFAULT_TYPE.to_owned(),
                description: Some("Default Volume Type".to_owned()),
                is_public: true,
                projects: std::collections::BTreeSet::new(),
                extra_specs: std::collections::BTreeMap::new(),
                qos_id: None,
                encryption: None,
                deleting: false,
                created_at: Instant::now(),
                updated_at: None,
            });
        }
        Ok::<_, RecordsError>(())
    });
    settled.await
}
