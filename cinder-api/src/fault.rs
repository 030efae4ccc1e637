//! Answers that are no success, as Cinder writes them: `{"NAME": {"code": N, "message": "..."}}`.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tracing::error;

use crate::records::RecordsError;

/// A refusal or a failure, with a sentence for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status.
    pub status: StatusCode,
    /// What happened, and what to do about it.
    pub message: String,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $status:ident),* $(,)?) => {
        impl Fault {
            $($(#[$doc])*
            pub fn $name(message: impl Into<String>) -> Self {
                Self { status: StatusCode::$status, message: message.into() }
            })*
        }
    };
}

faults! {
    /// The request is wrong, or cannot be done in the state that things are in.
    bad_request = BAD_REQUEST,
    /// Who asks may not do that.
    forbidden = FORBIDDEN,
    /// There is no such thing, or it is somebody else's.
    not_found = NOT_FOUND,
    /// The path has no such method.
    bad_method = METHOD_NOT_ALLOWED,
    /// Its body did not come.
    timed_out = REQUEST_TIMEOUT,
    /// The API does not speak that version.
    not_acceptable = NOT_ACCEPTABLE,
    /// Something of that name is there, or somebody uses it.
    conflict = CONFLICT,
    /// It is no longer as the asker has seen it.
    precondition_failed = PRECONDITION_FAILED,
    /// More than the project may have, or longer than anything may be.
    over_limit = PAYLOAD_TOO_LARGE,
    /// The project asks too fast.
    too_many_requests = TOO_MANY_REQUESTS,
    /// The body is no JSON.
    bad_media_type = UNSUPPORTED_MEDIA_TYPE,
    /// Nothing like that is built.
    not_implemented = NOT_IMPLEMENTED,
    /// Something that is needed is away for now.
    unavailable = SERVICE_UNAVAILABLE,
}

impl Fault {
    /// A fault of our own. What it was goes to the log; who asked is told that there was one.
    pub fn internal(what: &dyn fmt::Display) -> Self {
        error!(error = %what, "a request failed");
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: "The server has either erred or is incapable of performing the requested operation."
                .to_owned(),
        }
    }

    /// The refusal of a field's value, in the words that clients know.
    pub fn field(name: &str, value: &Value, why: &str) -> Self {
        let shown = match value {
            Value::String(text) => text.clone(),
            Value::Null => "None".to_owned(),
            other => other.to_string(),
        };
        Self::bad_request(format!(
            "Invalid input for field/attribute {name}. Value: {shown}. {why}"
        ))
    }

    /// Something of a kind is not there: `Volume X could not be found.`
    pub fn missing(kind: &str, id: &str) -> Self {
        Self::not_found(format!("{kind} {id} could not be found."))
    }
}

/// What clients call a fault of a status.
pub fn name(status: u16) -> &'static str {
    match status {
        400 => "badRequest",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        408 => "requestTimeout",
        409 => "conflictingRequest",
        413 | 429 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<RecordsError> for Fault {
    fn from(error: RecordsError) -> Self {
        match error {
            RecordsError::Store(error) => {
                error!(%error, "the records cannot be used");
                Self::unavailable(format!("The records cannot be reached: {error}. Try again."))
            }
            RecordsError::Siege => Self::unavailable(error.to_string()),
            RecordsError::Unreadable(_) => Self::internal(&error),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let name = name(self.status.as_u16());
        let mut inside = json!({"code": self.status.as_u16(), "message": self.message});
        let retry_after = match self.status {
            // When it has given something up.
            StatusCode::PAYLOAD_TOO_LARGE => Some("0"),
            // Nobody may ask less often than once a second.
            StatusCode::TOO_MANY_REQUESTS => Some("1"),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            inside["retryAfter"] = json!(seconds);
        }
        let mut response = (self.status, axum::Json(json!({name: inside}))).into_response();
        if let Some(seconds) = retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}
