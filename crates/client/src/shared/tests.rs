//! Several front ends with sectors on one shared volume, whose owners die at any moment: no increment by compare-and-write
//! is lost or done twice, and nobody loses a sector to a neighbour.
//!
//! Front ends, gate and host are the real ones, and all messages are in bytes; the volume is one in memory, and the steps
//! of the test carry the messages and let its operations take effect.

mod clients;
mod notice;

use bytes::BytesMut;
use proptest::prelude::*;
use protocol::codec::{self, Message};
use protocol::frame::{HEADER_LEN, Header};
use protocol::shared::{COMPARE_SINCE, NOTICE_SINCE};
use protocol::{Generation, VolumeId};

use super::host::Line;
use super::*;
use crate::memory::MemoryDevice;
use crate::sectors::Sectors;
use crate::transport::Link;
use clients::{Counter, Words, Writer, words_of};

const VOLUME: VolumeId = VolumeId(7);
const FRONTS: u64 = 3;
const SECTOR: u64 = 512;
/// How often each client changes something.
const TIMES: u32 = 3;

fn view(attachment: u64) -> AttachmentView {
    AttachmentView {
        attachment,
        volume: VOLUME,
        name: "a".to_owned(),
        size: 8192,
        lease_ms: 1000,
        cluster: [1; 16],
        attachments: (0..FRONTS).collect(),
        owner: None,
    }
}

fn front(attachment: u64) -> Rc<SharedVolume> {
    let options = Options {
        program: "test".to_owned(),
        storaged: Vec::new(),
        volume: "a".to_owned(),
        snapshot: None,
        read_only: false,
        wait: std::time::Duration::ZERO,
        read_cache: None,
    };
    let view = view(attachment);
    let info = device_info(&view, false);
    let inner = Inner {
        options: options.clone(),
        attachment: Attachment::unconnected(options, view),
        pieces: RefCell::default(),
        queue: RefCell::default(),
        sent: RefCell::default(),
        place: RefCell::new(Place::Nowhere),
        info: RefCell::new(info),
        listener: RefCell::default(),
        pending: RefCell::default(),
        notice_taker: RefCell::default(),
        moved: Notify::new(),
        lost: Cell::new(false),
        lapsed: Notify::new(),
        closing: Cell::new(false),
        tasks: RefCell::default(),
    };
    Rc::new(SharedVolume {
        inner: Rc::new(inner),
    })
}

/// A front end's connection to the owner, both ends.
struct Connection {
    forward: Rc<Forward>,
    line: Rc<Line>,
    /// On the way to the owner, and back.
    there: VecDeque<(Number, Message)>,
    back: VecDeque<(Number, Message)>,
}

struct World {
    device: Rc<MemoryDevice>,
    host: Rc<Host<MemoryDevice>>,
    fronts: Vec<Rc<SharedVolume>>,
    connections: Vec<Connection>,
    generation: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// The owner hears one message of a front end.
    There(usize),
    /// A front end hears one message of the owner.
    Back(usize),
    /// An operation takes effect.
    Release(usize),
    /// A connection breaks, and another one is made.
    Break(usize),
    /// The owner dies; so many of its operations take effect.
    Die(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fronts = 0..usize::try_from(FRONTS).unwrap();
    let step = prop_oneof![
        8 => fronts.clone().prop_map(Step::There),
        8 => fronts.clone().prop_map(Step::Back),
        8 => (0..4usize).prop_map(Step::Release),
        1 => fronts.prop_map(Step::Break),
        1 => (0..4usize).prop_map(Step::Die),
    ];
    prop::collection::vec(step, 0..400)
}

fn host(device: &Rc<MemoryDevice>, generation: u64) -> Rc<Host<MemoryDevice>> {
    // The owner's own front end has no guest.
    let own = 100 + generation;
    let attachments: Vec<u64> = (0..FRONTS).chain([own]).collect();
    let place: Rc<RefCell<std::rc::Weak<Host<MemoryDevice>>>> = Rc::default();
    let itself = Rc::clone(&place);
    let tell = move |told| {
        let host = itself.borrow().upgrade();
        if let (Told::TakeNotice(notice), Some(host)) = (told, host) {
            host.own_took_notice(notice);
        }
    };
    let host = Host::new(Rc::clone(device), own, &attachments, Box::new(tell));
    *place.borrow_mut() = Rc::downgrade(&host);
    host.own_rejoined();
    host
}

fn connect(host: &Rc<Host<MemoryDevice>>, front: &SharedVolume, who: u64, generation: u64) -> Connection {
    let line = Line::new(Link::loose());
    host.join(who, NOTICE_SINCE, &line);
    let forward = Forward::new(Link::loose(), VOLUME, Generation(generation), NOTICE_SINCE);
    let forward = Rc::new(forward);
    front.inner.placed(Place::There(Rc::clone(&forward)));
    Connection {
        forward,
        line,
        there: VecDeque::new(),
        back: VecDeque::new(),
    }
}

/// Takes what waits in an outbox.
fn taken(link: &mut Link) -> Vec<(Number, Message)> {
    let mut bytes = BytesMut::new();
    while !link.outbox.is_empty() {
        let before = bytes.len();
        for slice in link.outbox.slices() {
            bytes.extend_from_slice(&slice);
        }
        link.outbox.sent(bytes.len() - before);
    }
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let header = Header::decode(bytes.first_chunk::<HEADER_LEN>().unwrap()).unwrap();
        let _ = bytes.split_to(HEADER_LEN);
        let body = bytes.split_to(header.body_len as usize);
        let payload = bytes.split_to(header.payload_len as usize).freeze();
        messages.push((header.number, codec::decode(header.kind, &body, payload).unwrap()));
    }
    messages
}

impl World {
    fn new() -> Self {
        let device = Rc::new(MemoryDevice::held(8192));
        let mut world = Self {
            host: host(&device, 1),
            device,
            fronts: (0..FRONTS).map(front).collect(),
            connections: Vec::new(),
            generation: 1,
        };
        world.connect_all();
        world
    }

    fn connect_all(&mut self) {
        let fronts = (0..).zip(&self.fronts);
        self.connections = fronts
            .map(|(who, front)| connect(&self.host, front, who, self.generation))
            .collect();
    }

    fn gather(&mut self) {
        for connection in &mut self.connections {
            let mut link = connection.forward.link.borrow_mut();
            connection.forward.confirm(&mut link);
            connection.there.extend(taken(&mut link));
            connection
                .back
                .extend(taken(&mut connection.line.link.borrow_mut()));
        }
    }

    /// False if there was nothing to do.
    fn step(&mut self, step: &Step) -> bool {
        self.gather();
        match *step {
            Step::There(who) => {
                let Some((number, message)) = self.connections[who].there.pop_front() else {
                    return false;
                };
                lines::hear(&self.host, VOLUME, who as u64, number, message).unwrap();
            }
            Step::Back(who) => {
                let connection = &mut self.connections[who];
                let Some(message) = connection.back.pop_front() else {
                    return false;
                };
                let forward = Rc::clone(&connection.forward);
                let heard = Heard::of(message).unwrap();
                self.fronts[who].inner.told(&forward, heard);
            }
            Step::Release(position) => {
                let waiting = self.device.waiting();
                return waiting > 0 && self.device.release(position.min(waiting - 1));
            }
            Step::Break(who) => {
                let front = &self.fronts[who];
                front.inner.displaced();
                self.connections[who] = connect(&self.host, front, who as u64, self.generation);
            }
            Step::Die(effective) => {
                self.host.end();
                for _ in 0..effective {
                    self.device.release(0);
                }
                self.device.forget();
                for front in &self.fronts {
                    front.inner.displaced();
                }
                self.generation += 1;
                self.host = host(&self.device, self.generation);
                self.connect_all();
            }
        }
        true
    }

    /// Lets everything be done that was begun.
    fn settle(&mut self) {
        loop {
            let fronts = 0..self.fronts.len();
            let mut moved = self.step(&Step::Release(0));
            for who in fronts {
                moved |= self.step(&Step::There(who));
                moved |= self.step(&Step::Back(who));
            }
            if !moved {
                return;
            }
        }
    }
}

/// Sockets need a runtime to be made, though nothing is sent through them here.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap()
}

fn run(steps: &[Step]) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut world = World::new();
    let layers: Vec<Rc<Sectors>> = world
        .fronts
        .iter()
        .map(|front| Rc::new(Sectors::of_shared(Rc::clone(front) as Rc<dyn BlockDevice>)))
        .collect();
    // One sector that all count up, and one of each front end's own, all in one block.
    let counters: Vec<Rc<Counter>> = (0..)
        .zip(&layers)
        .map(|(who, layer)| Counter::start(layer, 0, who))
        .collect();
    let writers: Vec<Rc<Writer>> = (1..)
        .zip(&layers)
        .map(|(place, layer)| Writer::start(layer, place * SECTOR))
        .collect();
    for step in steps {
        world.step(step);
    }
    world.settle();
    for writer in &writers {
        assert_eq!(writer.written(), TIMES, "a write was never answered");
    }
    for counter in &counters {
        assert_eq!(counter.successes(), TIMES, "an attempt was never answered");
    }
    let found = Rc::new(RefCell::new(Words::new()));
    let place = Rc::clone(&found);
    let read = Operation::Read {
        offset: 0,
        length: SECTOR,
    };
    layers[0].submit(
        read,
        Box::new(move |answer| {
            if let Ok(Outcome::Data(pieces)) = answer {
                *place.borrow_mut() = words_of(&pieces.concat());
            }
        }),
    );
    world.settle();
    let all = u32::try_from(FRONTS).unwrap() * TIMES;
    assert_eq!(found.borrow()[0], all, "an increment is lost, or was done twice");
}

proptest! {
    #[test]
    fn no_increment_is_lost_or_done_twice_and_no_sector_is_lost_while_owners_die(steps in steps()) {
        run(&steps);
    }
}

type Answers = Rc<RefCell<Vec<(&'static str, Result<Outcome, DeviceError>)>>>;

/// Compares the first block, which is all of one byte, and fills it with another one.
fn compare(front: &SharedVolume, name: &'static str, bytes: (u8, u8), answers: &Answers) {
    let place = Rc::clone(answers);
    let operation = Operation::CompareAndWrite {
        offset: 0,
        expected: vec![bytes.0; 4096].into(),
        data: vec![bytes.1; 4096].into(),
    };
    front.submit(
        operation,
        Box::new(move |answer| place.borrow_mut().push((name, answer))),
    );
}

/// Defect guarded: one that compares with what another one wrote, of which nobody has heard, must not be done before that
/// one has been told that it may have been done; nor be there when yet another owner looks.
#[test]
fn what_was_done_for_another_one_is_told_before_anything_is_done_on_top_of_it() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for dies_again in [false, true] {
        let answers = Answers::default();
        let mut world = World::new();
        world.settle();
        compare(&world.fronts[0], "first", (0, 1), &answers);
        compare(&world.fronts[1], "second", (1, 2), &answers);
        for who in [0, 1] {
            assert!(world.step(&Step::There(who)));
        }
        assert_eq!(world.device.waiting(), 1, "the second one waits for the first");
        // The first one is done, and nobody hears of it. The second one comes to the next owner before it.
        world.step(&Step::Die(1));
        for who in [1, 1, 2, 0, 0] {
            assert!(world.step(&Step::There(who)));
        }
        assert!(world.step(&Step::Release(0)));
        assert_eq!(
            world.device.waiting(),
            0,
            "the second one waits until the first has heard"
        );
        if dies_again {
            world.step(&Step::Die(0));
        }
        world.settle();
        let expected = [
            ("first", Err(DeviceError::NotKnown)),
            ("second", Ok(Outcome::Done)),
        ];
        assert_eq!(*answers.borrow(), expected);
    }
}

/// Law: an owner that does not know of compare-and-writes is not asked for one, and what a former owner may have done is
/// not said to be undone.
#[test]
fn an_older_owner_is_not_asked_to_compare() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let front = front(0);
    let answers = Answers::default();
    let joined = |version| {
        let forward = Rc::new(Forward::new(Link::loose(), VOLUME, Generation(1), version));
        front.inner.placed(Place::There(Rc::clone(&forward)));
        forward
    };
    let first = joined(COMPARE_SINCE);
    compare(&front, "first", (0, 1), &answers);
    assert!(matches!(
        taken(&mut first.link.borrow_mut())[..],
        [_, (_, Message::Compare(_))]
    ));
    front.inner.displaced();
    let older = joined(1);
    assert_eq!(answers.take(), [("first", Err(DeviceError::NotKnown))]);
    compare(&front, "second", (0, 1), &answers);
    assert_eq!(answers.take(), [("second", Err(DeviceError::OlderOwner))]);
    assert_eq!(
        taken(&mut older.link.borrow_mut()).len(),
        1,
        "only that all was sent again"
    );
}
