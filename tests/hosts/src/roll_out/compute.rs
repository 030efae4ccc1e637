//! A compute host: a machine with a kernel of its own that becomes a node, and has a volume as a block device, as
//! `cinder-api` would want it. What writes the wish here is etcd's own client.

use anyhow::{Context, Result, ensure};
use vm_tests::scenarios::Setting;

use super::member::ETCDCTL;
use super::{Stage, TRIES};
use crate::host::Host;

/// The volume that the host has.
const VOLUME: &str = "attached";
/// Where the host finds it.
const DEVICE: &str = "/dev/storaged/attached";
/// What is written, and read again: as many MiB.
const MEGABYTES: u32 = 24;

/// Does a command until it succeeds, for a while.
fn patiently(what: &str) -> String {
    format!("for try in $(seq {TRIES}); do {what} && exit 0; sleep 1; done; exit 1")
}

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
        self.wish(&format!("put {} '{{\"format\":1}}'", self.key()?))?;
        let machine = self.machine()?;
        let tell = "storaged-attach list; journalctl --no-pager -n 20 -u 'storaged-attach*'";
        machine
            .ssh(&patiently(&format!("test -b {DEVICE}")))
            .with_context(|| machine.ssh(tell).unwrap_or_default())?;
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
        self.wish(&format!("del {}", self.key()?))?;
        let machine = self.machine()?;
        machine.ssh(&patiently(&format!("! test -e {DEVICE}")))?;
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
        self.host(0)?.ssh(&patiently(&lapsed))?;
        machine.ssh(&format!(
            "test ! -e /root/status || exit 1; systemctl start storaged; {}",
            patiently("test -e /root/status")
        ))?;
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
    fn key(&self) -> Result<String> {
        let name = &self.machine()?.name;
        Ok(format!("/openstack-attach/storaged/attach/want/{name}/{VOLUME}"))
    }

    fn wish(&self, words: &str) -> Result<()> {
        self.host(0)?.ssh(&format!("{ETCDCTL} {words}")).map(drop)
    }
}
