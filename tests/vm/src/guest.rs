//! A running guest: a QEMU process, and a serial line on which the guest takes commands.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};

use crate::accelerator::Accelerator;
pub use crate::console::Output;
use crate::console::{COMMAND, Console};
use crate::image::Image;
use crate::packages;
use crate::patience::wait_for;
use crate::qmp::Qmp;
use crate::silence;

/// How long a guest may take to boot. Emulated, on a busy machine of two cores, it takes half a minute.
const BOOT: Duration = Duration::from_mins(5);
/// In a machine's folder: what the guest's kernel says, and QEMU's monitor.
const KERNEL_LOG: &str = "kernel.log";
const MONITOR: &str = "qmp.sock";
const QEMU_LOG: &str = "qemu.log";
/// How much of what a guest's kernel said is told of one that failed.
const LAST_LINES: usize = 15;
/// The first QEMU that counts the time between reconnects in milliseconds.
const MILLISECONDS_SINCE: (u32, u32) = (9, 2);

/// A disk of the guest, `/dev/vda` and so on in order.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The vhost-user socket that QEMU connects to.
    pub socket: PathBuf,
    /// How many queues the guest gets.
    pub queues: u16,
}

impl Disk {
    /// With one queue a processor of the default guest.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            queues: 2,
        }
    }
}

/// What a guest has besides its file systems' tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing: it boots faster.
    None,
    /// fio and sqlite3.
    Fio,
    /// These, and an iSCSI initiator; and a network, in which the host's loopback is `10.0.2.2`.
    Host,
    /// The same, and `storaged-attach` as it is built.
    Attach,
}

/// What kind of guest.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its disks.
    pub disks: Vec<Disk>,
    /// What it has besides its file systems' tools.
    pub load: Load,
    /// The disk that it starts from, as QEMU's `-drive` takes it; its kernel is given to it if there is none.
    pub starts_from: Option<String>,
    /// A file that is one more disk, for reading only.
    pub read_only_disk: Option<PathBuf>,
    /// How QEMU runs it.
    pub accelerator: Accelerator,
}

/// A running guest. Ends with this value.
pub struct Guest {
    machine: Machine,
    console: Console,
    /// What the kernel said in machines that the guest has left.
    said: String,
}

/// A QEMU process with its folder. Ends with this value.
pub(crate) struct Machine {
    qemu: Child,
    folder: tempfile::TempDir,
}

impl Guest {
    /// Starts QEMU and waits until the guest takes commands.
    pub fn boot(image: &Image, options: &Options) -> Result<Self> {
        Self::boot_within(image, options, BOOT)
    }

    pub(crate) fn boot_within(image: &Image, options: &Options, patience: Duration) -> Result<Self> {
        let (mut machine, stream) = Machine::start(image, options, &[], patience)?;
        match Console::open(stream, patience) {
            Ok(console) => Ok(Self {
                machine,
                console,
                said: String::new(),
            }),
            Err(cause) => {
                let context = machine.look();
                Err(cause.context(format!("the guest does not boot: {context}")))
            }
        }
    }

    /// The monitor of the QEMU that runs the guest.
    pub(crate) fn monitor(&self) -> Result<Qmp> {
        self.machine.monitor()
    }

    /// The guest runs in another machine from now on, whose console is this. The former one ends.
    pub(crate) fn has_moved(&mut self, machine: Machine, console: UnixStream) -> Result<()> {
        self.console.resume(console)?;
        self.said.push_str(&self.machine.kernel_log());
        self.machine = machine;
        Ok(())
    }

    /// Runs a command line of the guest's shell; an error if it fails.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let outcome = self.console.run(command);
        self.explain(outcome)
    }

    /// Runs a command line of the guest's shell, however it ends.
    pub fn try_run(&mut self, command: &str) -> Result<Output> {
        let outcome = self.console.try_run(command);
        self.explain(outcome)
    }

    /// Lets the guest begin with a command line; [`Guest::finish`] waits for its end.
    pub fn begin(&mut self, command: &str) -> Result<()> {
        self.console.begin(command)
    }

    /// Waits for the end of what was begun.
    pub fn finish(&mut self) -> Result<Output> {
        let outcome = self.console.finish();
        self.explain(outcome)
    }

    /// Waits for a line of the output of what was begun.
    pub fn wait_for_line(&mut self, wanted: &str) -> Result<String> {
        self.console.wait_for_line(wanted)
    }

    /// A guest that is silent is looked at from outside, while it can be.
    fn explain<T>(&mut self, outcome: Result<T>) -> Result<T> {
        let silent = |cause: &anyhow::Error| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|cause| cause.kind() == io::ErrorKind::WouldBlock)
        };
        outcome.map_err(|cause| {
            if !silent(&cause) {
                return cause;
            }
            cause.context(self.look())
        })
    }

    /// What can be found out about it from outside.
    fn look(&mut self) -> String {
        let monitor = self.machine.folder.path().join(MONITOR);
        let report = silence::report(self.machine.qemu.id(), &monitor, &mut self.console);
        report + &self.machine.look()
    }

    /// What the guest's kernel has said so far.
    pub fn kernel_log(&self) -> String {
        self.said.clone() + &self.machine.kernel_log()
    }

    /// Kills QEMU with SIGKILL, as a power cut would.
    pub fn kill(mut self) -> Result<()> {
        self.machine.qemu.kill()?;
        self.machine.qemu.wait()?;
        Ok(())
    }

    /// Switches the guest off and waits for QEMU to end.
    pub fn power_off(mut self) -> Result<()> {
        self.begin("sync; poweroff -f")?;
        let qemu = &mut self.machine.qemu;
        let ended = wait_for("QEMU to end", COMMAND, || Ok(qemu.try_wait()?));
        let status = ended.map_err(|cause| cause.context(self.look()))?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }
}

impl Machine {
    /// Starts QEMU, with these arguments besides, and waits until it has opened the guest's console.
    pub(crate) fn start(
        image: &Image,
        options: &Options,
        besides: &[String],
        patience: Duration,
    ) -> Result<(Self, UnixStream)> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join("console.sock"))?;
        listener.set_nonblocking(true)?;
        let errors = fs::File::create(folder.path().join(QEMU_LOG))?;
        let qemu = Command::new("qemu-system-x86_64")
            .args(arguments(image, options, folder.path())?)
            .args(besides)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .context("start QEMU")?;
        let mut machine = Self { qemu, folder };
        let stream = wait_for("QEMU to open the guest's console", patience, || {
            if let Some(status) = machine.qemu.try_wait()? {
                let said = fs::read_to_string(machine.folder.path().join(QEMU_LOG)).unwrap_or_default();
                bail!("QEMU has ended at once, {status}: {said}");
            }
            match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
                Err(cause) => Err(cause.into()),
            }
        })?;
        Ok((machine, stream))
    }

    /// What QEMU and the guest's kernel have said.
    fn look(&mut self) -> String {
        let log = self.kernel_log();
        let last: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
        let said = fs::read_to_string(self.folder.path().join(QEMU_LOG)).unwrap_or_default();
        format!(
            "QEMU has ended: {:?}, and said {said:?}; the last that its guest's kernel said, newest first: {last:#?}",
            self.qemu.try_wait()
        )
    }

    /// Its monitor.
    pub(crate) fn monitor(&self) -> Result<Qmp> {
        Qmp::connect(&self.folder.path().join(MONITOR))
    }

    fn kernel_log(&self) -> String {
        fs::read_to_string(self.folder.path().join(KERNEL_LOG)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// What every QEMU here is told.
const FIXED: [&str; 13] = [
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-m",
    "1024",
    "-smp",
    "2",
    "-machine",
    "q35,memory-backend=memory",
    "-object",
    "memory-backend-memfd,id=memory,size=1024M,share=on",
];

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// How a guest gets its kernel from QEMU.
fn kernel(image: &Image, load: Load, folder: &Path) -> Result<[String; 6]> {
    let initramfs = match load {
        Load::None => image.initramfs.clone(),
        Load::Fio => image.initramfs_with_fio.clone(),
        Load::Host => image.initramfs_of_host.clone(),
        Load::Attach => {
            // What changes with every build is no part of the image that is kept.
            let whole = folder.join("initramfs.cpio");
            image.with_program(&test_node::program("storaged-attach")?, &whole)?;
            whole
        }
    };
    Ok([
        "-append".to_owned(),
        "console=ttyS0 panic=-1 loglevel=6 no_timer_check rdinit=/init".to_owned(),
        "-kernel".to_owned(),
        path(&image.kernel),
        "-initrd".to_owned(),
        path(&initramfs),
    ])
}

fn arguments(image: &Image, options: &Options, folder: &Path) -> Result<Vec<String>> {
    let mut arguments: Vec<String> = FIXED.map(str::to_owned).to_vec();
    arguments.extend(options.accelerator.arguments().map(str::to_owned));
    arguments.extend(match &options.starts_from {
        Some(drive) => ["-drive".to_owned(), drive.clone()].to_vec(),
        None => kernel(image, options.load, folder)?.to_vec(),
    });
    arguments.extend([
        "-serial".to_owned(),
        format!("file:{}", path(&folder.join(KERNEL_LOG))),
        "-qmp".to_owned(),
        format!("unix:{},server=on,wait=off", path(&folder.join(MONITOR))),
    ]);
    arguments.extend([
        "-chardev".to_owned(),
        format!("socket,id=console,path={}", path(&folder.join("console.sock"))),
    ]);
    arguments.extend(["-serial".to_owned(), "chardev:console".to_owned()]);
    if matches!(options.load, Load::Host | Load::Attach) {
        let network = [
            "-netdev",
            "user,id=network",
            "-device",
            "virtio-net-pci,netdev=network",
        ];
        arguments.extend(network.map(str::to_owned));
    }
    if let Some(disk) = &options.read_only_disk {
        let drive = format!("file={},format=raw,if=virtio,readonly=on", path(disk));
        arguments.extend(["-drive".to_owned(), drive]);
    }
    let reconnect = if qemu_version()? >= MILLISECONDS_SINCE {
        "reconnect-ms=200"
    } else {
        "reconnect=1"
    };
    for (number, disk) in options.disks.iter().enumerate() {
        let socket = path(&disk.socket);
        arguments.extend([
            "-chardev".to_owned(),
            format!("socket,id=disk{number},path={socket},{reconnect}"),
        ]);
        let queues = disk.queues;
        arguments.extend([
            "-device".to_owned(),
            format!("vhost-user-blk-pci,chardev=disk{number},num-queues={queues}"),
        ]);
    }
    Ok(arguments)
}

/// Major and minor version of the QEMU that is installed.
fn qemu_version() -> Result<(u32, u32)> {
    let program = packages::find("qemu-system-x86_64").context("qemu-system-x86_64 is not installed")?;
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    read_version(&text).with_context(|| format!("QEMU names no version: {text}"))
}

fn read_version(text: &str) -> Option<(u32, u32)> {
    let version = text
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)?;
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    //! An older QEMU must not be given an option that it does not know.
    use super::*;

    #[test]
    fn the_version_is_read_from_what_qemu_prints() {
        assert_eq!(
            read_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"),
            Some((10, 0))
        );
        assert_eq!(read_version("QEMU emulator version 7.2.15\n"), Some((7, 2)));
        assert_eq!(read_version("something else"), None);
    }
}
