//! What projects may have: limits, what is counted against them, and the refusal of what would go beyond.
//!
//! Counting happens in the same transaction as what is counted ([`crate::records::quota`]).

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::records::quota::DEFAULT_CLASS;
use crate::records::{Edit, Tables};

/// No limit.
pub const UNLIMITED: i64 = -1;

/// What is counted for each project, and its limit if no operator has set one.
pub const RESOURCES: &[(&str, i64)] = &[
    (VOLUMES, 10),
    (GIGABYTES, 1000),
    (SNAPSHOTS, 10),
    (BACKUPS, 10),
    (BACKUP_GIGABYTES, 1000),
    (GROUPS, 10),
    (PER_VOLUME_GIGABYTES, UNLIMITED),
];
/// Number of volumes.
pub const VOLUMES: &str = "volumes";
/// GiB of volumes and snapshots.
pub const GIGABYTES: &str = "gigabytes";
/// Number of snapshots.
pub const SNAPSHOTS: &str = "snapshots";
/// Number of backups.
pub const BACKUPS: &str = "backups";
/// GiB of backups.
pub const BACKUP_GIGABYTES: &str = "backup_gigabytes";
/// Number of groups.
pub const GROUPS: &str = "groups";
/// GiB of the largest volume: a limit that nothing is counted against.
pub const PER_VOLUME_GIGABYTES: &str = "per_volume_gigabytes";
/// What is counted for each type, too.
pub const PER_TYPE: &[&str] = &[VOLUMES, GIGABYTES, SNAPSHOTS];

/// What something takes.
#[derive(Clone, Debug, Default)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// A volume of a type.
    pub fn volume(type_id: &str, gib: u64) -> Self {
        Self::default()
            .and(VOLUMES, type_id, 1)
            .and(GIGABYTES, type_id, signed(gib))
    }

    /// What a volume grows by.
    pub fn growth(type_id: &str, gib: u64) -> Self {
        Self::default().and(GIGABYTES, type_id, signed(gib))
    }

    /// A snapshot of a volume of a type.
    pub fn snapshot(type_id: &str, gib: u64) -> Self {
        Self::default()
            .and(SNAPSHOTS, type_id, 1)
            .and(GIGABYTES, type_id, signed(gib))
    }

    /// A number of something that types do not matter to.
    pub fn plain(resource: &str, amount: u64) -> Self {
        Self(BTreeMap::from([(resource.to_owned(), signed(amount))]))
    }

    /// Both together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for (resource, amount) in &other.0 {
            *self.0.entry(resource.clone()).or_default() += amount;
        }
        self
    }

    fn and(mut self, resource: &str, type_id: &str, amount: i64) -> Self {
        self.0.insert(resource.to_owned(), amount);
        self.0.insert(of_type(resource, type_id), amount);
        self
    }
}

/// A resource of one type, as records call it.
pub fn of_type(resource: &str, type_id: &str) -> String {
    format!("{resource}_{type_id}")
}

/// What a project may have of a resource.
pub fn limit(tables: &Tables, project: &str, resource: &str) -> i64 {
    let own = tables
        .limits
        .get(project)
        .and_then(|limits| limits.limits.get(resource));
    own.copied().unwrap_or_else(|| default_limit(tables, resource))
}

/// What projects may have of a resource that have no limit of their own.
pub fn default_limit(tables: &Tables, resource: &str) -> i64 {
    let class = tables
        .limits
        .get(DEFAULT_CLASS)
        .and_then(|limits| limits.limits.get(resource));
    class.copied().unwrap_or_else(|| {
        let mut known = RESOURCES.iter();
        known
            .find(|(name, _)| *name == resource)
            .map_or(UNLIMITED, |(_, limit)| *limit)
    })
}

/// What a project has of a resource.
pub fn used(tables: &Tables, project: &str, resource: &str) -> i64 {
    let usage = tables
        .usages
        .get(project)
        .and_then(|usage| usage.used.get(resource));
    usage.copied().unwrap_or(0)
}

/// Counts what a project gets; refuses what would be too much.
pub fn take(edit: &mut Edit<'_>, project: &str, amounts: &Amounts) -> Result<(), Fault> {
    let tables = edit.tables;
    let usage = edit.usage(project);
    for (resource, amount) in &amounts.0 {
        let used = usage.used.entry(resource.clone()).or_default();
        let limit = limit(tables, project, resource);
        if limit >= 0 && *amount > 0 && *used + amount > limit {
            return Err(excess(tables, resource, *amount, limit, *used));
        }
        *used += amount;
    }
    Ok(())
}

/// Counts what a project gives back.
pub fn give_back(edit: &mut Edit<'_>, project: &str, amounts: &Amounts) {
    let usage = edit.usage(project);
    for (resource, amount) in &amounts.0 {
        let used = usage.used.entry(resource.clone()).or_default();
        *used = (*used - amount).max(0);
    }
    usage.used.retain(|_, used| *used != 0);
}

/// Refuses a volume that is larger than any of the project's may be.
pub fn check_size(tables: &Tables, project: &str, gib: u64) -> Result<(), Fault> {
    let limit = limit(tables, project, PER_VOLUME_GIGABYTES);
    if limit >= 0 && signed(gib) > limit {
        return Err(Fault::over_limit(format!(
            "VolumeSizeExceedsLimit: Requested volume size {gib}G is larger than maximum allowed limit {limit}G."
        )));
    }
    Ok(())
}

/// The words have names of exceptions in them, for clients look for those.
fn excess(tables: &Tables, resource: &str, amount: i64, limit: i64, used: i64) -> Fault {
    let (kind, name) = shown(tables, resource);
    Fault::over_limit(match kind {
        VOLUMES => format!(
            "VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{name}'."
        ),
        SNAPSHOTS => format!(
            "SnapshotLimitExceeded: Maximum number of snapshots allowed ({limit}) exceeded for quota '{name}'."
        ),
        BACKUPS => format!("BackupLimitExceeded: Maximum number of backups allowed ({limit}) exceeded"),
        GROUPS => format!("GroupLimitExceeded: Maximum number of groups allowed ({limit}) exceeded"),
        BACKUP_GIGABYTES => format!(
            "VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed backup gigabytes quota. Requested \
             {amount}G, quota is {limit}G and {used}G has been consumed."
        ),
        _ => format!(
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed {name} quota. Requested \
             {amount}G, quota is {limit}G and {used}G has been consumed."
        ),
    })
}

/// What kind of resource it is, and its name as people know it: with the type's name.
fn shown<'a>(tables: &Tables, resource: &'a str) -> (&'a str, String) {
    let Some((kind, type_id)) = resource
        .split_once('_')
        .filter(|(kind, _)| PER_TYPE.contains(kind))
    else {
        return (resource, resource.to_owned());
    };
    let name = tables
        .types
        .get(type_id)
        .map_or(type_id, |kind| kind.name.as_str());
    (kind, of_type(kind, name))
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
