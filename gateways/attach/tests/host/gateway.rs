//! A `storaged-nbd` of volumes in memory, in this process, and a host whose kernel is in memory, too.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use storaged_attach::mapping::Mapper;
use storaged_attach::memory::MemoryKernel;
use storaged_attach::sockets::Sockets;
use storaged_nbd::address::ListenAddress;
use storaged_nbd::server::{Server, Settings};
use storaged_nbd::source::{MemoryExport, Source};
use tempfile::TempDir;
use tokio::sync::watch;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A systemctl: writes down what it is told, or says why not.
const SYSTEMCTL: &str = "#!/bin/sh\nhere=$(dirname \"$0\")\n\
    if [ -e \"$here/refused\" ]; then cat \"$here/refused\" >&2; exit 1; fi\necho \"$@\" >> \"$here/told\"\n";

/// Bytes of each volume.
pub(crate) const SIZE: u64 = 1 << 20;

/// A gateway with the volumes `disk` and `other`. Leaves when dropped.
pub(crate) struct Gateway {
    leave: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn start(socket: &Path, size: u64) -> Self {
        let export = |name: &str| MemoryExport {
            name: name.into(),
            size,
        };
        let settings = Settings {
            source: Source::Memory(vec![export("disk"), export("other")]),
            listen: vec![ListenAddress::Unix(socket.to_owned())],
            control: None,
            tls: None,
            plaintext: false,
            default_export: None,
            connections: 16,
        };
        let (leave, leaving) = watch::channel(false);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let server = Server::bind(settings).await.unwrap();
                ready.send(()).unwrap();
                server.run(leaving).await;
            });
        });
        is_ready.recv().unwrap();
        Self {
            leave,
            thread: Some(thread),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.leave.send_replace(true);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

/// A host.
pub(crate) struct Machine {
    pub(crate) kernel: Arc<MemoryKernel>,
    pub(crate) mapper: Mapper,
    pub(crate) sockets: Option<Sockets>,
    folder: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Arc::new(MemoryKernel::default());
        let gateway = ListenAddress::Unix(folder.path().join("nbd.sock"));
        let mut mapper = Mapper::new(kernel.clone(), gateway);
        mapper.folder = folder.path().join("dev");
        Self {
            kernel,
            mapper,
            sockets: None,
            folder,
        }
    }

    /// As [`Machine::new`], with a systemd whose units are lines in a file: what runs them is not there in tests.
    pub(crate) fn with_sockets() -> Self {
        let mut machine = Self::new();
        let folder = machine.folder.path();
        let systemctl = folder.join("systemctl");
        std::fs::write(&systemctl, SYSTEMCTL).unwrap();
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        machine.sockets = Some(Sockets {
            systemctl,
            options: folder.join("options"),
            sockets: folder.join("sockets"),
        });
        machine
    }

    /// What its systemd was told to do.
    pub(crate) fn told(&self) -> Vec<String> {
        let told = std::fs::read_to_string(self.folder.path().join("told")).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }

    /// Its systemd refuses from now on, with these words; none for an end of that.
    pub(crate) fn refuse(&self, words: Option<&str>) {
        let file = self.folder.path().join("refused");
        match words {
            Some(words) => std::fs::write(file, words).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
    }

    /// Where its gateway belongs.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    pub(crate) fn gateway(&self) -> Gateway {
        Gateway::start(&self.socket(), SIZE)
    }

    /// What its devices are of.
    pub(crate) fn volumes(&self) -> Vec<String> {
        let mapped = self.mapper.list().unwrap();
        mapped
            .iter()
            .map(|mapped| mapped.device.tag.to_string())
            .collect()
    }
}

/// Waits until `look` gives something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
