//! The back end that takes over after a death, and what it is held to.

use std::cell::RefCell;
use std::rc::Rc;

use client::device::{BlockDevice, Continuation, DeviceInfo, Listener, Operation, Outcome};
use client::memory::MemoryDevice;

use crate::machine::Machine;

/// Answers at once and writes down which requests it was given.
#[derive(Default)]
struct Witness {
    given: RefCell<Vec<usize>>,
}

impl BlockDevice for Witness {
    fn info(&self) -> DeviceInfo {
        MemoryDevice::new(1 << 20).info()
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        let Operation::Write { offset, .. } = operation else {
            panic!("nothing but writes was asked for: {operation:?}");
        };
        self.given
            .borrow_mut()
            .push(usize::try_from(offset / 4096).unwrap());
        done(Ok(Outcome::Done));
    }

    fn listen(&self, _listener: Listener) {}
}

/// Takes over, lets the guest send the rest, and checks what was answered and done.
pub(crate) fn take_over(machine: &Machine) {
    let answered = machine.answered();
    let available = usize::from(machine.available());
    let expected: Vec<usize> = (0..available)
        .filter(|number| !answered.contains(number))
        .collect();

    let witness = Rc::new(Witness::default());
    let ring = machine.ring(Rc::clone(&witness) as Rc<dyn BlockDevice>);
    ring.turn();
    assert!(!ring.is_broken());
    assert_eq!(
        witness.given.take(),
        expected,
        "what was not answered is done, in its order, and nothing else; {answered:?} were answered"
    );
    machine.make_all_available();
    ring.turn();
    let mut numbers = machine.answered();
    for number in numbers.iter().filter(|number| expected.contains(number)) {
        assert_eq!(machine.status(*number), 0);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4], "each request is answered once");
    ring.stop();
    ring.turn();
    assert!(ring.is_drained());
    // After an orderly end there is nothing left to do.
    let idle = Rc::new(Witness::default());
    machine.ring(Rc::clone(&idle) as Rc<dyn BlockDevice>).turn();
    assert_eq!(idle.given.take(), [0; 0]);
}
