//! Glance, as far as it is asked here: what an image is, its bytes, and a new image.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use ring::digest;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::http::{Answer, Download, HttpClient, NoAnswer};
use crate::identity::Secret;

/// The most properties of an image that a volume remembers.
const PROPERTIES_MAX: usize = 128;
/// The longest of them, in bytes.
const PROPERTY_BYTES_MAX: usize = 4096;
/// What of an image is no property that its users gave it.
const BASE: &[&str] = &[
    "created_at",
    "updated_at",
    "file",
    "schema",
    "self",
    "tags",
    "locations",
    "direct_url",
    "stores",
    "owner_specified.openstack.md5",
    "owner_specified.openstack.sha256",
    "owner_specified.openstack.object",
    "os_hidden",
    "os_glance_importing_to_stores",
    "os_glance_failed_import",
];
/// What a volume remembers of an image that a new image gets anew.
pub const CORE: &[&str] = &[
    "image_id",
    "image_name",
    "checksum",
    "container_format",
    "disk_format",
    "min_disk",
    "min_ram",
    "size",
    "signature_verified",
];

/// Why Glance did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GlanceError {
    /// It has no such image, or not for whom it was asked.
    #[error("Glance has no such image")]
    Missing,
    /// It refuses.
    #[error("Glance answers with status {0}: {1}")]
    Refused(StatusCode, String),
    /// It is away.
    #[error("Glance cannot be asked: {0}")]
    Away(#[from] NoAnswer),
}

/// What Glance says of an image.
#[derive(Clone, Debug, Deserialize)]
pub struct Image {
    /// A UUID.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// `active` if it can be had.
    pub status: String,
    /// How the disk lies in its bytes.
    #[serde(default)]
    pub disk_format: Option<String>,
    /// What is around that.
    #[serde(default)]
    pub container_format: Option<String>,
    /// Its bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// The disk's bytes, where Glance has found out.
    #[serde(default)]
    pub virtual_size: Option<u64>,
    /// The smallest disk for it, in GiB.
    #[serde(default)]
    pub min_disk: u64,
    /// The smallest memory for it, in MiB.
    #[serde(default)]
    pub min_ram: u64,
    /// MD5.
    #[serde(default)]
    pub checksum: Option<String>,
    /// What [`Image::os_hash_value`] is made with.
    #[serde(default)]
    pub os_hash_algo: Option<String>,
    /// Of its bytes, in hexadecimal.
    #[serde(default)]
    pub os_hash_value: Option<String>,
    /// Who sees it.
    #[serde(default)]
    pub visibility: Option<String>,
    /// Whose it is.
    #[serde(default)]
    pub owner: Option<String>,
    /// Whether it can be deleted.
    #[serde(default)]
    pub protected: bool,
    /// All the rest.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Image {
    /// What a volume remembers of it.
    pub fn volume_metadata(&self) -> BTreeMap<String, String> {
        let properties = self.rest.iter().filter(|(key, _)| !BASE.contains(&key.as_str()));
        let mut kept: BTreeMap<String, String> = properties
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .filter(|(key, value)| key.len() + value.len() <= PROPERTY_BYTES_MAX)
            .take(PROPERTIES_MAX)
            .collect();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        kept.insert("image_id".to_owned(), self.id.clone());
        kept.insert("image_name".to_owned(), text(&self.name));
        kept.insert("checksum".to_owned(), text(&self.checksum));
        kept.insert("container_format".to_owned(), text(&self.container_format));
        kept.insert("disk_format".to_owned(), text(&self.disk_format));
        kept.insert("min_disk".to_owned(), self.min_disk.to_string());
        kept.insert("min_ram".to_owned(), self.min_ram.to_string());
        kept.insert("size".to_owned(), self.size.unwrap_or(0).to_string());
        kept
    }

    /// What its bytes are checked with on their way; nothing if Glance gives no checksum that is worth one.
    pub fn verifier(&self) -> Option<Verifier> {
        let algorithm = match self.os_hash_algo.as_deref()? {
            "sha512" => &digest::SHA512,
            "sha384" => &digest::SHA384,
            "sha256" => &digest::SHA256,
            _ => return None,
        };
        Some(Verifier {
            context: digest::Context::new(algorithm),
            wanted: self.os_hash_value.clone()?.to_ascii_lowercase(),
        })
    }
}

/// Checks bytes that go by.
pub struct Verifier {
    context: digest::Context,
    wanted: String,
}

impl Verifier {
    /// Some bytes have gone by.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Whether all of them are those of the image.
    pub fn is_right(self) -> bool {
        let found = self.context.finish();
        data_encoding::HEXLOWER.encode(found.as_ref()) == self.wanted
    }
}

/// An image that is to be made.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// For people.
    pub name: String,
    /// How the disk will lie in its bytes.
    pub disk_format: String,
    /// What will be around that.
    pub container_format: String,
    /// Who will see it, and whether it will be protected; nothing: as Glance has it.
    pub access: Option<(String, bool)>,
    /// What its users will want to know.
    pub properties: BTreeMap<String, String>,
}

/// Glance at an address, asked with a token.
#[derive(Debug)]
pub struct Glance<'a> {
    /// How it is asked.
    pub client: &'a HttpClient,
    /// Where it is, without the version and without a slash at the end.
    pub endpoint: &'a str,
    /// In whose name.
    pub token: &'a Secret,
}

impl Glance<'_> {
    fn url(&self, rest: &str) -> String {
        let base = self.endpoint.trim_end_matches('/').trim_end_matches("/v2");
        format!("{base}/v2/images{rest}")
    }

    async fn ask(&self, method: Method, rest: &str, body: Option<&Value>) -> Result<Answer, GlanceError> {
        let headers = [("x-auth-token", self.token.0.as_str())];
        let answer = self.client.ask(method, &self.url(rest), &headers, body).await?;
        checked(answer)
    }

    /// What an image is.
    pub async fn image(&self, id: &str) -> Result<Image, GlanceError> {
        let answer = self.ask(Method::GET, &format!("/{id}"), None).await?;
        Ok(answer.json()?)
    }

    /// Its bytes.
    pub async fn download(&self, id: &str) -> Result<Download, GlanceError> {
        let headers = [("x-auth-token", self.token.0.as_str())];
        let url = self.url(&format!("/{id}/file"));
        let (status, body) = self.client.download(&url, &headers).await?;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::NOT_FOUND => Err(GlanceError::Missing),
            // An image without bytes is answered so.
            other => Err(GlanceError::Refused(other, "no bytes".to_owned())),
        }
    }

    /// Makes an image that has no bytes yet.
    pub async fn create(&self, new: &NewImage) -> Result<Image, GlanceError> {
        let mut body = json!({
            "name": new.name,
            "disk_format": new.disk_format,
            "container_format": new.container_format,
        });
        if let Some((visibility, protected)) = &new.access {
            body["visibility"] = json!(visibility);
            body["protected"] = json!(protected);
        }
        for (key, value) in &new.properties {
            body[key] = json!(value);
        }
        let answer = self.ask(Method::POST, "", Some(&body)).await?;
        Ok(answer.json()?)
    }

    /// Gives an image its bytes.
    pub async fn upload(
        &self,
        id: &str,
        pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Result<(), GlanceError> {
        let headers = [
            ("x-auth-token", self.token.0.as_str()),
            ("content-type", "application/octet-stream"),
        ];
        let url = self.url(&format!("/{id}/file"));
        let answer = self.client.upload(&url, &headers, pieces).await?;
        checked(answer).map(|_| ())
    }

    /// Deletes an image. Nothing to do if it is not there.
    pub async fn delete(&self, id: &str) -> Result<(), GlanceError> {
        match self.ask(Method::DELETE, &format!("/{id}"), None).await {
            Err(GlanceError::Missing) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn checked(answer: Answer) -> Result<Answer, GlanceError> {
    match answer.status {
        status if status.is_success() => Ok(answer),
        StatusCode::NOT_FOUND => Err(GlanceError::Missing),
        status => Err(GlanceError::Refused(status, answer.beginning())),
    }
}

#[cfg(test)]
mod tests {
    //! What a volume remembers of an image, and checksums.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use super::*;

    fn image() -> Image {
        let told = json!({
            "id": "11111111-2222-4333-8444-555555555555", "name": "cirros", "status": "active", "size": 21, "min_disk": 1,
            "min_ram": 64, "checksum": "abc", "disk_format": "qcow2", "container_format": "bare", "visibility": "public",
            "os_hash_algo": "sha256", "protected": false, "tags": [], "file": "/v2/images/x/file", "hw_disk_bus": "scsi",
            "os_hash_value": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "os_hidden": false,
        });
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn a_volume_remembers_what_servers_need_and_no_more() {
        let kept = image().volume_metadata();
        let keys: Vec<&str> = kept.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "checksum",
                "container_format",
                "disk_format",
                "hw_disk_bus",
                "image_id",
                "image_name",
                "min_disk",
                "min_ram",
                "size"
            ]
        );
        assert_eq!((kept["size"].as_str(), kept["min_ram"].as_str()), ("21", "64"));
    }

    #[test]
    fn bytes_are_those_of_the_image_or_not() {
        let mut right = image().verifier().unwrap();
        right.update(b"hel");
        right.update(b"lo");
        assert!(right.is_right());
        let mut wrong = image().verifier().unwrap();
        wrong.update(b"help");
        assert!(!wrong.is_right());
        let mut unknown = image();
        unknown.os_hash_algo = Some("crc".to_owned());
        assert!(unknown.verifier().is_none());
    }
}
