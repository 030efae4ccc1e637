//! Who may use whom. The crates of the workspace, what each may depend on, and what each refuses to know.

use std::collections::BTreeMap;
use std::path::Path;

use super::Finding;
use crate::crates::{Metadata, reachable};

/// A crate's place: which crates of the workspace it may use directly, and which crates, of anybody's,
/// must not be reachable from it at all. Tests (dev-dependencies) are free.
struct Place {
    name: &'static str,
    uses: &'static [&'static str],
    never: &'static [&'static str],
}

/// Anything that waits, opens sockets or speaks HTTP.
const RUNTIMES: &[&str] = &["tokio", "axum", "hyper", "reqwest", "socket2", "mio"];
/// Anything that performs I/O, reads a clock or draws lots.
const EFFECTS: &[&str] = &[
    "tokio", "axum", "hyper", "reqwest", "socket2", "mio", "rustix", "libc", "io-uring", "redb", "rand",
];
/// What only `storaged` and tests link: a front end talks to it over a socket.
const NODE: &[&str] = &["store", "coordination", "storaged", "redb", "axum"];
/// The same for front ends, which answer HTTP themselves, on their control sockets.
const STORAGE: &[&str] = &["store", "coordination", "storaged", "redb"];

const PLACES: &[Place] = &[
    Place {
        name: "protocol",
        uses: &[],
        never: EFFECTS,
    },
    Place {
        name: "replication",
        uses: &["protocol"],
        never: EFFECTS,
    },
    Place {
        name: "direct",
        uses: &["protocol"],
        never: RUNTIMES,
    },
    Place {
        name: "store",
        uses: &["direct", "protocol"],
        never: RUNTIMES,
    },
    Place {
        name: "coordination",
        uses: &["protocol"],
        never: &["axum", "store"],
    },
    Place {
        name: "client",
        uses: &["direct", "erasure", "protocol", "replication"],
        never: NODE,
    },
    Place {
        name: "erasure",
        uses: &["protocol"],
        // Its library keeps matrices behind a lock, and has libc for that.
        never: RUNTIMES,
    },
    Place {
        name: "admin-api",
        uses: &[],
        never: EFFECTS,
    },
    Place {
        name: "admin-client",
        uses: &["admin-api"],
        never: NODE,
    },
    Place {
        name: "joining",
        uses: &[],
        never: NODE,
    },
    Place {
        name: "telemetry",
        uses: &["admin-api"],
        never: NODE,
    },
    Place {
        name: "simulator",
        uses: &[
            "direct",
            "protocol",
            "erasure",
            "replication",
            "store",
            "coordination",
        ],
        never: &["axum"],
    },
    Place {
        name: "storaged",
        uses: &[
            "admin-api",
            "client",
            "coordination",
            "direct",
            "erasure",
            "joining",
            "protocol",
            "replication",
            "store",
            "telemetry",
        ],
        never: &["reqwest"],
    },
    Place {
        name: "vhost-blk",
        uses: &["admin-api", "client", "protocol", "telemetry"],
        never: STORAGE,
    },
    Place {
        name: "storaged-attach",
        uses: &["admin-api", "coordination", "storaged-nbd", "telemetry"],
        never: &["store", "storaged"],
    },
    Place {
        name: "storaged-iscsi",
        uses: &["admin-api", "admin-client", "client", "protocol", "telemetry"],
        never: STORAGE,
    },
    Place {
        name: "storaged-nbd",
        uses: &["admin-api", "client", "protocol", "telemetry"],
        never: STORAGE,
    },
    Place {
        name: "cinder-api",
        uses: &[
            "admin-api",
            "admin-client",
            "client",
            "coordination",
            "protocol",
            "telemetry",
        ],
        never: &["store", "storaged"],
    },
    Place {
        name: "storagectl",
        uses: &["admin-api", "joining", "protocol", "store"],
        never: &["storaged", "axum"],
    },
];

/// Where programs that test live: they may use everything.
const TEST_FOLDERS: [&str; 2] = ["tests", "xtask"];

/// Findings about all members of the workspace.
pub(super) fn check(metadata: &Metadata) -> Vec<Finding> {
    let names: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let uses: BTreeMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node.normal()))
        .collect();
    let members = metadata
        .packages
        .iter()
        .filter(|package| metadata.workspace_members.contains(&package.id));
    let mut findings = Vec::new();
    for package in members {
        let manifest = Path::new(&package.manifest_path);
        let manifest = manifest
            .strip_prefix(&metadata.workspace_root)
            .unwrap_or(manifest);
        let mut found = |message| findings.push(Finding::new(manifest, 1, message));
        let Some(place) = PLACES.iter().find(|place| place.name == package.name) else {
            if !TEST_FOLDERS.iter().any(|folder| manifest.starts_with(folder)) {
                found(format!(
                    "{} has no place in xtask/src/tidy/directions.rs",
                    package.name
                ));
            }
            continue;
        };
        for used in uses.get(package.id.as_str()).into_iter().flatten() {
            let name = names.get(used).copied().unwrap_or_default();
            if metadata.workspace_members.contains(*used) && !place.uses.contains(&name) {
                found(format!("{} must not use {name}", package.name));
            }
        }
        for reached in reachable(&package.id, &uses) {
            let name = names.get(reached).copied().unwrap_or_default();
            if place.never.contains(&name) {
                found(format!("{} must not reach {name}, by whatever way", package.name));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    //! A wrong edge is found, direct or by a detour, and dev-dependencies are free.
    use std::collections::BTreeSet;

    use super::*;
    use crate::crates::{Dependency, DependencyKind, Node, Package, Resolve};

    fn workspace(edges: &[(&str, &str, Option<&str>)], members: &[(&str, &str)]) -> Metadata {
        let mut all: BTreeSet<&str> = members.iter().map(|(name, _)| *name).collect();
        all.extend(edges.iter().flat_map(|(from, to, _)| [*from, *to]));
        let folder = |name| {
            members
                .iter()
                .find(|(member, _)| *member == name)
                .map_or("else", |(_, folder)| folder)
        };
        let packages = all.iter().map(|name| Package {
            id: (*name).into(),
            name: (*name).into(),
            manifest_path: format!("/root/{}/Cargo.toml", folder(*name)),
            ..Package::default()
        });
        let nodes = all.iter().map(|name| Node {
            id: (*name).into(),
            deps: (edges.iter().filter(|(from, _, _)| from == name))
                .map(|(_, to, kind)| Dependency {
                    pkg: (*to).into(),
                    dep_kinds: vec![DependencyKind {
                        kind: kind.map(Into::into),
                    }],
                })
                .collect(),
        });
        Metadata {
            packages: packages.collect(),
            workspace_members: members.iter().map(|(name, _)| (*name).into()).collect(),
            resolve: Resolve {
                nodes: nodes.collect(),
            },
            workspace_root: "/root".into(),
        }
    }

    fn messages(edges: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let members = [
            ("replication", "crates/replication"),
            ("protocol", "crates/protocol"),
            ("store", "crates/store"),
        ];
        check(&workspace(edges, &members))
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn an_allowed_edge_is_left_alone_and_a_wrong_one_is_found() {
        assert!(messages(&[("replication", "protocol", None)]).is_empty());
        assert_eq!(
            messages(&[("replication", "store", None)]),
            ["replication must not use store"]
        );
    }

    #[test]
    fn a_forbidden_crate_is_found_by_any_way_and_tests_may_use_it() {
        let detour = [("replication", "outside", None), ("outside", "tokio", None)];
        assert_eq!(
            messages(&detour),
            ["replication must not reach tokio, by whatever way"]
        );
        assert!(messages(&[("replication", "tokio", Some("dev"))]).is_empty());
    }

    #[test]
    fn a_new_crate_needs_a_place_unless_it_is_a_test() {
        let found = |folder| check(&workspace(&[], &[("new", folder)])).len();
        assert_eq!(found("crates/new"), 1);
        assert_eq!(found("tests/new"), 0);
    }
}
