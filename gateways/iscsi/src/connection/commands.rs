//! SCSI commands of one connection: their data is gathered, they are carried out, and what came of them is sent.

use std::rc::Rc;

use bytes::Bytes;
use client::device::WriteBuffer;
use tokio::task::spawn_local;

use crate::connection::arrival::{Data, copy};
use crate::connection::{Connection, TASKS_MAX, UNDER_WAY_MAX};
use crate::scsi::command::Command;
use crate::scsi::fields::length32;
use crate::scsi::sense::{Sense, status};
use crate::session::assembly::{Assembly, Next, Part, WrongData};
use crate::target::Home;
use crate::target::session::Stay;
use crate::unit::blocks::{check_length, data_length, memory};
use crate::unit::copy::{COPY_TIME_MAX, Commission, perform as perform_copy};
use crate::unit::tasks::{Answer, Task, TaskPlace};
use crate::unit::{Done, Unit, perform_nowhere};
use crate::wire::request::{Request, ScsiCommand};
use crate::wire::response::{Outgoing, Residual, add_status, data_in, ready_to_transfer, scsi_response};

/// A command whose data is not there yet.
pub(super) struct Write {
    pub(super) assembly: Assembly,
    /// Where its data goes; not here while some of it is being read, or if there is none.
    pub(super) room: Option<WriteBuffer>,
    lun: [u8; 8],
    running: Running,
}

impl Write {
    /// Its task.
    pub(super) fn task(&self) -> &Task {
        &self.running.place.task
    }

    /// Keeps what came. What was not read straight to its place is of no use, or some of it is not.
    fn keep(&mut self, (_, _, offset): Part, data: Data) {
        match (data, &mut self.room) {
            (Data::InRoom(room), _) => self.room = Some(room),
            (Data::Alone(bytes), Some(room)) => {
                copy(&bytes, room, usize::try_from(offset).unwrap_or(usize::MAX));
            }
            (Data::Alone(_), None) => {}
        }
    }
}

/// A command that was admitted.
struct Running {
    unit: Rc<Unit>,
    command: Command,
    place: TaskPlace,
    question: Question,
    weight: Weight,
}

/// What a response must tell about the request.
#[derive(Clone, Copy)]
struct Question {
    tag: u32,
    expected: u32,
    /// Bytes that the command needs from the initiator; a command that needs none may give some.
    needed: u64,
    reads: bool,
}

/// Bytes of a connection's commands under way, and its session's place; given back when this is dropped.
struct Weight {
    connection: Rc<Connection>,
    bytes: usize,
}

impl Drop for Weight {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.under_way.set(connection.under_way.get() - self.bytes);
        connection.session.numbers.borrow_mut().end();
    }
}

/// The number of a unit in single level or flat addressing (SAM-5 clause 4.7.7); nothing for other ways.
pub(super) fn unit_number(lun: [u8; 8]) -> Option<u16> {
    let rest_is_zero = lun[2..].iter().all(|byte| *byte == 0);
    match lun[0] >> 6 {
        0 if rest_is_zero && lun[0] == 0 => Some(lun[1].into()),
        1 if rest_is_zero => Some(u16::from(lun[0] & 0x3f) << 8 | u16::from(lun[1])),
        _ => None,
    }
}

/// The answer to REPORT LUNS (SPC-4 clause 6.33).
fn report_luns(home: &Home, select: u8, allocation: usize) -> Result<Done, Done> {
    if allocation < 16 {
        return Err(Sense::cdb(6).into());
    }
    let numbers: Vec<u16> = match select {
        0 | 2 => home.units().iter().map(|unit| unit.lun.number).collect(),
        // There are no well-known units.
        1 => Vec::new(),
        _ => return Err(Sense::cdb(2).into()),
    };
    let list: Vec<u8> = numbers
        .into_iter()
        .flat_map(|number| {
            let [high, low] = number.to_be_bytes();
            let method = if number < 256 { 0 } else { 0x40 };
            [method | high, low, 0, 0, 0, 0, 0, 0]
        })
        .collect();
    Ok(Done::data(
        [&length32(list.len())[..], &[0; 4], &list].concat(),
        allocation,
    ))
}

impl Connection {
    /// A command came, maybe with data.
    pub(super) fn command(
        self: &Rc<Self>,
        request: &Request,
        command: &ScsiCommand,
        immediate: Data,
        length: usize,
    ) {
        let mut question = Question {
            tag: request.task_tag,
            expected: command.expected_length,
            needed: 0,
            reads: command.read,
        };
        let Some(unit) = unit_number(request.lun).and_then(|number| self.home.unit(number)) else {
            let done = if command.cdb[0] == 0xa0 {
                self.report_luns(&command.cdb)
            } else {
                perform_nowhere(&command.cdb)
            };
            return self.respond(question, false, done);
        };
        let descriptor = unit.mode.get().descriptor_sense;
        let admitted = unit
            .admit(&self.session.nexus, &command.cdb)
            .and_then(|admitted| {
                check_length(&admitted, unit.lun.block_size, command.expected_length)?;
                Ok(admitted)
            });
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(done) => return self.respond(question, descriptor, done),
        };
        if let Command::ReportLuns { .. } = admitted {
            return self.respond(question, descriptor, self.report_luns(&command.cdb));
        }
        question.needed = data_length(&admitted, unit.lun.block_size);
        let Some(weight) =
            self.weigh(memory(&admitted, unit.lun.block_size).max(command.expected_length.into()))
        else {
            return self.respond(question, descriptor, Done::status(status::TASK_SET_FULL));
        };
        let wanted = u32::try_from(question.needed)
            .unwrap_or(u32::MAX)
            .min(command.expected_length);
        let wanted = if command.write { wanted } else { 0 };
        let assembled = Assembly::new(
            &self.parameters,
            wanted,
            command.expected_length,
            length,
            request.last || !command.write,
        );
        let assembly = match assembled {
            Ok(assembly) => assembly,
            Err(wrong) => return self.respond(question, descriptor, sense_of(wrong).into()),
        };
        let running = Running {
            place: unit.tasks.begin(&self.session.nexus, request.task_tag),
            unit,
            command: admitted,
            question,
            weight,
        };
        let lun = request.lun;
        // As long as `needed`, whose memory was weighed.
        let all = usize::try_from(wanted).unwrap_or(usize::MAX);
        let device = &running.unit.device;
        let room = (all > 0).then(|| immediate.in_room(all, |length| device.buffer(length)));
        self.go_on(
            Write {
                assembly,
                room,
                lun,
                running,
            },
            None,
        );
    }

    fn report_luns(&self, cdb: &[u8; 16]) -> Done {
        match crate::scsi::command::decode(cdb) {
            Ok(Command::ReportLuns { select, allocation }) => {
                report_luns(&self.home, select, allocation).unwrap_or_else(|done| done)
            }
            Ok(_) => Sense::INVALID_OPCODE.into(),
            Err(sense) => sense.into(),
        }
    }

    /// A place for a command that holds so many bytes in memory.
    fn weigh(self: &Rc<Self>, length: u64) -> Option<Weight> {
        if self.session.numbers.borrow().under_way() >= TASKS_MAX {
            return None;
        }
        let bytes = usize::try_from(length).ok()?;
        let sum = self.under_way.get().checked_add(bytes)?;
        if sum.checked_add(self.outbox.bytes())? > UNDER_WAY_MAX {
            return None;
        }
        self.under_way.set(sum);
        self.session.numbers.borrow_mut().begin();
        Some(Weight {
            connection: Rc::clone(self),
            bytes,
        })
    }

    /// Data of a write came. What nobody asked for is dropped: its command has been answered already.
    pub(super) fn data_out(self: &Rc<Self>, tag: u32, part: Part, last: bool, data: Data, length: usize) {
        let Some(mut write) = self.writes.borrow_mut().remove(&tag) else {
            return;
        };
        if write.task().is_aborted() {
            return self.conclude(write.running, Done::status(status::TASK_ABORTED));
        }
        match write.assembly.take(part, last, length) {
            Ok(next) => {
                write.keep(part, data);
                self.go_on(write, Some(next));
            }
            Err(wrong) => {
                self.conclude(write.running, sense_of(wrong).into());
            }
        }
    }

    /// Asks for what is missing, or begins.
    fn go_on(self: &Rc<Self>, mut write: Write, next: Option<Next>) {
        let tag = write.running.question.tag;
        match next.unwrap_or_else(|| write.assembly.advance()) {
            Next::Await => {}
            Next::Solicit {
                number,
                offset,
                length,
            } => {
                // The tag of an R2T is its number in the task.
                self.outbox
                    .send(ready_to_transfer(tag, write.lun, number, number, offset, length));
            }
            Next::Complete => {
                let data = write.room.map(WriteBuffer::freeze);
                return self.run(write.running, data.into_iter().collect());
            }
        }
        self.writes.borrow_mut().insert(tag, write);
    }

    fn run(self: &Rc<Self>, running: Running, data: Vec<Bytes>) {
        let connection = Rc::clone(self);
        running.place.task.start();
        spawn_local(async move {
            let (unit, task) = (&running.unit, &running.place.task);
            let done = match running.command {
                Command::ExtendedCopy { length } => connection.copy(unit, task, length, data).await,
                command => unit.perform(task, command, data).await,
            };
            connection.conclude(running, done);
        });
    }

    /// A command is over: whoever waits for it is answered.
    fn conclude(&self, running: Running, done: Done) {
        let Running {
            unit,
            place,
            question,
            weight,
            ..
        } = running;
        let answer = place.task.answer();
        drop(place);
        // The place in the window is free before the response tells how many are.
        drop(weight);
        let done = match answer {
            Answer::Outcome => done,
            Answer::Aborted => Done::status(status::TASK_ABORTED),
            Answer::Nothing => return,
        };
        self.respond(question, unit.mode.get().descriptor_sense, done);
    }

    /// Copies between units, for as long as the session is there.
    async fn copy(&self, unit: &Rc<Unit>, task: &Task, length: usize, data: Vec<Bytes>) -> Done {
        let stay = self.session.stay();
        let commission = Commission {
            receiver: unit,
            units: &self.home.units(),
            task,
            wanted: &|| *stay.borrow() < Stay::Dismissed,
            limit: COPY_TIME_MAX,
        };
        let done = perform_copy(&commission, &data.concat(), length).await;
        done.unwrap_or_else(|done| done)
    }

    /// Sends what came of a command.
    fn respond(&self, question: Question, descriptor: bool, done: Done) {
        let Question {
            tag,
            expected,
            needed,
            reads,
        } = question;
        let given: u64 = done.data.iter().map(|piece| piece.len() as u64).sum();
        let failed = done.status != status::GOOD;
        let actual = if failed { 0 } else { needed.max(given) };
        let residual = if failed && expected == 0 {
            Residual::None
        } else {
            Residual::of(actual, expected)
        };
        let sense = done
            .sense
            .map(|sense| sense.encode(descriptor))
            .unwrap_or_default();
        let sent = if reads { u64::from(expected).min(given) } else { 0 };
        if sent == 0 {
            return self
                .outbox
                .send(scsi_response(tag, done.status, residual, 0, &sense));
        }
        let mut pdus = self.data_pdus(tag, done.data, sent);
        match pdus.last_mut() {
            Some(last) if !failed => add_status(last, residual),
            _ => {
                let count = u32::try_from(pdus.len()).unwrap_or(u32::MAX);
                pdus.push(scsi_response(tag, done.status, residual, count, &sense));
            }
        }
        for pdu in pdus {
            self.outbox.send(pdu);
        }
    }

    /// Cuts data at what the initiator takes in one PDU and in one sequence.
    fn data_pdus(&self, tag: u32, pieces: Vec<Bytes>, length: u64) -> Vec<Outgoing> {
        let burst = u64::from(self.parameters.burst_max);
        let most = u64::from(self.parameters.send_max).min(burst);
        let mut pieces = pieces.into_iter();
        let mut rest = Bytes::new();
        let mut pdus = Vec::new();
        let mut at = 0;
        while at < length {
            let until_burst = burst - at % burst;
            let end = (at + most.min(until_burst)).min(length);
            let mut data = Vec::new();
            let mut missing = usize::try_from(end - at).unwrap_or(usize::MAX);
            while missing > 0 {
                if rest.is_empty() {
                    let Some(next) = pieces.next() else { break };
                    rest = next;
                }
                let part = rest.split_to(missing.min(rest.len()));
                missing -= part.len();
                data.push(part);
            }
            let last = end == length || end % burst == 0;
            // Both are bounded by the expected length, which has 32 bits.
            let number = u32::try_from(pdus.len()).unwrap_or(u32::MAX);
            let offset = u32::try_from(at).unwrap_or(u32::MAX);
            pdus.push(data_in(tag, number, offset, last, data));
            at = end;
        }
        pdus
    }
}

fn sense_of(wrong: WrongData) -> Sense {
    match wrong {
        WrongData::OutOfOrder => Sense::DATA_OUT_OF_ORDER,
        WrongData::Unexpected => Sense::UNEXPECTED_DATA,
        WrongData::TooLittle => Sense::NOT_ENOUGH_DATA,
    }
}
