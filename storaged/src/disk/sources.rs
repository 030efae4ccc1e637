//! Carries a disk's questions to the disks that it gets its data back from, and their answers to it; and its
//! wishes to whoever changes the placement groups. What is asked, and what follows from an answer, is
//! `replication`'s business.
//!
//! Nothing is asked twice: what gets no answer is answered here as refused, and the replica asks anew when it
//! is nudged.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use client::greeting::reach;
use client::transport::{CredentialsWatch, Link};
use coordination::map::MapWatch;
use protocol::codec::Message;
use protocol::map::MapView;
use protocol::message::{Refusal, Request, Response};
use protocol::recovery::{Ask, Question, Told};
use protocol::session::SlotState;
use protocol::{DiskId, Interval, NodeId, PgId, checksum};
use replication::replica::Event;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::driver::Driver;
use crate::membership::{Step, Wish, Wishes};

/// The first version of the messages with questions.
const VERSIONS: std::ops::RangeInclusive<u16> = 3..=3;
/// Errands that may wait: more than the groups that a replica works on, with the wishes of one nudge.
pub(super) const ERRANDS_MAX: usize = 256;
/// Questions that may wait for one source.
const QUESTIONS_MAX: usize = 64;
/// A source that says nothing for so long is not waited for: it reads 4 MiB at most for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A connection that was not used for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What a replica wants of others.
#[derive(Debug)]
pub(super) enum Errand {
    /// To ask a disk.
    Ask {
        to: DiskId,
        number: u64,
        question: Question,
    },
    /// To have its slot's state changed.
    Propose {
        pg: PgId,
        interval: Interval,
        from: SlotState,
        to: SlotState,
    },
}

/// How a disk reaches others.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) disk: DiskId,
    pub(super) node: NodeId,
    pub(super) cluster: [u8; 16],
    pub(super) map: MapWatch,
    pub(super) credentials: Option<CredentialsWatch>,
    pub(super) wishes: Option<Wishes>,
    /// How much may be copied to this disk, in bytes a second.
    pub(super) rate: u64,
    /// How much of it may be read by its scrubs, in bytes a second.
    pub(super) scrub_rate: u64,
}

struct Asked {
    number: u64,
    question: Question,
}

/// Runs errands until the driver is gone.
pub(super) async fn run(driver: Rc<Driver>, reach: Reach, mut errands: mpsc::Receiver<Errand>) {
    let reach = Rc::new(reach);
    let mut sources: HashMap<DiskId, mpsc::Sender<Asked>> = HashMap::new();
    while let Some(errand) = errands.recv().await {
        match errand {
            Errand::Ask { to, number, question } => {
                let source = sources.entry(to).or_insert_with(|| {
                    let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
                    spawn_local(keep(Rc::clone(&driver), Rc::clone(&reach), to, questions));
                    sender
                });
                let pause = if is_patient(&reach, &question) {
                    driver.copies.borrow().pause(Instant::now())
                } else {
                    Duration::ZERO
                };
                let source = source.clone();
                spawn_local(async move {
                    sleep(pause).await;
                    // It is kept as long as the driver is.
                    let _ = source.send(Asked { number, question }).await;
                });
            }
            Errand::Propose {
                pg,
                interval,
                from,
                to,
            } => {
                spawn_local(propose(
                    Rc::clone(&driver),
                    Rc::clone(&reach),
                    (pg, interval),
                    (from, to),
                ));
            }
        }
    }
}

/// Whether it may wait for its turn: no write waits for a disk that is `Syncing`.
fn is_patient(reach: &Reach, question: &Question) -> bool {
    let joins = |map: &dyn MapView| {
        let group = map.group(question.pg)?;
        let own = group.slot_of(reach.disk)?;
        Some(own.state == SlotState::Joining)
    };
    matches!(question.ask, Ask::Difference { .. }) && joins(reach.map.current().as_ref()) != Some(true)
}

/// Has the state of our slot changed, and tells the replica when that is settled, one way or the other.
async fn propose(
    driver: Rc<Driver>,
    reach: Rc<Reach>,
    (pg, interval): (PgId, Interval),
    (from, to): (SlotState, SlotState),
) {
    if let Some(wishes) = &reach.wishes {
        let (settled, settles) = oneshot::channel();
        let step = Step {
            disk: reach.disk,
            pg,
            interval,
            from,
            to,
            settled,
        };
        if wishes.send(Wish::Step(step)).await.is_ok() {
            // Dropped means settled, too: storaged is stopping.
            let _ = settles.await;
        }
    }
    // The map that shows it comes first.
    driver.event(Event::Map(reach.map.current()));
    driver.event(Event::Proposed { pg });
}

/// Asks one source, over a connection that is there while it is used.
async fn keep(driver: Rc<Driver>, reach: Rc<Reach>, source: DiskId, mut questions: mpsc::Receiver<Asked>) {
    let mut waiting = BTreeSet::new();
    while let Some(first) = questions.recv().await {
        waiting.insert(first.number);
        let ended = match connect(&reach, source).await {
            Ok(mut link) => {
                push(&mut link, first);
                converse(&driver, link, &mut waiting, &mut questions).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            debug!(%source, %error, "a source does not answer");
        }
        for number in std::mem::take(&mut waiting) {
            let told = Err(Refusal::Busy);
            driver.event(Event::Told { number, told });
        }
    }
}

async fn connect(from: &Reach, source: DiskId) -> io::Result<Link> {
    let view = from.map.current().disk_view(source, from.node);
    let view = view.ok_or_else(|| io::Error::other("the map does not have this disk any more"))?;
    let credentials = from.credentials.as_ref().map(|shown| shown.borrow().clone());
    let greeted = reach(&view, from.cluster, VERSIONS, credentials.as_ref()).await?;
    Ok(greeted.link)
}

fn push(link: &mut Link, asked: Asked) {
    let request = Request::Question(asked.question);
    link.outbox.push_request(asked.number, &request);
}

/// Asks and listens until the connection fails or was idle for long.
async fn converse(
    driver: &Rc<Driver>,
    mut link: Link,
    waiting: &mut BTreeSet<u64>,
    questions: &mut mpsc::Receiver<Asked>,
) -> io::Result<()> {
    let stream = link.stream();
    loop {
        let interest = take_in(driver, &mut link, waiting)?;
        let limit = if waiting.is_empty() {
            IDLE_MAX
        } else {
            ANSWER_LIMIT
        };
        let next = async {
            tokio::select! {
                ready = stream.ready(interest) => ready.map(|()| None),
                asked = questions.recv() => Ok(asked),
            }
        };
        match timeout(limit, next).await {
            Ok(Ok(Some(asked))) => {
                waiting.insert(asked.number);
                push(&mut link, asked);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) if waiting.is_empty() => return Ok(()),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Sends what is to be sent, hands in all answers that are there, and tells what to wait for.
fn take_in(driver: &Rc<Driver>, link: &mut Link, waiting: &mut BTreeSet<u64>) -> io::Result<Interest> {
    loop {
        link.send()?;
        match link.message()? {
            Some((number, Message::Response(response))) if waiting.remove(&number) => {
                let told = told(response)?;
                if let Ok(Told::Difference { delta, .. }) = &told {
                    let bytes = delta.bytes.len() as u64;
                    driver.copies.borrow_mut().copied(bytes, Instant::now());
                }
                driver.event(Event::Told { number, told });
            }
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a source sent something that was not asked for",
                ));
            }
            None if link.receive()? => {}
            None => return Ok(link.interest()),
        }
    }
}

fn told(response: Response) -> io::Result<Result<Told, Refusal>> {
    match response {
        Response::Told(Told::Difference { delta, .. })
            if checksum::verify(&delta.bytes, &delta.checksums).is_err() =>
        {
            Ok(Err(Refusal::Mismatch))
        }
        Response::Told(told) => Ok(Ok(told)),
        Response::Refused(refusal) => Ok(Err(refusal)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a source's answer is none to a question",
        )),
    }
}
