//! Backups in Swift: each object one of Swift's, in a container of the account that Keystone's catalogue names, or of a configured one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::StoreError;
use super::remote::{Attempt, Deed, Fingerprint, NOTHING, PAGE_NAMES, Page, Remote, send_time};
use crate::http::{Answer, HttpClient};
use crate::identity::{Keystone, Refusal, Secret};

/// What Swift is in the catalogue.
const SERVICE: &[&str] = &["object-store"];

/// A Swift account.
#[derive(Debug)]
pub struct Swift {
    keystone: Keystone,
    client: HttpClient,
    url: Option<String>,
    patience: Duration,
}

/// A container of an account.
#[derive(Clone, Debug)]
pub(super) struct Container {
    swift: Arc<Swift>,
    name: String,
}

/// Where the account is, and what opens it.
struct Account {
    url: String,
    token: Secret,
}

/// An object in a listing.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
}

impl Swift {
    /// The account at an address (`http://swift:8080/v1/AUTH_...`), or the one that the catalogue names to whoever `keystone` logs
    /// in as. A store that does not answer is asked again for so long.
    pub fn new(keystone: Keystone, client: HttpClient, url: Option<String>, patience: Duration) -> Self {
        Self {
            keystone,
            client,
            url,
            patience,
        }
    }

    async fn account(&self, deed: Deed<'_>) -> Result<Account, Attempt> {
        let refused = |refusal| match refusal {
            Refusal::Unavailable(why) => Attempt::Again(format!("Keystone cannot be asked: {why}")),
            Refusal::Unauthorized => Attempt::Again("Keystone does not let us in".to_owned()),
        };
        let token = self.keystone.service_token().await.map_err(refused)?;
        let url = match &self.url {
            Some(url) => Some(url.clone()),
            None => self.keystone.own_endpoint(SERVICE).await.map_err(refused)?,
        };
        let url = url.ok_or_else(|| {
            let why = "the catalogue has no object-store: an operator sets backups.swift.url";
            Attempt::No(deed.failed(why))
        })?;
        Ok(Account { url, token })
    }
}

impl Container {
    pub(super) fn new(swift: Arc<Swift>, name: String) -> Self {
        Self { swift, name }
    }

    /// Asks once; `rest` follows the container in the address.
    async fn ask(
        &self,
        deed: Deed<'_>,
        (method, rest): (Method, &str),
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, Attempt> {
        let account = self.swift.account(deed).await?;
        let url = format!("{}/{}{rest}", account.url, self.name);
        let mut all = vec![("x-auth-token", account.token.0.as_str())];
        all.extend_from_slice(headers);
        let time = send_time(body.len());
        let answer = self.swift.client.send(method, &url, &all, body, time).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.swift.keystone.forget(&account.token).await;
        }
        Ok(answer)
    }
}

#[async_trait]
impl Remote for Container {
    fn patience(&self) -> Duration {
        self.swift.patience
    }

    fn key(&self, name: &str) -> String {
        name.to_owned()
    }

    async fn put_once(&self, deed: Deed<'_>, bytes: Bytes, digest: &Fingerprint) -> Result<(), Attempt> {
        let rest = format!("/{}", deed.name);
        let digest = HEXLOWER.encode(digest);
        let headers = [
            ("etag", digest.as_str()),
            ("content-type", "application/octet-stream"),
        ];
        let answer = self
            .ask(deed, (Method::PUT, &rest), &headers, bytes.clone())
            .await?;
        let answer = if answer.status == StatusCode::NOT_FOUND {
            // The first object in it. Making a container that is there changes nothing.
            let made = self.ask(deed, (Method::PUT, ""), &[], NOTHING).await?;
            if !made.status.is_success() {
                return Err(deed.refused(made.status, "and the container cannot be made"));
            }
            self.ask(deed, (Method::PUT, &rest), &headers, bytes).await?
        } else {
            answer
        };
        match answer.status {
            status if status.is_success() => {}
            // Something changed the bytes on their way.
            StatusCode::UNPROCESSABLE_ENTITY => return Err(Attempt::Again("other bytes arrived".to_owned())),
            status => return Err(deed.refused(status, "")),
        }
        match answer.header("etag").map(|etag| etag.trim_matches('"')) {
            Some(etag) if !etag.eq_ignore_ascii_case(&digest) => {
                Err(Attempt::Again("it stored other bytes".to_owned()))
            }
            _ => Ok(()),
        }
    }

    async fn get_once(&self, deed: Deed<'_>, bytes_max: u64) -> Result<Bytes, Attempt> {
        let account = self.swift.account(deed).await?;
        let url = format!("{}/{}/{}", account.url, self.name, deed.name);
        let headers = [("x-auth-token", account.token.0.as_str())];
        let (status, body) = self.swift.client.download(&url, &headers).await?;
        match status {
            StatusCode::OK => deed.collect(body, bytes_max).await,
            StatusCode::NOT_FOUND => Err(Attempt::No(StoreError::Missing(deed.name.to_owned()))),
            StatusCode::UNAUTHORIZED => {
                self.swift.keystone.forget(&account.token).await;
                Err(deed.refused(status, ""))
            }
            status => Err(deed.refused(status, "")),
        }
    }

    /// A part ends where the next one begins: after its last name. There is no other one only after a part with nothing in it.
    async fn page_once(&self, deed: Deed<'_>, prefix: &str, next: Option<&str>) -> Result<Page, Attempt> {
        let after = next.unwrap_or_default();
        let rest = format!("?format=json&limit={PAGE_NAMES}&prefix={prefix}&marker={after}");
        let answer = self.ask(deed, (Method::GET, &rest), &[], NOTHING).await?;
        match answer.status {
            // Nor is there a container, maybe.
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => Ok(Page {
                keys: Vec::new(),
                next: None,
            }),
            StatusCode::OK => {
                let listed: Vec<Listed> = answer.json()?;
                let keys: Vec<String> = listed.into_iter().map(|listed| listed.name).collect();
                let next = keys.last().cloned();
                Ok(Page { keys, next })
            }
            status => Err(deed.refused(status, "")),
        }
    }

    async fn remove_once(&self, deed: Deed<'_>) -> Result<(), Attempt> {
        let rest = format!("/{}", deed.name);
        let answer = self.ask(deed, (Method::DELETE, &rest), &[], NOTHING).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            status => Err(deed.refused(status, "")),
        }
    }
}
