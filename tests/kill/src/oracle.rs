//! What each block may hold: the rule of promises P1 and P2, apart from any real disk.

use std::collections::HashMap;

use crate::pattern::Value;

/// A write that was submitted.
#[derive(Clone, Copy, Debug)]
struct Submitted {
    first: u64,
    count: u64,
    value: Value,
}

/// Knows of each block what may be read.
pub(crate) struct Oracle {
    /// By block: the values that may be read. Never empty.
    allowed: Vec<Vec<Value>>,
    /// By the write's number: what was submitted and not answered.
    unanswered: HashMap<u64, Submitted>,
    violations: u64,
}

impl Oracle {
    /// A volume of so many blocks that was never written.
    pub(crate) fn new(blocks: u64) -> Self {
        let blocks = usize::try_from(blocks).unwrap_or(0);
        Self {
            allowed: vec![vec![Value::Zero]; blocks],
            unanswered: HashMap::new(),
            violations: 0,
        }
    }

    /// A write (or, with zeros as its value, a discard) is on its way: its blocks may have the new value.
    pub(crate) fn submitted(&mut self, number: u64, first: u64, count: u64, value: Value) {
        for block in first..first + count {
            self.block(block).push(value);
        }
        self.unanswered.insert(number, Submitted { first, count, value });
    }

    /// It was acknowledged: its blocks have the new value, and no other. The worker never has two
    /// requests for one block in flight, so nothing else is on its way there.
    pub(crate) fn acknowledged(&mut self, number: u64) {
        let Some(Submitted { first, count, value }) = self.unanswered.remove(&number) else {
            return;
        };
        for block in first..first + count {
            *self.block(block) = vec![value];
        }
    }

    /// The worker is dead: what it did not get answered may be there or not, and never comes later.
    pub(crate) fn worker_died(&mut self) {
        self.unanswered.clear();
    }

    /// A block was read. From now on it has this value; a sentence if that is against the promises.
    pub(crate) fn read(&mut self, block: u64, value: Value) -> Result<(), String> {
        let allowed = self.block(block);
        if allowed.contains(&value) {
            *allowed = vec![value];
            return Ok(());
        }
        let sentence = format!("block {block} holds {value:?}, allowed is one of {allowed:?}");
        self.violations += 1;
        Err(sentence)
    }

    /// How many reads were against the promises.
    pub(crate) fn violations(&self) -> u64 {
        self.violations
    }

    fn block(&mut self, block: u64) -> &mut Vec<Value> {
        let last = self.allowed.len().saturating_sub(1);
        // The worker stays inside the volume; a wrong number must not end the parent.
        let index = usize::try_from(block).unwrap_or(last).min(last);
        &mut self.allowed[index]
    }
}

#[cfg(test)]
mod tests {
    //! The oracle must find each kind of breach, or a campaign proves nothing.
    use super::*;
    use Value::{Write, Zero};

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        let mut oracle = Oracle::new(4);
        oracle.submitted(1, 0, 2, Write(1));
        oracle.acknowledged(1);
        assert!(oracle.read(0, Write(1)).is_ok());
        assert!(oracle.read(1, Zero).is_err());
        assert_eq!(oracle.violations(), 1);
    }

    #[test]
    fn an_unanswered_write_may_be_there_or_not_but_never_both() {
        let mut oracle = Oracle::new(1);
        oracle.submitted(1, 0, 1, Write(1));
        oracle.worker_died();
        assert!(oracle.read(0, Zero).is_ok());
        assert!(
            oracle.read(0, Write(1)).is_err(),
            "a value that was read may not be taken back"
        );
    }

    #[test]
    fn a_discard_is_a_write_of_zeros() {
        let mut oracle = Oracle::new(1);
        oracle.submitted(1, 0, 1, Write(1));
        oracle.acknowledged(1);
        oracle.submitted(2, 0, 1, Zero);
        oracle.acknowledged(2);
        assert!(oracle.read(0, Write(1)).is_err());
        assert!(oracle.read(0, Zero).is_ok());
    }
}
