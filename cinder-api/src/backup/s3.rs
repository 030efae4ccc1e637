//! Backups in S3, or what speaks as it: objects in one bucket, below a name that takes the place of a container.
//!
//! Requests are signed in their address, which therefore no log and no error shows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::StoreError;
use super::remote::{Attempt, Deed, Fingerprint, NOTHING, PAGE_NAMES, Page, Remote, beginning, send_time};
use crate::http::{Answer, HttpClient};
use crate::identity::Secret;

/// How long a signature holds: clocks may differ by a few minutes, and a large manifest is a while on its way.
const SIGNATURE_TIME: Duration = Duration::from_mins(30);

/// Where a bucket is, and what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// `https://s3.example.org`.
    pub endpoint: String,
    /// As signatures name it.
    pub region: String,
    /// The bucket's name. It must be there.
    pub bucket: String,
    /// Who asks.
    pub access_key: String,
    /// What proves it.
    pub secret_key: Secret,
}

/// A bucket.
pub struct S3 {
    client: HttpClient,
    bucket: Bucket,
    credentials: Credentials,
    patience: Duration,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3")
            .field("bucket", &self.bucket.name())
            .finish_non_exhaustive()
    }
}

/// What lies below a name in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    s3: Arc<S3>,
    name: String,
}

impl S3 {
    /// A bucket. A store that does not answer is asked again for so long.
    pub fn new(client: HttpClient, settings: &S3Settings, patience: Duration) -> anyhow::Result<Self> {
        let endpoint = settings.endpoint.parse()?;
        // The bucket in the path: every implementation understands that, and no name in a certificate must fit.
        let bucket = Bucket::new(
            endpoint,
            UrlStyle::Path,
            settings.bucket.clone(),
            settings.region.clone(),
        )?;
        Ok(Self {
            client,
            bucket,
            credentials: Credentials::new(settings.access_key.clone(), settings.secret_key.0.clone()),
            patience,
        })
    }
}

impl Folder {
    pub(super) fn new(s3: Arc<S3>, name: String) -> Self {
        Self { s3, name }
    }
}

#[async_trait]
impl Remote for Folder {
    fn patience(&self) -> Duration {
        self.s3.patience
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    async fn put_once(&self, deed: Deed<'_>, bytes: Bytes, digest: &Fingerprint) -> Result<(), Attempt> {
        let key = self.key(deed.name);
        let digest = BASE64.encode(digest);
        let mut action = self.s3.bucket.put_object(Some(&self.s3.credentials), &key);
        action.headers_mut().insert("content-md5", digest.as_str());
        let url = action.sign(SIGNATURE_TIME);
        let time = send_time(bytes.len());
        let headers = [("content-md5", digest.as_str())];
        let client = &self.s3.client;
        let answer = client
            .send(Method::PUT, url.as_str(), &headers, bytes, time)
            .await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            status => Err(refused(deed, status, &answer)),
        }
    }

    async fn get_once(&self, deed: Deed<'_>, bytes_max: u64) -> Result<Bytes, Attempt> {
        let key = self.key(deed.name);
        let url = self.s3.bucket.get_object(Some(&self.s3.credentials), &key);
        let url = url.sign(SIGNATURE_TIME);
        let (status, body) = self.s3.client.download(url.as_str(), &[]).await?;
        if status == StatusCode::OK {
            return deed.collect(body, bytes_max).await;
        }
        let said = beginning(body).await;
        let code = code(&said);
        if status == StatusCode::NOT_FOUND && code != "NoSuchBucket" {
            return Err(Attempt::No(StoreError::Missing(deed.name.to_owned())));
        }
        Err(deed.refused(status, code))
    }

    async fn page_once(&self, deed: Deed<'_>, prefix: &str, next: Option<&str>) -> Result<Page, Attempt> {
        let mut action = self.s3.bucket.list_objects_v2(Some(&self.s3.credentials));
        action.with_prefix(prefix);
        action.with_max_keys(PAGE_NAMES);
        if let Some(next) = next {
            action.with_continuation_token(next);
        }
        let url = action.sign(SIGNATURE_TIME);
        let client = &self.s3.client;
        let answer = client
            .send(Method::GET, url.as_str(), &[], NOTHING, send_time(0))
            .await?;
        if answer.status != StatusCode::OK {
            return Err(refused(deed, answer.status, &answer));
        }
        let listed = ListObjectsV2::parse_response(&answer.text());
        let listed =
            listed.map_err(|error| Attempt::Again(format!("its listing cannot be read: {error}")))?;
        let keys = listed.contents.into_iter().map(|content| content.key);
        Ok(Page {
            keys: keys.collect(),
            next: listed.next_continuation_token,
        })
    }

    async fn remove_once(&self, deed: Deed<'_>) -> Result<(), Attempt> {
        let url = self
            .s3
            .bucket
            .delete_object(Some(&self.s3.credentials), deed.name);
        let url = url.sign(SIGNATURE_TIME);
        let client = &self.s3.client;
        let answer = client
            .send(Method::DELETE, url.as_str(), &[], NOTHING, send_time(0))
            .await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND if code(&answer.text()) != "NoSuchBucket" => Ok(()),
            status => Err(refused(deed, status, &answer)),
        }
    }
}

/// What a refusal means. Of its body only the code is repeated: the rest may say how the request was signed.
fn refused(deed: Deed<'_>, status: StatusCode, answer: &Answer) -> Attempt {
    let text = answer.text();
    let code = code(&text);
    match code {
        // Something changed the bytes on their way.
        "BadDigest" => Attempt::Again("other bytes arrived".to_owned()),
        _ => deed.refused(status, code),
    }
}

/// The code in a refusal's body; nothing if there is none.
fn code(body: &str) -> &str {
    let after = body.split_once("<Code>").map(|(_, after)| after);
    let code = after.and_then(|after| after.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    if code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        code
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    //! What people are told of a refusal is its code.
    use super::*;

    #[test]
    fn of_a_refusal_only_its_code_is_repeated() {
        let body = "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code>\
                    <StringToSign>AWS4-HMAC-SHA256</StringToSign></Error>";
        assert_eq!(code(body), "SignatureDoesNotMatch");
        assert_eq!(code("<Code>a<b</Code>"), "");
        assert_eq!(code("nothing"), "");
    }

    #[test]
    fn what_is_logged_of_a_bucket_has_no_secret() -> anyhow::Result<()> {
        let settings = S3Settings {
            endpoint: "http://127.0.0.1:1".to_owned(),
            region: "here".to_owned(),
            bucket: "backups".to_owned(),
            access_key: "who".to_owned(),
            secret_key: Secret("of-nobody".to_owned()),
        };
        let s3 = S3::new(HttpClient::new(None)?, &settings, Duration::ZERO)?;
        let shown = format!("{s3:?} {settings:?}");
        assert!(!shown.contains("of-nobody"), "{shown}");
        Ok(())
    }
}
