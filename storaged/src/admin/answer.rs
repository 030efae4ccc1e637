//! Requests come in checked, and everything goes out as JSON: also what axum itself refuses.

use admin_api::{ErrorBody, ErrorKind};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::volumes::OperationError;

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Failure(pub(super) ErrorBody);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        if error.kind() == ErrorKind::Internal {
            tracing::error!(%error, "an operation failed");
        }
        Self(error.into())
    }
}

/// A success with a body.
pub(super) struct Reply<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        Json(self.0).into_response()
    }
}

/// Something was made.
pub(super) struct Created<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// Done, and there is nothing to say.
pub(super) struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// A JSON body. Its content type does not matter: there is only one.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let kind = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    ErrorKind::TooLarge
                } else {
                    ErrorKind::InvalidRequest
                };
                Failure(ErrorBody::new(kind, rejection.body_text()))
            })?;
        match Json::<T>::from_bytes(&bytes) {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(invalid(body_fault(&rejection))),
        }
    }
}

/// The query of a request.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(invalid(query_fault(&rejection))),
        }
    }
}

/// A request that makes no sense.
pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure(ErrorBody::new(ErrorKind::InvalidRequest, message))
}

/// Something that is named and not there.
pub(super) fn not_found(message: impl Into<String>) -> Failure {
    Failure(ErrorBody::new(ErrorKind::NotFound, message))
}

/// Something that cannot be done while somebody uses it.
pub(super) fn in_use(message: impl Into<String>) -> Failure {
    Failure(ErrorBody::new(ErrorKind::InUse, message))
}

fn body_fault(rejection: &JsonRejection) -> String {
    format!("the body is not what this path takes: {}", rejection.body_text())
}

fn query_fault(rejection: &QueryRejection) -> String {
    format!("the query is not what this path takes: {}", rejection.body_text())
}
