//! Nova, as far as it must be asked or told: whether a server uses an attachment, and that a volume has grown.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::fault::Fault;
use crate::identity::{Caller, Keystone, Secret};

/// How long Nova may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// The version from which on Nova tells of attachments' identities.
const WITH_ATTACHMENTS: &str = "compute 2.89";

/// Asks Nova. Where it is, the token's catalogue says.
#[derive(Clone, Debug)]
pub struct Nova {
    client: Client,
}

impl Nova {
    /// Does not ask yet.
    pub fn new() -> anyhow::Result<Self> {
        let client = Client::builder().timeout(ANSWER_TIME_MAX).build()?;
        Ok(Self { client })
    }

    /// Whether a server uses a volume by an attachment. Where there is no Nova, nothing does.
    pub async fn uses(
        &self,
        keystone: &Keystone,
        caller: &Caller,
        (server, volume, attachment): (&str, &str, &str),
    ) -> Result<bool, Fault> {
        let Some(nova) = &caller.compute_endpoint else {
            return Ok(false);
        };
        let url = format!("{nova}/servers/{server}/os-volume_attachments/{volume}");
        let token = own_token(keystone).await?;
        let request = self
            .client
            .get(url)
            .header("x-auth-token", token.0)
            .header("openstack-api-version", WITH_ATTACHMENTS);
        let answer = request.send().await.map_err(|error| away(&error.to_string()))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => {
                let told: Value = answer.json().await.map_err(|error| away(&error.to_string()))?;
                let used = told
                    .pointer("/volumeAttachment/attachment_id")
                    .and_then(Value::as_str);
                Ok(used.is_none_or(|used| used == attachment))
            }
            status => Err(away(&format!("it answers with status {status}"))),
        }
    }

    /// Tells a server's hypervisor that a volume has changed. It is told once: what it misses, it sees when it looks.
    pub async fn tell(&self, keystone: &Keystone, nova: &str, event: &str, (server, volume): (&str, &str)) {
        let body = json!({"events": [{"name": event, "server_uuid": server, "tag": volume}]});
        let told = async {
            let token = own_token(keystone).await?;
            let request = self.client.post(format!("{nova}/os-server-external-events"));
            let request = request
                .header("x-auth-token", token.0)
                .header("openstack-api-version", "compute 2.51");
            request
                .json(&body)
                .send()
                .await
                .map_err(|error| away(&error.to_string()))
        };
        match told.await {
            Ok(answer) => info!(server, volume, event, status = %answer.status(), "Nova was told"),
            Err(fault) => warn!(
                server,
                volume,
                event,
                error = fault.message,
                "Nova cannot be told"
            ),
        }
    }
}

async fn own_token(keystone: &Keystone) -> Result<Secret, Fault> {
    keystone
        .service_token()
        .await
        .map_err(|refusal| away(&format!("{refusal:?}")))
}

fn away(why: &str) -> Fault {
    Fault::unavailable(format!(
        "Nova cannot be asked whether the volume is in use: {why}. Try again."
    ))
}
