//! Namespaces of this program's own: network, mounts, processes. Whatever hosts do stays in them, and all of it is gone when
//! the program ends, however it ends. It does not know what runs in them.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Says to this program that it is in namespaces of its own by now.
const INSIDE: &str = "STORAGED_HOSTS_INSIDE";
/// The switch that hosts are plugged into, which is also this program's own place in the network.
pub(crate) const SWITCH: &str = "switch";
/// The network that all are in, of which nobody outside knows.
const NETWORK: [u8; 3] = [10, 214, 77];
/// This program's own address in it.
pub(crate) const SWITCH_ADDRESS: Ipv4Addr = in_network(254);

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
        "hosts need root: they are made of namespaces, and mount file systems (in namespaces of their own)"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"]);
    command.args(["--mount-proc", "--"]);
    command.arg(std::env::current_exe().context("find this program")?);
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(command.exec()).context("start unshare (of util-linux)")
}

/// Makes the network. Call it once, in namespaces of our own.
pub(crate) fn raise() -> Result<()> {
    ip("link set lo up")?;
    ip(&format!("link add name {SWITCH} type bridge"))?;
    ip(&format!("addr add {SWITCH_ADDRESS}/24 dev {SWITCH}"))?;
    ip(&format!("link set {SWITCH} up"))
}

/// Where a host is, by its number from 1 on.
pub(crate) fn address(number: u8) -> String {
    in_network(number).to_string()
}

const fn in_network(number: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, number)
}

/// Runs a program of the system's; an error says what it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    finish(Command::new(program).args(arguments))
}

/// Runs a command that must succeed, and gives what it printed; an error says what it said.
pub(crate) fn finish(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}: is it installed?"))?;
    if !output.status.success() {
        let said = [&output.stdout[..], &output.stderr].concat();
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn ip(words: &str) -> Result<()> {
    let words: Vec<&str> = words.split(' ').collect();
    run("ip", &words).map(drop)
}
