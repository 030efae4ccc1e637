//! The query of a request, pair by pair, in order: filters are many, and unknown ones depend on the version.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::fault::Fault;

/// The most pairs that are read: more than any client has filters.
const PAIRS_MAX: usize = 100;

/// What says which page of a listing is wanted, and in which order.
const PAGE_WORDS: &[&str] = &["limit", "marker", "offset", "sort", "sort_key", "sort_dir"];

/// The pairs of a query.
#[derive(Clone, Debug, Default)]
pub struct Query(pub Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let axum::extract::Query(pairs) =
            pairs.map_err(|_| Fault::bad_request("The query cannot be read."))?;
        if pairs.len() > PAIRS_MAX {
            return Err(Fault::bad_request(format!(
                "The query has more than {PAIRS_MAX} pairs."
            )));
        }
        Ok(Self(pairs))
    }
}

impl Query {
    /// The last value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter().rev();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The query without what says which page is wanted, and in which order: for listings that had none in older versions.
    #[must_use]
    pub fn without_pages(mut self) -> Self {
        self.0.retain(|(key, _)| !PAGE_WORDS.contains(&key.as_str()));
        self
    }

    /// Whether a name says yes; nothing or nonsense is no.
    pub fn says_yes(&self, name: &str) -> bool {
        self.get(name).and_then(super::body::boolean).unwrap_or(false)
    }

    /// Yes or no; what is neither is refused.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Fault> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let said = super::body::boolean(text).map(Some);
        said.ok_or_else(|| {
            Fault::bad_request(format!(
                "Could not parse {name}: {text} is neither true nor false."
            ))
        })
    }
}
