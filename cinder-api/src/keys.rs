//! Keys of encrypted volumes: made, copied and ended in Barbican. What is encrypted with them, hosts know; here they are
//! identities, and their bytes go by only when one is copied, into no log and no record.
//!
//! A key is made, and copied, in the name of whoever asks for the volume: it is his project's. It ends in this service's own
//! name, when the volume is gone and nobody may be there any more who could ask.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;

use crate::fault::Fault;
use crate::http::{Answer, HttpClient, NoAnswer};
use crate::identity::{Refusal, Secret};
use crate::records::volume_type::Encryption;
use crate::request::Context;
use crate::request::body::is_uuid;
use crate::service::Service;
use crate::work::Trouble;

/// What Barbican is in the catalogue.
pub const SERVICE: &[&str] = &["key-manager"];
/// How long a key may take to be made: Barbican may do it after its answer.
const ORDER_TIME_MAX: Duration = Duration::from_secs(30);
/// Between looks at whether it is there.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long a question may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// What is configured.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// Where Barbican is, without the version; as the catalogue says, if left out.
    pub url: Option<String>,
    /// Certificates that its own is checked with, besides those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Barbican.
#[derive(Debug)]
pub struct Keys {
    client: HttpClient,
    url: Option<String>,
}

/// In whose name it is asked, and where.
#[derive(Clone, Debug)]
pub struct Access {
    endpoint: String,
    token: Secret,
}

/// Why a key cannot be had, or made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not there.
    #[error("the key manager has no such key")]
    Missing,
    /// It refuses.
    #[error("the key manager answers with status {0}: {1}")]
    Refused(StatusCode, String),
    /// It is away, or not known where.
    #[error("the key manager cannot be asked: {0}")]
    Away(String),
}

impl From<NoAnswer> for KeyError {
    fn from(error: NoAnswer) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<KeyError> for Fault {
    /// What the key manager says of keys is not repeated to clients.
    fn from(error: KeyError) -> Self {
        warn!(%error, "a key cannot be had");
        match error {
            KeyError::Away(_) => Self::unavailable("The key manager cannot be reached. Try again."),
            KeyError::Missing | KeyError::Refused(..) => Self::bad_request("Key manager error"),
        }
    }
}

/// What a volume needs of the key manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A new key.
    New {
        /// The cipher, as cryptsetup's name for the whole begins: `aes`.
        algorithm: String,
        /// Its length.
        bits: u64,
    },
    /// Another one with the same bytes.
    Copy(String),
}

impl Need {
    /// The new key of a volume that is encrypted so.
    pub fn new(encryption: &Encryption) -> Result<Self, Fault> {
        let cipher = encryption.cipher.as_deref().unwrap_or_default();
        let algorithm = cipher.split('-').next().filter(|algorithm| !algorithm.is_empty());
        match algorithm.zip(encryption.key_size) {
            Some((algorithm, bits)) => Ok(Self::New {
                algorithm: algorithm.to_owned(),
                bits,
            }),
            None => Err(Fault::bad_request("Invalid volume type: Invalid encryption spec")),
        }
    }
}

/// A key that was made for something that was then promised, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it was made for.
    pub need: Need,
    /// Its identity.
    pub id: String,
}

#[derive(Debug, Deserialize)]
struct OrderMade {
    order_ref: String,
}

#[derive(Debug, Deserialize)]
struct Order {
    status: String,
    #[serde(default)]
    secret_ref: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SecretMade {
    secret_ref: String,
}

/// What Barbican says of a secret besides its bytes.
#[derive(Debug, Deserialize)]
struct About {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    algorithm: Option<String>,
    #[serde(default)]
    bit_length: Option<u64>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    secret_type: Option<String>,
}

impl Keys {
    /// Does not ask it yet.
    pub fn new(settings: &KeySettings) -> anyhow::Result<Self> {
        Ok(Self {
            client: HttpClient::new(settings.ca_file.as_deref())?,
            url: settings.url.clone(),
        })
    }

    fn access(&self, endpoint: Option<&String>, token: Secret) -> Result<Access, KeyError> {
        let endpoint = self.url.as_ref().or(endpoint);
        let none = || KeyError::Away("there is none in the catalogue, and none is configured".to_owned());
        let endpoint = endpoint.ok_or_else(none)?;
        let base = endpoint.trim_end_matches('/').trim_end_matches("/v1");
        Ok(Access {
            endpoint: format!("{base}/v1"),
            token,
        })
    }

    /// In the name of whoever makes a request.
    pub fn of_caller(&self, context: &Context) -> Result<Access, KeyError> {
        let caller = &context.caller;
        self.access(caller.key_endpoint.as_ref(), caller.token.clone())
    }

    /// In the name of this service.
    pub async fn of_service(&self, service: &Service) -> Result<Access, KeyError> {
        let away = |refusal| match refusal {
            Refusal::Unavailable(why) => KeyError::Away(why),
            Refusal::Unauthorized => KeyError::Away("Keystone does not let us in".to_owned()),
        };
        let token = service.keystone.service_token().await.map_err(away)?;
        let endpoint = service.keystone.own_endpoint(SERVICE).await.map_err(away)?;
        self.access(endpoint.as_ref(), token)
    }

    /// Gets what a volume needs; gives the new key's identity.
    pub async fn get(&self, access: &Access, need: &Need) -> Result<String, KeyError> {
        match need {
            Need::New { algorithm, bits } => self.create(access, algorithm, *bits).await,
            Need::Copy(key) => self.copy((access, access), key).await,
        }
    }

    async fn create(&self, access: &Access, algorithm: &str, bits: u64) -> Result<String, KeyError> {
        let order = json!({"type": "key", "meta": {
            "algorithm": algorithm, "bit_length": bits, "payload_content_type": "application/octet-stream",
        }});
        let made = self.ask(access, Method::POST, "orders", Some(&order)).await?;
        let order = identity(&made.json::<OrderMade>()?.order_ref)?;
        let path = format!("orders/{order}");
        let deadline = Instant::now() + ORDER_TIME_MAX;
        let secret = loop {
            let looked = self.ask(access, Method::GET, &path, None).await?;
            let order: Order = looked.json()?;
            match (order.status.as_str(), order.secret_ref) {
                ("ACTIVE", Some(secret)) => break identity(&secret)?,
                ("PENDING", _) if Instant::now() < deadline => tokio::time::sleep(LOOK_AGAIN).await,
                ("PENDING", _) => {
                    return Err(KeyError::Away("it does not get round to making a key".to_owned()));
                }
                _ => return Err(KeyError::Refused(looked.status, "the order failed".to_owned())),
            }
        };
        // An order that is carried out is of no use to anybody. Some policies keep it from who gave it.
        if let Err(error) = self.ask(access, Method::DELETE, &path, None).await {
            tracing::debug!(%error, "an order that was carried out stays");
        }
        Ok(secret)
    }

    /// Makes a second key with a key's bytes, in the name of the second access; gives its identity.
    pub async fn copy(&self, (from, to): (&Access, &Access), key: &str) -> Result<String, KeyError> {
        let path = format!("secrets/{key}");
        let about: About = self.ask(from, Method::GET, &path, None).await?.json()?;
        let payload = self
            .send(
                from,
                Method::GET,
                &format!("{path}/payload"),
                ("accept", OCTETS),
                None,
            )
            .await?;
        let copy = json!({
            "name": about.name,
            "algorithm": about.algorithm,
            "bit_length": about.bit_length,
            "mode": about.mode,
            "secret_type": about.secret_type,
            "payload": BASE64.encode(payload.bytes()),
            "payload_content_type": OCTETS,
            "payload_content_encoding": "base64",
        });
        let made = self
            .ask(to, Method::POST, "secrets", Some(&without_nulls(copy)))
            .await?;
        identity(&made.json::<SecretMade>()?.secret_ref)
    }

    /// Ends a key. Nothing to do if there is none.
    pub async fn delete(&self, access: &Access, key: &str) -> Result<(), KeyError> {
        match self
            .ask(access, Method::DELETE, &format!("secrets/{key}"), None)
            .await
        {
            Ok(_) | Err(KeyError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(
        &self,
        access: &Access,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, KeyError> {
        self.send(access, method, path, ("accept", "application/json"), body)
            .await
    }

    async fn send(
        &self,
        access: &Access,
        method: Method,
        path: &str,
        accept: (&str, &str),
        body: Option<&Value>,
    ) -> Result<Answer, KeyError> {
        let url = format!("{}/{path}", access.endpoint);
        let mut headers = vec![("x-auth-token", access.token.0.as_str()), accept];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self
            .client
            .send(method, &url, &headers, body.into(), ANSWER_TIME_MAX)
            .await?;
        match answer.status {
            status if status.is_success() => Ok(answer),
            StatusCode::NOT_FOUND => Err(KeyError::Missing),
            status if status.is_server_error() => {
                Err(KeyError::Away(format!("it answers with status {status}")))
            }
            status => Err(KeyError::Refused(status, answer.beginning())),
        }
    }
}

/// What bytes are called.
const OCTETS: &str = "application/octet-stream";

/// The identity in an address that Barbican gives.
fn identity(reference: &str) -> Result<String, KeyError> {
    let id = reference
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    if is_uuid(id) {
        return Ok(id.to_owned());
    }
    Err(KeyError::Away(
        "it gave an address without an identity".to_owned(),
    ))
}

/// Barbican takes a value that is not there for none, and not one that is null.
fn without_nulls(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

/// The identity of the key that was made for what is needed. What is needed may have changed meanwhile.
pub fn fits(need: Option<&Need>, made: Option<&Made>) -> Result<Option<String>, Fault> {
    if need == made.map(|made| &made.need) {
        return Ok(made.map(|made| made.id.clone()));
    }
    Err(Fault::conflict(
        "What the volume is made from, or its type, has changed meanwhile: ask again.",
    ))
}

/// Gets the keys that something needs which is to be promised, in the name of whoever asks.
pub async fn make(service: &Service, context: &Context, needs: Vec<Need>) -> Result<Vec<Made>, Fault> {
    let mut made = Vec::new();
    if needs.is_empty() {
        return Ok(made);
    }
    let keys = service.keys()?;
    let access = keys.of_caller(context)?;
    for need in needs {
        match keys.get(&access, &need).await {
            Ok(id) => made.push(Made { need, id }),
            Err(error) => {
                unmake(service, context, &made).await;
                return Err(error.into());
            }
        }
    }
    Ok(made)
}

/// Ends keys of something that was not promised after all.
pub async fn unmake(service: &Service, context: &Context, made: &[Made]) {
    let Ok(keys) = service.keys() else {
        return;
    };
    for Made { id, .. } in made {
        let ended = match keys.of_caller(context) {
            Ok(access) => keys.delete(&access, id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            warn!(key = id, %error, "a key that nothing is encrypted with stays");
        }
    }
}

/// Ends the key of something that is gone, in this service's name. One that may not be ended stays, and the log says which.
pub async fn end(service: &Service, key: Option<&str>) -> Result<(), Trouble> {
    let Some(key) = key else {
        return Ok(());
    };
    let ended = async {
        let keys = service.keys().map_err(|_| {
            KeyError::Refused(
                StatusCode::GONE,
                "no key manager is configured any more".to_owned(),
            )
        })?;
        keys.delete(&keys.of_service(service).await?, key).await
    };
    match ended.await {
        Err(KeyError::Away(why)) => Err(Trouble::Later(format!("the key manager cannot be asked: {why}"))),
        Err(error) => {
            warn!(key, %error, "the key of something that is gone stays");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    //! What a type says of its volumes' keys.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use super::*;
    use crate::records::Instant;

    fn encryption(cipher: Option<&str>, key_size: Option<u64>) -> Encryption {
        Encryption {
            id: String::new(),
            provider: "luks".to_owned(),
            control_location: "front-end".to_owned(),
            cipher: cipher.map(str::to_owned),
            key_size,
            created_at: Instant(0),
            updated_at: None,
        }
    }

    #[test]
    fn a_key_is_as_long_as_the_type_says_and_for_its_cipher() {
        let need = Need::new(&encryption(Some("aes-xts-plain64"), Some(256))).unwrap();
        let wanted = Need::New {
            algorithm: "aes".to_owned(),
            bits: 256,
        };
        assert_eq!(need, wanted);
        for (cipher, size) in [
            (None, Some(256)),
            (Some(""), Some(256)),
            (Some("aes-xts-plain64"), None),
        ] {
            assert_eq!(Need::new(&encryption(cipher, size)).unwrap_err().status, 400);
        }
    }

    #[test]
    fn an_address_has_an_identity_at_its_end_or_is_none() {
        let id = "11111111-2222-4333-8444-555555555555";
        assert_eq!(identity(&format!("http://b/v1/secrets/{id}")).unwrap(), id);
        assert!(identity("http://b/v1/secrets/..").is_err());
    }
}
