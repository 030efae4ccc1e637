//! The Debian packages that commands need. Installing them is the guests' business, who need most.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use vm_tests::packages::Need;
use vm_tests::packages::{ISCSI_MODULE, find, unpack};
pub(crate) use vm_tests::packages::{ensure, install as ensure_guests};

use crate::workspace;

/// etcd's packages, and the program of each.
const ETCD: &[Need] = &[("etcd-server", "etcd"), ("etcd-client", "etcdctl")];

/// Fetches etcd if it is not installed. It is only unpacked, beside what cargo builds, where tests look
/// for it: an installed one would be started at once, on this machine's ports.
pub(crate) fn fetch_etcd() -> Result<()> {
    let folder = workspace::target().join("etcd");
    for (package, program) in ETCD {
        if find(program).is_none() && !folder.join("usr/bin").join(program).is_file() {
            println!("{package} is fetched and unpacked into {}", folder.display());
            unpack(package, &folder).with_context(|| format!("fetch {package}"))?;
        }
    }
    Ok(())
}

/// Where etcd is: an installed one, or the one that was fetched.
pub(crate) fn etcd() -> Result<PathBuf> {
    fetch_etcd()?;
    Ok(find("etcd").unwrap_or_else(|| workspace::target().join("etcd/usr/bin/etcd")))
}

/// Python with what makes environments for OpenStack's programs, which Debian has in a package of its own.
const PYTHON: &[Need] = &[("python3", "python3"), ("python3-venv", "/there/is/no/program")];

/// Installs Python, unless there is one that makes environments, wherever it came from.
pub(crate) fn ensure_python() -> Result<()> {
    let mut look = Command::new("python3");
    look.args(["-c", "import venv, ensurepip"]).stderr(Stdio::null());
    if look.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    ensure(PYTHON)
}

/// A C++ compiler, for libFuzzer.
pub(crate) const COMPILER: &[Need] = &[("g++", "g++")];

/// What slows a disk's thread down.
pub(crate) const TRACER: &[Need] = &[("strace", "strace")];

/// What the benchmarks compare with.
pub(crate) const STORAGE_DAEMON: &[Need] = &[("qemu-utils", "qemu-storage-daemon")];

/// What makes disks of images.
pub(crate) const IMAGES: &[Need] = &[("qemu-utils", "qemu-img")];

/// NBD clients that others wrote.
pub(crate) const NBD_CLIENTS: &[Need] = &[
    ("qemu-utils", "qemu-img"),
    ("qemu-utils", "qemu-io"),
    ("libnbd-bin", "nbdinfo"),
    ("libnbd-bin", "nbdcopy"),
    ("fio", "fio"),
];

/// What the Proxmox plugin is written in, and what judges how.
pub(crate) const PERL: &[Need] = &[
    ("perl", "podchecker"),
    ("libjson-perl", "/usr/share/perl5/JSON.pm"),
    ("libperl-critic-perl", "perlcritic"),
    ("libio-socket-ssl-perl", "/usr/share/perl5/IO/Socket/SSL.pm"),
];

/// What Debian packages are made with.
pub(crate) const PACKAGING: &[Need] = &[
    ("dpkg-dev", "dpkg-shlibdeps"),
    ("binutils", "strip"),
    ("gzip", "gzip"),
];

/// What judges Debian packages.
pub(crate) const LINTIAN: &[Need] = &[("lintian", "lintian")];

/// What makes a Debian to install packages into, and boots it.
pub(crate) const DEBOOTSTRAP: &[Need] = &[
    ("debootstrap", "debootstrap"),
    ("systemd-container", "systemd-nspawn"),
    ("util-linux", "unshare"),
];

/// iSCSI initiators that others wrote, with their conformance suite.
pub(crate) const ISCSI_CLIENTS: &[Need] = &[
    ("qemu-utils", "qemu-img"),
    ("qemu-utils", "qemu-io"),
    ("qemu-block-extra", ISCSI_MODULE),
    ("libiscsi-bin", "iscsi-ls"),
    ("libiscsi-bin", "iscsi-inq"),
    ("libiscsi-bin", "iscsi-test-cu"),
];

/// The iSCSI target that ours is compared with.
pub(crate) const ISCSI_TARGET: &[Need] = &[("tgt", "tgtd"), ("tgt", "tgtadm")];

/// libvirt with its QEMU driver. QEMU itself comes with the guests' image.
pub(crate) const LIBVIRT: &[Need] = &[
    ("libvirt-daemon-system", "libvirtd"),
    ("libvirt-clients", "virsh"),
];
