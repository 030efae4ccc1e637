//! Keeps the devices that are there alive: a link that died is replaced as soon as the gateway is back, and a volume that
//! has grown grows on this host, too. All devices of ours are cared for, whoever made them.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};
use tracing::{Instrument, info, info_span, warn};

use crate::handshake;
use crate::kernel::Device;
use crate::mapping::{MapError, Mapper};
use crate::nbd::{DeadLink, Nbd};

/// Between attempts at a new link: short, for I/O waits meanwhile.
const RELINK_AFTER: Duration = Duration::from_millis(300);
/// Dead links that may wait to be heard of: more than a kernel has devices at most hosts. What comes then waits in the
/// kernel's own queue.
const DEAD_LINKS_MAX: usize = 1024;

/// How often something is looked at that nobody tells.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between looks at whether volumes have grown, and at which devices there are.
    pub look: Duration,
    /// Between links that are offered to the kernel though no word of a dead one came. It says neither whether a device
    /// has a link nor whether it took one, so a word that is lost must not leave a device without one for good.
    pub offer: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(3),
            offer: Duration::from_secs(30),
        }
    }
}

/// Listens for dead links, on a thread of its own. Those that die after this returns are heard of.
pub fn listen(kernel: &Nbd) -> std::io::Result<mpsc::Receiver<DeadLink>> {
    let (tell, told) = mpsc::channel(DEAD_LINKS_MAX);
    let dead_links = kernel.dead_links()?;
    // The kernel cuts a thread's name at 15 bytes.
    std::thread::Builder::new()
        .name("dead-links".to_owned())
        .spawn(move || {
            // The sender goes with this thread, and who listens to it learns that.
            if let Err(error) = dead_links.listen(|dead| tell.blocking_send(dead).is_ok()) {
                warn!(%error, "dead links are not heard of any more");
            }
        })?;
    Ok(told)
}

/// A device that is cared for.
struct Cared {
    device: Device,
    died: Arc<Notify>,
    task: JoinHandle<()>,
}

/// Cares for all devices, as long as dead links can be heard of.
pub async fn run(mapper: Mapper, mut dead_links: mpsc::Receiver<DeadLink>, pace: Pace) {
    let mut cared: HashMap<u32, Cared> = HashMap::new();
    let mut looks = interval(pace.look);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => look(&mapper, &mut cared, pace).await,
            dead = dead_links.recv() => match dead {
                Some(DeadLink::Of(index)) => {
                    // One that is not cared for yet gets a link when it is found.
                    if let Some(cared) = cared.get(&index) {
                        cared.died.notify_one();
                    }
                }
                Some(DeadLink::Any) => {
                    for cared in cared.values() {
                        cared.died.notify_one();
                    }
                }
                None => break,
            },
        }
    }
    for cared in cared.values() {
        cared.task.abort();
    }
}

/// Finds devices that have come or gone.
async fn look(mapper: &Mapper, cared: &mut HashMap<u32, Cared>, pace: Pace) {
    let devices = match blocking(mapper, |mapper| Ok(mapper.kernel.devices()?)).await {
        Ok(devices) => devices,
        Err(error) => return warn!(%error, "the kernel does not tell which devices there are"),
    };
    cared.retain(|_, cared| {
        let is_there = devices.iter().any(|device| is_same(device, &cared.device));
        if !is_there {
            cared.task.abort();
        }
        is_there
    });
    for device in devices {
        let index = device.index;
        cared.entry(index).or_insert_with(|| {
            let died = Arc::new(Notify::new());
            // Its link may have died while nobody listened.
            died.notify_one();
            let span = info_span!("device", node = device.node(), volume = %device.tag.export);
            let caring = care(mapper.clone(), device.clone(), died.clone(), pace);
            Cared {
                task: tokio::spawn(caring.instrument(span)),
                device,
                died,
            }
        });
    }
}

fn is_same(one: &Device, other: &Device) -> bool {
    one.index == other.index && one.tag == other.tag
}

async fn care(mapper: Mapper, device: Device, died: Arc<Notify>, pace: Pace) {
    let mut size = device.size;
    let mut looks = interval(pace.look);
    let mut offers = interval_at(Instant::now() + pace.offer, pace.offer);
    for clock in [&mut looks, &mut offers] {
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            // What I/O may wait for comes first.
            biased;
            () = died.notified() => relink(&mapper, &device).await,
            // Of a gateway that is away the kernel has told, or the next offer will.
            _ = offers.tick() => drop(offer(&mapper, &device).await),
            _ = looks.tick() => {
                let device = device.clone();
                let looked = blocking(&mapper, move |mapper| grow(mapper, &device, size));
                // A gateway that is away is waited for elsewhere.
                if let Ok(Some(grown)) = looked.await {
                    info!(size = grown, "the volume has grown, and so has the device");
                    size = grown;
                }
            }
        }
    }
}

/// Offers the kernel a link until there is one to offer.
async fn relink(mapper: &Mapper, device: &Device) {
    let mut told: Option<String> = None;
    while let Err(error) = offer(mapper, device).await {
        let why = error.to_string();
        if told.as_ref() != Some(&why) {
            warn!(%error, "there is no link: requests wait");
            told = Some(why);
        }
        sleep(RELINK_AFTER).await;
    }
    if told.is_some() {
        info!("there is a link again");
    }
}

/// Offers the kernel a link, which it takes if the device's own is dead.
async fn offer(mapper: &Mapper, device: &Device) -> Result<(), MapError> {
    let device = device.clone();
    let offered = blocking(mapper, move |mapper| {
        let (link, _) = handshake::open(&mapper.gateway, &device.tag.export.to_string())?;
        Ok(mapper.kernel.relink(&device, link.as_fd())?)
    });
    offered.await
}

/// Makes a device as large as its volume; says how large, if that is more than it was.
fn grow(mapper: &Mapper, device: &Device, size: u64) -> Result<Option<u64>, MapError> {
    let told = handshake::describe(&mapper.gateway, &device.tag.export.to_string())?;
    if told.size <= size {
        return Ok(None);
    }
    mapper.kernel.resize(device, told.size)?;
    Ok(Some(told.size))
}

/// Does something that waits for the gateway or the kernel, where it keeps nobody else waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    mapper: &Mapper,
    work: impl FnOnce(&Mapper) -> Result<T, MapError> + Send + 'static,
) -> Result<T, MapError> {
    let mapper = mapper.clone();
    aside(move || work(&mapper)).await
}

/// Does something that waits for another program, where it keeps nobody else waiting.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
