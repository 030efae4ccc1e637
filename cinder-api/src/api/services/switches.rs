//! `PUT /os-services/ACTION`: what an operator says of services.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Known, VOLUME_BINARY, status};
use crate::door;
use crate::fault::Fault;
use crate::records::Instant;
use crate::records::service::Service as Switches;
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context, Fields};
use crate::service::{Service, Shared};

/// What the API itself is called as a program that writes a log.
const API_BINARY: &str = "cinder-api";
/// The version in which logs can be asked about.
const LOGS_SINCE: u8 = 32;

pub(super) async fn act(
    State(service): Shared,
    context: Context,
    Path(action): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let rule = match action.as_str() {
        "freeze" => "volume:freeze_host",
        "thaw" => "volume:thaw_host",
        "failover_host" => "volume:failover_host",
        _ => "volume_extension:services:update",
    };
    service.check(rule, &context)?;
    let fields = Fields(&body.0);
    match action.as_str() {
        "enable" => switch(&service, fields, false, false).await,
        "disable" => switch(&service, fields, true, false).await,
        "disable-log-reason" => switch(&service, fields, true, true).await,
        "freeze" => freeze(&service, fields, true).await,
        "thaw" => freeze(&service, fields, false).await,
        "failover_host" | "failover" => fail_over(&service, fields),
        "set-log" => {
            context.since(LOGS_SINCE)?;
            set_log(fields)
        }
        "get-log" => {
            context.since(LOGS_SINCE)?;
            get_log(&service, fields)
        }
        _ => Err(Fault::not_found("The resource could not be found.")),
    }
}

fn host(fields: Fields<'_>) -> Result<String, Fault> {
    fields.text("host", 1..=TEXT_MAX)?.ok_or_else(|| {
        Fault::bad_request(
            "Invalid input received: One of cluster and host must be set, and there is no cluster.",
        )
    })
}

/// Changes what is said of a service.
pub(super) async fn say(
    service: &Service,
    known: &Known,
    becomes: impl Fn(&mut Switches),
) -> Result<(), Fault> {
    let said = service.records.edit(|edit| {
        let mut switches = known.switches(edit.tables);
        becomes(&mut switches);
        switches.updated_at = Instant::now();
        edit.put(&switches);
        Ok(())
    });
    said.await
}

async fn switch(
    service: &Service,
    fields: Fields<'_>,
    disabled: bool,
    has_reason: bool,
) -> Result<Response, Fault> {
    let mut allowed = vec!["binary", "host", "cluster", "service"];
    if has_reason {
        allowed.push("disabled_reason");
    }
    fields.only(&allowed)?;
    fields.any_of(&["binary", "service"])?;
    let host = host(fields)?;
    let older = fields.text("service", 1..=TEXT_MAX)?.unwrap_or_default();
    let binary = fields.text("binary", 1..=TEXT_MAX)?.unwrap_or_default();
    let reason = if has_reason {
        Some(fields.required_text("disabled_reason", 1..=TEXT_MAX)?)
    } else {
        None
    };
    let wanted = if binary.is_empty() { &older } else { &binary };
    let mut all = Known::all(service).into_iter();
    let known = all.find(|known| known.binary == wanted && known.is_at(&host));
    let known = known
        .ok_or_else(|| Fault::not_found(format!("Service {wanted} could not be found on host {host}.")))?;
    say(service, &known, |switches| {
        switches.disabled = disabled;
        switches.disabled_reason.clone_from(&reason);
    })
    .await?;
    let mut shown = json!({
        "host": host,
        "service": older,
        "binary": binary,
        "disabled": disabled,
        "status": status(disabled),
    });
    if has_reason || !disabled {
        shown["disabled_reason"] = json!(reason);
    }
    Ok(Json(shown).into_response())
}

/// The service behind a host's volumes. Who names another host has made a mistake.
fn volumes_at(service: &Service, fields: Fields<'_>) -> Result<Known, Fault> {
    let host = host(fields)?;
    let mut all = Known::all(service).into_iter();
    let known = all.find(|known| known.binary == VOLUME_BINARY && known.is_at(&host));
    known.ok_or_else(|| {
        Fault::bad_request(format!(
            "Invalid input received: Service {VOLUME_BINARY} could not be found on host {host}."
        ))
    })
}

async fn freeze(service: &Service, fields: Fields<'_>, frozen: bool) -> Result<Response, Fault> {
    fields.only(&["cluster", "host"])?;
    let known = volumes_at(service, fields)?;
    say(service, &known, |switches| switches.frozen = frozen).await?;
    Ok(door::empty(StatusCode::OK))
}

/// storaged keeps copies by itself; there is no second storage that volumes could fail over to.
fn fail_over(service: &Service, fields: Fields<'_>) -> Result<Response, Fault> {
    fields.only(&["host", "backend_id", "cluster"])?;
    volumes_at(service, fields)?;
    Err(Fault::bad_request(
        "Invalid input received: The storage is replicated within itself: there is nothing that it could fail over to.",
    ))
}

/// Levels are what each process was started with: no process tells another one.
fn set_log(fields: Fields<'_>) -> Result<Response, Fault> {
    fields.only(&["binary", "server", "prefix", "level"])?;
    Err(Fault::bad_request(
        "Invalid input received: The level of the log is said by RUST_LOG when cinder-api starts, and cannot be changed.",
    ))
}

fn get_log(service: &Service, fields: Fields<'_>) -> Result<Response, Fault> {
    fields.only(&["binary", "server", "prefix"])?;
    let binary = fields.short_text("binary")?.unwrap_or_default();
    let server = fields.short_text("server")?.unwrap_or_default();
    let prefix = fields.short_text("prefix")?.unwrap_or_default();
    let level = tracing::level_filters::LevelFilter::current()
        .to_string()
        .to_uppercase();
    let host = &service.settings.host;
    let is_asked = matches!(binary.as_str(), "" | "*" | API_BINARY) && (server.is_empty() || server == *host);
    let shown: Vec<Value> = if is_asked {
        let name = if prefix.is_empty() { "cinder_api" } else { &prefix };
        vec![json!({"host": host, "binary": API_BINARY, "levels": {name: level}})]
    } else {
        Vec::new()
    };
    Ok(Json(json!({"log_levels": shown})).into_response())
}
