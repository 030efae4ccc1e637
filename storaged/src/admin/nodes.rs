//! `/v1/nodes`.

use admin_api::ErrorBody;
use admin_api::nodes::{ChangeNode, Node, NodeList, NodeState};
use axum::extract::{Path, State};
use coordination::ClusterMap;
use protocol::NodeId;

use super::answer::{Body, Failure, NoContent, Reply, invalid, not_found};
use super::{Context, Shared};

/// All nodes.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", responses((status = 200, body = NodeList)))]
pub(super) async fn list(State(context): Shared) -> Reply<NodeList> {
    let map = context.volumes.map();
    let nodes = map.nodes().keys().filter_map(|id| describe(&context, &map, *id));
    Reply(NodeList {
        nodes: nodes.collect(),
    })
}

/// One node.
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = u32, Path)),
    responses((status = 200, body = Node), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get(State(context): Shared, Path(id): Path<String>) -> Result<Reply<Node>, Failure> {
    let id = number(&id)?;
    describe(&context, &context.volumes.map(), id)
        .map(Reply)
        .ok_or_else(|| not_found(format!("there is no node {}", id.0)))
}

/// Takes a node that is down and holds no data out of the cluster, for good.
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = u32, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
pub(super) async fn remove(State(context): Shared, Path(id): Path<String>) -> Result<NoContent, Failure> {
    context.volumes.remove_node(number(&id)?).await?;
    Ok(NoContent)
}

/// Empties all disks of a node, or takes that back.
#[utoipa::path(patch, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = u32, Path)),
    request_body = ChangeNode, responses((status = 200, body = Node), (status = "4XX", body = ErrorBody)))]
pub(super) async fn change(
    State(context): Shared,
    Path(id): Path<String>,
    Body(request): Body<ChangeNode>,
) -> Result<Reply<Node>, Failure> {
    let number = number(&id)?;
    if let Some(drain) = request.drain {
        context.volumes.drain_node(number, drain).await?;
    }
    get(State(context), Path(id)).await
}

fn number(text: &str) -> Result<NodeId, Failure> {
    let number = text.strip_prefix("node-").unwrap_or(text).parse();
    number
        .map(NodeId)
        .map_err(|_| invalid(format!("{text:?} is not a node: give its number")))
}

/// Where other machines reach a node: where they join, or else where its disks are.
fn reached_at(map: &ClusterMap, id: NodeId, told: &[String]) -> Vec<String> {
    if !told.is_empty() {
        return told.to_vec();
    }
    let addresses = map.disks_on(id).flat_map(|(_, disk)| &disk.record.addresses);
    addresses
        .filter(|address| !address.starts_with("unix:"))
        .cloned()
        .collect()
}

fn describe(context: &Context, map: &ClusterMap, id: NodeId) -> Option<Node> {
    let record = &map.nodes().get(&id)?.record;
    let groups: usize = map
        .disks_on(id)
        .map(|(disk, _)| map.groups_on(disk).count())
        .sum();
    let up = map.up().get(&id).map(|up| &up.record);
    Some(Node {
        id: id.0,
        name: record.name.clone(),
        zone: record.zone.clone(),
        addresses: reached_at(map, id, &record.addresses),
        state: if up.is_some() {
            NodeState::Up
        } else {
            NodeState::Down
        },
        since_ms: up.map(|up| up.since_ms),
        version: up.map(|up| up.version.clone()),
        disks: map.disks_on(id).map(|(disk, _)| disk.0).collect(),
        draining: map.disks_on(id).next().is_some() && map.disks_on(id).all(|(_, disk)| disk.record.draining),
        groups: u32::try_from(groups).unwrap_or(u32::MAX),
        answers: id == context.node,
    })
}
