//! `storagectl adopt`.

use std::path::PathBuf;

use clap::Args;

/// Moves the disk of a running QEMU into a new volume, while its guest uses it, whatever holds it now: a file, LVM, Ceph
/// RBD, Gluster. QEMU copies it, and goes on with the volume when both are the same. Until then nothing changes; the
/// old disk stays as it was at that moment.
#[derive(Args)]
#[command(
    after_help = "Example:\n  storagectl adopt database --qmp /run/qemu/database.qmp --disk virtio0 --nbd /run/storaged-nbd/nbd.sock\n\n\
                  QEMU must be able to connect to the NBD socket, whose storaged-nbd the guest needs from then on. Write the volume \
                  into the configuration of the guest: its next start must not find the old disk.\nGuests of libvirt, Proxmox VE \
                  and OpenStack are moved by those: see docs/operations/migration.md."
)]
pub(crate) struct AdoptArguments {
    /// The new volume's name.
    pub(crate) volume: String,
    /// QEMU's monitor (QMP): a unix socket that nobody else speaks to just now.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) qmp: PathBuf,
    /// The disk: the name of its device, drive or node. If left out, there must be just one.
    #[arg(long, value_name = "NAME")]
    pub(crate) disk: Option<String>,
    /// The storaged-nbd that QEMU connects to, and stays connected to.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) nbd: PathBuf,
    /// The pool to put it in; needed if there are several.
    #[arg(long)]
    pub(crate) pool: Option<String>,
}
