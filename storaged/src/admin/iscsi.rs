//! `/v1/iscsi`: targets, their LUNs and who may log in, for people; the configuration, portals and reservations, for
//! gateways.

use admin_api::ErrorBody;
use admin_api::iscsi::{
    AddAccess, AddLun, AnnouncePortals, Configuration, CreateTarget, Credentials, PortalList, Reservations,
    TargetInfo, TargetList, WAIT_MS_MAX, WaitQuery, normalise_name,
};
use axum::extract::{Path, State};
use axum::http::Extensions;
use protocol::VolumeId;

use super::answer::{Body, Created, Failure, NoContent, Params, Reply, invalid, not_found};
use super::log::checked_wait;
use super::serve::OverTcp;
use super::{Context, Shared};
use crate::iscsi::describe;
use crate::volumes::OperationError;

/// All targets, without secrets.
#[utoipa::path(get, path = "/v1/iscsi/targets", tag = "iscsi",
    responses((status = 200, body = TargetList), (status = "5XX", body = ErrorBody)))]
pub(super) async fn list(State(context): Shared) -> Result<Reply<TargetList>, Failure> {
    let iscsi = &context.iscsi;
    let targets = describe::targets(&*iscsi.map()?, iscsi.secrets());
    Ok(Reply(TargetList { targets }))
}

/// Makes a target without LUNs that lets nobody in.
#[utoipa::path(post, path = "/v1/iscsi/targets", tag = "iscsi", request_body = CreateTarget,
    responses((status = 201, body = TargetInfo), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn create(
    State(context): Shared,
    Body(request): Body<CreateTarget>,
) -> Result<Created<TargetInfo>, Failure> {
    let name = context.iscsi.create_target(&request.name).await?;
    answer(&context, &name).map(Created)
}

/// One target, without secrets.
#[utoipa::path(get, path = "/v1/iscsi/targets/{target}", tag = "iscsi", params(("target" = String, Path)),
    responses((status = 200, body = TargetInfo), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get(
    State(context): Shared,
    Path(target): Path<String>,
) -> Result<Reply<TargetInfo>, Failure> {
    answer(&context, &target).map(Reply)
}

/// Deletes a target with all its LUNs and their reservations. The volumes stay.
#[utoipa::path(delete, path = "/v1/iscsi/targets/{target}", tag = "iscsi", params(("target" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub(super) async fn delete(State(context): Shared, Path(target): Path<String>) -> Result<NoContent, Failure> {
    context.iscsi.delete_target(&target).await?;
    Ok(NoContent)
}

/// Makes a volume a LUN of a target.
#[utoipa::path(post, path = "/v1/iscsi/targets/{target}/luns", tag = "iscsi", params(("target" = String, Path)),
    request_body = AddLun,
    responses((status = 201, body = TargetInfo), (status = "4XX", body = ErrorBody)))]
pub(super) async fn add_lun(
    State(context): Shared,
    Path(target): Path<String>,
    Body(request): Body<AddLun>,
) -> Result<Created<TargetInfo>, Failure> {
    context.iscsi.add_lun(&target, &request).await?;
    answer(&context, &target).map(Created)
}

/// Removes a LUN with its reservations. The volume stays.
#[utoipa::path(delete, path = "/v1/iscsi/targets/{target}/luns/{lun}", tag = "iscsi",
    params(("target" = String, Path), ("lun" = u16, Path)),
    responses((status = 200, body = TargetInfo), (status = "4XX", body = ErrorBody)))]
pub(super) async fn remove_lun(
    State(context): Shared,
    Path((target, lun)): Path<(String, String)>,
) -> Result<Reply<TargetInfo>, Failure> {
    let number = lun
        .parse()
        .map_err(|_| invalid(format!("{lun:?} is not a LUN: give its number")))?;
    context.iscsi.remove_lun(&target, number).await?;
    answer(&context, &target).map(Reply)
}

/// Lets an initiator in, or changes the secret that it must show.
#[utoipa::path(post, path = "/v1/iscsi/targets/{target}/access", tag = "iscsi", params(("target" = String, Path)),
    request_body = AddAccess,
    responses((status = 201, body = TargetInfo), (status = "4XX", body = ErrorBody)))]
pub(super) async fn add_access(
    State(context): Shared,
    Path(target): Path<String>,
    Body(request): Body<AddAccess>,
) -> Result<Created<TargetInfo>, Failure> {
    context.iscsi.add_access(&target, &request).await?;
    answer(&context, &target).map(Created)
}

/// Lets an initiator in no more.
#[utoipa::path(delete, path = "/v1/iscsi/targets/{target}/access/{initiator}", tag = "iscsi",
    params(("target" = String, Path), ("initiator" = String, Path)),
    responses((status = 200, body = TargetInfo), (status = "4XX", body = ErrorBody)))]
pub(super) async fn remove_access(
    State(context): Shared,
    Path((target, initiator)): Path<(String, String)>,
) -> Result<Reply<TargetInfo>, Failure> {
    context.iscsi.remove_access(&target, &initiator).await?;
    answer(&context, &target).map(Reply)
}

/// Sets with what a target shows initiators who it is.
#[utoipa::path(put, path = "/v1/iscsi/targets/{target}/mutual", tag = "iscsi", params(("target" = String, Path)),
    request_body = Credentials,
    responses((status = 200, body = TargetInfo), (status = "4XX", body = ErrorBody)))]
pub(super) async fn set_mutual(
    State(context): Shared,
    Path(target): Path<String>,
    Body(request): Body<Credentials>,
) -> Result<Reply<TargetInfo>, Failure> {
    context.iscsi.set_mutual(&target, Some(&request)).await?;
    answer(&context, &target).map(Reply)
}

/// From now on a target cannot show who it is.
#[utoipa::path(delete, path = "/v1/iscsi/targets/{target}/mutual", tag = "iscsi", params(("target" = String, Path)),
    responses((status = 200, body = TargetInfo), (status = "4XX", body = ErrorBody)))]
pub(super) async fn clear_mutual(
    State(context): Shared,
    Path(target): Path<String>,
) -> Result<Reply<TargetInfo>, Failure> {
    context.iscsi.set_mutual(&target, None).await?;
    answer(&context, &target).map(Reply)
}

/// Where gateways serve all targets.
#[utoipa::path(get, path = "/v1/iscsi/portals", tag = "iscsi",
    responses((status = 200, body = PortalList), (status = "5XX", body = ErrorBody)))]
pub(super) async fn portals(State(context): Shared) -> Result<Reply<PortalList>, Failure> {
    let portals = describe::portals(&*context.iscsi.map()?);
    Ok(Reply(PortalList { portals }))
}

/// A gateway of this node says where it serves. It is forgotten after 30 s unless it says so again.
#[utoipa::path(put, path = "/v1/iscsi/portals", tag = "iscsi", request_body = AnnouncePortals,
    responses((status = 200, body = PortalList), (status = "4XX", body = ErrorBody)))]
pub(super) async fn announce(
    State(context): Shared,
    Body(request): Body<AnnouncePortals>,
) -> Result<Reply<PortalList>, Failure> {
    context.iscsi.announce(&request).await?;
    let portals = describe::portals(&*context.iscsi.map()?);
    Ok(Reply(PortalList { portals }))
}

/// All that a gateway must know, with secrets: on the unix socket only.
#[utoipa::path(get, path = "/v1/iscsi/configuration", tag = "iscsi", params(WaitQuery),
    responses((status = 200, body = Configuration), (status = "4XX", body = ErrorBody)))]
pub(super) async fn configuration(
    State(context): Shared,
    extensions: Extensions,
    Params(query): Params<WaitQuery>,
) -> Result<Reply<Configuration>, Failure> {
    if extensions.get::<OverTcp>().is_some() {
        return Err(invalid(
            "CHAP secrets are in it: it is given out on the unix socket only, where nobody but this user asks",
        ));
    }
    checked_wait(query.wait_ms, WAIT_MS_MAX)?;
    Ok(Reply(context.iscsi.configuration(query).await?))
}

/// The persistent reservations of a volume that is a LUN.
#[utoipa::path(get, path = "/v1/iscsi/reservations/{volume}", tag = "iscsi",
    params(("volume" = u64, Path), WaitQuery),
    responses((status = 200, body = Reservations), (status = "4XX", body = ErrorBody)))]
pub(super) async fn reservations(
    State(context): Shared,
    Path(volume): Path<String>,
    Params(query): Params<WaitQuery>,
) -> Result<Reply<Reservations>, Failure> {
    checked_wait(query.wait_ms, WAIT_MS_MAX)?;
    let volume = volume_number(&volume)?;
    Ok(Reply(context.iscsi.reservations(volume, query).await?))
}

/// Keeps the persistent reservations of a LUN, if they are still those that the new ones were made from.
#[utoipa::path(put, path = "/v1/iscsi/reservations/{volume}", tag = "iscsi", params(("volume" = u64, Path)),
    request_body = Reservations,
    responses((status = 200, body = Reservations), (status = "4XX", body = ErrorBody)))]
pub(super) async fn set_reservations(
    State(context): Shared,
    Path(volume): Path<String>,
    Body(request): Body<Reservations>,
) -> Result<Reply<Reservations>, Failure> {
    let volume = volume_number(&volume)?;
    Ok(Reply(context.iscsi.set_reservations(volume, request).await?))
}

fn volume_number(text: &str) -> Result<VolumeId, Failure> {
    let number = text.parse().map(VolumeId);
    number.map_err(|_| invalid(format!("{text:?} is not a volume's number")))
}

fn answer(context: &Context, target: &str) -> Result<TargetInfo, Failure> {
    let name = normalise_name(target).map_err(OperationError::from)?;
    let iscsi = &context.iscsi;
    let target = describe::target(&*iscsi.map()?, &name, iscsi.secrets());
    target.ok_or_else(|| not_found(format!("there is no iSCSI target {name:?}")))
}
