//! What runs where, for administrators: services, pools, capabilities, hosts, zones.
//!
//! Which services there are follows from what this program is: it is a scheduler, and the storage is one host with one
//! backend, whose pools are storaged's. Any number of processes look like one.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::capabilities::{self, BACKUP_BINARY, VOLUME_BINARY};
use crate::fault::Fault;
use crate::records::service::Service as Switches;
use crate::records::{Instant, Tables};
use crate::request::{Context, Query};
use crate::routes::{Routes, get, post, put};
use crate::service::{Service, Shared};

mod extensions;
mod hosts;
mod pools;
mod static_answers;
mod switches;

/// The identity of the one service that volumes are behind: clients take it as a name for a lock that nobody needs.
pub const SERVICE_UUID: &str = "5f2e7c1e-6a39-4bd8-9c0e-8d7f5b3a1c24";

/// Who chooses pools.
const SCHEDULER_BINARY: &str = "cinder-scheduler";

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/os-services", get(list))
        .route("/os-services/{action}", put(switches::act))
        .route("/scheduler-stats/get_pools", get(pools::list))
        .route("/capabilities/{host}", get(pools::capabilities))
        .route("/os-hosts", get(hosts::list))
        .route("/os-hosts/{host}", get(hosts::show).put(hosts::update))
        .route("/os-availability-zone", get(static_answers::zones))
        .route("/extensions", get(extensions::list))
        .route("/extensions/{alias}", get(extensions::show))
        .route("/resource_filters", get(static_answers::resource_filters))
        .route("/clusters", get(static_answers::clusters))
        .route("/clusters/detail", get(static_answers::clusters))
        .route(
            "/clusters/{name}",
            get(static_answers::cluster).put(static_answers::cluster),
        )
        .route("/workers/cleanup", post(static_answers::cleanup))
}

/// A service.
struct Known {
    /// What runs.
    binary: &'static str,
    /// Where.
    host: String,
}

impl Known {
    /// All that there are.
    fn all(service: &Service) -> Vec<Self> {
        let mut all = vec![
            Self {
                binary: SCHEDULER_BINARY,
                host: service.settings.host.clone(),
            },
            Self {
                binary: VOLUME_BINARY,
                host: capabilities::backend(&service.settings),
            },
        ];
        if service.backups.is_some() {
            all.push(Self {
                binary: BACKUP_BINARY,
                host: service.settings.host.clone(),
            });
        }
        all
    }

    /// What an operator said of it.
    fn switches(&self, tables: &Tables) -> Switches {
        let id = Switches::key(self.binary, &self.host);
        let stored = tables.services.get(&id);
        stored.map_or_else(
            || Switches {
                id,
                disabled: false,
                disabled_reason: None,
                frozen: false,
                updated_at: Instant::now(),
            },
            |stored| stored.record.clone(),
        )
    }

    /// Whether it is at a host, which can be called with or without its backend.
    fn is_at(&self, host: &str) -> bool {
        let bare = self.host.split('@').next();
        self.host == host || bare == Some(host)
    }
}

/// How an operator sees whether nothing new is to go somewhere.
fn status(disabled: bool) -> &'static str {
    if disabled { "disabled" } else { "enabled" }
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:services:index", &context)?;
    service.records.fresh().await?;
    let is_up = service.storage.pools().await.is_ok();
    let tables = service.records.tables();
    let known = Known::all(&service).into_iter().filter(|known| {
        let binary = query.get("binary").or_else(|| query.get("service"));
        query.get("host").is_none_or(|host| known.is_at(host))
            && binary.is_none_or(|binary| binary == known.binary)
    });
    let shown: Vec<Value> = known
        .map(|known| view(&service, &tables, &context, &known, is_up))
        .collect();
    Ok(Json(json!({"services": shown})))
}

fn view(service: &Service, tables: &Tables, context: &Context, known: &Known, is_up: bool) -> Value {
    let switches = known.switches(tables);
    let is_volume = known.binary == VOLUME_BINARY;
    let state = if is_up || !is_volume { "up" } else { "down" };
    let mut shown = json!({
        "binary": known.binary,
        "host": known.host,
        "zone": service.settings.availability_zone,
        "status": status(switches.disabled),
        "state": state,
        // It is seen to live right now.
        "updated_at": Instant::now().to_string(),
        "disabled_reason": switches.disabled_reason,
    });
    if is_volume {
        shown["replication_status"] = json!("disabled");
        shown["active_backend_id"] = Value::Null;
        shown["frozen"] = json!(switches.frozen);
    }
    if context.version.is(7) {
        shown["cluster"] = Value::Null;
    }
    if is_volume && context.version.is(49) {
        shown["backend_state"] = json!(state);
    }
    shown
}
