//! What is tried with real guests. Each scenario is one promise, from an empty folder to a verdict.

mod attach;
mod device;
mod iscsi;
pub mod killed;
pub mod migrated;
mod proxmox;
mod volume;

use std::path::{Path, PathBuf};

use anyhow::Result;
pub use device::fio_verify;

use crate::accelerator::Accelerator;
use crate::guest::{Disk, Guest, Load, Options};
use crate::image::Image;

/// What all scenarios share.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What guests boot.
    pub image: Image,
    /// How they are run.
    pub accelerator: Accelerator,
}

impl Setting {
    /// Prepares the image and finds out how guests are run.
    pub fn prepare(folder: &Path) -> Result<Self> {
        let image = Image::prepare(folder)?;
        let accelerator = Accelerator::probe(&image)?;
        Ok(Self { image, accelerator })
    }

    /// Boots a guest with these disks.
    pub fn boot(&self, disks: Vec<Disk>) -> Result<Guest> {
        self.boot_loaded(disks, Load::None)
    }

    /// Boots a guest with these disks, and fio.
    pub fn boot_with_fio(&self, disks: Vec<Disk>) -> Result<Guest> {
        self.boot_loaded(disks, Load::Fio)
    }

    /// Boots a host of a storage network.
    pub fn boot_host(&self) -> Result<Guest> {
        self.boot_loaded(Vec::new(), Load::Host)
    }

    /// Boots a host that has volumes as block devices of its own.
    pub fn boot_attaching_host(&self) -> Result<Guest> {
        self.boot_loaded(Vec::new(), Load::Attach)
    }

    /// Boots a host of a storage network with one more disk, for reading only: `/dev/vda`.
    pub fn boot_host_with(&self, disk: PathBuf) -> Result<Guest> {
        Guest::boot(
            &self.image,
            &Options {
                disks: Vec::new(),
                load: Load::Host,
                starts_from: None,
                read_only_disk: Some(disk),
                accelerator: self.accelerator,
            },
        )
    }

    /// Boots a guest from a disk, as QEMU's `-drive` takes it, on which the image's boot disk is.
    pub fn boot_from(&self, drive: String) -> Result<Guest> {
        Guest::boot(
            &self.image,
            &Options {
                disks: Vec::new(),
                load: Load::None,
                starts_from: Some(drive),
                read_only_disk: None,
                accelerator: self.accelerator,
            },
        )
    }

    fn boot_loaded(&self, disks: Vec<Disk>, load: Load) -> Result<Guest> {
        Guest::boot(
            &self.image,
            &Options {
                disks,
                load,
                starts_from: None,
                read_only_disk: None,
                accelerator: self.accelerator,
            },
        )
    }
}

/// One promise and the way to see whether it is kept.
pub struct Scenario {
    /// The promise.
    pub name: &'static str,
    /// Tries it; an error says what was broken.
    pub run: fn(&Setting) -> Result<()>,
}

/// All scenarios but the long ones, in the order in which they are run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "a guest gets each command whole, also while what others left behind ends",
        run: device::whole_commands,
    },
    Scenario {
        name: "a guest makes file systems on both block sizes and finds its files again",
        run: device::file_systems,
    },
    Scenario {
        name: "what was synced survives the death of QEMU, and nothing needs repair",
        run: volume::power_cut,
    },
    Scenario {
        name: "fio finds every byte that it wrote, on several queues",
        run: device::verified_writes,
    },
    Scenario {
        name: "storaged is killed and restarted under load, and the guest only waits",
        run: volume::storaged_killed,
    },
    Scenario {
        name: "vhost-blk is restarted under load, and the guest only waits",
        run: volume::backend_restarted,
    },
    Scenario {
        name: "vhost-blk is killed under load, and the guest only waits",
        run: killed::backend_killed,
    },
    Scenario {
        name: "a guest moves to another QEMU under load, and moves that fail leave it where it was",
        run: migrated::guest_migrated,
    },
    Scenario {
        name: "a volume grows under a mounted file system",
        run: volume::live_growth,
    },
    Scenario {
        name: "a clone of a snapshot taken under load holds the data of that instant",
        run: volume::snapshot_while_writing,
    },
    Scenario {
        name: "of two processes on one volume one is refused, and a zombie is fenced",
        run: volume::zombie_is_fenced,
    },
    Scenario {
        name: "a snapshot of two volumes holds one instant of both",
        run: volume::group_snapshot,
    },
    Scenario {
        name: "a host with two iSCSI paths goes on when one dies, and sees growth and gives space back",
        run: iscsi::two_paths,
    },
    Scenario {
        name: "a guest boots from a volume over iSCSI by QEMU's own initiator",
        run: iscsi::boots,
    },
    Scenario {
        name: "a volume is a block device of a host's kernel, and storaged-nbd and its agent are killed and I/O only waits",
        run: attach::by_hand,
    },
    Scenario {
        name: "what OpenStack wants a host to have is there, after a power cut of the host too, and goes when it is not wanted",
        run: attach::wanted,
    },
];

/// Those that take too long for each change: they are left out when a short run is asked for.
pub const LONG: &[Scenario] = &[Scenario {
    name: "Proxmox VE's plugin makes TPM states and containers' disks block devices of its node, and the gateway is killed and I/O only waits",
    run: proxmox::block_devices,
}];
