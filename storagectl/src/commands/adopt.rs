//! `storagectl adopt`: QEMU itself copies a running guest's disk into a new volume, and goes on with that. Nothing
//! passes through this process; what it does is to ask in the right order, and to clear up if it comes to nothing.

mod disk;
mod qmp;

use std::time::{Duration, Instant};

use admin_api::ErrorKind;
use admin_api::routes::{self, fill};
use admin_api::sizes::SizeInput;
use admin_api::tasks::Deleted;
use admin_api::volumes::{CreateVolume, VolumeAnswer};
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Api, ApiError};
use crate::arguments::AdoptArguments;
use crate::output::{Form, exact_size};
use crate::progress;
use disk::Disk;
use qmp::Monitor;

/// How often QEMU is asked how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long QEMU may take to clear up what was given up.
const END_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a gateway may take to close a volume that nobody uses any more.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(10);
/// For how long QEMU lets the guest's requests wait for a gateway that is started anew, in seconds.
const RECONNECT_DELAY_S: u64 = 86_400;

/// What was done.
#[derive(Serialize)]
struct Adopted {
    volume: String,
    size: u64,
    node: String,
    old_node: String,
    old_place: String,
    seconds: f64,
}

/// Moves a running guest's disk into a new volume.
pub(super) async fn adopt(api: &Api, form: Form, arguments: AdoptArguments) -> Result<()> {
    let began = Instant::now();
    let nbd = std::path::absolute(&arguments.nbd).context("find the NBD socket")?;
    let mut monitor = Monitor::connect(&arguments.qmp).await?;
    let disk = disk::find(&mut monitor, arguments.disk.as_deref()).await?;
    let request = CreateVolume {
        name: arguments.volume.clone(),
        size: SizeInput::Bytes(disk.size),
        pool: arguments.pool,
        limits: None,
    };
    let answer: VolumeAnswer = api.post(routes::VOLUMES, &request).await?;
    let mut move_in = MoveIn {
        monitor,
        disk,
        name: format!("storaged-{}", answer.volume.id),
        is_final: false,
    };
    let export = json!({
        "driver": "nbd", "export": arguments.volume, "server": {"type": "unix", "path": nbd},
        "reconnect-delay": RECONNECT_DELAY_S,
    });
    let mut node = json!({
        "driver": "raw", "node-name": move_in.name, "file": export, "cache": {"direct": true}, "discard": "unmap",
    });
    if answer.volume.size != move_in.disk.size {
        // A volume has whole blocks. QEMU copies only to what is as large; the guest sees the rest after its next start.
        node["size"] = move_in.disk.size.into();
    }
    let moved = tokio::select! {
        moved = move_in.run(&arguments.volume, node) => moved,
        stopped = super::image::interrupted() => stopped,
    };
    if let Err(error) = moved {
        let fate = move_in.give_up(api, &arguments.volume).await;
        return Err(error.context(fate));
    }
    let adopted = Adopted {
        volume: arguments.volume,
        size: answer.volume.size,
        node: move_in.name,
        old_node: move_in.disk.node,
        old_place: move_in.disk.place,
        seconds: began.elapsed().as_secs_f64(),
    };
    form.show(&adopted, render)
}

fn render(adopted: &Adopted) -> String {
    format!(
        "the guest's disk is the volume {} now, {}; it was {}, which is as it was at that moment and of no use to the \
         guest any more.\nWrite the volume into the guest's configuration before its next start.",
        adopted.volume,
        exact_size(adopted.size),
        adopted.old_place
    )
}

/// Removes a volume that QEMU has closed, and its gateway may still be closing.
async fn remove(api: &Api, volume: &str) -> Result<(), ApiError> {
    let deadline = Instant::now() + CLOSING_TIME_MAX;
    loop {
        match api.delete::<Deleted>(&fill(routes::VOLUME, &[volume])).await {
            Err(ApiError::Refused(body)) if body.kind == ErrorKind::InUse && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            removed => return removed.map(drop),
        }
    }
}

/// A move that is under way.
struct MoveIn {
    monitor: Monitor,
    disk: Disk,
    /// Of the new node, and of the job.
    name: String,
    /// QEMU was told to go on with the volume: from now on the volume may be all that is good.
    is_final: bool,
}

impl MoveIn {
    async fn run(&mut self, volume: &str, node: Value) -> Result<()> {
        self.monitor
            .ask("blockdev-add", node)
            .await
            .context("let QEMU connect to the volume")?;
        // Writes go to both, so that the guest cannot write faster than QEMU copies.
        let job = json!({
            "job-id": self.name, "device": self.disk.node, "target": self.name, "sync": "full",
            "copy-mode": "write-blocking", "auto-dismiss": false,
        });
        self.monitor
            .ask("blockdev-mirror", job)
            .await
            .context("let QEMU copy the disk")?;
        let bar = progress::bar(&format!("adopt {volume}"), self.disk.size, "bytes");
        let ready = self.until(&["ready"], Some(&bar)).await;
        bar.finish_and_clear();
        ready?;
        self.is_final = true;
        self.monitor.ask("job-complete", json!({"id": self.name})).await?;
        self.until(&["concluded"], None).await?;
        self.monitor.ask("job-dismiss", json!({"id": self.name})).await?;
        // A node that was made by a command line of older style is closed by QEMU itself.
        let _ = self
            .monitor
            .ask("blockdev-del", json!({"node-name": self.disk.node}))
            .await;
        Ok(())
    }

    /// The job as QEMU tells of it, if there is one.
    async fn job(&mut self) -> Result<Option<Value>> {
        let jobs = self.monitor.ask("query-jobs", json!({})).await?;
        let mut jobs = jobs.as_array().into_iter().flatten();
        Ok(jobs.find(|job| job["id"] == self.name).cloned())
    }

    /// Waits until the job is in one of these states.
    async fn until(&mut self, states: &[&str], bar: Option<&indicatif::ProgressBar>) -> Result<()> {
        loop {
            let job = self.job().await?;
            let job = job.context("QEMU knows nothing of the copy any more")?;
            if let Some(error) = job["error"].as_str() {
                bail!("QEMU cannot copy the disk: {error}");
            }
            let state = job["status"].as_str().unwrap_or_default();
            if states.contains(&state) {
                return Ok(());
            }
            if state == "concluded" {
                bail!("the copy was cancelled by somebody else");
            }
            if let Some(bar) = bar {
                bar.set_length(job["total-progress"].as_u64().unwrap_or(self.disk.size));
                bar.set_position(job["current-progress"].as_u64().unwrap_or(0));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Clears up after a move that came to nothing, and says what is left.
    async fn give_up(&mut self, api: &Api, volume: &str) -> String {
        if self.is_final {
            return format!(
                "QEMU was told to go on with the volume {volume}, and whether it does is not known: ask its monitor \
                 (query-block), and delete neither the volume nor {} before",
                self.disk.place
            );
        }
        let cleared = tokio::time::timeout(END_TIME_MAX, self.clear()).await;
        let cleared = cleared.unwrap_or_else(|_| Err(anyhow!("QEMU does not end the copy")));
        if let Err(error) = cleared {
            return format!(
                "the guest goes on with {}; the volume {volume} is incomplete, and QEMU may still have it open \
                 ({error:#}): delete it when that is over",
                self.disk.place
            );
        }
        match remove(api, volume).await {
            Ok(()) => format!(
                "the guest goes on with {}; the volume {volume} was removed again",
                self.disk.place
            ),
            Err(error) => format!(
                "the guest goes on with {}; the volume {volume} is incomplete and could not be removed: {error}",
                self.disk.place
            ),
        }
    }

    async fn clear(&mut self) -> Result<()> {
        // The answer to a command that was broken off is passed over.
        if let Some(job) = self.job().await? {
            if job["status"] != "concluded" {
                self.monitor.ask("job-cancel", json!({"id": self.name})).await?;
                self.gone_or_concluded().await?;
            }
            self.monitor.ask("job-dismiss", json!({"id": self.name})).await?;
        }
        let nodes = self
            .monitor
            .ask("query-named-block-nodes", json!({"flat": true}))
            .await?;
        let is_there = nodes
            .as_array()
            .into_iter()
            .flatten()
            .any(|node| node["node-name"] == self.name);
        if is_there {
            self.monitor
                .ask("blockdev-del", json!({"node-name": self.name}))
                .await?;
        }
        Ok(())
    }

    async fn gone_or_concluded(&mut self) -> Result<()> {
        while self.job().await?.is_some_and(|job| job["status"] != "concluded") {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
