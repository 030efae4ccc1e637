//! Nova's configuration as the distribution packages it, and what the collection makes of it: Nova's own code reads it, and
//! logs in at the real Keystone.
//!
//! `nova-compute` is a unit that only counts its starts, and `storaged-attach` is not started: the kernel of these hosts is
//! this machine's, and has no NBD client for them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_openstack::Environment;
use test_openstack::accounts::{NOVA, PASSWORD, SERVICES};
use vm_tests::packages::unpack;

use super::{HOSTS, Stage, identity};

/// The package with Nova's configuration, and where it is unpacked.
const PACKAGE: &str = "nova-common";
/// The configuration in it.
const PACKAGED: &str = "usr/share/nova-common/nova.conf";
/// Where a host has it.
const CONFIGURATION: &str = "/etc/nova/nova.conf";
/// The host.
const COMPUTE_HOST: usize = HOSTS - 1;
/// What an operator has put there before: a name that is old, and one of another section's that stays.
const BEFORE: [(&str, &str); 2] = [
    ("[service_user]\n", "username = somebody-else\n"),
    ("[neutron]\n", "username = networks\n"),
];
/// Counts starts of what would be Nova.
const UNIT: &str =
    "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo started >> /run/nova-starts'\n";
/// Only Nova's configuration.
const CONFIGURE: [&str; 2] = ["--tags", "nova_configuration"];
/// Reads it as Nova does.
const READ: &str = include_str!("nova.conf.py");

/// Fetches the package, unless it is there. Needs a network.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    let place = folder.join(PACKAGE);
    if place.join(PACKAGED).is_file() {
        return Ok(());
    }
    unpack(PACKAGE, &place)
}

/// What the inventory says of Nova's user and hosts.
pub(super) fn variables() -> Value {
    json!({
        "nova_service_auth_url": identity::url(),
        "nova_service_username": NOVA,
        "nova_service_password": PASSWORD,
        "nova_vhost_user": true,
    })
}

impl Stage {
    /// The section says who Nova is, other sections stay, and Nova is started anew once.
    pub(super) fn configure_nova(&mut self) -> Result<()> {
        let mut text = fs::read_to_string(self.folder.join(PACKAGE).join(PACKAGED))?;
        for (section, line) in BEFORE {
            ensure!(text.contains(section), "the packaged file has no {section}");
            text = text.replacen(section, &format!("{section}{line}"), 1);
        }
        self.host(COMPUTE_HOST)?.ssh("mkdir -p /etc/nova")?;
        let file = self.host(COMPUTE_HOST)?.path(CONFIGURATION)?;
        fs::write(&file, &text)?;
        fs::write(
            self.host(COMPUTE_HOST)?
                .path("/etc/systemd/system/nova-compute.service")?,
            UNIT,
        )?;
        self.host(COMPUTE_HOST)?.ssh(&format!(
            "chmod 640 {CONFIGURATION}; systemctl start nova-compute"
        ))?;
        self.nova = vec![COMPUTE_HOST];
        let version = self.lab.packages.first.clone();
        self.write_inventory(&version)?;
        let check = [&CONFIGURE[..], &["--check"]].concat();
        let sums = self.ansible.play("site", &check)?;
        ensure!(sums.changed > 0, "check mode says that nothing would be changed");
        ensure!(
            fs::read_to_string(&file)? == text,
            "check mode has changed the file"
        );
        self.ansible.play("site", &CONFIGURE)?;
        let said = fs::read_to_string(self.ansible.last_play())?;
        ensure!(!said.contains(PASSWORD), "the run says the password");
        self.expect_nova_known(&fs::read_to_string(&file)?, &text)?;
        self.ansible.play_idly("site", &CONFIGURE)?;
        self.ansible.play_idly("site", &check)?;
        let host = self.host(COMPUTE_HOST)?;
        let starts = host.ssh("wc -l < /run/nova-starts; stat -c %a /etc/nova/nova.conf; journalctl --no-pager | grep -c of-the-tests || true")?;
        ensure!(
            starts.lines().eq(["2", "640", "0"]),
            "starts of Nova, the file's mode, and passwords in the journal: {starts}"
        );
        self.nova.clear();
        self.write_inventory(&version)
    }

    /// Nova's own code reads the file and logs in; of what was in the file before, only the old name is a comment now.
    fn expect_nova_known(&self, text: &str, before: &str) -> Result<()> {
        let folder = self.ansible.folder();
        let copy = folder.join("nova.conf");
        fs::write(&copy, text)?;
        let program = ["-W", "ignore", "-c", READ, &copy.display().to_string()].map(str::to_owned);
        let said = Environment::of("nova")?.run("python", program, folder)?;
        let who = said.lines().last().context("Nova has said nothing")?;
        ensure!(who == format!("{NOVA} {SERVICES} service"), "Nova is {who}");
        let rest: String = {
            let ours = text.split_once("# BEGIN service_user by Ansible\n");
            let (head, rest) = ours.context("there is no block")?;
            let (_, tail) = rest
                .split_once("# END service_user by Ansible\n")
                .context("the block has no end")?;
            format!("{head}{tail}")
        };
        let expected = before.replace(BEFORE[0].1, &format!("#{}", BEFORE[0].1));
        ensure!(rest == expected, "other lines of the file have changed");
        Ok(())
    }
}
