//! Backups in Swift: each object one of Swift's, in a container of the account that Keystone's catalogue names, or of a configured one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use data_encoding::HEXLOWER;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use md5::{Digest as _, Md5};
use serde::Deserialize;

use super::remote::{Attempt, Deed, PAGE_NAMES, PAGES_MAX, REMOVALS_AT_ONCE, send_time};
use super::{ObjectStore, StoreError};
use crate::http::{Answer, HttpClient};
use crate::identity::{Keystone, Refusal, Secret};

/// What Swift is in the catalogue.
const SERVICE: &[&str] = &["object-store"];
/// What is sent without a body, and is answered shortly, takes no longer than this.
const NOTHING: Bytes = Bytes::new();

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

    async fn put_once(&self, deed: Deed<'_>, bytes: Bytes, digest: &str) -> Result<(), Attempt> {
        let rest = format!("/{}", deed.name);
        let headers = [("etag", digest), ("content-type", "application/octet-stream")];
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
            Some(etag) if !etag.eq_ignore_ascii_case(digest) => {
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

    /// Names below a prefix that come after a name. None if there is no container.
    async fn page(&self, deed: Deed<'_>, prefix: &str, after: &str) -> Result<Vec<String>, StoreError> {
        let mut attempts = deed.attempts(self.swift.patience);
        loop {
            match self.page_once(deed, prefix, after).await {
                Ok(names) => return Ok(names),
                Err(error) => attempts.another(error).await?,
            }
        }
    }

    async fn page_once(&self, deed: Deed<'_>, prefix: &str, after: &str) -> Result<Vec<String>, Attempt> {
        let rest = format!("?format=json&limit={PAGE_NAMES}&prefix={prefix}&marker={after}");
        let answer = self.ask(deed, (Method::GET, &rest), &[], NOTHING).await?;
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => Ok(Vec::new()),
            StatusCode::OK => {
                let listed: Vec<Listed> = answer.json()?;
                Ok(listed.into_iter().map(|listed| listed.name).collect())
            }
            status => Err(deed.refused(status, "")),
        }
    }

    async fn remove_one(&self, name: &str) -> Result<(), StoreError> {
        let deed = Deed {
            name,
            verb: "removed",
        };
        let mut attempts = deed.attempts(self.swift.patience);
        loop {
            match self.remove_once(deed).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.another(error).await?,
            }
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

#[async_trait]
impl ObjectStore for Container {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let deed = Deed {
            name,
            verb: "written",
        };
        let digest = HEXLOWER.encode(&Md5::digest(&bytes));
        let mut attempts = deed.attempts(self.swift.patience);
        loop {
            match self.put_once(deed, bytes.clone(), &digest).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.another(error).await?,
            }
        }
    }

    async fn get(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let deed = Deed { name, verb: "read" };
        let mut attempts = deed.attempts(self.swift.patience);
        loop {
            match self.get_once(deed, bytes_max).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => attempts.another(error).await?,
            }
        }
    }

    /// What Swift has confirmed, its servers have.
    async fn settle(&self, _below: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.remove_one(name).await?;
        let deed = Deed {
            name,
            verb: "removed",
        };
        let prefix = format!("{name}/");
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let names = self.page(deed, &prefix, &after).await?;
            let Some(last) = names.last() else {
                return Ok(());
            };
            after.clone_from(last);
            let removals = names
                .into_iter()
                .map(|name| async move { self.remove_one(&name).await });
            stream::iter(removals)
                .buffer_unordered(REMOVALS_AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        Err(deed.failed("its listing has no end"))
    }
}
