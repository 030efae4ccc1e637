//! What a request says: who asks, in which version of the API, with which body, for which page of a listing. Which answer
//! it gets is [`crate::api`]'s business.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::fault::Fault;
use crate::identity::Caller;

pub mod body;
pub mod filter;
pub mod listing;
pub mod query;
pub mod version;

pub use body::{Body, Fields};
pub use query::Query;
pub use version::Version;

/// What is known of a request before anybody looks at its body.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who asks.
    pub caller: Caller,
    /// In which version of the API.
    pub version: Version,
    /// What the request is called in logs, answers and messages: `req-UUID`.
    pub request_id: String,
    /// Where the API is for this client: `http://host:8776`, without a slash at the end.
    pub base: String,
    /// The project in the path, if it is there: links repeat it.
    pub path_project: Option<String>,
}

impl Context {
    /// A link to something, with the project in it if the request's path had it.
    pub fn link(&self, path: &str) -> String {
        match &self.path_project {
            Some(project) => format!("{}/v3/{project}/{path}", self.base),
            None => format!("{}/v3/{path}", self.base),
        }
    }

    /// The two links that most resources carry.
    pub fn links(&self, path: &str) -> serde_json::Value {
        let bookmark = match &self.path_project {
            Some(project) => format!("{}/{project}/{path}", self.base),
            None => format!("{}/{path}", self.base),
        };
        serde_json::json!([
            {"rel": "self", "href": self.link(path)},
            {"rel": "bookmark", "href": bookmark},
        ])
    }

    /// The project that the caller works in. Without one nothing that belongs to projects is for him.
    pub fn project(&self) -> Result<&str, Fault> {
        let none = || Fault::forbidden("The token is for no project: ask Keystone for one that is.");
        self.caller.project_id.as_deref().ok_or_else(none)
    }

    /// Looks as if the path did not exist in versions before this one.
    pub fn since(&self, minor: u8) -> Result<(), Fault> {
        if self.version.is(minor) {
            return Ok(());
        }
        Err(Fault::not_found("The resource could not be found."))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let context = parts.extensions.get::<Self>().cloned();
        context.ok_or_else(|| Fault::internal(&"a request came past the door"))
    }
}
