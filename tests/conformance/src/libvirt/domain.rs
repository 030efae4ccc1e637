//! A cluster with a volume, a `vhost-blk` that offers it, and a domain that has it as its disk.

use std::cell::{RefCell, RefMut};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use test_node::Node;
use vm_tests::backend::Backend;
use vm_tests::console::Console;
use vm_tests::image::Image;
use vm_tests::patience::wait_for;

use super::daemon::Libvirt;
use crate::suite;

/// How long a guest may take to boot, emulated on a busy machine.
const BOOT: Duration = Duration::from_mins(5);
/// How long libvirt may take to see what QEMU did.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a `vhost-blk` may wait for the former one to leave the volume, in seconds.
const WAIT: u64 = 60;
/// The group in which Debian's libvirt runs QEMU.
const QEMU_GROUP: &str = "libvirt-qemu";
/// The domain's name.
const NAME: &str = "storaged-conformance";
/// The volume that the guest has from its start.
const DISK: &str = "disk";

/// See the module.
pub(super) struct Running {
    domain: Domain,
    folder: TempDir,
    /// Before the node, whose volume it has.
    backend: Option<Backend>,
    node: Node,
    /// The guest's serial line.
    pub(super) console: Console,
}

impl Running {
    /// Boots a guest.
    pub(super) fn start(image: &Image, libvirt: Rc<Libvirt>) -> Result<Self> {
        let node = Node::start(3)?;
        node.storagectl(&["pool", "create", "main", "--copies", "3"])?;
        node.storagectl(&["volume", "create", DISK, "256M"])?;
        let folder = tempfile::tempdir()?;
        let backend = offer(&node, DISK)?;
        let listener = UnixListener::bind(folder.path().join("console.sock"))?;
        listener.set_nonblocking(true)?;
        for (name, from) in [("vmlinuz", &image.kernel), ("initramfs", &image.initramfs)] {
            fs::copy(from, folder.path().join(name)).with_context(|| format!("copy {name}"))?;
        }
        let description = folder.path().join("domain.xml");
        fs::write(&description, describe(folder.path(), backend.socket()))?;
        // QEMU runs as another user, who has to come by.
        crate::tool::succeed("chmod", ["-R", "a+rwX", &folder.path().display().to_string()])?;
        libvirt.virsh(&["define", &description.display().to_string()])?;
        let domain = Domain { libvirt };
        domain.virsh("start")?;
        let stream = wait_for("QEMU to open the guest's console", PATIENCE, || {
            match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
                Err(cause) => Err(cause.into()),
            }
        });
        let console = stream
            .and_then(|stream| Console::open(stream, BOOT))
            .with_context(|| {
                let kernel = fs::read_to_string(folder.path().join("kernel.log")).unwrap_or_default();
                format!("the guest does not boot: {}{kernel}", Libvirt::qemu_log(NAME))
            })?;
        Ok(Self {
            domain,
            folder,
            backend: Some(backend),
            node,
            console,
        })
    }

    /// Ends `vhost-blk` with SIGTERM and starts another.
    pub(super) fn restart_backend(&mut self) -> Result<()> {
        self.backend.take().context("a backend runs")?.stop()?;
        self.backend = Some(offer(&self.node, DISK)?);
        Ok(())
    }

    /// A `vhost-blk` for another volume.
    pub(super) fn offer(&self, volume: &str) -> Result<Backend> {
        offer(&self.node, volume)
    }

    /// A folder for files that `virsh` reads.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `storagectl` on the cluster.
    pub(super) fn storagectl(&self, words: &[&str]) -> Result<String> {
        self.node.storagectl(words)
    }

    /// Runs `virsh` on the domain.
    pub(super) fn virsh(&self, command: &str) -> Result<String> {
        self.domain.virsh(command)
    }

    /// Runs `virsh` on the domain and a file.
    pub(super) fn virsh_with(&self, command: &str, file: &Path) -> Result<String> {
        let file = file.display().to_string();
        self.domain.libvirt.virsh(&[command, NAME, &file])
    }

    /// Runs `virsh` on the domain, with more words.
    pub(super) fn virsh_on(&self, command: &str, words: &[&str]) -> Result<String> {
        self.domain.libvirt.virsh(&[&[command, NAME], words].concat())
    }

    /// Where front ends reach the node.
    pub(super) fn session_socket(&self) -> std::path::PathBuf {
        self.node.session_socket()
    }

    /// Waits for a state as `virsh domstate` calls it.
    pub(super) fn wait_for_state(&self, wanted: &str) -> Result<()> {
        let what = format!("the domain to be {wanted:?}");
        wait_for(&what, PATIENCE, || {
            Ok((self.virsh("domstate")?.trim() == wanted).then_some(()))
        })
    }

    /// What the guest's kernel said.
    pub(super) fn kernel_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("kernel.log")).unwrap_or_default()
    }
}

/// One domain for all checks, one after another: libvirt takes a minute to look at QEMU before it runs one.
pub(super) struct Stage(pub(super) Rc<RefCell<Running>>);

impl Stage {
    /// The domain.
    pub(super) fn domain(&self) -> RefMut<'_, Running> {
        self.0.borrow_mut()
    }
}

impl suite::Stage for Stage {
    fn close(self) -> suite::Finding {
        let seen = self.domain().kernel_log().contains("I/O error");
        ensure!(!seen, "the guest has seen errors");
        Ok(())
    }
}

/// A domain that is defined, and maybe runs. Gone with this value.
struct Domain {
    libvirt: Rc<Libvirt>,
}

impl Domain {
    fn virsh(&self, command: &str) -> Result<String> {
        self.libvirt.virsh(&[command, NAME])
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // Either may be done already.
        let _ = self.virsh("destroy");
        let _ = self.virsh("undefine");
    }
}

/// A `vhost-blk` whose socket QEMU's group may connect to, as the documents say. The folders above it are
/// the test's own.
fn offer(node: &Node, volume: &str) -> Result<Backend> {
    let backend = Backend::offer(node, volume, volume, WAIT)?;
    let socket = backend.socket().display().to_string();
    crate::tool::succeed("chgrp", [QEMU_GROUP, &socket])?;
    crate::tool::succeed("chmod", ["0660", &socket])?;
    crate::tool::succeed("chmod", ["0711", &node.folder().display().to_string()])?;
    Ok(backend)
}

/// The description that docs/operations/hypervisors.md gives, with a kernel and a console for a test.
fn describe(folder: &Path, socket: &Path) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let (kernel, initramfs) = (path("vmlinuz"), path("initramfs"));
    let (log, console) = (path("kernel.log"), path("console.sock"));
    let socket = socket.display();
    format!(
        "<domain type='qemu'>
  <name>{NAME}</name>
  <memory unit='MiB'>1024</memory>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>console=ttyS0 panic=-1 loglevel=6 rdinit=/init</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_reboot>destroy</on_reboot>
  <devices>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <disk type='vhostuser' device='disk'>
      <driver name='qemu' type='raw' queues='2'/>
      <source type='unix' path='{socket}'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='file'><source path='{log}'/><target port='0'/></serial>
    <serial type='unix'><source mode='connect' path='{console}'/><target port='1'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"
    )
}
