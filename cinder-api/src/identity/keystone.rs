//! Asks Keystone about tokens, as keystonemiddleware does, with credentials of this service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::access_rules;
use super::cache::{Cache, Known};
use super::token::{Answer, Token};
use super::{Caller, Secret};
use crate::http::{self, HttpClient, NoAnswer};
use crate::metrics::{self, Whom};
use crate::records::Instant;

/// How often a question is asked when our own token is refused, or Keystone has a moment's weakness.
const ATTEMPTS_MAX: usize = 3;
/// Our own token is renewed this long before it ends, in seconds.
const RENEW_BEFORE_S: i64 = 60;
/// The longest token that is looked at: longer headers are no tokens of Keystone's.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// How Keystone is reached, and who we are there.
#[derive(Clone, Debug)]
pub struct KeystoneSettings {
    /// Its address with the version: `http://controller:5000/v3`.
    pub auth_url: String,
    /// What clients without a token are told; `auth_url` unless that is not theirs.
    pub public_url: String,
    /// Our user.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Our project.
    pub project_name: String,
    /// The domain of our user, by name.
    pub user_domain_name: String,
    /// The domain of our project, by name.
    pub project_domain_name: String,
    /// Certificates that Keystone's certificate is checked with, besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long an answer about a token is believed.
    pub cache_time: Duration,
    /// The roles that make a token one of a service.
    pub service_roles: Vec<String>,
}

/// Why it is not known who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no token, or Keystone does not vouch for it, or its rules do not let this request through.
    Unauthorized,
    /// Keystone cannot be asked.
    Unavailable(String),
}

/// Keystone.
#[derive(Debug)]
pub struct Keystone {
    settings: KeystoneSettings,
    client: HttpClient,
    cache: Cache,
    own: Mutex<Option<OwnToken>>,
}

#[derive(Clone, Debug)]
struct OwnToken {
    text: Secret,
    expires: Instant,
    /// What else Keystone says of it.
    about: Arc<Token>,
}

impl Keystone {
    /// Does not ask it yet.
    pub fn new(settings: KeystoneSettings) -> anyhow::Result<Self> {
        Ok(Self {
            client: HttpClient::new(settings.ca_file.as_deref())?,
            cache: Cache::new(settings.cache_time),
            own: Mutex::default(),
            settings,
        })
    }

    /// How this service asks others.
    pub fn client(&self) -> &HttpClient {
        &self.client
    }

    /// What clients without a token are told: where to get one.
    pub fn public_url(&self) -> &str {
        &self.settings.public_url
    }

    /// Who makes a request, by the tokens in its headers.
    pub async fn caller(&self, headers: &HeaderMap, method: &Method, path: &str) -> Result<Caller, Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let users = text("x-auth-token")
            .or_else(|| text("x-storage-token"))
            .ok_or(Refusal::Unauthorized)?;
        let service = match text("x-service-token") {
            Some(token) => self.service(token).await?,
            None => false,
        };
        let token = self.token(users, service).await?.ok_or(Refusal::Unauthorized)?;
        let rules = token
            .application_credential
            .as_ref()
            .and_then(|credential| credential.access_rules.as_ref());
        // What a service asks in the user's name, the user need not be able to ask himself.
        if let Some(rules) = rules
            && !service
            && !access_rules::lets_through(rules, method.as_str(), path)
        {
            return Err(Refusal::Unauthorized);
        }
        Ok(Caller {
            user_id: token.user.id.clone(),
            project_id: token.project.as_ref().map(|project| project.id.clone()),
            project_name: token.project.as_ref().map(|project| project.name.clone()),
            roles: token.roles.iter().map(|role| role.name.to_lowercase()).collect(),
            is_admin: false,
            is_service: service,
            token: Secret(users.to_owned()),
            image_endpoint: token.endpoint(&["image"]),
            key_endpoint: token.endpoint(crate::keys::SERVICE),
            compute_endpoint: token.endpoint(&["compute"]),
        })
    }

    /// Whether a token is that of a service. One that is none at all refuses the request.
    async fn service(&self, text: &str) -> Result<bool, Refusal> {
        let token = self.token(text, false).await?.ok_or(Refusal::Unauthorized)?;
        let mut roles = token.roles.iter();
        Ok(roles.any(|role| {
            self.settings
                .service_roles
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(&role.name))
        }))
    }

    /// What Keystone says of a token; nothing if it does not vouch for it. With a service's token beside it, one that has
    /// ended meanwhile still counts: long work of a service outlives its user's token.
    async fn token(&self, text: &str, may_be_over: bool) -> Result<Option<Arc<Token>>, Refusal> {
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let is_good = |token: &Arc<Token>| may_be_over || token.expires() > Instant::now();
        if let Some(known) = self.cache.get(text) {
            match known {
                Known::Good(token) if is_good(&token) => return Ok(Some(token)),
                Known::Bad if !may_be_over => return Ok(None),
                _ => {}
            }
        }
        let token = self.ask(text, may_be_over).await?.map(Arc::new);
        self.cache
            .put(text, token.clone().map_or(Known::Bad, Known::Good));
        Ok(token.filter(is_good))
    }

    async fn ask(&self, text: &str, may_be_over: bool) -> Result<Option<Token>, Refusal> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS_MAX {
            let own = self.own_token().await?;
            let mut url = format!("{}/auth/tokens", self.settings.auth_url);
            if may_be_over {
                url.push_str("?allow_expired=1");
            }
            let headers = [
                ("x-auth-token", own.text.0.as_str()),
                ("x-subject-token", text),
                ("openstack-identity-access-rules", "1.0"),
            ];
            match self.question(Method::GET, &url, &headers, None).await {
                Ok(answer) if answer.status.is_success() => match answer.json::<Answer>() {
                    Ok(answer) => return Ok(Some(answer.token)),
                    Err(error) => last = error.to_string(),
                },
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => return Ok(None),
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                    info!("Keystone takes our token no longer: asking for a new one");
                    self.forget(&own.text).await;
                    "it refuses our own token".clone_into(&mut last);
                }
                Ok(answer) => last = format!("it answers with status {}", answer.status),
                Err(error) => last = error.to_string(),
            }
        }
        warn!(error = last, "Keystone cannot be asked about a token");
        Err(Refusal::Unavailable(last))
    }

    /// Asks Keystone, and counts that.
    async fn question(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<http::Answer, NoAnswer> {
        let began = std::time::Instant::now();
        let answer = self.client.ask(method, url, headers, body).await;
        let failed = answer
            .as_ref()
            .map_or(true, |answer| answer.status.is_server_error());
        metrics::asked(Whom::Keystone, failed, began.elapsed());
        answer
    }

    /// Our own token, to ask other services in our own name.
    pub async fn service_token(&self) -> Result<Secret, Refusal> {
        Ok(self.own_token().await?.text)
    }

    /// Where servers are, as the catalogue tells ourselves; nothing if there are none.
    pub async fn compute(&self) -> Result<Option<String>, Refusal> {
        self.own_endpoint(&["compute"]).await
    }

    /// Where a service of one of these types is, as the catalogue tells ourselves; nothing if it is not there.
    pub async fn own_endpoint(&self, types: &[&str]) -> Result<Option<String>, Refusal> {
        Ok(self.own_token().await?.about.endpoint(types))
    }

    async fn own_token(&self) -> Result<OwnToken, Refusal> {
        let mut own = self.own.lock().await;
        if let Some(token) = own.as_ref()
            && token.expires > Instant::now().plus_seconds(RENEW_BEFORE_S)
        {
            return Ok(token.clone());
        }
        let token = self.log_in().await.map_err(|why| {
            warn!(error = why, "cannot get a token of our own from Keystone");
            Refusal::Unavailable(why)
        })?;
        *own = Some(token.clone());
        Ok(token)
    }

    /// Another service takes this token of ours no longer: the next one who needs one gets a new one.
    pub async fn forget(&self, refused: &Secret) {
        let mut own = self.own.lock().await;
        if own.as_ref().is_some_and(|token| token.text == *refused) {
            *own = None;
        }
    }

    async fn log_in(&self) -> Result<OwnToken, String> {
        let settings = &self.settings;
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": settings.username,
                "domain": {"name": settings.user_domain_name},
                "password": settings.password.0,
            }}},
            "scope": {"project": {
                "name": settings.project_name,
                "domain": {"name": settings.project_domain_name},
            }},
        }});
        let url = format!("{}/auth/tokens", settings.auth_url);
        let asked = self.question(Method::POST, &url, &[], Some(&body)).await;
        let answer = asked.map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(format!(
                "it does not let {} in: status {}",
                settings.username, answer.status
            ));
        }
        let text = answer
            .header("x-subject-token")
            .ok_or("it gave no token")?
            .to_owned();
        let told: Answer = answer.json().map_err(|error| error.to_string())?;
        Ok(OwnToken {
            text: Secret(text),
            expires: told.token.expires(),
            about: Arc::new(told.token),
        })
    }
}
