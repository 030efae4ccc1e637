//! The plugin of Proxmox VE on all nodes before any storage is named. There is no Proxmox VE here: `pvesh` and `pvesm` are a
//! small program that keeps a list of storages, in a package that has the name of what the plugin's package needs. Each host
//! has a list of its own, where the real ones have one together; the role asks the first node only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{HOSTS, Stage};
use crate::inside::finish;

/// The package that the plugin's needs, and what it says of itself.
const CONTROL: &str = "Package: libpve-storage-perl\nVersion: 9.0.0\nArchitecture: all\nMaintainer: nobody\n\
                       Description: stands for Proxmox VE where there is none\n";
/// What stands for Proxmox VE's programs.
const PROGRAM: &str = include_str!("pve.py");
/// Their names.
const PROGRAMS: [&str; 2] = ["pvesh", "pvesm"];
/// The list as a fresh Proxmox VE has it.
const LIST: &str = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n";
/// The storage that the inventory names.
const STORAGE: &str = "fast";
/// The plugin's file.
const PLUGIN: &str = "/usr/share/perl5/PVE/Storage/Custom/StoragedPlugin.pm";
/// Keeps apt from installing it.
const PIN: &str = "/etc/apt/preferences.d/none";
/// Only the role.
const PROXMOX: [&str; 4] = [
    "--tags",
    "proxmox",
    "-e",
    r#"{"proxmox_storages": [{"name": "fast", "pool": "main"}]}"#,
];

/// Puts the package into a repository.
pub(crate) fn stand_in(repository: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    for part in ["DEBIAN", "usr/bin", "etc/pve"] {
        fs::create_dir_all(root.join(part))?;
    }
    fs::write(root.join("DEBIAN/control"), CONTROL)?;
    fs::write(root.join("etc/pve/storage.cfg"), LIST)?;
    for program in PROGRAMS {
        let path = root.join("usr/bin").join(program);
        fs::write(&path, PROGRAM)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-b"]).arg(root).arg(repository);
    finish(&mut build).context("make a package").map(drop)
}

impl Stage {
    /// A storage is named when every node has the plugin, and not before; then nothing changes any more.
    pub(super) fn add_to_proxmox(&mut self) -> Result<()> {
        for host in self.lab.hosts.iter().take(HOSTS) {
            host.ssh("apt-get -qq update && apt-get -qq -y install libpve-storage-perl > /dev/null")?;
        }
        self.proxmox = (0..HOSTS).collect();
        let version = self.lab.packages.first.clone();
        self.write_inventory(&version)?;
        let check = [&PROXMOX[..], &["--check"]].concat();
        let sums = self.ansible.play("site", &check)?;
        ensure!(sums.changed > 0, "check mode says that nothing would be changed");
        let one = [&PROXMOX[..], &["--limit", "host-1"]].concat();
        self.expect_no_storage(&one, "would be without the plugin")?;
        let last = HOSTS - 1;
        self.host(last)?.ssh(&format!(
            "printf 'Package: storaged-pve\\nPin: release *\\nPin-Priority: -1\\n' > {PIN}"
        ))?;
        self.expect_no_storage(&PROXMOX, "lacks the plugin: no storage is added")?;
        self.host(last)?.ssh(&format!("rm {PIN}"))?;
        self.ansible.play("site", &PROXMOX)?;
        let list = self.host(0)?.ssh("cat /etc/pve/storage.cfg")?;
        let wanted = format!("storaged: {STORAGE}\n\tstoraged-pool main\n\tcontent images,rootdir");
        ensure!(list.contains(&wanted), "the list of storages is {list}");
        self.expect_order()?;
        self.ansible.play_idly("site", &PROXMOX)?;
        self.ansible.play_idly("site", &check)?;
        self.proxmox.clear();
        self.write_inventory(&version)
    }

    /// It is refused, for this reason, and no node has named a storage.
    fn expect_no_storage(&self, options: &[&str], reason: &str) -> Result<()> {
        let error = self.ansible.play("site", options).err();
        let said = format!("{:#}", error.context("it was not refused")?);
        ensure!(said.contains(reason), "it was refused for another reason: {said}");
        for host in self.lab.hosts.iter().take(HOSTS) {
            host.ssh("! grep -q storaged: /etc/pve/storage.cfg")
                .with_context(|| format!("{} has named a storage", host.name))?;
        }
        Ok(())
    }

    /// The plugin's file was there on every node before the storage was named on the first.
    fn expect_order(&self) -> Result<()> {
        let named: f64 = self.host(0)?.ssh("cat /etc/pve/added")?.parse()?;
        for host in self.lab.hosts.iter().take(HOSTS) {
            let there: f64 = host.ssh(&format!("stat -c %.Z {PLUGIN}"))?.parse()?;
            ensure!(
                there < named,
                "{} had the plugin at {there}, and the storage was named at {named}",
                host.name
            );
        }
        Ok(())
    }
}
