//! What a worker tells its parent: one line each, written before it goes on, so that whatever it did
//! is known even if it is killed right after. A pipe keeps its bytes when its writer dies.

use crate::pattern::Value;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The volume is open.
    Opened,
    /// A block was read.
    Read {
        /// Which.
        block: u64,
        /// What it held.
        value: Value,
    },
    /// Every block was read.
    Verified,
    /// A request is about to be submitted.
    Submitted {
        /// Its number; the value of a write.
        number: u64,
        /// Its first block.
        first: u64,
        /// How many blocks.
        count: u64,
        /// Whether it discards instead of writing.
        discards: bool,
    },
    /// A request was acknowledged.
    Acknowledged {
        /// Its number.
        number: u64,
    },
}

impl Report {
    /// As a line.
    pub(crate) fn line(self) -> String {
        match self {
            Self::Opened => "opened\n".into(),
            Self::Read { block, value } => format!("read {block} {}\n", value.number()),
            Self::Verified => "verified\n".into(),
            Self::Submitted {
                number,
                first,
                count,
                discards,
            } => {
                format!("submitted {number} {first} {count} {}\n", u64::from(discards))
            }
            Self::Acknowledged { number } => format!("acknowledged {number}\n"),
        }
    }

    /// From a line. The last line of a killed worker may be cut: it then says nothing.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let word = words.next()?;
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        match (word, numbers.as_slice()) {
            ("opened", []) => Some(Self::Opened),
            ("verified", []) => Some(Self::Verified),
            ("read", [block, value]) => Some(Self::Read {
                block: *block,
                value: Value::from_number(*value),
            }),
            ("submitted", [number, first, count, discards]) => Some(Self::Submitted {
                number: *number,
                first: *first,
                count: *count,
                discards: *discards == 1,
            }),
            ("acknowledged", [number]) => Some(Self::Acknowledged { number: *number }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    //! A report means the same to both ends.
    use super::*;

    #[test]
    fn every_report_reads_back_and_a_cut_one_says_nothing() {
        for report in [
            Report::Opened,
            Report::Read {
                block: 5,
                value: Value::Write(9),
            },
            Report::Read {
                block: 5,
                value: Value::Zero,
            },
            Report::Verified,
            Report::Submitted {
                number: 1,
                first: 2,
                count: 3,
                discards: true,
            },
            Report::Acknowledged { number: 4 },
        ] {
            assert_eq!(Report::read(report.line().trim_end()), Some(report));
        }
        assert_eq!(Report::read("submitted 1 2"), None);
        assert_eq!(Report::read("acknow"), None);
    }
}
