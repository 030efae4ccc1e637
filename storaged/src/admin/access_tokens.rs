//! `/v1/access-tokens` and `/v1/authority`: with what programs ask over the network, and what they know us by.

use std::time::Duration;

use admin_api::ErrorBody;
use admin_api::access_tokens::{
    AccessToken, AccessTokenList, AuthorityCertificate, MakeAccessToken, NewAccessToken,
};
use axum::extract::{Path, State};

use super::Shared;
use super::answer::{Body, Created, Failure, NoContent, Reply, invalid, not_found};
use crate::access::word::{AccessId, WordError};
use crate::access::{LIMIT_DEFAULT, role};
use crate::moment::wall_clock_ms;

/// The tokens with which programs ask over the network. None of them can be shown again.
#[utoipa::path(get, path = "/v1/access-tokens", tag = "access",
    responses((status = 200, body = AccessTokenList), (status = "5XX", body = ErrorBody)))]
pub(super) async fn list(State(context): Shared) -> Result<Reply<AccessTokenList>, Failure> {
    let now = wall_clock_ms();
    let tokens = context.access.all().await?;
    let tokens = tokens.into_iter().map(|(id, record)| AccessToken {
        id: id.to_string(),
        role: role(record.role),
        node: record.node.0,
        made_ms: record.made_ms,
        expires_ms: record.expires_ms,
        expired: now >= record.expires_ms,
        name: record.name,
    });
    Ok(Reply(AccessTokenList {
        tokens: tokens.collect(),
    }))
}

/// Makes a token with which a program may ask over the network. It is shown in this answer and never again.
#[utoipa::path(post, path = "/v1/access-tokens", tag = "access", request_body = MakeAccessToken,
    responses((status = 201, body = NewAccessToken), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn make(
    State(context): Shared,
    Body(request): Body<MakeAccessToken>,
) -> Result<Created<NewAccessToken>, Failure> {
    let limit = request.limit_ms.map_or(LIMIT_DEFAULT, Duration::from_millis);
    let made = context.access.make(&request.name, request.role, limit).await?;
    Ok(Created(NewAccessToken {
        id: made.word.id.to_string(),
        token: made.word.reveal(),
        expires_ms: made.expires_ms,
    }))
}

/// Makes a token worthless.
#[utoipa::path(delete, path = "/v1/access-tokens/{token}", tag = "access", params(("token" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn revoke(State(context): Shared, Path(id): Path<String>) -> Result<NoContent, Failure> {
    let id: AccessId = id
        .parse()
        .map_err(|error: WordError| invalid(error.to_string()))?;
    context.access.revoke(id).await?;
    Ok(NoContent)
}

/// Who signs the certificates that the admin APIs of the cluster show to the network.
#[utoipa::path(get, path = "/v1/authority", tag = "access",
    responses((status = 200, body = AuthorityCertificate), (status = "4XX", body = ErrorBody)))]
pub(super) async fn authority(State(context): Shared) -> Result<Reply<AuthorityCertificate>, Failure> {
    let certificate = context.authority.clone().ok_or_else(|| {
        not_found(
            "this node shows no certificates: nothing of it is reached over the network. `admin_listen = \
             [\"https://ADDRESS:PORT\"]` in its configuration opens the admin API to whoever has a token",
        )
    })?;
    let hosts = context.network_addresses.get().map_or(&[][..], Vec::as_slice);
    Ok(Reply(AuthorityCertificate {
        certificate,
        addresses: hosts.iter().map(|host| format!("https://{host}")).collect(),
    }))
}
