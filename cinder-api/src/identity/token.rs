//! What Keystone says of a token.

use serde::Deserialize;

use crate::records::Instant;

/// The answer to `GET /v3/auth/tokens`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Answer {
    /// The token's contents.
    pub(super) token: Token,
}

/// A token's contents, as far as they matter here.
#[derive(Clone, Debug, Deserialize)]
pub struct Token {
    /// Whose it is.
    pub user: Named,
    /// The project that it is for, if it is for one.
    #[serde(default)]
    pub project: Option<Named>,
    /// The user's roles there.
    #[serde(default)]
    pub roles: Vec<Named>,
    /// Where the cloud's services are.
    #[serde(default)]
    pub catalog: Vec<CatalogEntry>,
    /// When it ends, as Keystone writes it.
    pub expires_at: String,
    /// The application credential that it was made with, if it was.
    #[serde(default)]
    pub application_credential: Option<ApplicationCredential>,
}

impl Token {
    /// When it ends; 1970 if that cannot be read, so that it is over.
    pub fn expires(&self) -> Instant {
        Instant::parse(&self.expires_at).unwrap_or_default()
    }

    /// The public address of a service of one of these types.
    pub fn endpoint(&self, types: &[&str]) -> Option<String> {
        let mut entries = self.catalog.iter();
        let entry = entries.find(|entry| types.contains(&entry.kind.as_str()))?;
        let mut endpoints = entry.endpoints.iter();
        let public = endpoints.find(|endpoint| endpoint.interface == "public")?;
        Some(public.url.trim_end_matches('/').to_owned())
    }
}

/// Something with an identity and a name.
#[derive(Clone, Debug, Deserialize)]
pub struct Named {
    /// The identity; roles in old tokens have none.
    #[serde(default)]
    pub id: String,
    /// The name.
    pub name: String,
}

/// A service in the catalogue.
#[derive(Clone, Debug, Deserialize)]
pub struct CatalogEntry {
    /// What kind of service: `image`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// An address of a service.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoint {
    /// For whom: `public`, `internal`, `admin`.
    pub interface: String,
    /// Where.
    pub url: String,
}

/// An application credential.
#[derive(Clone, Debug, Deserialize)]
pub struct ApplicationCredential {
    /// All that may be asked with it; nothing: everything that the user may.
    #[serde(default)]
    pub access_rules: Option<Vec<AccessRule>>,
}

/// A kind of request that may be made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AccessRule {
    /// The service's type.
    pub service: String,
    /// The method.
    pub method: String,
    /// The path, with `*`, `**` and `{name}` for what is open.
    pub path: String,
}
