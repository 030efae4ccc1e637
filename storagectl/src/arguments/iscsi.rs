//! `storagectl iscsi`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "In four steps from a volume to a disk of another host:
  storagectl volume create vm-1 100G
  storagectl iscsi target create iqn.2026-11.org.example:disks
  storagectl iscsi lun add iqn.2026-11.org.example:disks vm-1
  storagectl iscsi acl add iqn.2026-11.org.example:disks iqn.1993-08.org.debian:01:4ad84b87b0 --chap-generate

A target lets nobody in but those that `acl add` names. Every node with a storaged-iscsi serves every target.";

/// Volumes as iSCSI disks of other hosts.
#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum IscsiCommand {
    /// What hosts log in to: a name with LUNs, and a list of who may.
    #[command(subcommand)]
    Target(TargetCommand),
    /// Volumes as LUNs of a target.
    #[command(subcommand)]
    Lun(LunCommand),
    /// Which hosts may log in to a target, and with which secret.
    #[command(subcommand)]
    Acl(AclCommand),
    /// With which secret a target shows hosts who it is (mutual CHAP).
    #[command(subcommand)]
    Mutual(MutualCommand),
    /// Where targets are served.
    #[command(subcommand)]
    Portal(PortalCommand),
}

/// Targets.
#[derive(Subcommand)]
pub(crate) enum TargetCommand {
    /// Makes a target. It has no LUN, and lets nobody in.
    #[command(
        after_help = "A name is iqn.YEAR-MONTH.DOMAIN-BACKWARDS:ANYTHING, with a month in which the domain was yours.\n\
Example:\n  storagectl iscsi target create iqn.2026-11.org.example:disks"
    )]
    Create {
        /// Its name: iqn.NAME, eui.DIGITS or naa.DIGITS; capitals are made small.
        name: String,
    },
    /// Lists targets.
    #[command(visible_alias = "ls")]
    List,
    /// Shows all about one target: its LUNs, who may log in, and where.
    Show {
        /// Its name.
        name: String,
    },
    /// Deletes a target with its LUNs and their reservations. The volumes stay; hosts that use them lose them.
    Delete {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// LUNs.
#[derive(Subcommand)]
pub(crate) enum LunCommand {
    /// Makes a volume a LUN of a target. A volume is a LUN once at most.
    #[command(
        after_help = "Examples:\n  storagectl iscsi lun add iqn.2026-11.org.example:disks vm-1\n  storagectl iscsi lun \
add iqn.2026-11.org.example:disks archive --number 9 --read-only\n  storagectl iscsi lun add \
iqn.2026-11.org.example:disks db --block-size 4096"
    )]
    Add {
        /// The target's name.
        target: String,
        /// The volume's name.
        volume: String,
        /// The LUN's number, 0 to 255; the lowest free one if left out.
        #[arg(long, short, value_parser = clap::value_parser!(u16).range(0..=255))]
        number: Option<u16>,
        /// Refuse writes.
        #[arg(long)]
        read_only: bool,
        /// The size of its blocks: 512, which every host takes, or 4096, which is faster where the host takes it.
        #[arg(long, value_parser = parse_block_size, value_name = "BYTES")]
        block_size: Option<u32>,
    },
    /// Removes a LUN with its reservations. The volume stays; hosts that use it lose it.
    Remove {
        /// The target's name.
        target: String,
        /// The LUN's number.
        number: u16,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Lists the LUNs of a target, or of all.
    #[command(visible_alias = "ls")]
    List {
        /// The target's name.
        target: Option<String>,
    },
}

/// Who may log in.
#[derive(Subcommand)]
pub(crate) enum AclCommand {
    /// Lets a host in, or gives it another secret.
    #[command(
        after_help = "The host's name is in /etc/iscsi/initiatorname.iscsi (open-iscsi), or under the storage adapters \
(ESXi), or in iscsicli (Windows). Without a secret everybody who knows that name gets in.\nA secret has 12 to 255 bytes; \
Windows takes 12 to 16.\nExamples:\n  storagectl iscsi acl add iqn.2026-11.org.example:disks \
iqn.1993-08.org.debian:01:4ad84b87b0 --chap-generate\n  storagectl iscsi acl add iqn.2026-11.org.example:disks \
iqn.1998-01.com.vmware:esx-1 --chap-user esx-1 --chap-secret-file /root/esx-1.secret"
    )]
    Add {
        /// The target's name.
        target: String,
        /// The host's initiator name, exactly.
        initiator: String,
        /// Ask for a secret at the terminal. Without this, and the two below, the host's name is enough.
        #[arg(long)]
        chap: bool,
        #[command(flatten)]
        secret: SecretArguments,
    },
    /// Lets a host in no more.
    Remove {
        /// The target's name.
        target: String,
        /// The host's initiator name.
        initiator: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Lists who may log in to a target.
    #[command(visible_alias = "ls")]
    List {
        /// The target's name.
        target: String,
    },
}

/// Mutual CHAP.
#[derive(Subcommand)]
pub(crate) enum MutualCommand {
    /// Sets with which secret a target shows hosts who it is; asks at the terminal unless told otherwise.
    #[command(
        after_help = "It must not be the secret of any host. Hosts need it too (node.session.auth.password_in of \
open-iscsi).\nExample:\n  storagectl iscsi mutual set iqn.2026-11.org.example:disks --chap-generate"
    )]
    Set {
        /// The target's name.
        target: String,
        #[command(flatten)]
        secret: SecretArguments,
    },
    /// Forgets it: hosts that ask the target who it is do not log in any more.
    Clear {
        /// The target's name.
        target: String,
    },
}

/// Portals.
#[derive(Subcommand)]
pub(crate) enum PortalCommand {
    /// Lists the addresses at which gateways serve all targets.
    #[command(visible_alias = "ls")]
    List,
}

/// Where a secret comes from. Never from the command line itself: every user of the machine sees those.
#[derive(Args)]
pub(crate) struct SecretArguments {
    /// The name that goes with the secret; the initiator's or the target's if left out.
    #[arg(long = "chap-user", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Read the secret from this file; - is standard input. A newline at its end does not count.
    #[arg(long = "chap-secret-file", value_name = "FILE", conflicts_with = "generate")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Make a secret, and show it once.
    #[arg(long = "chap-generate")]
    pub(crate) generate: bool,
}

fn parse_block_size(text: &str) -> Result<u32, String> {
    let size = text.parse().ok();
    size.filter(|size| admin_api::iscsi::BLOCK_SIZES.contains(size))
        .ok_or_else(|| "blocks have 512 or 4096 bytes".to_owned())
}
