//! A compute host: a machine with a kernel of its own that becomes a node, and has volumes as a block device and as a socket, as
//! `cinder-api` would want them. What writes the wish here is etcd's own client.

use anyhow::{Context, Result, ensure};
use vm_tests::scenarios::Setting;

use super::Stage;
use super::member::ETCDCTL;
use crate::host::Host;

/// The volume that the host has as a block device.
const VOLUME: &str = "attached";
/// The one that it has as a socket.
const SOCKET_VOLUME: &str = "plugged";
/// Where the host finds the first one.
const DEVICE: &str = "/dev/storaged/attached";
/// What is written, and read again: as many MiB.
const MEGABYTES: u32 = 24;
/// What is asked for where something does not happen.
const TELL: &str = "storaged-attach list; journalctl --no-pager -n 20 -u 'storaged*'";

impl Stage {
    /// How guests run here; found out when it is asked first.
    pub(super) fn setting(&mut self) -> Result<&Setting> {
        let setting = match self.setting.take() {
            Some(setting) => setting,
            None => Setting::prepare(&self.guest)?,
        };
        Ok(self.setting.insert(setting))
    }

    pub(super) fn add_compute_host(&mut self) -> Result<()> {
        let setting = self.setting()?.clone();
        let number = self.lab.hosts.len();
        self.lab.start_machine(&setting)?;
        // Hosts between were members of etcd only.
        self.gone.extend(self.known..number);
        self.known = number + 1;
        self.nova = vec![number];
        let version = self.lab.packages.second.clone();
        self.write_inventory(&version)?;
        let name = self.machine()?.name.clone();
        self.ansible.play("add_node", &["--limit", &name])?;
        let compute = ["--limit", &name, "--tags", "nova"];
        self.ansible.play("site", &compute)?;
        self.ansible.play_idly("site", &compute)?;
        let machine = self.machine()?;
        machine.ssh("systemctl is-active storaged-attach storaged-attach-nbd && lsmod | grep -q '^nbd '")?;
        let failed = machine.ssh("systemctl --failed --no-legend --plain")?;
        ensure!(failed.is_empty(), "units of {name} have failed: {failed}");
        self.goes_on()
    }

    /// The device outlives the restart of each part, and is there again when the host was started anew.
    pub(super) fn use_block_device(&mut self) -> Result<()> {
        self.storagectl(0, &format!("volume create {VOLUME} 64M"))?;
        self.wish(&format!("put {} '{{\"format\":1}}'", self.key(VOLUME)?))?;
        let machine = self.machine()?;
        machine.until(&format!("test -b {DEVICE}"), TELL)?;
        machine.ssh(&format!(
            "set -e; mkfs.ext4 -q {DEVICE}; mount {DEVICE} /mnt; \
             head -c {MEGABYTES}M /dev/urandom > /root/content; sha256sum < /root/content > /root/sum"
        ))?;
        for unit in ["storaged-attach-nbd", "storaged-attach", "storaged"] {
            machine
                .ssh(&format!(
                    "rm -f /mnt/content; dd if=/root/content of=/mnt/content bs=64k conv=fsync 2> /root/dd & \
                     systemctl restart {unit} || exit; wait $! || {{ cat /root/dd; dmesg | tail -n 20; exit 1; }}; \
                     echo 3 > /proc/sys/vm/drop_caches; sha256sum < /mnt/content | cmp - /root/sum || \
                     {{ cmp /root/content /mnt/content; dmesg | tail -n 20; exit 1; }}"
                ))
                .with_context(|| format!("write while {unit} is started anew"))?;
        }
        self.miss_storaged()?;
        let machine = self.machine()?;
        let said = machine.ssh("dmesg | grep -E 'I/O error|EXT4-fs error' || true")?;
        ensure!(said.is_empty(), "the host has seen errors: {said}");
        // Defect guarded: it is mounted by hand, and the host stopped the gateway first and stood still for minutes.
        self.restart_machine()?;
        let machine = self.machine()?;
        // It is there before what needs it starts, so nobody waits here.
        machine.ssh(&format!(
            "set -e; systemctl is-active storaged-attach; e2fsck -fp {DEVICE} > /root/check; mount {DEVICE} /mnt; \
             test \"$(sha256sum < /mnt/content)\" = \"$(cat /root/sum)\"; umount /mnt"
        ))?;
        self.wish(&format!("del {}", self.key(VOLUME)?))?;
        let machine = self.machine()?;
        machine.until(&format!("! test -e {DEVICE}"), TELL)?;
        self.goes_on()
    }

    /// The agent has systemd run a `vhost-blk` for as long as the host shall have the volume: the socket outlives a restart of the
    /// agent, is there again when its program was killed, and a host that was restarted has it again.
    pub(super) fn use_socket(&mut self) -> Result<()> {
        self.storagectl(0, &format!("volume create {SOCKET_VOLUME} 64M"))?;
        let key = self.key(SOCKET_VOLUME)?;
        self.wish(&format!("put {key} '{{\"format\":1,\"way\":\"vhost_user\"}}'"))?;
        let unit = format!("storaged-vhost-blk@{SOCKET_VOLUME}");
        let answers =
            format!("storagectl vhost stats /run/storaged-vhost/{SOCKET_VOLUME}.control > /dev/null 2>&1");
        let process = format!("systemctl show --property MainPID --value {unit}");
        let machine = self.machine()?;
        machine.until(&answers, TELL)?;
        self.host(0)?.until(
            &format!(
                "{ETCDCTL} get {} | grep -q {SOCKET_VOLUME}.sock",
                key.replace("/want/", "/have/")
            ),
            &format!("{ETCDCTL} get --prefix /openstack-attach"),
        )?;
        let first = machine.ssh(&process)?;
        machine.ssh("systemctl restart storaged-attach")?;
        ensure!(
            machine.ssh(&process)? == first,
            "the agent's restart has started {unit} anew"
        );
        machine.ssh(&format!("kill -KILL {first}"))?;
        machine.until(
            &format!("test \"$({process})\" != {} && {answers}", first.trim()),
            TELL,
        )?;
        self.restart_machine()?;
        let machine = self.machine()?;
        machine.until(&answers, TELL)?;
        self.wish(&format!("del {key}"))?;
        machine.until(
            &format!("! systemctl is-active --quiet {unit}.socket {unit}.service"),
            TELL,
        )?;
        machine.ssh("test -z \"$(ls /run/storaged-attach-vhost)\"")?;
        self.goes_on()
    }

    /// Its `storaged` is away until the attachment has lapsed: what is written meanwhile waits.
    fn miss_storaged(&self) -> Result<()> {
        let machine = self.machine()?;
        let count = format!("{ETCDCTL} get --prefix / --keys-only | grep -c /attached/");
        let before = self.host(0)?.ssh(&count)?;
        machine.ssh(
            "systemctl stop storaged; rm -f /mnt/content /root/status; \
             (dd if=/root/content of=/mnt/content bs=64k conv=fsync 2> /root/dd; echo $? > /root/status) \
             > /dev/null 2>&1 < /dev/null &",
        )?;
        let lapsed = format!("test $({count}) -lt {}", before.trim());
        self.host(0)?.until(&lapsed, &count)?;
        machine.ssh("test ! -e /root/status || exit 1; systemctl start storaged")?;
        machine.until("test -e /root/status", TELL)?;
        machine
            .ssh(
                "set -e; test $(cat /root/status) = 0; echo 3 > /proc/sys/vm/drop_caches; \
                 sha256sum < /mnt/content | cmp - /root/sum",
            )
            .map(drop)
            .with_context(|| {
                machine
                    .ssh("cat /root/dd; dmesg | tail -n 20")
                    .unwrap_or_default()
            })
    }

    fn restart_machine(&mut self) -> Result<()> {
        let boot = "cat /proc/sys/kernel/random/boot_id";
        let machine = self
            .nova
            .last()
            .and_then(|number| self.lab.hosts.get_mut(*number))
            .context("there is no machine")?;
        let before = machine.ssh(boot)?;
        // The connection ends with the host.
        let _ = machine.ssh("systemctl reboot");
        machine.await_other(boot, &before)?;
        machine.await_start()
    }

    fn machine(&self) -> Result<&Host> {
        self.host(*self.nova.last().context("there is no compute host")?)
    }

    /// Where it stands that the host shall have the volume.
    fn key(&self, volume: &str) -> Result<String> {
        let name = &self.machine()?.name;
        Ok(format!("/openstack-attach/storaged/attach/want/{name}/{volume}"))
    }

    fn wish(&self, words: &str) -> Result<()> {
        self.host(0)?.ssh(&format!("{ETCDCTL} {words}")).map(drop)
    }
}
