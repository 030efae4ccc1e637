//! The requests of one front end, cut into pieces that are done one by one, and kept until they are answered. Pure.
//!
//! Of a shared volume a piece lies in one object, and whoever owns the volume when there is no answer is asked again: what
//! is done of a request must not be done again with the rest of it, for others may have seen it. Of a volume that moves to
//! another pool a piece lies on one side of what is moved.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::OBJECT_SIZE;
use protocol::shared::PIECE_MAX;
use protocol::storage::MapKind;

use crate::device::{Continuation, DeviceError, Operation, Outcome};
use crate::exclusion::{Span, overlap};

/// One piece's number. Never used twice by one attachment.
pub(crate) type Number = u64;

/// One piece.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Which request it is of.
    request: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) what: What,
}

/// What is to be done with its range.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Read,
    Map,
    Write(Bytes),
    Zero,
    /// Never cut: it lies in one object.
    CompareAndWrite {
        expected: Bytes,
        data: Bytes,
    },
}

impl What {
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Zero | Self::CompareAndWrite { .. })
    }
}

impl Piece {
    /// As an operation of a device.
    pub(crate) fn operation(&self) -> Operation {
        let (offset, length) = (self.offset, self.length);
        match &self.what {
            What::Read => Operation::Read { offset, length },
            What::Map => Operation::Map { offset, length },
            What::Write(bytes) => Operation::Write {
                offset,
                data: vec![bytes.clone()],
            },
            What::Zero => Operation::WriteZeroes { offset, length },
            What::CompareAndWrite { expected, data } => Operation::CompareAndWrite {
                offset,
                expected: expected.clone(),
                data: data.clone(),
            },
        }
    }
}

struct Request {
    left: usize,
    writes: bool,
    failure: Option<DeviceError>,
    differs: Option<u64>,
    data: BTreeMap<u64, Vec<Bytes>>,
    runs: BTreeMap<u64, Vec<(u64, MapKind)>>,
    done: Continuation,
}

/// All requests that are not answered.
#[derive(Default)]
pub(crate) struct Pieces {
    next: u64,
    known: BTreeMap<Number, Piece>,
    requests: BTreeMap<u64, Request>,
    /// Flushes, by the first request that they do not wait for.
    flushes: BTreeMap<u64, Vec<Continuation>>,
}

/// A continuation with its answer, to be called when nothing is borrowed.
pub(crate) type Answered = (Continuation, Result<Outcome, DeviceError>);

impl Pieces {
    /// Takes an operation in, cut where `cut` says: it gives the next place after one that it is asked about. Gives the
    /// pieces' numbers, and what is answered at once.
    pub(crate) fn submit(
        &mut self,
        operation: Operation,
        done: Continuation,
        cut: &dyn Fn(u64, &What) -> u64,
    ) -> (Vec<Number>, Vec<Answered>) {
        self.next += 1;
        let request = self.next;
        let (offset, length, what) = match operation {
            Operation::Flush => {
                self.flushes.entry(request).or_default().push(done);
                return (Vec::new(), self.finish_flushes());
            }
            Operation::Read { offset, length } => (offset, length, What::Read),
            Operation::Map { offset, length } => (offset, length, What::Map),
            Operation::WriteZeroes { offset, length } | Operation::Discard { offset, length } => {
                (offset, length, What::Zero)
            }
            Operation::Write { offset, data } => {
                let bytes = joined(data);
                (offset, bytes.len() as u64, What::Write(bytes))
            }
            Operation::CompareAndWrite {
                offset,
                expected,
                data,
            } => (
                offset,
                data.len() as u64,
                What::CompareAndWrite { expected, data },
            ),
        };
        let mut numbers = Vec::new();
        let mut at = offset;
        while at < offset + length {
            let end = (offset + length).min(cut(at, &what));
            let part = match &what {
                What::Write(bytes) => {
                    let from = usize::try_from(at - offset).unwrap_or(usize::MAX);
                    let to = usize::try_from(end - offset).unwrap_or(usize::MAX);
                    What::Write(bytes.slice(from..to))
                }
                other => other.clone(),
            };
            self.next += 1;
            let piece = Piece {
                request,
                offset: at,
                length: end - at,
                what: part,
            };
            self.known.insert(self.next, piece);
            numbers.push(self.next);
            at = end;
        }
        let entry = Request {
            left: numbers.len(),
            writes: what.writes(),
            failure: None,
            differs: None,
            data: BTreeMap::new(),
            runs: BTreeMap::new(),
            done,
        };
        self.requests.insert(request, entry);
        (numbers, Vec::new())
    }

    /// A piece that is not answered.
    pub(crate) fn get(&self, number: Number) -> Option<&Piece> {
        self.known.get(&number)
    }

    /// Whether a piece that is not answered has a byte in common with this range.
    pub(crate) fn touch(&self, span: Span) -> bool {
        let mut spans = self
            .known
            .values()
            .map(|piece| (piece.offset, piece.offset + piece.length));
        spans.any(|other| overlap(span, other))
    }

    /// Whether everything is answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.flushes.is_empty()
    }

    /// A piece is answered. Nothing happens if it was before.
    pub(crate) fn answer(&mut self, number: Number, result: Result<Outcome, DeviceError>) -> Vec<Answered> {
        let Some(piece) = self.known.remove(&number) else {
            return Vec::new();
        };
        let Some(request) = self.requests.get_mut(&piece.request) else {
            return Vec::new();
        };
        match result {
            Ok(Outcome::Done) => {}
            Ok(Outcome::Differs { offset }) => request.differs = Some(offset),
            Ok(Outcome::Data(data)) => {
                request.data.insert(piece.offset, data);
            }
            Ok(Outcome::Map(runs)) => {
                request.runs.insert(piece.offset, runs);
            }
            Err(error) => {
                request.failure.get_or_insert(error);
            }
        }
        request.left -= 1;
        if request.left > 0 {
            return Vec::new();
        }
        let mut answered: Vec<Answered> = self
            .requests
            .remove(&piece.request)
            .map(Request::answer)
            .into_iter()
            .collect();
        answered.extend(self.finish_flushes());
        answered
    }

    /// Everything fails.
    pub(crate) fn fail_all(&mut self, error: &DeviceError) -> Vec<Answered> {
        self.known.clear();
        let requests = std::mem::take(&mut self.requests)
            .into_values()
            .map(|request| request.done);
        let flushes = std::mem::take(&mut self.flushes).into_values().flatten();
        requests
            .chain(flushes)
            .map(|done| (done, Err(error.clone())))
            .collect()
    }

    fn finish_flushes(&mut self) -> Vec<Answered> {
        let mut writes = self.requests.iter().filter(|(_, request)| request.writes);
        let first = writes.next().map_or(u64::MAX, |(number, _)| *number);
        let later = self.flushes.split_off(&first);
        let due = std::mem::replace(&mut self.flushes, later);
        due.into_values()
            .flatten()
            .map(|done| (done, Ok(Outcome::Done)))
            .collect()
    }
}

impl Request {
    fn answer(self) -> Answered {
        let result = match (self.failure, self.differs) {
            (Some(error), _) => Err(error),
            (None, Some(offset)) => Ok(Outcome::Differs { offset }),
            _ if !self.runs.is_empty() => Ok(Outcome::Map(self.runs.into_values().flatten().collect())),
            _ if !self.data.is_empty() => Ok(Outcome::Data(self.data.into_values().flatten().collect())),
            _ => Ok(Outcome::Done),
        };
        (self.done, result)
    }
}

/// Where the piece that begins here ends at the latest.
pub(crate) fn next_cut(at: u64, what: &What) -> u64 {
    let object = u64::from(OBJECT_SIZE);
    let border = (at / object + 1) * object;
    match what {
        What::Read | What::Write(_) => border.min(at + u64::from(PIECE_MAX)),
        What::Map | What::Zero | What::CompareAndWrite { .. } => border,
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    pieces.concat().into()
}

#[cfg(test)]
mod tests {
    //! Requests are answered once, whole, and flushes after the writes before them.
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    type Log = Rc<RefCell<Vec<(&'static str, Result<Outcome, DeviceError>)>>>;

    fn note(log: &Log, name: &'static str) -> Continuation {
        let log = Rc::clone(log);
        Box::new(move |result| log.borrow_mut().push((name, result)))
    }

    fn call(answered: Vec<Answered>) {
        for (done, result) in answered {
            done(result);
        }
    }

    #[test]
    fn a_request_over_the_border_of_objects_is_answered_with_its_last_piece() {
        let (log, mut pieces) = (Log::default(), Pieces::default());
        let border = u64::from(OBJECT_SIZE);
        let read = Operation::Read {
            offset: border - 4096,
            length: 8192,
        };
        let (numbers, _) = pieces.submit(read, note(&log, "read"), &next_cut);
        assert_eq!(numbers.len(), 2);
        let data = |value| Ok(Outcome::Data(vec![Bytes::from(vec![value; 4096])]));
        call(pieces.answer(numbers[1], data(2)));
        assert!(log.borrow().is_empty());
        call(pieces.answer(numbers[0], data(1)));
        call(pieces.answer(numbers[0], data(9)));
        let expected = vec![Bytes::from(vec![1; 4096]), Bytes::from(vec![2; 4096])];
        assert_eq!(*log.borrow(), [("read", Ok(Outcome::Data(expected)))]);
        assert!(pieces.is_empty());
    }

    #[test]
    fn a_flush_waits_for_the_writes_before_it_only() {
        let (log, mut pieces) = (Log::default(), Pieces::default());
        let write = |offset| Operation::Write {
            offset,
            data: vec![Bytes::from(vec![1; 4096])],
        };
        let (first, _) = pieces.submit(write(0), note(&log, "first"), &next_cut);
        call(pieces.submit(Operation::Flush, note(&log, "flush"), &next_cut).1);
        let (second, _) = pieces.submit(write(4096), note(&log, "second"), &next_cut);
        call(pieces.answer(second[0], Ok(Outcome::Done)));
        call(pieces.answer(first[0], Err(DeviceError::Full)));
        call(
            pieces
                .submit(Operation::Flush, note(&log, "at once"), &next_cut)
                .1,
        );
        let names: Vec<_> = log.borrow().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["second", "first", "flush", "at once"]);
        assert!(pieces.is_empty());
    }

    #[test]
    fn large_writes_are_cut_and_everything_fails_once() {
        let (log, mut pieces) = (Log::default(), Pieces::default());
        let data = vec![Bytes::from(vec![1; 1 << 20]), Bytes::from(vec![2; 4096])];
        let (numbers, _) = pieces.submit(
            Operation::Write { offset: 0, data },
            note(&log, "write"),
            &next_cut,
        );
        assert_eq!(numbers.len(), 3);
        call(pieces.fail_all(&DeviceError::Lost));
        call(pieces.answer(numbers[0], Ok(Outcome::Done)));
        assert_eq!(*log.borrow(), [("write", Err(DeviceError::Lost))]);
    }

    #[test]
    fn a_compare_and_write_is_one_piece_and_says_where_it_differs() {
        let (log, mut pieces) = (Log::default(), Pieces::default());
        let bytes = Bytes::from(vec![1; 256 << 10]);
        let compare = Operation::CompareAndWrite {
            offset: u64::from(OBJECT_SIZE) - (256 << 10),
            expected: bytes.clone(),
            data: bytes,
        };
        let (numbers, _) = pieces.submit(compare, note(&log, "compare"), &next_cut);
        assert_eq!(numbers.len(), 1);
        assert!(pieces.touch((0, u64::from(OBJECT_SIZE))));
        assert!(!pieces.touch((0, 4096)));
        let differs = Ok(Outcome::Differs { offset: 7 });
        call(pieces.answer(numbers[0], differs.clone()));
        assert_eq!(*log.borrow(), [("compare", differs)]);
    }
}
