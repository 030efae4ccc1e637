//! The paths of the admin API, once, as `axum` writes them. A client fills the places with [`fill`].

/// See the table in the crate's documentation.
pub const VERSION: &str = "/v1/version";
/// Health and counts.
pub const STATUS: &str = "/v1/status";
/// Prometheus text.
pub const METRICS: &str = "/v1/metrics";
/// Counts and times of all that was asked for.
pub const FIGURES: &str = "/v1/figures";
/// The OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
/// The event log.
pub const EVENTS: &str = "/v1/events";
/// All tasks.
pub const TASKS: &str = "/v1/tasks";
/// One task.
pub const TASK: &str = "/v1/tasks/{task}";
/// Which versions run, and which node may be restarted next.
pub const UPGRADE: &str = "/v1/upgrade";
/// All nodes.
pub const NODES: &str = "/v1/nodes";
/// One node.
pub const NODE: &str = "/v1/nodes/{node}";
/// All tokens with which machines join.
pub const JOIN_TOKENS: &str = "/v1/join-tokens";
/// One of them.
pub const JOIN_TOKEN: &str = "/v1/join-tokens/{token}";
/// All tokens with which the API is asked over the network.
pub const ACCESS_TOKENS: &str = "/v1/access-tokens";
/// One of them.
pub const ACCESS_TOKEN: &str = "/v1/access-tokens/{token}";
/// Who signs the certificates that the API shows to the network.
pub const AUTHORITY: &str = "/v1/authority";
/// All disks.
pub const DISKS: &str = "/v1/disks";
/// One disk.
pub const DISK: &str = "/v1/disks/{disk}";
/// Gives a disk up for lost.
pub const DISK_GIVE_UP: &str = "/v1/disks/{disk}/give-up";
/// Begins a scrub of a disk.
pub const DISK_SCRUB: &str = "/v1/disks/{disk}/scrub";
/// All pools.
pub const POOLS: &str = "/v1/pools";
/// One pool.
pub const POOL: &str = "/v1/pools/{pool}";
/// Begins a scrub of a pool's disks.
pub const POOL_SCRUB: &str = "/v1/pools/{pool}/scrub";
/// What a scrub found.
pub const SCRUB: &str = "/v1/scrubs/{task}";
/// All volumes.
pub const VOLUMES: &str = "/v1/volumes";
/// One volume.
pub const VOLUME: &str = "/v1/volumes/{volume}";
/// Gives a volume another name.
pub const VOLUME_RENAME: &str = "/v1/volumes/{volume}/rename";
/// Grows or shrinks a volume.
pub const VOLUME_RESIZE: &str = "/v1/volumes/{volume}/resize";
/// What is written on a volume.
pub const VOLUME_LABELS: &str = "/v1/volumes/{volume}/labels";
/// How much of a volume may be asked for in a second.
pub const VOLUME_LIMITS: &str = "/v1/volumes/{volume}/limits";
/// Puts a volume back to one of its snapshots.
pub const VOLUME_ROLLBACK: &str = "/v1/volumes/{volume}/rollback";
/// Moves a volume to another pool.
pub const VOLUME_RETYPE: &str = "/v1/volumes/{volume}/retype";
/// Takes a volume from whoever has it open.
pub const VOLUME_TAKE_OVER: &str = "/v1/volumes/{volume}/take-over";
/// Begins a check of all copies of a volume.
pub const VOLUME_CHECK: &str = "/v1/volumes/{volume}/check";
/// The volume's family: snapshots and clones.
pub const VOLUME_TREE: &str = "/v1/volumes/{volume}/tree";
/// A volume's snapshots.
pub const VOLUME_SNAPSHOTS: &str = "/v1/volumes/{volume}/snapshots";
/// One snapshot.
pub const VOLUME_SNAPSHOT: &str = "/v1/volumes/{volume}/snapshots/{snapshot}";
/// A new volume from a snapshot.
pub const SNAPSHOT_CLONE: &str = "/v1/volumes/{volume}/snapshots/{snapshot}/clone";
/// All snapshots of all volumes.
pub const SNAPSHOTS: &str = "/v1/snapshots";
/// One snapshot each of several volumes, at one instant.
pub const GROUP_SNAPSHOTS: &str = "/v1/group-snapshots";
/// All iSCSI targets.
pub const ISCSI_TARGETS: &str = "/v1/iscsi/targets";
/// One target.
pub const ISCSI_TARGET: &str = "/v1/iscsi/targets/{target}";
/// Makes a volume a LUN of a target.
pub const ISCSI_LUNS: &str = "/v1/iscsi/targets/{target}/luns";
/// One LUN, by its number.
pub const ISCSI_LUN: &str = "/v1/iscsi/targets/{target}/luns/{lun}";
/// Lets an initiator in.
pub const ISCSI_ACCESS: &str = "/v1/iscsi/targets/{target}/access";
/// One initiator that is let in.
pub const ISCSI_INITIATOR: &str = "/v1/iscsi/targets/{target}/access/{initiator}";
/// With what a target shows initiators who it is.
pub const ISCSI_MUTUAL: &str = "/v1/iscsi/targets/{target}/mutual";
/// Where gateways serve.
pub const ISCSI_PORTALS: &str = "/v1/iscsi/portals";
/// All that a gateway must know, with secrets.
pub const ISCSI_CONFIGURATION: &str = "/v1/iscsi/configuration";
/// The persistent reservations of a volume, by its number.
pub const ISCSI_RESERVATIONS: &str = "/v1/iscsi/reservations/{volume}";

/// `pattern` with its places filled in order. The values are names or numbers that passed their check,
/// so nothing needs to be escaped. A place without a value stays as it is, and no server has such a path.
pub fn fill(pattern: &str, values: &[&str]) -> String {
    let mut values = values.iter();
    let segment = |part| {
        let is_place = str::starts_with(part, '{');
        if is_place {
            values.next().copied().unwrap_or(part)
        } else {
            part
        }
    };
    pattern.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    //! A client's path is the server's pattern with names in it.
    use super::*;

    #[test]
    fn places_are_filled_in_order() {
        assert_eq!(fill(STATUS, &[]), "/v1/status");
        assert_eq!(fill(VOLUME_RENAME, &["a"]), "/v1/volumes/a/rename");
        assert_eq!(
            fill(SNAPSHOT_CLONE, &["a", "b"]),
            "/v1/volumes/a/snapshots/b/clone"
        );
    }
}
