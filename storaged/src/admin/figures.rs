//! `/v1/figures`: what the disks do, for whoever shows rates.

use admin_api::figures::{DiskFigures, NodeFigures, RequestFigures};
use axum::extract::State;

use super::Shared;
use super::answer::Reply;
use crate::disk::Entries;

/// Counts and times of this node's disks, from their start.
#[utoipa::path(get, path = "/v1/figures", tag = "status", responses((status = 200, body = NodeFigures)))]
pub(super) async fn figures(State(context): Shared) -> Reply<NodeFigures> {
    let mut disks = Vec::new();
    for id in context.disks.ids().await {
        let condition = context.disks.condition(id).await;
        let times = context.disks.times(id).await;
        let store = condition.figures.store;
        disks.push(DiskFigures {
            disk: id.0,
            state: condition.state,
            slow: condition.slow,
            used: store.used_bytes,
            free: store.free_bytes,
            in_flight: store.in_flight,
            requests: times
                .as_ref()
                .map(|times| shown(&times.requests))
                .unwrap_or_default(),
            medium: times
                .as_ref()
                .map(|times| shown(&times.medium))
                .unwrap_or_default(),
        });
    }
    Reply(NodeFigures {
        node: context.node.0,
        disks,
    })
}

fn shown(entries: &Entries) -> Vec<RequestFigures> {
    entries
        .iter()
        .map(|(kind, figures)| figures.summary(kind))
        .collect()
}
