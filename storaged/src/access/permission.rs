//! What each role may ask the admin API for, by method and path. Nothing here does anything.
//!
//! | who | what |
//! | --- | --- |
//! | viewer | everything that is read and is no secret |
//! | operator | volumes and snapshots: making, changing, deleting |
//! | administrator | disks, pools, nodes, checks and iSCSI targets; taking a volume from its owner |
//! | nobody over the network | tokens of both kinds, and what gateways read and write, CHAP secrets among it |

use admin_api::access_tokens::AccessRole;
use axum::http::Method;

/// What is only done on the node itself, over the socket of its `storaged`.
const ONLY_HERE: [&str; 4] = [
    "/v1/join-tokens",
    "/v1/access-tokens",
    "/v1/iscsi/configuration",
    "/v1/iscsi/reservations",
];
/// What an operator works with.
const OF_OPERATORS: [&str; 2] = ["/v1/volumes", "/v1/group-snapshots"];

/// Which role at least may ask for this; nothing: nobody over the network. A path that nobody knows is like any other
/// of its kind: what it leads to is said elsewhere.
pub fn needed(method: &Method, path: &str) -> Option<AccessRole> {
    if ONLY_HERE.iter().any(|place| is_in(path, place)) || is_announcement(method, path) {
        return None;
    }
    if method == Method::GET || method == Method::HEAD {
        return Some(AccessRole::Viewer);
    }
    let of_operators = OF_OPERATORS.iter().any(|place| is_in(path, place));
    if of_operators && !is_take_over(path) {
        return Some(AccessRole::Operator);
    }
    Some(AccessRole::Administrator)
}

/// Gateways say where they serve.
fn is_announcement(method: &Method, path: &str) -> bool {
    method == Method::PUT && is_in(path, "/v1/iscsi/portals")
}

/// What is done to a volume, and is not for operators: it fails the requests of a guest that may be alive.
fn is_take_over(path: &str) -> bool {
    let of_volume = path
        .strip_prefix("/v1/volumes/")
        .and_then(|rest| rest.split_once('/'));
    of_volume.is_some_and(|(_, what)| what == "take-over")
}

fn is_in(path: &str, place: &str) -> bool {
    let rest = path.strip_prefix(place);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What the bearer of a token may do, for the event log and for whoever is refused.
pub fn in_words(role: AccessRole) -> &'static str {
    match role {
        AccessRole::Viewer => "a viewer, who may look at everything that is no secret",
        AccessRole::Operator => "an operator, who may make, change and delete volumes and snapshots",
        AccessRole::Administrator => "an administrator, who may change everything but tokens",
    }
}
