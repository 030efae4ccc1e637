//! The machines' network: a namespace for each node, a bridge that they are plugged into, and what may become of
//! their cables. It does not know what runs in them.
//!
//! All of it lies in namespaces of this program's own, so that nothing of the machine's is touched, and that nothing is
//! left when the program ends, however it ends.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// So many nodes, one etcd member each.
pub(crate) const NODES: usize = 3;
/// Says to this program that it is in namespaces of its own by now.
const INSIDE: &str = "STORMS_INSIDE";
/// Where `ip netns` keeps the files that stand for namespaces.
const FOLDER: &str = "/run/netns";
/// The bridge, which is also this program's own place in the network.
const HUB: &str = "hub";
/// The network that all are in. Nobody outside sees it.
const NETWORK: [u8; 3] = [10, 213, 77];
/// The bridge's own address in it.
const HUB_ADDRESS: u8 = 254;
/// Relays for a node have its number, plus this.
const RELAYED: u8 = 100;
/// A hardware address that no machine has.
const NOBODY: &str = "02:00:00:00:00:99";

/// Whether this program is in namespaces of its own already.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Starts this program anew in namespaces of its own, unless it is there already. Comes back only where it is.
pub(crate) fn enter() -> Result<()> {
    if is_inside() {
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "storms need root: they make network namespaces and mount file systems (in namespaces of their own)"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--"]);
    command.arg(std::env::current_exe().context("find this program")?);
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(command.exec()).context("start unshare (of util-linux)")
}

/// Where a node, counted from 0, is.
pub(crate) fn address(node: usize) -> Ipv4Addr {
    host(number(node))
}

/// Where relays for a node listen.
pub(crate) fn relayed(node: usize) -> Ipv4Addr {
    host(RELAYED.saturating_add(number(node)))
}

/// The file that stands for a node's network namespace.
pub(crate) fn namespace(node: usize) -> PathBuf {
    PathBuf::from(FOLDER).join(name(node))
}

/// Makes the network. Call it once, in namespaces of our own.
pub(crate) fn raise() -> Result<()> {
    std::fs::create_dir_all(FOLDER).context("make the folder of namespaces")?;
    run("mount", &["-t", "tmpfs", "storms", FOLDER])?;
    ip("link set lo up")?;
    ip(&format!("link add name {HUB} type bridge"))?;
    ip(&format!("link set {HUB} up"))?;
    ip(&format!("addr add {}/24 dev {HUB}", host(HUB_ADDRESS)))?;
    for node in 0..NODES {
        let (name, cable) = (name(node), cable(node));
        ip(&format!("addr add {}/24 dev {HUB}", relayed(node)))?;
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add name {cable} type veth peer name eth0 netns {name}"
        ))?;
        ip(&format!("link set {cable} master {HUB} up"))?;
        ip(&format!("-netns {name} link set lo up"))?;
        ip(&format!("-netns {name} addr add {}/24 dev eth0", address(node)))?;
        ip(&format!("-netns {name} link set eth0 up"))?;
    }
    Ok(())
}

/// Pulls a node's cable, or plugs it in.
pub(crate) fn plug(node: usize, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    ip(&format!("link set {} {state}", cable(node)))
}

/// What one node sends to another is lost without a trace, or arrives again. The other way nothing changes.
pub(crate) fn lose(from: usize, to: usize, lost: bool) -> Result<()> {
    let (name, to) = (name(from), address(to));
    if lost {
        ip(&format!(
            "-netns {name} neigh replace {to} lladdr {NOBODY} dev eth0 nud permanent"
        ))
    } else {
        ip(&format!("-netns {name} neigh del {to} dev eth0"))
    }
}

/// Makes whole what a scenario may have left broken.
pub(crate) fn heal() -> Result<()> {
    for node in 0..NODES {
        plug(node, true)?;
        for other in (0..NODES).filter(|other| *other != node) {
            // There is nothing to forget where nothing was lost.
            let _ = lose(node, other, false);
        }
    }
    Ok(())
}

/// Runs a program of the system's; an error says what it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("start {program}: is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed: {}", arguments.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn ip(words: &str) -> Result<()> {
    let words: Vec<&str> = words.split(' ').collect();
    run("ip", &words).map(drop)
}

fn host(last: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, last)
}

fn number(node: usize) -> u8 {
    u8::try_from(node + 1).unwrap_or(u8::MAX)
}

fn name(node: usize) -> String {
    format!("node-{}", number(node))
}

fn cable(node: usize) -> String {
    format!("cable-{}", number(node))
}
