//! The life of a disk's thread: open, listen, serve, stop.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use client::transport::{Address, Listener};
use coordination::Revision;
use coordination::map::MapWatch;
use store::Store;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::command::Command;
use super::connection::{self, Identity};
use super::driver::Driver;
use super::scrubs;
use super::sources::{self, Errand, Reach};
use super::stopwatch::Stopwatch;
use super::{Settings, StartError};

/// Connections to one disk at once: one for each open volume of the cluster. A guess; each costs a
/// receive buffer of 128 KiB.
const CONNECTIONS_MAX: usize = 4096;
/// After this time without a request a disk has leisure for a checkpoint.
const REST_AFTER: Duration = Duration::from_secs(1);
/// How often a disk that comes back goes on with what was refused.
const NUDGE: Duration = Duration::from_millis(200);
/// How long to wait after the system refused a connection: it has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the disk listens, and the highest generation or interval that it remembers.
pub(super) type Started = oneshot::Sender<Result<(Vec<Address>, Revision), StartError>>;

/// Runs a disk on this thread until it is told to stop.
pub(super) fn run(settings: Settings, map: MapWatch, commands: mpsc::Receiver<Command>, started: Started) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    let id = settings.disk;
    let stopped = LocalSet::new().block_on(&runtime, async move {
        match open(settings, &map).await {
            Ok(open) => {
                let addresses = open
                    .listeners
                    .iter()
                    .map(Listener::address)
                    .collect::<io::Result<_>>();
                let addresses = addresses.map(|addresses| (addresses, open.remembers));
                if started.send(addresses.map_err(StartError::System)).is_err() {
                    return None;
                }
                Some(serve(open, map, commands).await)
            }
            Err(error) => {
                let _ = started.send(Err(error));
                None
            }
        }
    });
    // Ends the tasks of connections, which hold the driver too.
    drop(runtime);
    if let Some((driver, answer)) = stopped {
        if let Err(error) = driver.close() {
            error!(disk = %id, %error, "the disk was not closed cleanly; it recovers at the next start");
        }
        info!(disk = %id, "stopped");
        let _ = answer.map(|answer| answer.send(()));
    }
}

/// A disk that is about to serve.
struct Open {
    driver: Rc<Driver>,
    errands: mpsc::Receiver<Errand>,
    reach: Reach,
    listeners: Vec<Listener>,
    wake: Option<OwnedFd>,
    identity: Identity,
    remembers: Revision,
}

async fn open(settings: Settings, map: &MapWatch) -> Result<Open, StartError> {
    let ledger = Stopwatch::ledger();
    let store = Store::open_through(&settings.directory, &settings.options, |medium| {
        Box::new(Stopwatch::new(medium, Rc::clone(&ledger)))
    })?;
    let found = store.format();
    if found.disk != settings.disk || found.cluster != settings.cluster {
        return Err(StartError::Stranger {
            directory: settings.directory,
            found: found.disk,
            found_cluster: found.cluster,
            expected: settings.disk,
        });
    }
    let generations = store
        .generations()
        .into_iter()
        .map(|(_, generation)| generation.0);
    let intervals = store.intervals().into_iter().map(|(_, interval)| interval.0);
    let remembers = Revision(generations.chain(intervals).max().unwrap_or(0));
    let reach = Reach {
        disk: settings.disk,
        node: settings.node,
        cluster: settings.cluster,
        map: map.clone(),
        credentials: settings.credentials.clone(),
        wishes: settings.wishes,
        rate: settings.recovery_rate,
        scrub_rate: settings.scrub_rate,
    };
    let (driver, errands) = Driver::new(store, ledger, &settings.directory, reach.clone());
    let mut listeners = Vec::with_capacity(settings.listen.len());
    for address in settings.listen {
        match Listener::bind_with(&address, settings.credentials.as_ref()).await {
            Ok(listener) => listeners.push(listener),
            Err(source) => return Err(StartError::Listen { address, source }),
        }
    }
    let wake = driver.wake_descriptor()?;
    let identity = Identity {
        disk: settings.disk,
        cluster: settings.cluster,
    };
    Ok(Open {
        driver,
        errands,
        reach,
        listeners,
        wake,
        identity,
        remembers,
    })
}

/// Serves until a command says stop; gives that command's way back.
async fn serve(
    open: Open,
    map: MapWatch,
    mut commands: mpsc::Receiver<Command>,
) -> (Rc<Driver>, Option<oneshot::Sender<()>>) {
    let Open {
        driver,
        errands,
        reach,
        listeners,
        wake,
        identity,
        remembers: _,
    } = open;
    info!(disk = %identity.disk, "serving");
    let mut tasks = vec![
        spawn_local(take_turns(Rc::clone(&driver), wake)),
        spawn_local(follow(Rc::clone(&driver), map)),
        spawn_local(rest(Rc::clone(&driver))),
        spawn_local(sources::run(Rc::clone(&driver), reach, errands)),
        spawn_local(come_back(Rc::clone(&driver))),
        spawn_local(scrubs::run(Rc::clone(&driver), Rc::clone(&driver.scrubbed))),
    ];
    for listener in listeners {
        tasks.push(spawn_local(accept(Rc::clone(&driver), listener, identity)));
    }
    let answer = loop {
        match commands.recv().await {
            Some(command) => {
                if let Some(answer) = driver.command(command) {
                    break Some(answer);
                }
            }
            None => break None,
        }
    };
    for task in tasks {
        task.abort();
    }
    (driver, answer)
}

/// Takes a turn whenever something gathered or the store has answers.
async fn take_turns(driver: Rc<Driver>, wake: Option<OwnedFd>) {
    let wake = wake.and_then(watched);
    loop {
        let answers = async {
            match &wake {
                Some(wake) => match wake.readable().await {
                    // The next completion makes it readable anew: it is edge-triggered, and its
                    // count is the store's business.
                    Ok(mut guard) => guard.clear_ready(),
                    Err(error) => {
                        error!(%error, "the store cannot wake its disk any more");
                        pending::<()>().await;
                    }
                },
                None => pending().await,
            }
        };
        tokio::select! {
            () = driver.gathered.notified() => {}
            () = answers => {}
        }
        driver.turn();
    }
}

#[expect(
    deprecated,
    reason = "an `OwnedFd` keeps what the unsafe `register` asks its caller to keep"
)]
fn watched(descriptor: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // An eventfd can always be written to, and would wake the thread for that, too.
    match AsyncFd::with_interest(descriptor, Interest::READABLE) {
        Ok(wake) => Some(wake),
        Err(error) => {
            error!(%error, "the store cannot wake its disk");
            None
        }
    }
}

/// Tells the replica of each new map.
async fn follow(driver: Rc<Driver>, mut map: MapWatch) {
    // The map may have moved on since the driver was made with it.
    loop {
        let current = map.current_and_seen();
        driver.follow(current);
        if !map.changed().await {
            warn!("no more maps come: the disk goes on with the last one");
            return;
        }
    }
}

/// Uses quiet moments for checkpoints.
async fn rest(driver: Rc<Driver>) {
    let mut ticks = interval(REST_AFTER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    loop {
        ticks.tick().await;
        driver.rest(&mut seen);
    }
}

/// Nudges what comes back.
async fn come_back(driver: Rc<Driver>) {
    let mut ticks = interval(NUDGE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        driver.nudge();
    }
}

async fn accept(driver: Rc<Driver>, listener: Listener, identity: Identity) {
    loop {
        match listener.accept().await {
            Ok(_) if driver.connections() >= CONNECTIONS_MAX => {
                warn!(disk = %identity.disk, "too many connections: one was closed at once");
            }
            Ok(stream) => {
                spawn_local(connection::serve(Rc::clone(&driver), stream, identity));
            }
            Err(error) => {
                warn!(disk = %identity.disk, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
