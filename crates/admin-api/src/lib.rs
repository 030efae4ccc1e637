//! The words of the admin API: every request and answer of `/v1`, the names and sizes that it accepts,
//! and the paths. `storaged` serves them and `storagectl` asks with them, so the two cannot disagree.
//!
//! This crate knows nothing of HTTP, of disks or of the coordination store.
//!
//! | method | path | asks with | answers with |
//! | --- | --- | --- | --- |
//! | GET | `/v1/version` | | [`status::Version`] |
//! | GET | `/v1/status` | | [`status::Status`] |
//! | GET | `/v1/metrics` | | Prometheus text |
//! | GET | `/v1/figures` | | [`figures::NodeFigures`] |
//! | GET | `/v1/openapi.json` | | the OpenAPI document |
//! | GET | `/v1/events` | [`events::EventQuery`] | [`events::EventPage`] |
//! | GET | `/v1/tasks` | | [`tasks::TaskList`] |
//! | GET | `/v1/tasks/{task}` | [`tasks::TaskQuery`] | [`tasks::Task`] |
//! | GET | `/v1/upgrade` | | [`upgrade::UpgradeStatus`] |
//! | GET | `/v1/nodes` | | [`nodes::NodeList`] |
//! | GET | `/v1/nodes/{node}` | | [`nodes::Node`] |
//! | PATCH | `/v1/nodes/{node}` | [`nodes::ChangeNode`] | [`nodes::Node`] |
//! | DELETE | `/v1/nodes/{node}` | | 204 |
//! | GET | `/v1/join-tokens` | | [`join_tokens::JoinTokenList`] |
//! | POST | `/v1/join-tokens` | [`join_tokens::MakeJoinToken`] | 201 [`join_tokens::NewJoinToken`] |
//! | DELETE | `/v1/join-tokens/{token}` | | 204 |
//! | GET | `/v1/access-tokens` | | [`access_tokens::AccessTokenList`] |
//! | POST | `/v1/access-tokens` | [`access_tokens::MakeAccessToken`] | 201 [`access_tokens::NewAccessToken`] |
//! | DELETE | `/v1/access-tokens/{token}` | | 204 |
//! | GET | `/v1/authority` | | [`access_tokens::AuthorityCertificate`] |
//! | GET | `/v1/disks` | | [`disks::DiskList`] |
//! | POST | `/v1/disks` | [`disks::AddDisk`] | 201 [`disks::Disk`] |
//! | GET | `/v1/disks/{disk}` | | [`disks::Disk`] |
//! | PATCH | `/v1/disks/{disk}` | [`disks::ChangeDisk`] | [`disks::Disk`] |
//! | DELETE | `/v1/disks/{disk}` | | 204 |
//! | POST | `/v1/disks/{disk}/give-up` | [`disks::GiveUp`] | [`disks::GivenUp`] |
//! | POST | `/v1/disks/{disk}/scrub` | [`scrubs::StartScrub`] | [`scrubs::ScrubStarted`] |
//! | GET | `/v1/pools` | | [`pools::PoolList`] |
//! | POST | `/v1/pools` | [`pools::CreatePool`] | 201 [`pools::Pool`] |
//! | GET | `/v1/pools/{pool}` | | [`pools::Pool`] |
//! | DELETE | `/v1/pools/{pool}` | | 204 |
//! | POST | `/v1/pools/{pool}/scrub` | [`scrubs::StartScrub`] | [`scrubs::ScrubStarted`] |
//! | GET | `/v1/scrubs/{task}` | | [`scrubs::ScrubReport`] |
//! | GET | `/v1/volumes` | [`volumes::VolumeQuery`] | [`volumes::VolumeList`] |
//! | POST | `/v1/volumes` | [`volumes::CreateVolume`] | 201 [`volumes::VolumeAnswer`] |
//! | GET | `/v1/volumes/{volume}` | | [`volumes::Volume`] |
//! | DELETE | `/v1/volumes/{volume}` | [`volumes::DeleteVolumeQuery`] | [`tasks::Deleted`] |
//! | POST | `/v1/volumes/{volume}/rename` | [`volumes::RenameVolume`] | [`volumes::VolumeAnswer`] |
//! | POST | `/v1/volumes/{volume}/resize` | [`volumes::ResizeVolume`] | [`volumes::VolumeAnswer`] |
//! | PATCH | `/v1/volumes/{volume}/labels` | [`labels::ChangeLabels`] | [`volumes::VolumeAnswer`] |
//! | PUT | `/v1/volumes/{volume}/limits` | [`limits::VolumeLimits`] | [`volumes::VolumeAnswer`] |
//! | POST | `/v1/volumes/{volume}/rollback` | [`volumes::RollbackVolume`] | [`volumes::VolumeAnswer`] |
//! | POST | `/v1/volumes/{volume}/retype` | [`volumes::RetypeVolume`] | [`volumes::VolumeAnswer`] |
//! | POST | `/v1/volumes/{volume}/take-over` | [`volumes::TakeOverVolume`] | [`volumes::VolumeAnswer`] |
//! | POST | `/v1/volumes/{volume}/check` | [`scrubs::CheckVolume`] | [`scrubs::ScrubStarted`] |
//! | GET | `/v1/volumes/{volume}/tree` | | [`volumes::Tree`] |
//! | GET | `/v1/volumes/{volume}/snapshots` | | [`snapshots::SnapshotList`] |
//! | POST | `/v1/volumes/{volume}/snapshots` | [`snapshots::CreateSnapshot`] | 201 [`snapshots::Snapshot`] |
//! | GET | `/v1/volumes/{volume}/snapshots/{snapshot}` | | [`snapshots::Snapshot`] |
//! | DELETE | `/v1/volumes/{volume}/snapshots/{snapshot}` | | [`tasks::Deleted`] |
//! | POST | `/v1/volumes/{volume}/snapshots/{snapshot}/clone` | [`snapshots::CloneSnapshot`] | 201 [`volumes::VolumeAnswer`] |
//! | GET | `/v1/iscsi/targets` | | [`iscsi::TargetList`] |
//! | POST | `/v1/iscsi/targets` | [`iscsi::CreateTarget`] | 201 [`iscsi::TargetInfo`] |
//! | GET | `/v1/iscsi/targets/{target}` | | [`iscsi::TargetInfo`] |
//! | DELETE | `/v1/iscsi/targets/{target}` | | 204 |
//! | POST | `/v1/iscsi/targets/{target}/luns` | [`iscsi::AddLun`] | 201 [`iscsi::TargetInfo`] |
//! | DELETE | `/v1/iscsi/targets/{target}/luns/{lun}` | | [`iscsi::TargetInfo`] |
//! | POST | `/v1/iscsi/targets/{target}/access` | [`iscsi::AddAccess`] | 201 [`iscsi::TargetInfo`] |
//! | DELETE | `/v1/iscsi/targets/{target}/access/{initiator}` | | [`iscsi::TargetInfo`] |
//! | PUT | `/v1/iscsi/targets/{target}/mutual` | [`iscsi::Credentials`] | [`iscsi::TargetInfo`] |
//! | DELETE | `/v1/iscsi/targets/{target}/mutual` | | [`iscsi::TargetInfo`] |
//! | GET | `/v1/iscsi/portals` | | [`iscsi::PortalList`] |
//! | PUT | `/v1/iscsi/portals` | [`iscsi::AnnouncePortals`] | [`iscsi::PortalList`] |
//! | GET | `/v1/iscsi/configuration` | [`iscsi::WaitQuery`] | [`iscsi::Configuration`] |
//! | GET | `/v1/iscsi/reservations/{volume}` | [`iscsi::WaitQuery`] | [`iscsi::Reservations`] |
//! | PUT | `/v1/iscsi/reservations/{volume}` | [`iscsi::Reservations`] | [`iscsi::Reservations`] |
//! | GET | `/v1/snapshots` | | [`snapshots::SnapshotList`] |
//! | POST | `/v1/group-snapshots` | [`snapshots::CreateGroupSnapshot`] | 201 [`snapshots::SnapshotList`] |
//!
//! Front ends serve `/v1/figures` ([`figures::FrontEndFigures`]) and `/v1/metrics` on control sockets of their own; a
//! `vhost-blk` a few words more: see [`vhost`].
//!
//! Everything that goes wrong is answered with an [`error::ErrorBody`] and the status that its kind names.
//! Times are milliseconds since 1970 in UTC. Sizes in answers are bytes; sizes in requests may be
//! bytes or a text such as `10G` (see [`sizes`]). Unknown fields in requests are refused, so that a
//! misspelt option is not taken for a default; unknown fields in answers must be ignored by clients.
#![forbid(unsafe_code)]

pub mod access_tokens;
pub mod disks;
pub mod error;
pub mod events;
pub mod figures;
pub mod iscsi;
pub mod join_tokens;
pub mod labels;
pub mod limits;
pub mod names;
pub mod nodes;
pub mod pools;
pub mod routes;
pub mod scrubs;
pub mod sizes;
pub mod snapshots;
pub mod status;
pub mod tasks;
pub mod upgrade;
pub mod vhost;
pub mod volumes;

pub use error::{ErrorBody, ErrorKind};
