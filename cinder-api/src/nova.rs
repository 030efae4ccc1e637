//! Nova, as far as it must be asked or told: whether a server uses an attachment, and that a volume has grown.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::fault::Fault;
use crate::identity::{Caller, Keystone, Secret};

/// The version from which on Nova tells of attachments' identities.
const WITH_ATTACHMENTS: &str = "compute 2.89";
/// The version from which on Nova is told that volumes have grown.
const WITH_EVENTS: &str = "compute 2.51";

/// Whether a server uses a volume by an attachment. Where it is, the token's catalogue says; where there is no Nova, nothing
/// uses it.
pub async fn uses(
    keystone: &Keystone,
    caller: &Caller,
    (server, volume, attachment): (&str, &str, &str),
) -> Result<bool, Fault> {
    let Some(nova) = &caller.compute_endpoint else {
        return Ok(false);
    };
    let url = format!("{nova}/servers/{server}/os-volume_attachments/{volume}");
    let token = own_token(keystone).await?;
    let headers = [
        ("x-auth-token", token.0.as_str()),
        ("openstack-api-version", WITH_ATTACHMENTS),
    ];
    let asked = keystone.client().ask(Method::GET, &url, &headers, None).await;
    let answer = asked.map_err(|error| away(&error))?;
    match answer.status {
        StatusCode::NOT_FOUND => Ok(false),
        status if status.is_success() => {
            let told: Value = answer.json().map_err(|error| away(&error))?;
            let used = told
                .pointer("/volumeAttachment/attachment_id")
                .and_then(Value::as_str);
            Ok(used.is_none_or(|used| used == attachment))
        }
        status => Err(away(&format!("it answers with status {status}"))),
    }
}

/// Tells the hypervisors of servers that a volume of theirs has changed. They are told once: what they miss, they see when
/// they look. Where there is no Nova, there is nobody to tell.
pub async fn tell(keystone: &Keystone, event: &str, volume: &str, servers: &[String]) {
    if servers.is_empty() {
        return;
    }
    let told = async {
        let Some(nova) = keystone
            .compute()
            .await
            .map_err(|refusal| away(&format!("{refusal:?}")))?
        else {
            return Ok(None);
        };
        let event = |server| json!({"name": event, "server_uuid": server, "tag": volume});
        let body = json!({"events": servers.iter().map(event).collect::<Vec<_>>()});
        let token = own_token(keystone).await?;
        let url = format!("{nova}/os-server-external-events");
        let headers = [
            ("x-auth-token", token.0.as_str()),
            ("openstack-api-version", WITH_EVENTS),
        ];
        let asked = keystone
            .client()
            .ask(Method::POST, &url, &headers, Some(&body))
            .await;
        asked.map(Some).map_err(|error| away(&error))
    };
    match told.await {
        Ok(Some(answer)) => info!(volume, event, status = %answer.status, "Nova was told"),
        Ok(None) => {}
        Err(fault) => warn!(volume, event, error = fault.message, "Nova cannot be told"),
    }
}

async fn own_token(keystone: &Keystone) -> Result<Secret, Fault> {
    keystone
        .service_token()
        .await
        .map_err(|refusal| away(&format!("{refusal:?}")))
}

fn away(why: &dyn std::fmt::Display) -> Fault {
    Fault::unavailable(format!(
        "Nova cannot be asked whether the volume is in use: {why}. Try again."
    ))
}
