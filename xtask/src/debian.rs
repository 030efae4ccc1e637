//! Installs the Debian packages that a command needs, if they are missing, and says so.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{is_installed, run};

/// A program that a command needs, and the package that brings it.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
}

/// A C++ compiler, for libFuzzer.
pub(crate) const COMPILER: &[Need] = &[Need {
    program: "g++",
    package: "g++",
}];

/// What the benchmarks compare with.
pub(crate) const STORAGE_DAEMON: &[Need] = &[Need {
    program: "qemu-storage-daemon",
    package: "qemu-utils",
}];

/// NBD clients that others wrote.
pub(crate) const NBD_CLIENTS: &[Need] = &[
    Need {
        program: "qemu-img",
        package: "qemu-utils",
    },
    Need {
        program: "qemu-io",
        package: "qemu-utils",
    },
    Need {
        program: "nbdinfo",
        package: "libnbd-bin",
    },
    Need {
        program: "nbdcopy",
        package: "libnbd-bin",
    },
    Need {
        program: "fio",
        package: "fio",
    },
];

/// Makes sure that the programs are there. Does nothing if they are.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter(|need| !is_installed(need.program))
        .map(|need| need.package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    println!(
        "These Debian packages are needed and missing, and are installed now: {}",
        packages.join(" ")
    );
    // A machine may be so fresh that its lists of packages were never fetched.
    run(as_root("apt-get")?.args(["-qq", "update"]))?;
    run(as_root("apt-get")?
        .args(["-qq", "-y", "--no-install-recommends", "install"])
        .args(packages))
}

/// A program run by root: directly if we are root, else by sudo.
fn as_root(program: &str) -> Result<Command> {
    let we_are_root = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .any(|line| line.starts_with("Uid:") && line.contains("\t0\t"))
    });
    let mut command = if we_are_root {
        Command::new(program)
    } else if is_installed("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.args(["DEBIAN_FRONTEND=noninteractive", program]);
        sudo
    } else {
        bail!("installing packages needs root: run this as root, or install sudo, or install them by hand")
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}
