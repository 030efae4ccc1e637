//! Ansible as an operator uses it: the collection, an inventory of this run's hosts, playbooks that are run and whose sums are
//! read. It does not know what roles do.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use test_openstack::environment::Environment;

use crate::host::{Host, SSH_OPTIONS};

/// Where Ansible looks for collections, a link leads to ours.
const COLLECTION: &str = "collections/ansible_collections/storaged/storaged";
/// The last line before the sums of a playbook.
const RECAP: &str = "PLAY RECAP";
/// The file that has what the last playbook said.
const LAST_PLAY: &str = "last-play";
/// How much of what a playbook said is shown if it failed, in bytes.
const SHOWN_MAX: usize = 12_000;

/// What a playbook did, summed over all hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) ok: u32,
    pub(crate) changed: u32,
}

/// The control node: Ansible, the collection, a folder for the inventory.
pub(crate) struct Ansible {
    environment: Environment,
    collection: PathBuf,
    folder: PathBuf,
    key: PathBuf,
}

impl Ansible {
    /// Installs Ansible, unless it is there, and knows where the collection is. Needs a network.
    pub(crate) fn prepare(collection: &Path) -> Result<(Environment, PathBuf)> {
        let collection = fs::canonicalize(collection)
            .with_context(|| format!("the collection {}", collection.display()))?;
        Ok((Environment::of("ansible")?, collection))
    }

    /// Makes a control node in `folder`.
    pub(crate) fn new(
        (environment, collection): (Environment, PathBuf),
        folder: &Path,
        key: &Path,
    ) -> Result<Self> {
        let link = folder.join(COLLECTION);
        let parent = link.parent().context("the collection has no folder")?;
        fs::create_dir_all(parent)?;
        std::os::unix::fs::symlink(&collection, &link).context("link the collection")?;
        Ok(Self {
            environment,
            collection,
            folder: folder.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Writes the inventory: groups with their hosts, and what all have in common.
    pub(crate) fn write_inventory(&self, groups: &[(&str, Vec<&Host>)], mut variables: Value) -> Result<()> {
        let hosts_of = |hosts: &[&Host]| -> Value {
            let addresses = hosts
                .iter()
                .map(|host| (host.name.clone(), json!({ "ansible_host": host.address })));
            json!({ "hosts": addresses.collect::<Map<_, _>>() })
        };
        let children = groups
            .iter()
            .map(|(group, hosts)| ((*group).to_owned(), hosts_of(hosts)));
        let children: Map<_, _> = children.collect();
        let options = SSH_OPTIONS.map(|option| format!("-o {option}")).join(" ");
        variables["ansible_user"] = json!("root");
        variables["ansible_python_interpreter"] = json!("/usr/bin/python3");
        variables["ansible_ssh_private_key_file"] = json!(self.key);
        variables["ansible_ssh_common_args"] = json!(options);
        let inventory = json!({ "all": { "children": children, "vars": variables } });
        let text = serde_json::to_string_pretty(&inventory)?;
        fs::write(self.folder.join("hosts.json"), text).context("write the inventory")
    }

    /// Runs a playbook of the collection; what it did.
    pub(crate) fn play(&self, playbook: &str, options: &[&str]) -> Result<Sums> {
        let mut command = self.command("ansible-playbook");
        command.args(["-i", "hosts.json", "--diff"]);
        command.arg(format!("storaged.storaged.{playbook}")).args(options);
        let output = command.output().context("start ansible-playbook")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        fs::write(self.last_play(), &said)?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("the playbook {playbook} failed: {}{errors}", end_of(&said));
        }
        sums_of(&said).with_context(|| format!("the playbook {playbook} gave no sums: {}", end_of(&said)))
    }

    /// Plays again what was played: nothing may change.
    pub(crate) fn play_idly(&self, playbook: &str, options: &[&str]) -> Result<Sums> {
        let sums = self.play(playbook, options)?;
        if sums.changed > 0 {
            let said = fs::read_to_string(self.last_play()).unwrap_or_default();
            bail!(
                "the playbook {playbook} changed {} things: {}",
                sums.changed,
                changes_of(&said)
            );
        }
        ensure!(sums.ok > 0, "the playbook {playbook} did nothing at all");
        Ok(sums)
    }

    /// The control node's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where is what the last playbook said.
    pub(crate) fn last_play(&self) -> PathBuf {
        self.folder.join(LAST_PLAY)
    }

    /// A program of the system's, in the control node's folder and with Ansible at hand.
    pub(crate) fn command_of_system(&self, program: &str) -> Command {
        let mut command = self.command("ansible");
        let variables: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let folder = command.get_current_dir().map(Path::to_owned);
        command = Command::new(program);
        command.envs(variables);
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        command
    }

    /// A program of Ansible's, as it runs here.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let name = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(self.environment.program(&name));
        let bin = self.environment.program("");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("ANSIBLE_HOME", self.folder.join("home"))
            .env("ANSIBLE_COLLECTIONS_PATH", self.folder.join("collections"))
            .env("ANSIBLE_CONFIG", self.collection.join("ansible.cfg"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", self.folder.join("ssh"))
            .env("LC_ALL", "C.UTF-8");
        command
    }
}

/// The sums below the last recap.
fn sums_of(said: &str) -> Option<Sums> {
    let (_, recap) = said.rsplit_once(RECAP)?;
    let mut sums = Sums::default();
    let mut hosts = 0;
    for line in recap.lines().filter(|line| line.contains("ok=")) {
        let field = |name: &str| -> Option<u32> {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
            word.parse().ok()
        };
        sums.ok += field("ok=")?;
        sums.changed += field("changed=")?;
        hosts += 1;
    }
    (hosts > 0).then_some(sums)
}

/// The tasks that changed something.
fn changes_of(said: &str) -> String {
    let mut task = "";
    let mut changes = String::new();
    for line in said.lines() {
        if line.starts_with("TASK") || line.starts_with("RUNNING HANDLER") {
            task = line.trim_end_matches(['*', ' ']);
        }
        if line.starts_with("changed:") {
            changes.extend(["\n  ", task, ": ", line]);
        }
    }
    changes
}

fn end_of(said: &str) -> &str {
    let mut from = said.len().saturating_sub(SHOWN_MAX);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    said.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    //! A playbook's sums must not lose a host.
    use super::*;

    #[test]
    fn sums_are_those_of_all_hosts_and_changes_have_names() {
        let said = "TASK [storaged : Start it] ****\nchanged: [host-2]\n\nPLAY RECAP ****\n\
                    host-1 : ok=12  changed=0 unreachable=0 failed=0\n\
                    host-2 : ok=10  changed=1 unreachable=0 failed=0\n";
        assert_eq!(sums_of(said), Some(Sums { ok: 22, changed: 1 }));
        assert_eq!(
            changes_of(said),
            "\n  TASK [storaged : Start it]: changed: [host-2]"
        );
        assert_eq!(sums_of("PLAY RECAP ***\n"), None);
        assert_eq!(sums_of("nothing"), None);
    }
}
