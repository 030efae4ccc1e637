//! The connection to one disk: kept up, greeted, read from, written to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use protocol::DiskId;
use protocol::checksum;
use protocol::codec::Message;
use protocol::message::{Refusal, Request, Response, VERSIONS};
use protocol::session::DiskView;
use replication::owner::Event;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tracing::{debug, info};

use super::direct::Shared;
use super::driver::Driver;
use super::shared_writes::SharedWrites;
use crate::backoff::Backoff;
use crate::greeting::{GREETING_LIMIT, Greeted, reach};
use crate::transport::{Address, Link, Stream};

/// The first version with `share`.
const SHARES_FROM: u16 = 2;

/// One disk that the owner wants a connection to.
pub(super) struct DiskConnection {
    view: RefCell<DiskView>,
    link: RefCell<Option<Link>>,
    /// Memory that the disk sees, while connected to one that does.
    area: RefCell<Option<SharedWrites>>,
    /// The task must look: there is more to send than the socket took, or a reset.
    wake: Notify,
    reset: Cell<bool>,
    task: RefCell<Option<AbortHandle>>,
}

/// A connection that was greeted, with the version of the messages that is spoken there, and what is shared besides.
struct Opened {
    link: Link,
    version: u16,
    shared: Option<Shared>,
    area: Option<SharedWrites>,
}

/// Keeps a connection to a disk from now on, or learns its new addresses.
pub(super) fn connect(driver: &Rc<Driver>, disks: &mut BTreeMap<DiskId, Rc<DiskConnection>>, view: DiskView) {
    if let Some(connection) = disks.get(&view.disk) {
        *connection.view.borrow_mut() = view;
        return;
    }
    let disk = view.disk;
    let connection = Rc::new(DiskConnection {
        view: RefCell::new(view),
        link: RefCell::new(None),
        area: RefCell::new(None),
        wake: Notify::new(),
        reset: Cell::new(false),
        task: RefCell::new(None),
    });
    let task = spawn_local(keep(Rc::clone(driver), Rc::clone(&connection)));
    *connection.task.borrow_mut() = Some(task.abort_handle());
    disks.insert(disk, connection);
}

impl DiskConnection {
    /// Adds a request to what is to be sent. One for a connection that just broke is lost, as it
    /// would be on the way. True if its data goes through shared memory.
    pub(super) fn push(&self, number: u64, request: &Request) -> bool {
        let mut link = self.link.borrow_mut();
        let Some(link) = link.as_mut() else {
            return false;
        };
        let shared = (self.area.borrow_mut().as_mut()).and_then(|area| area.share(number, request));
        link.outbox
            .push_request(number, shared.as_ref().unwrap_or(request));
        shared.is_some()
    }

    /// Sends what was added.
    pub(super) fn send(&self) {
        let mut link = self.link.borrow_mut();
        let Some(link) = link.as_mut().filter(|link| !link.outbox.is_empty()) else {
            return;
        };
        // The task finds out about an error, and waits for room if the socket is full.
        if link.send().is_err() || !link.is_sent() {
            self.wake.notify_one();
        }
    }

    /// Ends the present connection; another one follows.
    pub(super) fn reset(&self) {
        self.reset.set(true);
        self.wake.notify_one();
    }

    /// Ends the connection for good.
    pub(super) fn stop(&self) {
        self.link.borrow_mut().take();
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
    }
}

async fn keep(driver: Rc<Driver>, connection: Rc<DiskConnection>) {
    let disk = connection.view.borrow().disk;
    let mut backoff = Backoff::default();
    loop {
        match open(&driver, &connection).await {
            Ok(Opened {
                link,
                version,
                shared,
                area,
            }) => {
                backoff = Backoff::default();
                info!(%disk, "connected");
                let stream = link.stream();
                connection.reset.set(false);
                *connection.link.borrow_mut() = Some(link);
                *connection.area.borrow_mut() = area;
                if let Some(shared) = shared {
                    driver.share(disk, &shared);
                }
                driver.event(Event::Connected { disk, version });
                let ended = serve(&driver, &connection, disk, &stream).await;
                connection.link.borrow_mut().take();
                connection.area.borrow_mut().take();
                driver.direct.close(disk);
                info!(%disk, reason = %ended, "the connection ended");
                driver.event(Event::Disconnected { disk });
            }
            Err(error) => debug!(%disk, %error, "cannot connect"),
        }
        backoff.pause().await;
    }
}

/// Connects, and shares memory with a disk of this machine.
async fn open(driver: &Driver, connection: &DiskConnection) -> io::Result<Opened> {
    let view = connection.view.borrow().clone();
    let cluster = driver.view(|view| view.cluster);
    let credentials = driver.open.session.credentials();
    let Greeted {
        mut link,
        address,
        version,
    } = reach(&view, cluster, VERSIONS, credentials.as_ref()).await?;
    if !matches!(address, Address::Unix(_)) || version < SHARES_FROM {
        return Ok(Opened {
            link,
            version,
            shared: None,
            area: None,
        });
    }
    let sharing = async {
        let shared = share(&mut link).await?;
        let area = match shared.as_ref().and_then(|_| driver.area()) {
            Some(area) => SharedWrites::offer(&mut link, area).await?,
            None => None,
        };
        Ok::<_, io::Error>((shared, area))
    };
    let (shared, area) = timeout(GREETING_LIMIT, sharing)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(Opened {
        link,
        version,
        shared,
        area,
    })
}

/// Asks a disk of this machine where its files are; nothing if it does not want them read.
async fn share(link: &mut Link) -> io::Result<Option<Shared>> {
    link.outbox.push_request(0, &Request::Share);
    match link.converse().await? {
        (0, Message::Response(Response::Shared { directory, opening })) => {
            Ok(Some(Shared { directory, opening }))
        }
        (0, Message::Response(Response::Refused(_))) => Ok(None),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the disk does not say where its files are",
        )),
    }
}

/// Hands in what comes until the connection ends; the answer says why it did.
async fn serve(
    driver: &Rc<Driver>,
    connection: &DiskConnection,
    disk: DiskId,
    stream: &Arc<Stream>,
) -> io::Error {
    loop {
        if connection.reset.take() {
            return io::Error::other("it was silent for too long");
        }
        let interest = match take_in(driver, connection, disk) {
            Ok(interest) => interest,
            Err(error) => return error,
        };
        if let Err(error) = stream.ready_or_woken(interest, &connection.wake).await {
            return error;
        }
    }
}

/// Reads all that is there, sends what can be sent, and tells what to wait for next.
fn take_in(
    driver: &Rc<Driver>,
    connection: &DiskConnection,
    disk: DiskId,
) -> io::Result<tokio::io::Interest> {
    loop {
        // Not borrowed while an event is handled: its actions push to the same outbox.
        let next = {
            let mut link = connection.link.borrow_mut();
            let Some(link) = link.as_mut() else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            match link.message()? {
                Some(message) => message,
                None if link.receive()? => continue,
                None => {
                    link.send()?;
                    return Ok(link.interest());
                }
            }
        };
        let (number, Message::Response(response)) = next else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a disk sent something that is no answer",
            ));
        };
        if let Some(area) = connection.area.borrow_mut().as_mut() {
            area.answered(number);
        }
        if let Some(response) = driver.direct.answered(disk, number, response) {
            driver.event(Event::Response {
                disk,
                number,
                response: verified(response),
            });
        }
    }
}

/// Replaces bytes that do not match their checksums by a refusal: the owner asks another disk.
fn verified(response: Response) -> Response {
    match &response {
        Response::Data { checksums, bytes, .. } if checksum::verify(bytes, checksums).is_err() => {
            Response::Refused(Refusal::Mismatch)
        }
        Response::Delta(delta) if checksum::verify(&delta.bytes, &delta.checksums).is_err() => {
            Response::Refused(Refusal::Mismatch)
        }
        _ => response,
    }
}
