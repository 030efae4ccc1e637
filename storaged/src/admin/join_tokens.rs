//! `/v1/join-tokens`: with what machines join.

use std::sync::Arc;
use std::time::Duration;

use admin_api::ErrorBody;
use admin_api::join_tokens::{JoinToken, JoinTokenList, JoinTokenState, MakeJoinToken, NewJoinToken};
use axum::extract::{Path, State};
use coordination::records::JoinTokenRecord;
use joining::TokenId;

use super::answer::{Body, Created, Failure, NoContent, Reply, invalid};
use super::{Context, Shared};
use crate::cluster::door::Door;
use crate::cluster::tokens::LIMIT_DEFAULT;
use crate::moment::wall_clock_ms;
use crate::volumes::OperationError;

/// The tokens that are remembered. None of them can be shown again.
#[utoipa::path(get, path = "/v1/join-tokens", tag = "nodes",
    responses((status = 200, body = JoinTokenList), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(State(context): Shared) -> Result<Reply<JoinTokenList>, Failure> {
    let tokens = door(&context)?.tokens.all().await?;
    let now = wall_clock_ms();
    let tokens = tokens.iter().map(|(id, record)| describe(*id, record, now));
    Ok(Reply(JoinTokenList {
        tokens: tokens.collect(),
    }))
}

/// Makes a token with which one machine may join. It is shown in this answer and never again.
#[utoipa::path(post, path = "/v1/join-tokens", tag = "nodes", request_body = MakeJoinToken,
    responses((status = 201, body = NewJoinToken), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn make(
    State(context): Shared,
    Body(request): Body<MakeJoinToken>,
) -> Result<Created<NewJoinToken>, Failure> {
    let limit = request.limit_ms.map_or(LIMIT_DEFAULT, Duration::from_millis);
    let invitation = door(&context)?.invite(limit).await?;
    Ok(Created(NewJoinToken {
        id: invitation.token.id.to_string(),
        token: invitation.token.to_string(),
        addresses: invitation.token.addresses,
        expires_ms: invitation.expires_ms,
    }))
}

/// Makes a token worthless.
#[utoipa::path(delete, path = "/v1/join-tokens/{token}", tag = "nodes", params(("token" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub(super) async fn revoke(State(context): Shared, Path(id): Path<String>) -> Result<NoContent, Failure> {
    let id: TokenId = id
        .parse()
        .map_err(|error: joining::TokenError| invalid(error.to_string()))?;
    door(&context)?.tokens.revoke(id).await?;
    Ok(NoContent)
}

fn door(context: &Context) -> Result<&Arc<Door>, Failure> {
    let missing = |why: &String| OperationError::Conflict(format!("no machine can join here: {why}"));
    context.door.as_ref().map_err(|why| missing(why).into())
}

fn describe(id: TokenId, record: &JoinTokenRecord, now_ms: u64) -> JoinToken {
    let used = record.used.as_ref();
    JoinToken {
        id: id.to_string(),
        node: record.node.0,
        expires_ms: record.expires_ms,
        state: match used {
            Some(_) => JoinTokenState::Used,
            None if now_ms >= record.expires_ms => JoinTokenState::Expired,
            None => JoinTokenState::Good,
        },
        used_ms: used.map(|used| used.used_ms),
        used_by: used.map(|used| used.name.clone()),
        used_from: used.map(|used| used.from.clone()),
    }
}
