//! `/v1/upgrade`: how far an upgrade is.

use std::collections::BTreeMap;

use admin_api::disks::DiskState;
use admin_api::upgrade::UpgradeStatus;
use axum::extract::State;

use super::Shared;
use super::answer::Reply;
use crate::upgrade;

/// Which versions run, and which node may be restarted next.
#[utoipa::path(get, path = "/v1/upgrade", tag = "status", responses((status = 200, body = UpgradeStatus)))]
pub(super) async fn status(State(context): Shared) -> Reply<UpgradeStatus> {
    let map = context.volumes.map();
    let mut sick = BTreeMap::new();
    for disk in context.disks.ids().await {
        let condition = context.disks.condition(disk).await;
        if condition.state != DiskState::Up {
            let why = condition
                .reason
                .unwrap_or_else(|| "it is being opened".to_owned());
            sick.insert(disk, why);
        }
    }
    Reply(upgrade::judge(&map, &sick))
}
