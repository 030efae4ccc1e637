//! What an operator does with the collection, step by step, and what must hold after each.

mod compute;
mod identity;
mod member;
pub(crate) mod nova;
pub(crate) mod proxmox;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_openstack::Keystone;
use vm_tests::guest::Disk;
use vm_tests::scenarios::{Setting, fio_verify};

use crate::ansible::Ansible;
use crate::host::Host;
use crate::lab::Lab;
use crate::writer::{BLOCKS, Writer};

/// Hosts that the cluster begins with.
const HOSTS: usize = 3;
/// Bytes of a block of the writer's.
const BLOCK: u64 = crate::pattern::BLOCK;
/// The volume that is written to all the time.
const VOLUME: &str = "written";
/// The volume that a guest has as its disk.
const GUEST_VOLUME: &str = "guest";
/// The gateway through which is written.
const GATEWAY: &str = "/run/storaged-nbd/main.sock";
/// What the guest's fio writes, for each of its two jobs.
const MEGABYTES: u32 = 8;

/// Something that is done, and judged.
pub(crate) struct Deed {
    /// What is said of it.
    pub(crate) what: &'static str,
    pub(crate) act: fn(&mut Stage) -> Result<()>,
    /// Whether the brief form has it, too: not what changes nothing and takes minutes, nor what needs a kernel of its own.
    pub(crate) brief: bool,
}

const fn deed(what: &'static str, act: fn(&mut Stage) -> Result<()>) -> Deed {
    Deed {
        what,
        act,
        brief: true,
    }
}

const fn idle(what: &'static str, act: fn(&mut Stage) -> Result<()>) -> Deed {
    Deed {
        what,
        act,
        brief: false,
    }
}

/// All deeds, in the order in which they are done.
pub(crate) const DEEDS: [Deed; 27] = [
    deed("three hosts start", Stage::start),
    idle("check mode from nothing", Stage::check_from_nothing),
    deed("roll-out from nothing", Stage::roll_out),
    idle("roll-out again: nothing changes", Stage::roll_out_again),
    idle(
        "check mode of a whole cluster: nothing would change",
        Stage::check_again,
    ),
    deed("a volume through NBD", Stage::use_nbd),
    deed("a volume through vhost-user-blk, in a guest", Stage::use_vhost),
    deed("figures reach Prometheus", Stage::ask_prometheus),
    idle("the API in the catalogue of a real Keystone", Stage::register),
    idle("another password in Keystone is mended", Stage::mend_password),
    idle(
        "Nova's configuration, read by Nova's own code",
        Stage::configure_nova,
    ),
    idle(
        "Proxmox VE's programs: no storage before all nodes have the plugin",
        Stage::add_to_proxmox,
    ),
    deed("a fourth host starts", Stage::start_another),
    deed("a node more, under verified I/O", Stage::add_node),
    deed("rolling upgrade, under verified I/O", Stage::upgrade),
    deed("certificates are made anew, under verified I/O", Stage::rotate),
    deed(
        "a host that lost its system is restored, under verified I/O",
        Stage::restore,
    ),
    deed(
        "etcd begins anew with its backup, under verified I/O",
        Stage::restore_etcd,
    ),
    deed("a disk is replaced, under verified I/O", Stage::replace_disk),
    deed("a node less, under verified I/O", Stage::remove_node),
    idle(
        "a member of etcd is replaced by a new host, under verified I/O",
        Stage::replace_member,
    ),
    idle(
        "a member's host dies, and another takes its place, under verified I/O",
        Stage::replace_dead_member,
    ),
    idle("roll-out at the end: nothing changes", Stage::roll_out_again),
    idle("a compute host with a kernel of its own", Stage::add_compute_host),
    idle(
        "a volume as a block device, through restarts of all and of the host",
        Stage::use_block_device,
    ),
    idle(
        "a volume as a socket for guests, through restarts of its parts",
        Stage::use_socket,
    ),
    deed("nothing is lost", Stage::verify),
];

/// The lab, and what happens in it.
pub(crate) struct Stage {
    lab: Lab,
    ansible: Ansible,
    guest: PathBuf,
    /// How guests run, once that has been found out.
    setting: Option<Setting>,
    /// Where what was fetched is kept.
    folder: PathBuf,
    /// How many hosts the inventory has.
    known: usize,
    /// Which hosts, counted from 0, are not nodes any more.
    gone: Vec<usize>,
    writer: Option<Writer>,
    /// Who vouches for users of the API, once it runs.
    keystone: Option<Keystone>,
    /// Which hosts, counted from 0, are compute hosts.
    nova: Vec<usize>,
    /// Which hosts, counted from 0, are nodes of Proxmox VE.
    proxmox: Vec<usize>,
    /// Which hosts, counted from 0, are members of etcd.
    members: Vec<usize>,
}

impl Stage {
    pub(crate) fn new(lab: Lab, ansible: Ansible, guest: &Path, folder: &Path) -> Self {
        Self {
            lab,
            ansible,
            guest: guest.to_owned(),
            setting: None,
            folder: folder.to_owned(),
            known: 0,
            gone: Vec::new(),
            writer: None,
            keystone: None,
            nova: Vec::new(),
            proxmox: Vec::new(),
            members: (0..HOSTS).collect(),
        }
    }

    /// Starts hosts, and a shell beside them.
    pub(crate) fn shell(&mut self, hosts: usize) -> Result<()> {
        self.lab.start(hosts)?;
        self.known = hosts;
        let version = self.lab.packages.first.clone();
        self.write_inventory(&version)?;
        let status = self.ansible.command_of_system("bash").status()?;
        ensure!(status.success(), "the shell ended with {status}");
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.lab.start(HOSTS)?;
        self.known = HOSTS;
        let version = self.lab.packages.first.clone();
        self.write_inventory(&version)
    }

    fn check_from_nothing(&mut self) -> Result<()> {
        let sums = self.ansible.play("site", &["--check"])?;
        ensure!(sums.changed > 0, "it says that there is nothing to do");
        let left = self
            .host(0)?
            .ssh("ls -d /etc/storaged /etc/etcd 2>/dev/null || true")?;
        ensure!(left.is_empty(), "check mode has made {left}");
        Ok(())
    }

    fn roll_out(&mut self) -> Result<()> {
        self.ansible.play("site", &[])?;
        let status = self.storagectl(0, "status")?;
        ensure!(status["health"] == "ok", "the cluster is not well: {status}");
        let failed = "systemctl --failed --no-legend --plain";
        for host in &self.lab.hosts {
            let failed = host.ssh(failed)?;
            ensure!(failed.is_empty(), "units of {} have failed: {failed}", host.name);
        }
        self.expect_nodes(HOSTS)?;
        self.until(
            &format!("test $(storagectl iscsi portal list | grep -c 3260) = {HOSTS}"),
            "storagectl iscsi portal list",
        )
    }

    fn roll_out_again(&mut self) -> Result<()> {
        self.ansible.play_idly("site", &[]).map(drop)
    }

    fn check_again(&mut self) -> Result<()> {
        self.ansible.play_idly("site", &["--check"]).map(drop)
    }

    fn use_nbd(&mut self) -> Result<()> {
        let size = BLOCKS * BLOCK;
        self.storagectl(0, &format!("volume create {VOLUME} {size}"))?;
        self.host(0)?.ssh(&format!(
            "set -e; cd /root; apt-get -qq -y install libnbd-bin > /dev/null; truncate -s {size} zero; \
             nbdcopy zero 'nbd+unix:///{VOLUME}?socket={GATEWAY}'; \
             nbdinfo --size 'nbd+unix:///{VOLUME}?socket={GATEWAY}'; rm zero"
        ))?;
        let socket = self.host(0)?.path(GATEWAY)?;
        self.writer = Some(Writer::start(&socket, VOLUME, 1)?);
        Ok(())
    }

    fn use_vhost(&mut self) -> Result<()> {
        self.storagectl(1, &format!("volume create {GUEST_VOLUME} 64M"))?;
        self.host(1)?.ssh(&format!(
            "systemctl start storaged-vhost-blk@{GUEST_VOLUME}.socket storaged-vhost-blk@{GUEST_VOLUME}.service"
        ))?;
        let socket = self
            .host(1)?
            .path(&format!("/run/storaged-vhost/{GUEST_VOLUME}.sock"))?;
        let mut guest = self.setting()?.boot_with_fio(vec![Disk::at(socket)])?;
        guest.run(&fio_verify("/dev/vda", MEGABYTES))?;
        let log = guest.kernel_log();
        ensure!(!log.contains("I/O error"), "the guest has seen errors: {log}");
        guest.power_off()?;
        self.host(1)?
            .ssh(&format!("systemctl stop storaged-vhost-blk@{GUEST_VOLUME}.socket storaged-vhost-blk@{GUEST_VOLUME}.service"))
            .map(drop)
    }

    /// Every node tells of all disks, and one has the API.
    fn ask_prometheus(&mut self) -> Result<()> {
        let ask = |what: &str| format!("promtool query instant http://127.0.0.1:9090 '{what}'");
        let disks = ask(r#"count(storaged_disk_up{job="storaged"} == 1)"#);
        let told = HOSTS * 2 * HOSTS;
        self.until(&format!("{disks} | grep -q '=> {told} '"), &disks)?;
        let cinder = ask("cinder_api_processes");
        self.until(&format!("{cinder} | grep -q '=> 1 '"), &cinder)
    }

    fn start_another(&mut self) -> Result<()> {
        self.lab.start(1)?;
        self.known += 1;
        let version = self.lab.packages.first.clone();
        self.write_inventory(&version)
    }

    fn add_node(&mut self) -> Result<()> {
        self.ansible.play("add_node", &["--limit", "host-4"])?;
        self.expect_nodes(HOSTS + 1)?;
        self.goes_on()
    }

    fn upgrade(&mut self) -> Result<()> {
        let version = self.lab.packages.second.clone();
        self.write_inventory(&version)?;
        self.ansible.play("upgrade", &[])?;
        for host in 0..self.known {
            let host = self.host(host)?;
            let installed = host.ssh("dpkg-query -W -f '${Version}' storaged")?;
            ensure!(
                installed == version,
                "{} has {installed}, and not {version}",
                host.name
            );
        }
        self.use_api()?;
        self.goes_on()
    }

    fn rotate(&mut self) -> Result<()> {
        let serials = |stage: &Self| {
            stage
                .host(0)?
                .ssh("for file in /etc/etcd/member.pem /etc/storaged/etcd/client.pem; do openssl x509 -serial -noout -in $file; done")
        };
        let before = serials(self)?;
        self.ansible.play("rotate_certificates", &[])?;
        let after = serials(self)?;
        let same = before
            .lines()
            .zip(after.lines())
            .any(|(before, after)| before == after);
        ensure!(!same, "certificates are the same: {after}");
        self.goes_on()
    }

    fn restore(&mut self) -> Result<()> {
        self.ansible.play("backup", &[])?;
        let lost = self.host(1)?;
        lost.ssh("systemctl disable --now storaged && rm -rf /etc/storaged/storaged.toml /etc/storaged/etcd /var/lib/storaged")?;
        self.ansible.play("restore", &["--limit", "host-2"])?;
        self.ansible.play("site", &["--limit", "host-2"])?;
        self.until_whole()?;
        self.expect_nodes(HOSTS + 1)?;
        self.goes_on()
    }

    /// What came after the backup, nodes give back.
    fn restore_etcd(&mut self) -> Result<()> {
        self.ansible.play("backup", &[])?;
        self.storagectl(0, "volume create later 4M")?;
        self.ansible.play("restore_etcd", &["-e", "etcd_restore=yes"])?;
        self.until(
            "storagectl volume list | grep -q '^later '",
            "storagectl volume list",
        )?;
        self.until_whole()?;
        self.goes_on()
    }

    /// The new one is added, and the old one emptied and taken out.
    fn replace_disk(&mut self) -> Result<()> {
        let disk = |name: &str, number: u8, state: &str| {
            json!({
                "name": name,
                "device": format!("/dev/disk/by-id/virtio-host-4-disk-{number}"),
                "state": state,
            })
        };
        let disks = [
            disk("one", 1, "present"),
            disk("two", 2, "absent"),
            disk("three", 3, "present"),
        ];
        let variables = json!({ "storaged_disks": disks }).to_string();
        let options = ["--limit", "host-4", "-e", &variables];
        self.ansible.play("disks", &options)?;
        let mounted = self
            .host(3)?
            .ssh("ls /srv/storaged; findmnt --noheadings --output TARGET --types xfs")?;
        ensure!(
            mounted.contains("/srv/storaged/three") && !mounted.contains("/srv/storaged/two\n"),
            "not the right disks are mounted: {mounted}"
        );
        let list = self.storagectl(0, "disk list")?;
        let disks = list["disks"].as_array().context("there is no list of disks")?;
        ensure!(disks.len() == 2 * (HOSTS + 1), "there are {} disks", disks.len());
        self.goes_on()?;
        self.ansible.play_idly("disks", &options).map(drop)
    }

    fn remove_node(&mut self) -> Result<()> {
        let last = self.known - 1;
        let name = self.host(last)?.name.clone();
        self.ansible
            .play("remove_node", &["-e", &format!("storaged_remove={name}")])?;
        self.gone.push(last);
        self.expect_nodes(HOSTS)?;
        self.goes_on()?;
        let version = self.lab.packages.second.clone();
        self.write_inventory(&version)
    }

    fn verify(&mut self) -> Result<()> {
        let writer = self.writer.take().context("nobody has written")?;
        let mut desk = writer.end()?;
        desk.verify().context("read everything back")?;
        for host in 0..HOSTS {
            for volume in [VOLUME, GUEST_VOLUME] {
                self.storagectl(host, &format!("volume check {volume} --deep"))
                    .with_context(|| format!("compare the copies of {volume}"))?;
            }
        }
        let status = self.storagectl(0, "status")?;
        ensure!(status["health"] == "ok", "the cluster is not well: {status}");
        Ok(())
    }

    /// Whether the writer goes on without an error; what it did.
    fn goes_on(&mut self) -> Result<()> {
        let writer = self.writer.as_mut().context("nobody writes")?;
        let figures = writer.figures()?;
        ensure!(figures.writes > 0, "nothing was written meanwhile");
        println!(
            "  meanwhile {} writes and {} reads, all good; the longest took {:.1?}",
            figures.writes, figures.reads, figures.longest
        );
        Ok(())
    }

    /// Waits until a node might be restarted.
    fn until_whole(&self) -> Result<()> {
        let whole = "storagectl upgrade status --check > /dev/null";
        self.until(whole, "storagectl upgrade status")
    }

    /// Waits until a command on the first host succeeds; what another one says if it does not.
    fn until(&self, command: &str, tell: &str) -> Result<()> {
        self.host(0)?.until(command, tell)
    }

    fn expect_nodes(&self, count: usize) -> Result<()> {
        let list = self.storagectl(0, "node list")?;
        let nodes = list["nodes"].as_array().context("there is no list of nodes")?;
        let up = nodes.iter().filter(|node| node["state"] == "up").count();
        ensure!(
            nodes.len() == count && up == count,
            "of {count} nodes there are {}, and {up} are up",
            nodes.len()
        );
        Ok(())
    }

    /// Asks a host's `storagectl`.
    fn storagectl(&self, host: usize, words: &str) -> Result<Value> {
        let said = self.host(host)?.ssh(&format!("storagectl --json {words}"))?;
        if said.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).with_context(|| format!("read what storagectl {words} said"))
    }

    fn host(&self, host: usize) -> Result<&Host> {
        self.lab.hosts.get(host).context("there is no such host")
    }

    /// Who is what: all hosts are nodes, the first three have etcd, the first one has Prometheus.
    fn write_inventory(&self, version: &str) -> Result<()> {
        let is_there = |index: &usize| !self.gone.contains(index);
        let nodes: Vec<&Host> = (0..self.known)
            .filter(is_there)
            .filter_map(|index| self.lab.hosts.get(index))
            .collect();
        let these = |indexes: &[usize]| -> Vec<&Host> {
            let hosts = indexes.iter().filter_map(|index| self.lab.hosts.get(*index));
            hosts.collect()
        };
        let one: Vec<&Host> = nodes.iter().take(1).copied().collect();
        let groups = [
            ("etcd", these(&self.members)),
            ("storaged", nodes.clone()),
            ("gateways", nodes.iter().take(HOSTS).copied().collect()),
            ("monitoring", one.clone()),
            ("cinder_api", one),
            ("nova", these(&self.nova)),
            ("proxmox", these(&self.proxmox)),
        ];
        let mut variables = variables(version);
        if let Value::Object(all) = &mut variables {
            for more in [identity::variables(), nova::variables()] {
                all.extend(more.as_object().cloned().unwrap_or_default());
            }
            all.insert("cinder_api_register".to_owned(), self.keystone.is_some().into());
        }
        self.ansible.write_inventory(&groups, variables)
    }

    /// Shows what may tell why something went wrong.
    pub(crate) fn tell(&self) {
        for host in &self.lab.hosts {
            let said = host.ssh(
                "systemctl --failed --no-legend; storagectl status; storagectl upgrade status; \
                 journalctl --no-pager -n 30 -u storaged -u etcd -u 'storaged-*'",
            );
            println!(
                "\n== {}\n{}",
                host.name,
                said.unwrap_or_else(|error| format!("{error:#}"))
            );
        }
    }
}

/// What all hosts have in common.
fn variables(version: &str) -> Value {
    let disk = |name: &str, number: u8| {
        let device = format!("/dev/disk/by-id/virtio-{{{{ inventory_hostname }}}}-disk-{number}");
        json!({ "name": name, "device": device })
    };
    json!({
        "storaged_repository": "deb [trusted=yes] file:/srv/storaged-packages ./",
        "storaged_version": version,
        "storaged_memory": "256M",
        "storaged_disk_log": "16M",
        "storaged_zone": "{{ inventory_hostname }}",
        "storaged_disks": [disk("one", 1), disk("two", 2)],
        "storaged_pools": [{ "name": "main", "copies": 3, "groups": 16 }],
        "gateways_nbd": [{ "name": "main" }],
        "gateways_iscsi": true,
    })
}
