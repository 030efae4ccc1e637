//! The guest's image: a kernel and an initramfs, built once and kept under `target/guest`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::archive::Archive;
use crate::kernel::{Kernel, WANTED, WANTED_BY_HOSTS};
use crate::packages;

/// Programs of this machine that every guest has, with the libraries that they need.
const TOOLS: &[&str] = &["mkfs.ext4", "e2fsck", "resize2fs", "mkfs.xfs", "xfs_repair"];
/// Programs that only some guests have, as their libraries make the guest's boot longer.
const LOADS: &[&str] = &["fio", "sqlite3"];

/// What the hosts of a storage network have besides, from packages that are unpacked only: installed they would begin to
/// serve this machine.
const INITIATOR: &[&str] = &[
    "iscsid",
    "iscsiadm",
    "dmsetup",
    "multipath",
    "multipathd",
    "udevadm",
    "scsi_id",
];
/// These packages, with the libraries that this machine may not have.
const INITIATOR_PACKAGES: &[&str] = &[
    "open-iscsi",
    "libopeniscsiusr",
    "libisns0",
    "dmsetup",
    "libdevmapper1.02.1",
    "multipath-tools",
    "liburcu8",
    "libaio1",
    "udev",
    "libudev1",
];
/// Folders of these packages that their programs look into.
const INITIATOR_FOLDERS: &[&str] = &["lib/udev/rules.d", "lib/multipath"];
/// Names under which these programs are called by each other.
const INITIATOR_LINKS: &[(&str, &str)] = &[
    ("sbin/dmsetup", "/usr/bin/dmsetup"),
    ("sbin/multipath", "/usr/bin/multipath"),
    ("lib/udev/scsi_id", "/usr/bin/scsi_id"),
    ("usr/bin/systemd-udevd", "/usr/bin/udevadm"),
];

/// What makes a disk that starts by itself.
const LOADER_PACKAGES: &[&str] = &["syslinux", "syslinux-common", "mtools", "dosfstools"];
/// Bytes of that disk.
const BOOT_DISK: u64 = 64 << 20;
/// What the loader on it is told.
const LOADER: &str = "\
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL vmlinuz
  INITRD initrd
  APPEND console=ttyS0 panic=-1 loglevel=6 rdinit=/init
";

/// How the kernel's modules are kept; a change builds images anew.
const MODULES_EDITION: u32 = 1;

const INIT: &str = include_str!("init.sh");
/// The first process of a machine that has a Debian on its first disk.
const INIT_OF_DEBIAN: &str = include_str!("init_of_debian.sh");

/// What QEMU boots.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The same with fio and sqlite3.
    pub initramfs_with_fio: PathBuf,
    /// The same with fio, an iSCSI initiator and several paths to one disk.
    pub initramfs_of_host: PathBuf,
    /// A raw disk that starts by itself: a loader, the kernel and the small initramfs.
    pub boot_disk: PathBuf,
    /// All modules of the kernel with their index, in a folder that has the kernel's version as its name: what is
    /// `/lib/modules` in a Debian that is installed.
    pub modules: PathBuf,
}

impl Image {
    /// The image in `folder`, built now if it is not there or was built by another recipe.
    pub fn prepare(folder: &Path) -> Result<Self> {
        let image = Self {
            kernel: folder.join("vmlinuz"),
            initramfs: folder.join("initramfs.cpio"),
            initramfs_with_fio: folder.join("initramfs-with-fio.cpio"),
            initramfs_of_host: folder.join("initramfs-of-host.cpio"),
            boot_disk: folder.join("boot.img"),
            modules: folder.join("modules"),
        };
        let stamp = folder.join("stamp");
        let recipe = format!(
            "{TOOLS:?} {LOADS:?} {INITIATOR:?} {INITIATOR_PACKAGES:?} {INITIATOR_FOLDERS:?} {INITIATOR_LINKS:?} \
             {WANTED:?} {WANTED_BY_HOSTS:?} {LOADER_PACKAGES:?} {BOOT_DISK} {MODULES_EDITION}\n{LOADER}\n{INIT}"
        );
        if fs::read_to_string(&stamp).is_ok_and(|built| built == recipe) {
            return Ok(image);
        }
        packages::install()?;
        println!("Building the guest's image in {}", folder.display());
        fs::create_dir_all(folder)?;
        let unpacked = folder.canonicalize()?.join("unpacked");
        if unpacked.exists() {
            // A build that was cut off: its kernel may be an older one.
            fs::remove_dir_all(&unpacked)?;
        }
        let package = packages::dependency("linux-image-cloud-amd64", "linux-image-")?;
        packages::unpack(&package, &unpacked).with_context(|| format!("fetch {package}"))?;
        packages::unpack("busybox-static", &unpacked).context("fetch busybox-static")?;
        for package in INITIATOR_PACKAGES.iter().chain(LOADER_PACKAGES) {
            packages::unpack(package, &unpacked).with_context(|| format!("fetch {package}"))?;
        }
        let kernel = Kernel::find(&unpacked)?;
        fs::copy(&kernel.image, &image.kernel).context("keep the kernel")?;
        let build = |to: &Path, content: &Content| {
            let modules = kernel.load_order(&content.modules)?;
            write(to, &unpacked, &modules, content).with_context(|| format!("build {}", to.display()))
        };
        let small = Content {
            tools: TOOLS.to_vec(),
            modules: WANTED.to_vec(),
            folders: &[],
            links: &[],
        };
        build(&image.initramfs, &small)?;
        let loaded = Content {
            tools: [TOOLS, LOADS].concat(),
            ..small
        };
        build(&image.initramfs_with_fio, &loaded)?;
        let host = Content {
            tools: [TOOLS, LOADS, INITIATOR].concat(),
            modules: [WANTED, WANTED_BY_HOSTS].concat(),
            folders: INITIATOR_FOLDERS,
            links: INITIATOR_LINKS,
        };
        build(&image.initramfs_of_host, &host)?;
        image.make_boot_disk(&unpacked).context("make the boot disk")?;
        keep_modules(&unpacked, &image.modules).context("keep the kernel's modules")?;
        fs::remove_dir_all(&unpacked)?;
        // Last, so that a build that was cut off is done again.
        fs::write(stamp, recipe)?;
        Ok(image)
    }
}

impl Image {
    /// Writes the initramfs of a host with one more program in it.
    pub(crate) fn with_program(&self, program: &Path, to: &Path) -> Result<()> {
        let mut archive = self.begin_like_host(to)?;
        let name = program.file_name().context("a program has a name")?;
        archive.program(
            &format!("usr/bin/{}", name.to_string_lossy()),
            &fs::read(program)?,
        )?;
        for library in libraries_of(program, Path::new("/"))? {
            let name = library.to_string_lossy();
            archive.program(name.trim_start_matches('/'), &fs::read(&library)?)?;
        }
        archive.finish()?;
        Ok(())
    }

    /// Writes the initramfs of a machine that goes on with the Debian on its first disk: what else it has does not matter, as
    /// the kernel takes the first process from the last archive.
    pub fn starting_debian(&self, to: &Path) -> Result<()> {
        let mut archive = self.begin_like_host(to)?;
        archive.program("init", INIT_OF_DEBIAN.as_bytes())?;
        archive.finish()?;
        Ok(())
    }

    /// A copy of the initramfs of a host, to which more is added: the kernel unpacks one archive after the other.
    fn begin_like_host(&self, to: &Path) -> Result<Archive<BufWriter<File>>> {
        fs::copy(&self.initramfs_of_host, to)?;
        Ok(Archive::new(BufWriter::new(
            File::options().append(true).open(to)?,
        )))
    }

    /// A FAT file system without a partition table, in whose first sector the loader begins.
    fn make_boot_disk(&self, unpacked: &Path) -> Result<()> {
        let disk = &self.boot_disk;
        File::create(disk)?.set_len(BOOT_DISK)?;
        let configuration = unpacked.join("syslinux.cfg");
        fs::write(&configuration, LOADER)?;
        let folders = ["usr/bin", "sbin", "usr/sbin"].map(|folder| unpacked.join(folder));
        let own = std::env::var_os("PATH").unwrap_or_default();
        // The loader's installer calls mtools by their names.
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&own)))?;
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
            let found = find(program, unpacked).with_context(|| format!("{program} was not unpacked"))?;
            let output = Command::new(found).args(arguments).env("PATH", &path).output()?;
            ensure!(
                output.status.success(),
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(())
        };
        run("mkfs.vfat", &["-F".as_ref(), "32".as_ref(), disk.as_ref()])?;
        for (file, name) in [
            (&self.kernel, "::vmlinuz"),
            (&self.initramfs, "::initrd"),
            (&configuration, "::syslinux.cfg"),
        ] {
            run(
                "mcopy",
                &["-i".as_ref(), disk.as_ref(), file.as_ref(), name.as_ref()],
            )?;
        }
        run("syslinux", &["--install".as_ref(), disk.as_ref()])
    }
}

/// Moves the modules of the kernel that was unpacked, and makes the index that `modprobe` reads.
fn keep_modules(unpacked: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let from = unpacked.join("lib/modules");
    for version in fs::read_dir(&from)?.filter_map(Result::ok) {
        let depmod = packages::find("depmod").context("depmod (of kmod) is not installed")?;
        let output = Command::new(depmod)
            .arg("--basedir")
            .arg(unpacked)
            .arg(version.file_name())
            .output()
            .context("start depmod")?;
        ensure!(
            output.status.success(),
            "depmod: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fs::rename(from, to).context("move them")
}

/// What an initramfs has.
struct Content {
    /// Programs, with their libraries.
    tools: Vec<&'static str>,
    /// Modules that it loads.
    modules: Vec<&'static str>,
    /// Folders of packages, as they are.
    folders: &'static [&'static str],
    /// Links, each with what it names.
    links: &'static [(&'static str, &'static str)],
}

fn write(to: &Path, unpacked: &Path, modules: &[(String, PathBuf)], content: &Content) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(to)?));
    for folder in ["proc", "sys", "dev", "tmp", "mnt", "sbin"] {
        archive.folder(folder)?;
    }
    archive.program("init", INIT.as_bytes())?;
    archive.program("bin/busybox", &fs::read(unpacked.join("bin/busybox"))?)?;
    // mke2fs asks for the list of mounted file systems.
    archive.link("etc/mtab", "/proc/mounts")?;
    let mut order = String::new();
    for (name, file) in modules {
        let path = format!("modules/{name}.ko");
        archive.file(&path, &fs::read(file)?)?;
        order.extend(["/", &path, "\n"]);
    }
    archive.file("modules/order", order.as_bytes())?;
    let mut libraries = BTreeSet::new();
    for tool in &content.tools {
        let path = find(tool, unpacked).with_context(|| format!("{tool} is not installed"))?;
        archive.program(&format!("usr/bin/{tool}"), &fs::read(&path)?)?;
        libraries.extend(libraries_of(&path, unpacked)?);
    }
    for folder in content.folders {
        for file in fs::read_dir(unpacked.join(folder)).with_context(|| format!("read {folder}"))? {
            let file = file?;
            let name = format!("{folder}/{}", file.file_name().to_string_lossy());
            archive.program(&name, &fs::read(file.path())?)?;
            if file.path().extension().is_some_and(|extension| extension == "so") {
                libraries.extend(libraries_of(&file.path(), unpacked)?);
            }
        }
    }
    for (name, target) in content.links {
        archive.link(name, target)?;
    }
    for library in libraries {
        // Under the name by which the loader looks for it; links are followed.
        let name = library
            .strip_prefix(unpacked)
            .unwrap_or(&library)
            .to_string_lossy();
        archive.program(name.trim_start_matches('/'), &fs::read(&library)?)?;
    }
    archive
        .finish()
        .map(drop)
        .map_err(|error: io::Error| error.into())
}

/// A program that was unpacked, or is installed.
fn find(tool: &str, unpacked: &Path) -> Option<PathBuf> {
    let folders = ["bin", "sbin", "usr/sbin", "usr/bin", "lib/udev"];
    let folders = folders.map(|folder| unpacked.join(folder).join(tool));
    let found = folders.into_iter().find(|path| path.is_file());
    found.or_else(|| packages::find(tool))
}

/// The loader and the libraries of a program. Those that were unpacked go before those of this machine.
pub fn libraries_of(program: &Path, unpacked: &Path) -> Result<Vec<PathBuf>> {
    let places = ["lib", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
    let places = places.map(|place| unpacked.join(place));
    let output = Command::new("ldd")
        .arg(program)
        .env("LD_LIBRARY_PATH", std::env::join_paths(places)?)
        .output()
        .context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}
