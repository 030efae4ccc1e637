//! Notices among front ends whose owners die at any moment: none passes before all others have taken it, and all pass in
//! the end.

use tokio::sync::oneshot;

use super::*;

/// A notice that is being taken: the version that there was when it came, and how its end is told.
type Taking = (u64, Box<dyn FnOnce()>);

/// What a front end knows of something that all go by, and how far it is with taking it in.
#[derive(Default)]
struct Reader {
    /// The version that it goes by.
    knows: Cell<u64>,
    taking: RefCell<VecDeque<Taking>>,
}

/// Something that all go by, and the front ends that do.
struct Ground {
    world: World,
    version: Rc<Cell<u64>>,
    readers: Vec<Rc<Reader>>,
    /// By whom, with which version, and the end of the wait.
    given: Vec<(usize, u64, oneshot::Receiver<()>)>,
}

#[derive(Clone, Debug)]
enum Act {
    World(Step),
    /// A front end changes what all go by.
    Change(usize),
    /// A front end goes by what it has read.
    Take(usize),
    /// A front end leaves the roster; what it knows does not matter any more.
    Leave(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let fronts = 0..usize::try_from(FRONTS).unwrap();
    let step = prop_oneof![
        8 => fronts.clone().prop_map(Step::There),
        8 => fronts.clone().prop_map(Step::Back),
        1 => fronts.clone().prop_map(Step::Break),
        1 => Just(Step::Die(0)),
    ];
    let act = prop_oneof![
        16 => step.prop_map(Act::World),
        4 => fronts.clone().prop_map(Act::Change),
        4 => fronts.prop_map(Act::Take),
        1 => Just(Act::Leave(2)),
    ];
    prop::collection::vec(act, 0..200)
}

impl Ground {
    fn new() -> Self {
        let world = World::new();
        let version = Rc::new(Cell::new(0));
        let readers: Vec<Rc<Reader>> = (0..FRONTS).map(|_| Rc::default()).collect();
        for (front, reader) in world.fronts.iter().zip(&readers) {
            let (reader, version) = (Rc::clone(reader), Rc::clone(&version));
            front.take_notices(Box::new(move |taken| {
                reader.taking.borrow_mut().push_back((version.get(), taken));
            }));
        }
        Self {
            world,
            version,
            readers,
            given: Vec::new(),
        }
    }

    fn act(&mut self, act: &Act, gone: &mut bool) {
        match *act {
            Act::World(ref step) => {
                self.world.step(step);
                if *gone {
                    self.world.host.set_roster(&self.roster());
                }
            }
            Act::Change(who) if !(*gone && who == 2) => {
                self.version.set(self.version.get() + 1);
                self.readers[who].knows.set(self.version.get());
                let inner = &self.world.fronts[who].inner;
                let (passed, gives) = inner.pending.borrow_mut().wait();
                self.given.push((who, self.version.get(), passed));
                if gives {
                    inner.give_notice();
                }
            }
            Act::Take(who) => {
                self.take(who);
            }
            Act::Leave(who) if !*gone => {
                *gone = true;
                self.given.retain(|(giver, ..)| *giver != who);
                self.world.host.set_roster(&self.roster());
            }
            Act::Change(_) | Act::Leave(_) => {}
        }
        self.check(*gone);
    }

    /// All but the one who leaves.
    fn roster(&self) -> Vec<u64> {
        vec![0, 1, 100 + self.world.generation]
    }

    fn take(&mut self, who: usize) -> bool {
        let next = self.readers[who].taking.borrow_mut().pop_front();
        let Some((version, taken)) = next else {
            return false;
        };
        let knows = &self.readers[who].knows;
        knows.set(knows.get().max(version));
        taken();
        true
    }

    /// Law: whose notice has passed, nobody goes by anything older.
    fn check(&mut self, gone: bool) {
        let readers = &self.readers;
        self.given.retain_mut(|(giver, version, passed)| {
            if passed.try_recv().is_err() {
                return true;
            }
            for (who, reader) in readers.iter().enumerate() {
                let counts = who != *giver && !(gone && who == 2);
                assert!(
                    !counts || reader.knows.get() >= *version,
                    "{who} goes by what was before"
                );
            }
            false
        });
    }

    /// Lets everything come to its end.
    fn settle(&mut self, gone: bool) {
        loop {
            let mut moved = false;
            for who in 0..self.readers.len() {
                if !(gone && who == 2) {
                    moved |= self.world.step(&Step::There(who)) | self.world.step(&Step::Back(who));
                    moved |= self.take(who);
                }
            }
            self.check(gone);
            if !moved {
                return;
            }
        }
    }
}

proptest! {
    #[test]
    fn a_notice_passes_when_nobody_goes_by_what_was_before(acts in acts()) {
        let runtime = runtime();
        let _entered = runtime.enter();
        let mut ground = Ground::new();
        let mut gone = false;
        for act in &acts {
            ground.act(act, &mut gone);
        }
        ground.settle(gone);
        prop_assert!(ground.given.is_empty(), "a notice never passed");
    }
}

/// Law: a notice to an owner that does not know of them is not waited for.
#[test]
fn an_older_owner_is_given_no_notice() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let front = front(0);
    let forward = Rc::new(Forward::new(Link::loose(), VOLUME, Generation(1), COMPARE_SINCE));
    front.inner.placed(Place::There(Rc::clone(&forward)));
    let before = taken(&mut forward.link.borrow_mut()).len();
    let (mut passed, gives) = front.inner.pending.borrow_mut().wait();
    assert!(gives);
    front.inner.give_notice();
    assert!(passed.try_recv().is_ok());
    assert_eq!((before, taken(&mut forward.link.borrow_mut()).len()), (1, 0));
}

/// Defect guarded: what a front end that is gone had begun would take effect after the notice that it is to respect.
#[test]
fn what_was_begun_for_one_who_is_gone_is_waited_for() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut world = World::new();
    world.settle();
    let write = Operation::WriteZeroes {
        offset: 0,
        length: 4096,
    };
    world.fronts[2].submit(write, Box::new(|_| ()));
    assert!(world.step(&Step::There(2)));
    let (mut passed, _) = world.fronts[0].inner.pending.borrow_mut().wait();
    world.fronts[0].inner.give_notice();
    world.gather();
    assert!(world.step(&Step::There(0)));
    for step in [Step::Back(1), Step::There(1)] {
        assert!(world.step(&step));
    }
    world.host.set_roster(&[0, 1, 101]);
    world.gather();
    assert!(
        !world.step(&Step::Back(0)) && passed.try_recv().is_err(),
        "it runs"
    );
    assert!(world.step(&Step::Release(0)));
    assert!(world.step(&Step::Back(0)));
    assert!(passed.try_recv().is_ok());
}
