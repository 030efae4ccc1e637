//! `/os-hosts`: services once more, in older words, and what projects have at them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{Known, VOLUME_BINARY, status};
use crate::fault::Fault;
use crate::records::{Instant, Tables};
use crate::request::{Body, Context, Query};
use crate::service::{Service, Shared};

const RULE: &str = "volume_extension:hosts";

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    service.check(RULE, &context)?;
    service.records.fresh().await?;
    let is_up = service.storage.pools().await.is_ok();
    let zone = &service.settings.availability_zone;
    let tables = service.records.tables();
    let is_asked = query
        .get("zone")
        .is_none_or(|asked| asked.is_empty() || asked == zone);
    let known = Known::all(&service).into_iter().filter(|_| is_asked);
    let enabled = known.filter(|known| !known.switches(&tables).disabled);
    let view = |known: Known| {
        let lives = is_up || known.binary != VOLUME_BINARY;
        json!({
            "host_name": known.host,
            "service": known.binary,
            "zone": zone,
            "service-status": if lives { "available" } else { "unavailable" },
            "service-state": status(false),
            "last-update": Instant::now().to_string(),
        })
    };
    let shown: Vec<Value> = enabled.map(view).collect();
    Ok(Json(json!({"hosts": shown})))
}

/// What somebody has at a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    volumes: u64,
    volume_gib: u64,
    snapshots: u64,
    snapshot_gib: u64,
}

impl Held {
    fn view(self, host: &str, project: &str) -> Value {
        json!({"resource": {
            "host": host,
            "project": project,
            "volume_count": self.volumes.to_string(),
            "total_volume_gb": self.volume_gib.to_string(),
            "snapshot_count": self.snapshots.to_string(),
            "total_snapshot_gb": self.snapshot_gib.to_string(),
        }})
    }
}

/// What each project has, and what all have together.
fn held(tables: &Tables) -> (Held, BTreeMap<&str, Held>) {
    let mut total = Held::default();
    let mut projects: BTreeMap<&str, Held> = BTreeMap::new();
    for volume in tables.volumes.iter() {
        for held in [&mut total, projects.entry(&volume.project_id).or_default()] {
            held.volumes += 1;
            held.volume_gib += volume.size;
        }
    }
    for snapshot in tables.snapshots.iter() {
        for held in [&mut total, projects.entry(&snapshot.project_id).or_default()] {
            held.snapshots += 1;
            held.snapshot_gib += snapshot.size;
        }
    }
    (total, projects)
}

pub(super) async fn show(
    State(service): Shared,
    context: Context,
    Path(host): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.check(RULE, &context)?;
    service.records.fresh().await?;
    let mut all = Known::all(&service).into_iter();
    let known = all.find(|known| known.binary == VOLUME_BINARY && known.host == host);
    if known.is_none() {
        return Err(no_host(&host));
    }
    let tables = service.records.tables();
    let (total, projects) = held(&tables);
    let mut shown = vec![total.view(&host, "(total)")];
    shown.extend(projects.iter().map(|(project, held)| held.view(&host, project)));
    Ok(Json(json!({"host": shown})))
}

fn no_host(host: &str) -> Fault {
    Fault::not_found(format!("Host {host} could not be found."))
}

pub(super) async fn update(
    State(service): Shared,
    context: Context,
    Path(host): Path<String>,
    body: Body,
) -> Result<Json<Value>, Fault> {
    service.check(RULE, &context)?;
    let mut all = Known::all(&service).into_iter();
    let known = all.find(|known| known.host == host);
    let known = known.ok_or_else(|| no_host(&host))?;
    let (key, value) = body.0.iter().next().unwrap_or((&host, &Value::Null));
    if body.0.len() != 1 || !key.trim().eq_ignore_ascii_case("status") {
        return Err(Fault::bad_request(format!("Invalid update setting: '{key}'")));
    }
    let said = value.as_str().unwrap_or_default().trim().to_lowercase();
    let disabled = match said.as_str() {
        "enable" => false,
        "disable" => true,
        _ => return Err(Fault::bad_request(format!("Invalid status: '{value}'"))),
    };
    set(&service, &known, disabled).await?;
    Ok(Json(json!({"host": host, "status": status(disabled)})))
}

async fn set(service: &Service, known: &Known, disabled: bool) -> Result<(), Fault> {
    super::switches::say(service, known, |switches| {
        switches.disabled = disabled;
        switches.disabled_reason = None;
    })
    .await
}
