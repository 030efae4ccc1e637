//! What a Linux host sees of a volume over iSCSI: open-iscsi, two gateways as two paths, multipathd.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use test_node::{Node, Process};

use super::Setting;
use super::device::fio_verify;
use crate::guest::Guest;
use crate::patience::wait_for;

const TARGET: &str = "iqn.2026-11.org.example:disks";
const HOST: &str = "iqn.2026-11.org.example:host";
const SECRET: &str = "secret-of-the-host";
/// The host that runs the guest, as the guest sees it.
const GATEWAYS: &str = "10.0.2.2";
/// How long the guest may take to see what the host did.
const PATIENCE: Duration = Duration::from_mins(2);
const MIB: u64 = 1 << 20;

/// A gateway that the guest reaches by its port.
struct Gateway {
    process: Process,
    port: u16,
}

impl Gateway {
    fn start(node: &Node, group: u16) -> Result<Self> {
        // Hosts are told another address than the one where the gateway listens, so the port must be known before.
        let free: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::start_at(node, group, free)
    }

    fn start_at(node: &Node, group: u16, at: SocketAddr) -> Result<Self> {
        let port = at.port();
        let words = [
            "--storaged".to_owned(),
            node.session_socket().display().to_string(),
            "--admin-socket".to_owned(),
            node.admin_socket().display().to_string(),
            "--listen".to_owned(),
            at.to_string(),
            "--announce".to_owned(),
            format!("{GATEWAYS}:{port}"),
            "--portal-group".to_owned(),
            group.to_string(),
        ];
        let log = node.folder().join(format!("gateway-{group}.log"));
        let mut process = Process::start("storaged-iscsi", words, &log)?;
        process.wait_for("the gateway to listen", || says_so(&log))?;
        Ok(Self { process, port })
    }
}

fn says_so(log: &Path) -> Option<()> {
    let said = std::fs::read_to_string(log).ok()?;
    said.contains("listening on ").then_some(())
}

/// CHAP, discovery, a file system on two paths of which one is killed under load; then growth, and space that is given
/// back.
pub(super) fn two_paths(setting: &Setting) -> Result<()> {
    let node = prepare()?;
    let gateways = [Gateway::start(&node, 1)?, Gateway::start(&node, 2)?];
    let mut guest = setting.boot_host()?;
    log_in(&mut guest, &gateways)?;
    join_paths(&mut guest)?;
    guest.run("mkfs.ext4 -q /dev/dm-0 && mount /dev/dm-0 /mnt && cp /bin/busybox /mnt/before")?;
    ensure!(active_paths(&mut guest)? == 2, "both paths are used");
    let fio = fio_verify("/mnt/file", 64);
    guest.start("fio", &format!("{fio} --size=16M"))?;
    let [mut first, _second] = gateways;
    wait_for("fio to write", PATIENCE, || {
        Ok((guest.try_run("test $(stat -c %b /mnt/file) -gt 1000")?.status == 0).then_some(()))
    })?;
    first.process.kill()?;
    guest.wait_for_end("fio", PATIENCE * 3)?;
    ensure!(active_paths(&mut guest)? == 1, "one path has failed");
    let again = SocketAddr::from(([127, 0, 0, 1], first.port));
    let _first = Gateway::start_at(&node, 1, again)?;
    wait_for("the path to be used again", PATIENCE, || {
        Ok((active_paths(&mut guest)? == 2).then_some(()))
    })?;
    guest.run("cmp /bin/busybox /mnt/before")?;
    gives_space_back(&mut guest, &node)?;
    guest.run("umount /mnt && e2fsck -fn /dev/dm-0")?;
    grows(&mut guest, &node)?;
    guest.power_off()
}

/// A volume that is the LUN of a target for a host with a secret.
fn prepare() -> Result<Node> {
    let node = Node::start(3)?;
    let secret = node.folder().join("secret");
    std::fs::write(&secret, SECRET)?;
    let secret = secret.display().to_string();
    let chap = ["--chap-user", "host", "--chap-secret-file", &secret];
    node.storagectl(&["pool", "create", "main", "--copies", "3"])?;
    node.storagectl(&["volume", "create", "disk", "256M"])?;
    node.storagectl(&["iscsi", "target", "create", TARGET])?;
    node.storagectl(&["iscsi", "lun", "add", TARGET, "disk"])?;
    node.storagectl(&[&["iscsi", "acl", "add", TARGET, HOST], &chap[..]].concat())?;
    Ok(node)
}

/// Finds both portals by one of them, and logs in by both.
fn log_in(guest: &mut Guest, gateways: &[Gateway; 2]) -> Result<()> {
    guest.run("ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0")?;
    guest.run(&format!(
        "mkdir -p /etc/iscsi /var/lib/iscsi /run/lock /var/lock && echo InitiatorName={HOST} > /etc/iscsi/initiatorname.iscsi \
         && echo node.startup = manual > /etc/iscsi/iscsid.conf && echo root:x:0:0::/:/bin/sh > /etc/passwd && iscsid"
    ))?;
    let found = guest.run(&format!(
        "iscsiadm -m discovery -t sendtargets -p {GATEWAYS}:{} 2>&1",
        gateways[0].port
    ))?;
    ensure!(found.matches(TARGET).count() == 2, "two portals: {found}");
    let refused = guest.try_run(&format!("iscsiadm -m node -T {TARGET} --login 2>&1"))?;
    ensure!(
        refused.status != 0 && refused.text.contains("authorization failure"),
        "without its secret the host is not let in: {}",
        refused.text
    );
    for (name, value) in [
        ("node.session.auth.authmethod", "CHAP"),
        ("node.session.auth.username", "host"),
        ("node.session.auth.password", SECRET),
        // Paths that are dead are given up at once: there is another one.
        ("node.session.timeo.replacement_timeout", "1"),
    ] {
        guest.run(&format!(
            "iscsiadm -m node -T {TARGET} -o update -n {name} -v {value}"
        ))?;
    }
    guest.run(&format!("iscsiadm -m node -T {TARGET} --login 2>&1"))?;
    wait_for("the guest to see two disks", PATIENCE, || {
        Ok((guest.try_run("test -b /dev/sda && test -b /dev/sdb")?.status == 0).then_some(()))
    })?;
    Ok(())
}

/// QEMU is the initiator: it writes a disk that starts by itself into a volume, and starts a guest from there.
pub(super) fn boots(setting: &Setting) -> Result<()> {
    let node = prepare()?;
    // The name by which QEMU's tools log in.
    node.storagectl(&["iscsi", "acl", "add", TARGET, "iqn.2008-11.org.linux-kvm"])?;
    let gateway = Gateway::start(&node, 1)?;
    let unit = format!("iscsi://127.0.0.1:{}/{TARGET}/0", gateway.port);
    let image = setting.image.boot_disk.display().to_string();
    let written = Command::new("qemu-img")
        .args(["convert", "-n", "-f", "raw", "-O", "raw", &image, &unit])
        .output()?;
    let said = String::from_utf8_lossy(&written.stderr);
    ensure!(written.status.success(), "qemu-img: {said}");
    let mut guest = setting.boot_from(format!("file={unit},format=raw,if=virtio,cache=none"))?;
    guest.run("test $(cat /sys/block/vda/size) = 524288")?;
    guest.run("dd if=/dev/urandom of=/tmp/a bs=1M count=8 2>/dev/null && dd if=/tmp/a of=/dev/vda bs=1M seek=100 conv=fsync 2>/dev/null")?;
    guest.run(
        "echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/vda bs=1M skip=100 count=8 2>/dev/null | cmp - /tmp/a",
    )?;
    guest.power_off()
}

/// What docs/operations/iscsi.md tells hosts to write, and no waiting for what is not there.
const MULTIPATH: &str = "defaults { polling_interval 1
 find_multipaths no }
devices { device { vendor STORAGED
 product VOLUME
 path_grouping_policy group_by_prio
 prio alua
 failback immediate
 no_path_retry queue
 fast_io_fail_tmo 5 } }";

/// multipathd makes one disk of the two.
fn join_paths(guest: &mut Guest) -> Result<()> {
    guest.run(&format!(
        "mkdir -p /run/udev /etc/multipath && printf '{}' > /etc/multipath.conf && systemd-udevd --daemon \
         && udevadm trigger --action=add && udevadm settle && multipathd",
        MULTIPATH.replace('\n', "\\n")
    ))?;
    wait_for("multipathd to join the paths", PATIENCE, || {
        Ok((guest.try_run("test -b /dev/dm-0")?.status == 0).then_some(()))
    })?;
    let told = guest.run("multipath -ll")?;
    ensure!(
        told.contains("STORAGED") && told.contains("prio=50") && told.contains("alua"),
        "both ways are optimised, by the unit's own words: {told}"
    );
    Ok(())
}

/// How many paths are not known to have failed.
fn active_paths(guest: &mut Guest) -> Result<usize> {
    let table = guest.run("dmsetup status")?;
    // Each path is its device's number, then A or F.
    let words: Vec<&str> = table.split_whitespace().collect();
    let paths = words
        .windows(2)
        .filter(|pair| pair[0].starts_with("8:") && pair[1] == "A");
    Ok(paths.count())
}

/// Files are deleted, and what they took up is free in the cluster.
fn gives_space_back(guest: &mut Guest, node: &Node) -> Result<()> {
    guest.run("dd if=/dev/urandom of=/mnt/large bs=1M count=64 conv=fsync 2>/dev/null")?;
    let before = used(node)?;
    guest.run("rm /mnt/large && sync && fstrim /mnt")?;
    wait_for("space to be free again", PATIENCE, || {
        Ok((used(node)? + 150 * MIB < before).then_some(()))
    })
}

/// Bytes that the volume takes on all disks.
fn used(node: &Node) -> Result<u64> {
    let info: Value = serde_json::from_str(&node.storagectl(&["--json", "volume", "info", "disk"])?)?;
    info["space"]["own"].as_u64().context("no space is told")
}

/// The volume grows, and the host sees it when it looks.
fn grows(guest: &mut Guest, node: &Node) -> Result<()> {
    node.storagectl(&["volume", "grow", "disk", "512M"])?;
    guest.try_run("iscsiadm -m session --rescan 2>&1")?;
    let sectors = (512 * MIB / 512).to_string();
    wait_for("the guest to see the new size", PATIENCE, || {
        let sizes = guest.run("cat /sys/block/sda/size /sys/block/sdb/size")?;
        Ok(sizes.split_whitespace().all(|size| size == sectors).then_some(()))
    })?;
    guest.run("multipathd resize map $(dmsetup ls --target multipath | cut -f 1)")?;
    let size = guest.run("cat /sys/block/dm-0/size")?;
    ensure!(size.trim() == sectors, "the joined disk has {size} sectors");
    Ok(())
}
