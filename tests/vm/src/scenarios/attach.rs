//! What a Linux host sees of a volume as a block device of its own kernel: `storaged-attach` in the guest, and on this
//! machine the gateway, the cluster and the store of wishes.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coordination::attach::{HaveRecord, Host, WantRecord};
use coordination::etcd::Options;
use coordination::records::{decode, encode};
use coordination::{Coordination as _, Etcd, Transaction};
use test_node::{Node, Process};
use tokio::runtime::Runtime;

use super::Setting;
use super::device::fio_verify;
use crate::guest::Guest;
use crate::patience::wait_for;

/// The machine that runs the guest, as the guest sees it.
const OUTSIDE: &str = "10.0.2.2";
/// How long the guest may take to see what was done outside. What was under way when a link died is sent again by the
/// kernel's own clock, half a minute later.
const PATIENCE: Duration = Duration::from_mins(3);
/// What the host is called.
const HOST: &str = "compute-1";
/// The prefix that both sides have if nobody says another one.
const PREFIX: &str = "/openstack-attach";
const MIB: u64 = 1 << 20;

/// A `storaged-nbd` that the guest reaches.
struct Gateway {
    process: Process,
    at: SocketAddr,
}

impl Gateway {
    fn start(node: &Node) -> Result<Self> {
        // The listener goes before the gateway comes.
        let at = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::start_at(node, at)
    }

    fn start_at(node: &Node, at: SocketAddr) -> Result<Self> {
        let words = [
            "--storaged".to_owned(),
            node.session_socket().display().to_string(),
            "--listen".to_owned(),
            format!("tcp:{at}"),
            "--plaintext".to_owned(),
            "--shared".to_owned(),
        ];
        let log = node.folder().join("nbd.log");
        let before = said(&log).len();
        let mut process = Process::start("storaged-nbd", words, &log)?;
        process.wait_for("the gateway to listen", || {
            said(&log)[before..].contains("listening on ").then_some(())
        })?;
        Ok(Self { process, at })
    }

    /// What the guest's agent is told.
    fn address(&self) -> String {
        format!("tcp:{OUTSIDE}:{}", self.at.port())
    }
}

fn said(log: &std::path::Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

fn prepare() -> Result<Node> {
    let node = Node::start(3)?;
    node.storagectl(&["pool", "create", "main", "--copies", "3"])?;
    node.storagectl(&["volume", "create", "disk", "256M"])?;
    Ok(node)
}

fn join_network(guest: &mut Guest) -> Result<()> {
    guest
        .run("ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && mkdir -p /etc && hostname host")
        .map(drop)
}

/// Starts the daemon in the guest, and waits until it says that it is ready.
fn serve(guest: &mut Guest, gateway: &Gateway, arguments: &str) -> Result<()> {
    guest.run(&format!(
        "storaged-attach --gateway {} serve {arguments} > /tmp/agent 2>&1 & echo $! > /tmp/agent.pid",
        gateway.address()
    ))?;
    wait_for("the agent to be ready", PATIENCE, || {
        let said = guest.try_run("cat /tmp/agent")?.text;
        let lives = guest.try_run("kill -0 $(cat /tmp/agent.pid)")?.status == 0;
        ensure!(lives, "the agent has ended: {said}");
        Ok(said.contains("ready").then_some(()))
    })
}

/// Made by hand; fio goes on over a gateway that is killed and an agent that is killed; growth, and an end.
pub(super) fn by_hand(setting: &Setting) -> Result<()> {
    let node = prepare()?;
    let mut gateway = Gateway::start(&node)?;
    let mut guest = setting.boot_attaching_host()?;
    join_network(&mut guest)?;
    serve(&mut guest, &gateway, "")?;
    let attach = format!("storaged-attach --gateway {}", gateway.address());
    let path = guest.run(&format!("{attach} map disk"))?;
    ensure!(path.trim() == "/dev/storaged/disk", "map prints {path:?}");
    let again = guest.run(&format!("{attach} map disk"))?;
    ensure!(
        again == path,
        "a volume that is there is found, and not made twice"
    );
    let listed = guest.run(&format!("{attach} list --json"))?;
    ensure!(
        listed.matches(r#""volume":"disk""#).count() == 1 && listed.contains(r#""owner":"host""#),
        "one device: {listed}"
    );
    guest.run(
        "mkfs.ext4 -q /dev/storaged/disk && mount /dev/storaged/disk /mnt && cp /bin/busybox /mnt/before",
    )?;
    let refused = guest.try_run(&format!("{attach} unmap disk 2>&1"))?;
    ensure!(
        refused.status != 0 && refused.text.contains("in use"),
        "what is mounted stays: {}",
        refused.text
    );
    let outcome = killed_under_load(&mut guest, &node, &mut gateway);
    outcome.map_err(|cause| cause.context(both_sides(&mut guest, &node)))?;
    guest.run("cmp /bin/busybox /mnt/before")?;
    grows(&mut guest, &node, 512)?;
    guest.run("resize2fs /dev/storaged/disk 2>&1 && umount /mnt && e2fsck -fn /dev/storaged/disk")?;
    guest.run(&format!("{attach} unmap disk"))?;
    let listed = guest.run(&format!("{attach} list"))?;
    ensure!(listed.trim().is_empty(), "nothing is left: {listed}");
    guest.run("test ! -e /dev/storaged/disk")?;
    nobody_has_it(&node)?;
    ensure!(
        !guest.kernel_log().contains("I/O error"),
        "the host has seen errors: {}",
        guest.kernel_log()
    );
    guest.power_off()
}

/// What the agent and the gateway said.
fn both_sides(guest: &mut Guest, node: &Node) -> String {
    let inside = guest.try_run("tail -n 20 /tmp/agent; dmesg | grep nbd");
    let inside = inside.map_or_else(|cause| format!("{cause:#}"), |output| output.text);
    let log = said(&node.folder().join("nbd.log"));
    let last: Vec<&str> = log.lines().rev().take(20).collect();
    format!("the host says: {inside}\nthe gateway says, newest first: {last:#?}")
}

/// fio writes and verifies while the gateway is killed and, while there is none, the agent.
fn killed_under_load(guest: &mut Guest, node: &Node, gateway: &mut Gateway) -> Result<()> {
    let fio = fio_verify("/mnt/file", 16);
    guest.start("fio", &fio)?;
    wait_for("fio to write", PATIENCE, || {
        Ok((guest.try_run("test $(stat -c %b /mnt/file) -gt 1000")?.status == 0).then_some(()))
    })?;
    gateway.process.kill()?;
    guest.run("kill -9 $(cat /tmp/agent.pid)")?;
    // It finds its devices, and that their links are dead, by itself: nobody tells it.
    let begun = format!(
        "storaged-attach --gateway {} serve > /tmp/agent 2>&1 & echo $! > /tmp/agent.pid",
        gateway.address()
    );
    guest.run(&begun)?;
    wait_for("the agent to say that there is no link", PATIENCE, || {
        let said = guest.try_run("cat /tmp/agent")?.text;
        Ok(said.contains("there is no link").then_some(()))
    })?;
    ensure!(guest.ended("fio")?.is_none(), "fio still has something to do");
    *gateway = Gateway::start_at(node, gateway.at)?;
    guest.wait_for_end("fio", PATIENCE * 2)?;
    // Once more, with an agent that hears of it.
    gateway.process.kill()?;
    guest.start("dd", "dd if=/dev/urandom of=/mnt/late bs=64k count=16 conv=fsync")?;
    *gateway = Gateway::start_at(node, gateway.at)?;
    guest.wait_for_end("dd", PATIENCE)
}

/// The volume grows, and nobody has to ask.
fn grows(guest: &mut Guest, node: &Node, megabytes: u64) -> Result<()> {
    node.storagectl(&["volume", "grow", "disk", &format!("{megabytes}M")])?;
    let bytes = (megabytes * MIB).to_string();
    wait_for("the device to grow", PATIENCE, || {
        let size = guest.run("cat /sys/block/$(basename $(readlink /dev/storaged/disk))/size")?;
        let sectors: u64 = size.trim().parse()?;
        Ok(((sectors * 512).to_string() == bytes).then_some(()))
    })
}

/// The volume is free for others: the gateway has given it back.
fn nobody_has_it(node: &Node) -> Result<()> {
    wait_for("the volume to be free", PATIENCE, || {
        Ok(node
            .storagectl(&["volume", "delete", "disk", "--yes"])
            .ok()
            .map(drop))
    })
}

/// The store of wishes, as `cinder-api` writes it.
struct Wishes {
    runtime: Runtime,
    store: Etcd,
    host: Host,
    etcd: test_node::Etcd,
}

impl Wishes {
    fn start() -> Result<Self> {
        let etcd = test_node::Etcd::start(1)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let options = Options {
            prefix: PREFIX.to_owned(),
            ..Options::plain(etcd.endpoints())
        };
        let store = runtime.block_on(Etcd::connect(&options))?;
        let host = Host::new(HOST).context("a host is called so")?;
        Ok(Self {
            runtime,
            store,
            host,
            etcd,
        })
    }

    /// What the guest's agent is told.
    fn arguments(&self) -> String {
        format!(
            "--host {HOST} --etcd http://{OUTSIDE}:{}",
            self.etcd.client_port(0)
        )
    }

    fn want(&self, volume: &str) -> Result<()> {
        let wish = Transaction::new().put(self.host.want(volume), encode(&WantRecord::default())?);
        self.runtime.block_on(self.store.commit(wish))?;
        Ok(())
    }

    fn forget(&self, volume: &str) -> Result<()> {
        let none = Transaction::new().delete(self.host.want(volume));
        self.runtime.block_on(self.store.commit(none))?;
        Ok(())
    }

    fn have(&self, volume: &str) -> Result<Option<HaveRecord>> {
        let entry = self.runtime.block_on(self.store.get(&self.host.have(volume)))?;
        Ok(entry.as_ref().map(decode).transpose()?)
    }

    fn agent_lives(&self) -> Result<bool> {
        Ok(self
            .runtime
            .block_on(self.store.get(&self.host.agent()))?
            .is_some())
    }

    fn wait_for_path(&self, volume: &str) -> Result<String> {
        wait_for("the host to have the volume", PATIENCE, || {
            Ok(self.have(volume)?.and_then(|have| have.path))
        })
    }
}

/// A wish, a power cut of the host, and the end of the wish while the device is in use.
pub(super) fn wanted(setting: &Setting) -> Result<()> {
    let node = prepare()?;
    let gateway = Gateway::start(&node)?;
    let wishes = Wishes::start()?;
    let mut guest = setting.boot_attaching_host()?;
    join_network(&mut guest)?;
    serve(&mut guest, &gateway, &wishes.arguments())?;
    wishes.want("nothing")?;
    let trouble = wait_for("the host to say why it has no such volume", PATIENCE, || {
        Ok(wishes.have("nothing")?.and_then(|have| have.trouble))
    })?;
    ensure!(trouble.contains("no export"), "the reason is told: {trouble}");
    wishes.forget("nothing")?;
    wishes.want("disk")?;
    let path = wishes.wait_for_path("disk")?;
    guest.run(&format!(
        "mkfs.ext4 -q {path} && mount {path} /mnt && cp /bin/busybox /mnt/before && sync"
    ))?;
    // A power cut: the next start of the host knows nothing but what is wanted.
    guest.kill()?;
    let mut guest = setting.boot_attaching_host()?;
    join_network(&mut guest)?;
    serve(&mut guest, &gateway, &wishes.arguments())?;
    // It was there before the agent said that it was ready, so that guests that need it may start.
    guest.run(&format!("mount {path} /mnt && cmp /bin/busybox /mnt/before"))?;
    ensure!(wishes.agent_lives()?, "the agent says that it lives");
    wishes.forget("disk")?;
    let trouble = wait_for("the host to say that the volume is in use", PATIENCE, || {
        Ok(wishes.have("disk")?.and_then(|have| have.trouble))
    })?;
    ensure!(trouble.contains("in use"), "the reason is told: {trouble}");
    guest.run("umount /mnt")?;
    wait_for("the volume to leave the host", PATIENCE, || {
        Ok(wishes.have("disk")?.is_none().then_some(()))
    })?;
    guest.run(&format!("test ! -e {path}"))?;
    nobody_has_it(&node)?;
    guest.power_off()
}
