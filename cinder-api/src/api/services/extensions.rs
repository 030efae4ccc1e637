//! `/extensions`: names under which clients ask whether parts of the API are there. All of them are.

use axum::Json;
use axum::extract::Path;
use serde_json::{Value, json};

use crate::fault::Fault;

/// Alias, name, when it was changed last, what it is.
const EXTENSIONS: &[(&str, &str, &str, &str)] = &[
    (
        "os-admin-actions",
        "AdminActions",
        "2012-08-25T00:00:00+00:00",
        "What administrators do to volumes.",
    ),
    (
        "os-availability-zone",
        "AvailabilityZones",
        "2013-06-27T00:00:00+00:00",
        "Zones.",
    ),
    (
        "backups",
        "Backups",
        "2012-12-12T00:00:00+00:00",
        "Backups of volumes.",
    ),
    (
        "capabilities",
        "Capabilities",
        "2015-08-31T00:00:00+00:00",
        "What backends can do.",
    ),
    (
        "cgsnapshots",
        "Cgsnapshots",
        "2014-08-18T00:00:00+00:00",
        "Snapshots of consistency groups.",
    ),
    (
        "consistencygroups",
        "Consistencygroups",
        "2014-08-18T00:00:00+00:00",
        "Consistency groups.",
    ),
    (
        "os-extended-services",
        "ExtendedServices",
        "2014-01-10T00:00:00+00:00",
        "More about services.",
    ),
    (
        "os-extended-snapshot-attributes",
        "ExtendedSnapshotAttributes",
        "2012-06-19T00:00:00+00:00",
        "More about snapshots.",
    ),
    (
        "os-hosts",
        "Hosts",
        "2011-06-29T00:00:00+00:00",
        "Hosts, for administrators.",
    ),
    (
        "qos-specs",
        "Qos_specs_manage",
        "2013-08-02T00:00:00+00:00",
        "Quality of service.",
    ),
    (
        "os-quota-class-sets",
        "QuotaClasses",
        "2012-03-12T00:00:00+00:00",
        "Limits of all projects.",
    ),
    (
        "os-quota-sets",
        "Quotas",
        "2011-08-08T00:00:00+00:00",
        "Limits of projects.",
    ),
    (
        "OS-SCH-HNT",
        "SchedulerHints",
        "2013-04-18T00:00:00+00:00",
        "Hints for the scheduler.",
    ),
    (
        "scheduler-stats",
        "Scheduler_stats",
        "2014-09-07T00:00:00+00:00",
        "Pools, as the scheduler sees them.",
    ),
    (
        "os-services",
        "Services",
        "2012-10-28T00:00:00+00:00",
        "Services.",
    ),
    (
        "os-snapshot-actions",
        "SnapshotActions",
        "2013-07-16T00:00:00+00:00",
        "What compute hosts say of snapshots.",
    ),
    (
        "os-snapshot-manage",
        "SnapshotManage",
        "2014-12-31T00:00:00+00:00",
        "Snapshots taken over from the storage.",
    ),
    (
        "os-snapshot-unmanage",
        "SnapshotUnmanage",
        "2014-12-31T00:00:00+00:00",
        "Snapshots given up to the storage.",
    ),
    (
        "os-types-extra-specs",
        "TypesExtraSpecs",
        "2011-08-24T00:00:00+00:00",
        "Extra specifications of types.",
    ),
    (
        "os-types-manage",
        "TypesManage",
        "2011-08-24T00:00:00+00:00",
        "Types made and changed.",
    ),
    (
        "os-used-limits",
        "UsedLimits",
        "2013-10-03T00:00:00+00:00",
        "What of its limits a project has used.",
    ),
    (
        "os-volume-actions",
        "VolumeActions",
        "2012-05-31T00:00:00+00:00",
        "What is done to volumes.",
    ),
    (
        "os-volume-encryption-metadata",
        "VolumeEncryptionMetadata",
        "2013-07-10T00:00:00+00:00",
        "How volumes are encrypted.",
    ),
    (
        "os-vol-host-attr",
        "VolumeHostAttribute",
        "2011-11-03T00:00:00+00:00",
        "Where volumes lie.",
    ),
    (
        "os-vol-image-meta",
        "VolumeImageMetadata",
        "2012-12-07T00:00:00+00:00",
        "The images that volumes were made from.",
    ),
    (
        "os-volume-manage",
        "VolumeManage",
        "2014-02-10T00:00:00+00:00",
        "Volumes taken over from the storage.",
    ),
    (
        "os-vol-mig-status-attr",
        "VolumeMigStatusAttribute",
        "2013-08-08T00:00:00+00:00",
        "How far volumes are on their way.",
    ),
    (
        "os-vol-tenant-attr",
        "VolumeTenantAttribute",
        "2011-11-03T00:00:00+00:00",
        "The projects of volumes.",
    ),
    (
        "os-volume-transfer",
        "VolumeTransfer",
        "2013-05-29T00:00:00+00:00",
        "Volumes for other projects.",
    ),
    (
        "os-volume-type-access",
        "VolumeTypeAccess",
        "2014-06-26T00:00:00+00:00",
        "Who may use types.",
    ),
    (
        "encryption",
        "VolumeTypeEncryption",
        "2013-07-01T00:00:00+00:00",
        "Encryption of types.",
    ),
    (
        "os-volume-unmanage",
        "VolumeUnmanage",
        "2012-05-31T00:00:00+00:00",
        "Volumes given up to the storage.",
    ),
];

fn view((alias, name, updated, description): &(&str, &str, &str, &str)) -> Value {
    json!({"alias": alias, "name": name, "updated": updated, "description": description, "links": []})
}

pub(super) async fn list() -> Json<Value> {
    let shown: Vec<Value> = EXTENSIONS.iter().map(view).collect();
    Json(json!({"extensions": shown}))
}

pub(super) async fn show(Path(alias): Path<String>) -> Result<Json<Value>, Fault> {
    let mut all = EXTENSIONS.iter();
    match all.find(|extension| extension.0 == alias) {
        Some(extension) => Ok(Json(json!({"extension": view(extension)}))),
        None => Err(Fault::not_found("The resource could not be found.")),
    }
}
