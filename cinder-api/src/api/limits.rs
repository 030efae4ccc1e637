//! `/limits`: what a project may have and has.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::quota;
use crate::request::{Context, Query};
use crate::routes::{Routes, get};
use crate::service::Shared;

/// What is shown of each resource: what it is called as a limit, and as what there is of it.
const SHOWN: &[(&str, &str, &str)] = &[
    (quota::VOLUMES, "maxTotalVolumes", "totalVolumesUsed"),
    (quota::GIGABYTES, "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
    (quota::SNAPSHOTS, "maxTotalSnapshots", "totalSnapshotsUsed"),
    (quota::BACKUPS, "maxTotalBackups", "totalBackupsUsed"),
    (
        quota::BACKUP_GIGABYTES,
        "maxTotalBackupGigabytes",
        "totalBackupGigabytesUsed",
    ),
];

pub(super) fn routes() -> Routes {
    Routes::new().route("/limits", get(show))
}

async fn show(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    let asked = query.get("project_id").or_else(|| query.get("tenant_id"));
    let asked = asked.filter(|_| context.version.is(39) && context.caller.is_admin);
    let project = match asked {
        Some(project) => project,
        None => context.project()?,
    };
    let with_usage = service.allows("limits_extension:used_limits", &context.caller, project);
    service.records.fresh().await?;
    let tables = service.records.tables();
    let mut absolute = Map::new();
    for (resource, limit, used) in SHOWN {
        absolute.insert(
            (*limit).to_owned(),
            quota::limit(&tables, project, resource).into(),
        );
        if with_usage {
            absolute.insert((*used).to_owned(), quota::used(&tables, project, resource).into());
        }
    }
    Ok(Json(json!({"limits": {"rate": [], "absolute": absolute}})))
}
