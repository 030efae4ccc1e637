//! What the benchmarks ask of the admin API, over its unix socket.

use std::path::Path;
use std::time::{Duration, Instant};

use admin_api::iscsi::{AddAccess, AddLun, CreateTarget};
use admin_api::pools::{CreatePool, FailureDomain};
use admin_api::routes;
use admin_api::snapshots::{CloneSnapshot, CreateSnapshot};
use admin_api::volumes::CreateVolume;
use anyhow::{Context, Result, bail};
use reqwest::Client;
use serde::Serialize;

/// The longest that any of these may take: a snapshot of a busy volume waits for its writes.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(2);

/// A client of one storaged, that keeps its connection: to be used on one runtime.
pub(crate) struct Admin {
    client: Client,
}

impl Admin {
    /// A client of the storaged that listens on `socket`.
    pub(crate) fn new(socket: &Path) -> Result<Self> {
        let client = Client::builder()
            .unix_socket(socket)
            .timeout(ANSWER_TIME_MAX)
            .no_proxy()
            .build()?;
        Ok(Self { client })
    }

    /// Makes a pool over all disks.
    pub(crate) async fn create_pool(&self, name: &str, copies: u32) -> Result<()> {
        let copies = Some(copies);
        let body = CreatePool {
            name: name.into(),
            copies,
            erasure: None,
            min_in_sync: None,
            groups: None,
            disks: None,
            failure_domain: None,
        };
        self.post(routes::POOLS, &body).await.map(drop)
    }

    /// Makes a volume of `size` bytes in the one pool.
    pub(crate) async fn create_volume(&self, name: &str, size: u64) -> Result<Duration> {
        let body = CreateVolume {
            name: name.into(),
            size: size.into(),
            pool: None,
            limits: None,
        };
        self.post(routes::VOLUMES, &body).await
    }

    /// Takes a snapshot; the answer is how long that took.
    pub(crate) async fn snapshot(&self, volume: &str, name: &str) -> Result<Duration> {
        let path = routes::fill(routes::VOLUME_SNAPSHOTS, &[volume]);
        self.post(&path, &CreateSnapshot { name: name.into() }).await
    }

    /// Makes a clone of a snapshot; the answer is how long that took.
    pub(crate) async fn clone_snapshot(&self, volume: &str, snapshot: &str, name: &str) -> Result<Duration> {
        let path = routes::fill(routes::SNAPSHOT_CLONE, &[volume, snapshot]);
        self.post(&path, &CloneSnapshot { name: name.into() }).await
    }

    /// Makes a pool of rows over all disks, which may all be on one host.
    pub(crate) async fn create_rows(&self, name: &str, erasure: &str) -> Result<()> {
        let body = CreatePool {
            name: name.into(),
            copies: None,
            erasure: Some(erasure.into()),
            min_in_sync: None,
            groups: None,
            disks: None,
            failure_domain: Some(FailureDomain::Disk),
        };
        self.post(routes::POOLS, &body).await.map(drop)
    }

    /// Makes the volume the one LUN of a target for one host that need not prove who it is.
    pub(crate) async fn offer_iscsi(&self, target: &str, volume: &str, host: &str) -> Result<()> {
        let create = CreateTarget { name: target.into() };
        self.post(routes::ISCSI_TARGETS, &create).await?;
        let lun = AddLun {
            volume: volume.into(),
            number: Some(0),
            read_only: false,
            block_size: None,
        };
        self.post(&routes::fill(routes::ISCSI_LUNS, &[target]), &lun)
            .await?;
        let access = AddAccess {
            initiator: host.into(),
            chap: None,
        };
        self.post(&routes::fill(routes::ISCSI_ACCESS, &[target]), &access)
            .await
            .map(drop)
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Duration> {
        let begin = Instant::now();
        let request = self.client.post(format!("http://storaged{path}")).json(body);
        let response = request.send().await.with_context(|| format!("POST {path}"))?;
        let status = response.status();
        let text = response
            .text()
            .await
            .with_context(|| format!("read the answer to POST {path}"))?;
        if !status.is_success() {
            bail!("POST {path} was refused with {status}: {text}");
        }
        Ok(begin.elapsed())
    }
}
