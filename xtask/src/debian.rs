//! The Debian packages that commands need. Installing them is the guests' business, who need most.

use vm_tests::packages::Need;
pub(crate) use vm_tests::packages::ensure;

/// A C++ compiler, for libFuzzer.
pub(crate) const COMPILER: &[Need] = &[("g++", "g++")];

/// What the benchmarks compare with.
pub(crate) const STORAGE_DAEMON: &[Need] = &[("qemu-utils", "qemu-storage-daemon")];

/// NBD clients that others wrote.
pub(crate) const NBD_CLIENTS: &[Need] = &[
    ("qemu-utils", "qemu-img"),
    ("qemu-utils", "qemu-io"),
    ("libnbd-bin", "nbdinfo"),
    ("libnbd-bin", "nbdcopy"),
    ("fio", "fio"),
];

/// libvirt with its QEMU driver. QEMU itself comes with the guests' image.
pub(crate) const LIBVIRT: &[Need] = &[
    ("libvirt-daemon-system", "libvirtd"),
    ("libvirt-clients", "virsh"),
];
