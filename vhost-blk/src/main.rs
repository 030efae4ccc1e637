//! `vhost-blk`: offers one volume to one QEMU, over a vhost-user socket.
//!
//! `open -> serve -> drain -> close`, in that order, on the data thread, which is the main thread.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use client::device::{BlockDevice, DeviceEvent, DeviceInfo};
use client::memory::MemoryDevice;
use client::sectors::Sectors;
use client::shared::SharedVolume;
use client::transport::Address;
use client::volume::{self, Options, ReadRing};
use telemetry::log::{self, LogFormat};
use telemetry::service as manager;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, error_span, info, warn};
use vhost_blk::backing::Backing;
use vhost_blk::config_space::{ConfigSpace, QUEUES_MAX, Shape};
use vhost_blk::front_end::FrontEnd;
use vhost_blk::operator::desk::Desk;
use vhost_blk::operator::serve::Prepared;
use vhost_blk::operator::{ORDERS_MAX, Order};
use vhost_blk::sandbox::probe::Probe;
use vhost_blk::sandbox::{self, Seccomp};
use vhost_blk::tenure::Tenure;
use vhost_blk::worker::{COMMANDS_MAX, Worker};
use vhost_blk::{server, service};

/// Page-sized buffers are most of what a disk holds in memory. The system's allocator takes twice their
/// size for them, and gives large ones back to the kernel after each use (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Offers a volume of storaged to a QEMU guest as a virtio disk.
///
/// QEMU connects with
///
///   -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem
///   -chardev socket,id=c0,path=PATH,reconnect-ms=100 -device vhost-user-blk-pci,chardev=c0
///
/// On SIGTERM it finishes the requests that it has taken and ends; QEMU keeps the others until the next
/// `vhost-blk` listens on the same socket. A second SIGTERM ends it at once: what was taken is then done
/// again by the next one, as after a crash.
///
/// A service manager may hand over the listening socket (`LISTEN_FDS`) and is told when it is served
/// (`NOTIFY_SOCKET`).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where this node's storaged is: unix:PATH or tcp:HOST:PORT (several: the best first).
    #[arg(long, value_name = "ADDRESS", required_unless_present = "memory")]
    storaged: Vec<Address>,
    /// The volume's name, or VOLUME@SNAPSHOT to offer a snapshot for reading.
    #[arg(long, value_name = "NAME", required_unless_present = "memory")]
    volume: Option<String>,
    /// The socket that QEMU connects to.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Answer an operator's questions on this socket: unix:PATH, for this user only. See `storagectl vhost`.
    #[arg(long, value_name = "unix:PATH", value_parser = control_socket)]
    control: Option<PathBuf>,
    /// What to do about system calls that this program has no use for: let them fail, let the kernel log
    /// them, or nothing.
    #[arg(long, value_enum, default_value_t = Seccomp::Enforce)]
    seccomp: Seccomp,
    /// Keep all memory of this process in memory. Its limit (ulimit -l) has to cover the guest's memory, too.
    #[arg(long)]
    lock_memory: bool,
    /// Refuse writes.
    #[arg(long)]
    read_only: bool,
    /// Wait for a guest that runs elsewhere, as QEMU does with -incoming: take the volume with its first request
    /// here, when the vhost-blk that serves it now has given it back.
    #[arg(long, conflicts_with = "memory")]
    incoming: bool,
    /// Let others have the same volume open at the same time, all of them with --shared: several guests, or several
    /// paths. The smallest request is 4096 bytes then; what guests owe each other (locks, a file system that is made for
    /// it) is theirs.
    #[arg(long, conflicts_with_all = ["memory", "incoming"])]
    shared: bool,
    /// The smallest request of the guest, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "512", value_parser = ["512", "4096"])]
    block_size: String,
    /// How many queues the guest may use; QEMU takes one a processor.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(QUEUES_MAX)))]
    queues: u16,
    /// How long to wait for a former owner of the volume to leave, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
    /// Offer this many bytes of memory instead of a volume: for trying out QEMU and drivers.
    #[arg(long, value_name = "BYTES", hide = true, conflicts_with_all = ["storaged", "volume"])]
    memory: Option<u64>,
    /// How log lines look. `RUST_LOG` says which there are.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Do what the sandbox is about, tell what came of it, and end: for tests.
    #[arg(long, value_enum, hide = true)]
    probe: Option<Probe>,
}

/// `unix:PATH`, or a path.
fn control_socket(text: &str) -> Result<PathBuf, String> {
    match text.parse::<Address>() {
        Ok(Address::Unix(path)) => Ok(path),
        Ok(Address::Tcp(_) | Address::Tls { .. }) => {
            Err("the control socket is a unix socket: unix:PATH".to_owned())
        }
        Err(cause) => Err(cause.to_string()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start(arguments.log_format);
    let volume = arguments.volume.as_deref().unwrap_or("memory");
    // Entered for good: everything on this thread is about this volume.
    let _entered = error_span!("vhost_blk", volume).entered();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            error!("{cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<()> {
    if arguments.lock_memory {
        sandbox::lock_memory()?;
    }
    sandbox::leave_shared_memory_out_of_core_dumps();
    let Backend {
        device,
        shape,
        tenure,
        shared,
    } = open(arguments).await?;
    let info = device.info();
    let front_end = Arc::new(FrontEnd::new(ConfigSpace::new(shape, info.size)));
    let told = Arc::clone(&front_end);
    device.listen(Box::new(move |event| match event {
        DeviceEvent::Resized(size) => {
            info!(size, "the volume has another size");
            if let Err(cause) = told.resized(size) {
                warn!(%cause, "cannot tell the front end of the new size");
            }
        }
        DeviceEvent::Lost => {
            error!("the volume was taken over by another process: all requests fail from now on");
        }
        DeviceEvent::Wanted | DeviceEvent::OwnerMoved => {}
    }));
    // Before anybody can see that we listen: a signal between the two must not cut anything off.
    let shutdown = shutdown()?;
    // First the one that is ours: who finds the hypervisor's socket finds this one, too.
    let control = arguments.control.as_ref().map(|path| {
        let prepared = Prepared::bind(path);
        prepared.with_context(|| format!("listen on {}: is another vhost-blk using it?", path.display()))
    });
    let control = control.transpose()?;
    let listener = match service::handed_over(&arguments.socket)? {
        Some(listener) => listener,
        None => server::bind(&arguments.socket).with_context(|| {
            format!(
                "listen on {}: is another vhost-blk using it?",
                arguments.socket.display()
            )
        })?,
    };
    // From here on strangers are spoken to, and nothing is needed that the sandbox does not leave.
    sandbox::give_up_calls(arguments.seccomp)?;
    if let Some(probe) = arguments.probe {
        return probe.attempt().with_context(|| format!("{probe:?}"));
    }
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    server::spawn(listener, Arc::clone(&front_end), commands).context("start the control thread")?;
    info!(
        volume = info.name,
        size = info.size,
        block_size = shape.block_size,
        read_only = shape.read_only,
        queues = shape.queues,
        socket = %arguments.socket.display(),
        "ready"
    );
    manager::ready("serves the guest");
    tokio::task::spawn_local(manager::heartbeat());
    let backing = Backing::new(device, shape.block_size);
    let worker = Rc::new(Worker::new(Rc::clone(&backing)).with_tenure(tenure.clone()));
    if let Some(prepared) = control {
        let (orders, taken) = mpsc::channel::<Order>(ORDERS_MAX);
        prepared.spawn(orders).context("start the operator thread")?;
        let desk = Desk {
            worker: Rc::clone(&worker),
            backing,
            front_end,
            tenure: tenure.clone(),
            seccomp: arguments.seccomp.name(),
        };
        tokio::task::spawn_local(desk.attend(taken));
    }
    worker.serve(inbox, shutdown).await;
    manager::stopping("what was taken is answered");
    info!("drained");
    if let Some(tenure) = tenure {
        tenure.close().await;
    }
    if let Some(shared) = shared {
        shared.close().await;
    }
    Ok(())
}

/// What is offered to the guest.
struct Backend {
    device: Rc<dyn BlockDevice>,
    shape: Shape,
    /// To be given back at the end; nothing if the device is in memory.
    tenure: Option<Rc<Tenure>>,
    /// The same, of a volume that others have open, too.
    shared: Option<Rc<SharedVolume>>,
}

/// Opens what the arguments name, with the block size that the guest is to see.
async fn open(arguments: &Arguments) -> Result<Backend> {
    let block_size: u32 = arguments.block_size.parse().context("read the block size")?;
    let (device, tenure, shared) = match (arguments.memory, &arguments.volume) {
        (Some(bytes), _) => (memory_device(bytes, arguments.read_only), None, None),
        (None, Some(name)) if arguments.shared => {
            let shared = share_volume(arguments, name, block_size).await?;
            (Rc::clone(&shared) as Rc<dyn BlockDevice>, None, Some(shared))
        }
        (None, Some(name)) => {
            let tenure = find_volume(arguments, name).await?;
            (Rc::clone(&tenure) as Rc<dyn BlockDevice>, Some(tenure), None)
        }
        (None, None) => anyhow::bail!("give --storaged and --volume"),
    };
    let device = if block_size < device.info().alignment {
        Rc::new(Sectors::new(device))
    } else {
        device
    };
    let shape = Shape {
        block_size,
        read_only: device.info().read_only,
        queues: arguments.queues,
    };
    Ok(Backend {
        device,
        shape,
        tenure,
        shared,
    })
}

async fn share_volume(arguments: &Arguments, name: &str, block_size: u32) -> Result<Rc<SharedVolume>> {
    ensure!(
        block_size == protocol::BLOCK_SIZE,
        "a shared volume takes whole blocks only: say --block-size {}",
        protocol::BLOCK_SIZE
    );
    ensure!(
        !name.contains('@'),
        "a snapshot never changes: it can be open any number of times without --shared"
    );
    let shared = SharedVolume::open(options(arguments, name)).await;
    let shared = shared.with_context(|| format!("share volume {name}"))?;
    Ok(Rc::new(shared))
}

fn options(arguments: &Arguments, name: &str) -> Options {
    let (volume, snapshot) = match name.split_once('@') {
        Some((volume, snapshot)) => (volume, Some(snapshot.to_owned())),
        None => (name, None),
    };
    Options {
        program: "vhost-blk".to_owned(),
        storaged: arguments.storaged.clone(),
        volume: volume.to_owned(),
        snapshot,
        read_only: arguments.read_only,
        wait: Duration::from_secs(arguments.wait),
        read_cache: None,
    }
}

async fn find_volume(arguments: &Arguments, name: &str) -> Result<Rc<Tenure>> {
    let options = options(arguments, name);
    // Made now, for the sandbox allows no more of them.
    let ring = ReadRing::new(None)
        .inspect_err(|cause| info!(%cause, "no ring for direct reads: all reads go through the disks"))
        .ok();
    if !arguments.incoming {
        let tenure = Tenure::here(options, ring).await;
        return tenure.with_context(|| format!("open volume {name}"));
    }
    let info = volume::look(&options.program, &options.storaged, &options.volume)
        .await
        .with_context(|| format!("look at volume {name}"))?;
    let info = DeviceInfo {
        read_only: info.read_only || options.read_only,
        ..info
    };
    Ok(Tenure::away(options, info, ring))
}

fn memory_device(size: u64, read_only: bool) -> Rc<dyn BlockDevice> {
    let info = DeviceInfo {
        read_only,
        ..MemoryDevice::new(size).info()
    };
    Rc::new(MemoryDevice::with_info(info))
}

/// Resolves at the first SIGTERM or SIGINT. A second one ends the process at once: requests that were
/// taken and not answered are then for the next process to do again.
fn shutdown() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            error!("ended before all requests were answered");
            std::process::exit(1);
        });
    })
}
