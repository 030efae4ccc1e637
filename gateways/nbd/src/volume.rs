//! One open volume: a thread with its own event loop, on which the device and all connections to it
//! live, so that nothing on the data path crosses threads.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use client::device::{BlockDevice, DeviceEvent};
use telemetry::traffic::{Kind, Traffic};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::connection::{self, Flags, Terms};
use crate::control::Counted;
use crate::export::{Description, ExportName};
use crate::registry::Leaving;
use crate::server::Place;
use crate::socket::Stream;
use crate::source::{OpenExport, Source, SourceError};

/// The way to a volume's thread. The volume stays open while one of these exists.
pub type VolumeHandle = mpsc::Sender<Order>;

/// What is counted: what a client may ask for.
const KINDS: [Kind; 8] = [
    Kind::Read,
    Kind::Write,
    Kind::Flush,
    Kind::Discard,
    Kind::WriteZeroes,
    Kind::Map,
    Kind::Nothing,
    Kind::Refused,
];

/// What a volume's thread is asked for.
pub enum Order {
    /// What is it now?
    Describe(oneshot::Sender<Result<Description, SourceError>>),
    /// What was asked for so far?
    Count(oneshot::Sender<Counted>),
    /// End the connections that there are. How many?
    Disconnect(oneshot::Sender<usize>),
    /// Serve a client that has negotiated.
    Serve(Box<Client>),
}

/// A client that has negotiated, on its way to the volume's thread.
pub struct Client {
    /// Its socket, detached.
    pub stream: Stream,
    /// What was agreed on.
    pub terms: Terms,
    /// Keeps the volume open while the client is there.
    pub handle: VolumeHandle,
    /// Its place among all connections.
    pub place: Place,
}

/// Starts the thread of a volume.
pub fn start(
    source: Source,
    name: ExportName,
    orders: mpsc::Receiver<Order>,
    leaving: Leaving,
    alive: mpsc::Sender<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = move || {
        let span = info_span!("volume", volume = %name);
        LocalSet::new().block_on(&runtime, run(&source, &name, orders, leaving).instrument(span));
        drop(alive);
    };
    // The kernel cuts a thread's name at 15 bytes.
    std::thread::Builder::new()
        .name("volume".to_owned())
        .spawn(work)?;
    Ok(())
}

async fn run(source: &Source, name: &ExportName, mut orders: mpsc::Receiver<Order>, leaving: Leaving) {
    let open = match source.open(name).await {
        Ok(open) => open,
        Err(error) => return refuse(&mut orders, &error).await,
    };
    info!("open");
    let (stop, stopped) = watch::channel(false);
    let lost = watch_for_loss(&*open.device, stop);
    serve_orders(&open, &mut orders, &leaving, &stopped).await;
    if lost.get() {
        warn!("the volume was taken over by another process; its connections were ended");
    }
    open.close().await;
    info!("closed");
}

/// Everyone who asked learns why there is no volume, and the next one starts anew.
async fn refuse(orders: &mut mpsc::Receiver<Order>, error: &SourceError) {
    if matches!(error, SourceError::NotFound(_)) {
        // A client's mistake, which it is told of.
        info!(%error, "a client asked in vain");
    } else {
        warn!(%error, "cannot open the volume");
    }
    orders.close();
    while let Some(order) = orders.recv().await {
        if let Order::Describe(answer) = order {
            // Whoever asked may have left.
            let _ = answer.send(Err(error.clone()));
        }
    }
}

/// Ends all connections once the volume is somebody else's.
fn watch_for_loss(device: &dyn BlockDevice, stop: watch::Sender<bool>) -> Rc<Cell<bool>> {
    let lost = Rc::new(Cell::new(false));
    let noted = lost.clone();
    device.listen(Box::new(move |event| match event {
        DeviceEvent::Resized(size) => info!(size, "the size changed: clients see it when they connect again"),
        // Clients of a gateway say nothing when they stand still: the volume is closed when the last has gone.
        DeviceEvent::Wanted | DeviceEvent::OwnerMoved => {}
        DeviceEvent::Lost => {
            noted.set(true);
            stop.send_replace(true);
        }
    }));
    lost
}

async fn serve_orders(
    open: &OpenExport,
    orders: &mut mpsc::Receiver<Order>,
    leaving: &Leaving,
    stopped: &watch::Receiver<bool>,
) {
    let mut lost = stopped.clone();
    let traffic = Rc::new(Traffic::new(&KINDS));
    let mut connections = JoinSet::new();
    // Raised for those that are there; who comes later watches another one.
    let mut dismissed = watch::Sender::new(false);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            // A lost volume takes no new clients: the next one opens it anew, or is refused.
            () = connection::raised(&mut lost), if !orders.is_closed() => {
                orders.close();
                continue;
            }
            Some(_) = connections.join_next() => continue,
        };
        match order {
            // Whoever asked may have left.
            Some(Order::Describe(answer)) => {
                let _ = answer.send(Ok(Description::of(&open.device.info())));
            }
            Some(Order::Count(answer)) => {
                let _ = answer.send(Counted::of(open, connections.len(), &traffic));
            }
            Some(Order::Disconnect(answer)) => {
                info!(connections = connections.len(), "clients are to connect anew");
                dismissed.send_replace(true);
                dismissed = watch::Sender::new(false);
                let _ = answer.send(connections.len());
            }
            Some(Order::Serve(client)) => {
                let flags = [leaving.clone(), stopped.clone(), dismissed.subscribe()];
                let serving = serve(*client, open.device.clone(), traffic.clone(), flags);
                connections.spawn_local(serving.in_current_span());
            }
            None => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(client: Client, device: Rc<dyn BlockDevice>, traffic: Rc<Traffic>, flags: Flags) {
    let Client {
        stream,
        terms,
        handle,
        place,
    } = client;
    let result = match stream.attach() {
        Ok(stream) => connection::serve(stream, terms, device, traffic, flags).await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => debug!("a client left"),
        Err(connection::ConnectionError::Io(error)) => debug!(%error, "a client is gone"),
        Err(error) => warn!(%error, "a connection was ended"),
    }
    drop((handle, place));
}
