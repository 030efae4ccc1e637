//! How QEMU runs guests on this machine: by the processor if that really works, else emulated.

use std::time::Duration;

use anyhow::Result;

use crate::guest::{Guest, Load, Options};
use crate::image::Image;

/// How long a guest may take to boot with KVM before it counts as not working. It takes two seconds where it works, and one
/// that does not keeps a processor busy for all of this.
const KVM_BOOT: Duration = Duration::from_secs(10);

/// How QEMU runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// Emulated: works everywhere, ten times slower.
    Tcg,
}

impl Accelerator {
    /// Finds out by booting a guest: that `/dev/kvm` is there says nothing inside another virtual machine.
    pub fn probe(image: &Image) -> Result<Self> {
        if std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return Ok(Self::Tcg);
        }
        let options = Options {
            disks: Vec::new(),
            load: Load::None,
            starts_from: None,
            read_only_disk: None,
            accelerator: Self::Kvm,
        };
        match Guest::boot_within(image, &options, KVM_BOOT) {
            Ok(guest) => guest.power_off().map(|()| Self::Kvm),
            Err(cause) => {
                println!(
                    "/dev/kvm is there but boots no guest, so guests are emulated: {}",
                    cause.root_cause()
                );
                Ok(Self::Tcg)
            }
        }
    }

    /// What QEMU is told.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}
