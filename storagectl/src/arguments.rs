//! The command line, as clap reads it. The words here are the help that users read, and the man pages.

mod access;
mod adopt;
mod cluster;
mod disk;
mod image;
mod iscsi;
mod limits;
mod node;
mod pool;
mod snapshot;
mod time;
mod top;
mod upgrade;
mod vhost;
mod volume;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

use crate::api::Place;
use crate::exit;

pub(crate) use access::{AccessCommand, RoleArgument};
pub(crate) use adopt::AdoptArguments;
pub(crate) use cluster::{ClusterCommand, InitArguments, JoinArguments, MachineArguments};
pub(crate) use disk::DiskCommand;
pub(crate) use image::{ExportArguments, ImageFormat, ImportArguments, NbdArguments};
pub(crate) use iscsi::{
    AclCommand, IscsiCommand, LunCommand, MutualCommand, PortalCommand, SecretArguments, TargetCommand,
};
pub(crate) use limits::LimitArguments;
pub(crate) use node::NodeCommand;
pub(crate) use pool::PoolCommand;
pub(crate) use snapshot::SnapshotCommand;
pub(crate) use top::TopArguments;
pub(crate) use upgrade::UpgradeCommand;
pub(crate) use vhost::VhostCommand;
pub(crate) use volume::VolumeCommand;

/// Where `storaged` listens if nobody says otherwise.
pub(crate) const ADMIN_SOCKET: &str = "/var/lib/storaged/admin.sock";

const EXAMPLES: &str = "Examples:
  storagectl status
  storagectl pool create fast --copies 3
  storagectl volume create my-new-disk 1TB
  storagectl volume snapshot my-new-disk monday
  storagectl volume clone my-new-disk@monday test
  storagectl volume tree my-new-disk
  storagectl import debian-12.qcow2 golden
  storagectl --json volume list | jq '.volumes[].name'

Sizes: 10G and 10GiB are binary (1024), 10GB is decimal (1000), a plain number is bytes.
A snapshot is written volume@snapshot.";

/// Commands storaged: volumes, snapshots, clones, pools and disks.
#[derive(Parser)]
#[command(name = "storagectl", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Arguments {
    /// Where storaged's admin API is: a unix socket or http://HOST:PORT.
    #[arg(long, global = true, env = "STORAGED_ADMIN", default_value = ADMIN_SOCKET, value_name = "ADDRESS")]
    pub(crate) socket: Place,
    /// Answer with JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Virtual disks: create, list, resize, snapshot, clone, delete. Sheepdog's users may say vdi.
    #[command(subcommand, visible_alias = "vdi")]
    Volume(VolumeCommand),
    /// Frozen states of volumes.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Redundancy policies over disks.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// The units of storage; also offline examination of one.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Making a cluster, and letting machines join it.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Tokens with which programs ask storaged over the network.
    #[command(subcommand)]
    Access(AccessCommand),
    /// The machines of the cluster.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Bringing all nodes to a newer version.
    #[command(subcommand)]
    Upgrade(UpgradeCommand),
    /// Volumes as iSCSI disks of other hosts: targets, LUNs, who may log in.
    #[command(subcommand)]
    Iscsi(IscsiCommand),
    /// Background work.
    #[command(subcommand)]
    Task(TaskCommand),
    /// A volume that is attached to a guest, by the control socket of its vhost-blk.
    #[command(subcommand)]
    Vhost(VhostCommand),
    /// Whether all is well, and if not, what waits for what.
    Status {
        /// End with status 5 unless all is well: for monitoring.
        #[arg(long)]
        check: bool,
    },
    /// What volumes and disks do just now: rates and times, refreshed until interrupted.
    Top(TopArguments),
    /// What happened lately.
    Events {
        /// Go on and show what happens, until interrupted.
        #[arg(long, short)]
        follow: bool,
        /// How many past events to show.
        #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
        number: u32,
    },
    /// Makes a volume from an image file (raw, qcow2), a block device, or an NBD export.
    Import(ImportArguments),
    /// Moves the disk of a running QEMU into a new volume, while its guest uses it.
    Adopt(AdoptArguments),
    /// Writes a volume or a snapshot into an image file.
    Export(ExportArguments),
    /// Prints a completion script for a shell.
    #[command(after_help = "Example:\n  storagectl completion bash > /etc/bash_completion.d/storagectl")]
    Completion {
        /// For which shell.
        shell: Shell,
    },
    /// Writes the man pages into a folder.
    Man {
        /// Which folder; made if it is not there.
        folder: PathBuf,
    },
}

/// Background work.
#[derive(Subcommand)]
pub(crate) enum TaskCommand {
    /// Lists tasks that run, and the last ones that ended.
    #[command(visible_alias = "ls")]
    List,
    /// Waits for the end of a task, with a progress bar.
    Wait {
        /// The task's number.
        task: u64,
    },
}

#[cfg(test)]
mod tests {
    //! clap checks its own definition, and the words that the README and Sheepdog's users rely on stand.
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_commands_that_documents_name_are_understood() {
        for line in [
            "volume create my-new-disk 1TB",
            "vdi list",
            "volume snapshot my-new-disk monday",
            "volume clone my-new-disk@monday test",
            "volume rollback my-new-disk@monday --yes",
            "volume tree my-new-disk",
            "volume grow my-new-disk +10G",
            "volume take-over my-new-disk --yes",
            "volume delete my-new-disk --yes --with-snapshots --wait",
            "snapshot create monday db web",
            "snapshot delete db@monday --yes",
            "pool create fast --copies 3",
            "disk add /srv/disk-1",
            "disk check /srv/disk-1",
            "cluster init --disks 2",
            "cluster init --etcd http://10.0.0.9:2379 --address 10.0.0.1",
            "cluster init --etcd https://a:2379 --etcd-ca ca --etcd-certificate c --etcd-key k --address a:7470",
            "cluster token --limit 10m",
            "cluster tokens",
            "cluster revoke 0123456789abcdef",
            "cluster join sdjoinabc --name b --zone east --address 10.0.0.2:7470",
            "cluster join -",
            "node list",
            "upgrade status --check",
            "disk trust 3",
            "node remove 3 --yes",
            "events --follow",
            "task wait 7",
            "iscsi target create iqn.2026-11.org.example:disks",
            "iscsi target list",
            "iscsi target show iqn.2026-11.org.example:disks",
            "iscsi target delete iqn.2026-11.org.example:disks --yes",
            "iscsi lun add iqn.2026-11.org.example:disks vm-1 --number 3 --block-size 4096 --read-only",
            "iscsi lun remove iqn.2026-11.org.example:disks 3 --yes",
            "iscsi lun list",
            "iscsi acl add iqn.2026-11.org.example:disks iqn.1993-08.org.debian:01:a --chap-generate",
            "iscsi acl add iqn.2026-11.org.example:disks iqn.1993-08.org.debian:01:a --chap --chap-user a",
            "iscsi acl remove iqn.2026-11.org.example:disks iqn.1993-08.org.debian:01:a --yes",
            "iscsi mutual set iqn.2026-11.org.example:disks --chap-secret-file -",
            "iscsi mutual clear iqn.2026-11.org.example:disks",
            "iscsi portal list",
            "vhost stats /run/db.control",
            "vhost drain unix:/run/db.control --limit 10s",
            "vhost resume /run/db.control --hold 3",
            "vhost resize /run/db.control",
            "--json status",
            "top --once --json",
            "top --interval 5 --controls /run/a --controls /run/b.control",
            "status --json --check",
            "import image.qcow2 golden",
            "export golden@v1 image.qcow2",
            "completion zsh",
        ] {
            let words = std::iter::once("storagectl").chain(line.split(' '));
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn every_command_and_option_has_a_description() {
        let mut next = vec![Arguments::command()];
        while let Some(command) = next.pop() {
            let name = command.get_name().to_owned();
            assert!(command.get_about().is_some() || name == "help", "{name}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
            }
            next.extend(command.get_subcommands().cloned());
        }
    }
}

#[cfg(test)]
mod documents;
