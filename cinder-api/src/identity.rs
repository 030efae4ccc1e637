//! Who asks: tokens, as Keystone vouches for them.
//!
//! What somebody may do with that is [`crate::policy`]'s business. Nothing that a client sends besides its tokens says who
//! it is.

pub mod access_rules;
pub mod cache;
pub mod keystone;
pub mod token;

pub use keystone::{Keystone, KeystoneSettings, Refusal};
pub use token::{AccessRule, Token};

/// Who asks, for the rest of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: String,
    /// The project that the token is for; nothing if it is for none.
    pub project_id: Option<String>,
    /// The project's name.
    pub project_name: Option<String>,
    /// Roles in the project, in lower case.
    pub roles: Vec<String>,
    /// Whether the policy's rule `context_is_admin` says so.
    pub is_admin: bool,
    /// Whether another service of the cloud vouches for the request, with a token of its own.
    pub is_service: bool,
    /// The token, to ask other services in the user's name.
    pub token: Secret,
    /// Where the token's catalogue says that images are.
    pub image_endpoint: Option<String>,
    /// Where the token's catalogue says that keys are.
    pub key_endpoint: Option<String>,
    /// Where the token's catalogue says that servers are.
    pub compute_endpoint: Option<String>,
}

/// Something that no log shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
