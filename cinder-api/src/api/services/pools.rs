//! `/scheduler-stats/get_pools` and `/capabilities/HOST`: where volumes can go, and what is there.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::api::{storage_fault, types};
use crate::capabilities::{self, backend};
use crate::fault::Fault;
use crate::records::Instant;
use crate::request::{Context, Query};
use crate::service::Shared;

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    service.check("scheduler_extension:scheduler_stats:get_pools", &context)?;
    let with_detail = query.boolean("detail")?.unwrap_or(false);
    let named = query.get("name").filter(|_| context.version.is(28));
    let wanted_type = query.get("volume_type").filter(|_| context.version.is(35));
    service.records.fresh().await?;
    let pools = service
        .storage
        .pools()
        .await
        .map_err(|error| storage_fault(&error))?;
    let tables = service.records.tables();
    let specs = match wanted_type {
        Some(named) => types::find(&tables, &context, named)?.extra_specs.clone(),
        None => BTreeMap::new(),
    };
    let mut allocated: BTreeMap<&str, u64> = BTreeMap::new();
    for volume in tables.volumes.iter() {
        if let Some(pool) = &volume.pool {
            *allocated.entry(pool).or_default() += volume.size;
        }
    }
    let mut shown = Vec::new();
    for pool in &pools {
        let name = format!("{}#{}", backend(&service.settings), pool.name);
        let mut values = capabilities::of_pool(&service.settings, pool);
        if named.is_some_and(|named| named != name) || !capabilities::fit(&values, &specs) {
            continue;
        }
        if !with_detail {
            shown.push(json!({"name": name}));
            continue;
        }
        let allocated = allocated.get(pool.name.as_str()).copied().unwrap_or(0);
        values.insert("allocated_capacity_gb".to_owned(), allocated.into());
        values.insert("timestamp".to_owned(), Instant::now().to_string().into());
        shown.push(json!({"name": name, "capabilities": values}));
    }
    Ok(Json(json!({"pools": shown})))
}

/// What a type may ask of the storage, with words for people.
const PROPERTIES: &[(&str, &str, &str)] = &[
    (
        "thin_provisioning",
        "Thin Provisioning",
        "Volumes take what was written to them.",
    ),
    (
        "multiattach",
        "Multiattach",
        "Several servers may use a volume at once.",
    ),
    (
        "online_extend_support",
        "Online Extend",
        "Volumes grow while servers use them.",
    ),
];

pub(super) async fn capabilities(
    State(service): Shared,
    context: Context,
    Path(host): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:capabilities", &context)?;
    let known = backend(&service.settings);
    // Some clients send a pool's name.
    let asked = host.split('#').next().unwrap_or_default();
    if asked != known {
        return Err(Fault::not_found(format!("Can't find service: {host}")));
    }
    let common = capabilities::common(&service.settings);
    let properties: BTreeMap<&str, Value> = PROPERTIES
        .iter()
        .map(|(name, title, description)| {
            let property = json!({"title": title, "description": description, "type": "boolean"});
            (*name, property)
        })
        .collect();
    Ok(Json(json!({
        "namespace": format!("OS::Storage::Capabilities::{known}"),
        "vendor_name": common.get("vendor_name"),
        "volume_backend_name": common.get("volume_backend_name"),
        "pool_name": Value::Null,
        "driver_version": common.get("driver_version"),
        "storage_protocol": common.get("storage_protocol"),
        "display_name": Value::Null,
        "description": Value::Null,
        "visibility": Value::Null,
        "replication_targets": [],
        "properties": properties,
    })))
}
