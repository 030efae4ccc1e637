//! Sense data: why a command was not done (SPC-4 clause 4.5), in both formats.

/// Status codes (SAM-5 table 41).
pub mod status {
    /// Done.
    pub const GOOD: u8 = 0x00;
    /// Not done, or not wholly: the sense data says why.
    pub const CHECK_CONDITION: u8 = 0x02;
    /// Not now.
    pub const BUSY: u8 = 0x08;
    /// Somebody else has reserved the unit.
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    /// Too many tasks: later.
    pub const TASK_SET_FULL: u8 = 0x28;
    /// Another path had it aborted.
    pub const TASK_ABORTED: u8 = 0x40;
}

/// Sense keys (SPC-4 table 48).
mod key {
    pub(super) const NO_SENSE: u8 = 0;
    pub(super) const NOT_READY: u8 = 2;
    pub(super) const MEDIUM_ERROR: u8 = 3;
    pub(super) const ILLEGAL_REQUEST: u8 = 5;
    pub(super) const UNIT_ATTENTION: u8 = 6;
    pub(super) const DATA_PROTECT: u8 = 7;
    pub(super) const COPY_ABORTED: u8 = 0xa;
    pub(super) const ABORTED_COMMAND: u8 = 0xb;
    pub(super) const MISCOMPARE: u8 = 0xe;
}

/// Which field of a request was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Whether it is in the CDB; else in the parameters.
    pub in_cdb: bool,
    /// The byte.
    pub byte: u16,
}

/// Sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The sense key.
    pub key: u8,
    /// Additional sense code and its qualifier.
    pub code: (u8, u8),
    /// A block, or an offset in bytes for a comparison that failed.
    pub information: Option<u64>,
    /// Which field was wrong.
    pub field: Option<Field>,
    /// Which segment of a copy was not done.
    pub segment: Option<u16>,
}

impl Sense {
    const fn new(key: u8, code: (u8, u8)) -> Self {
        Self {
            key,
            code,
            information: None,
            field: None,
            segment: None,
        }
    }

    /// Nothing to tell.
    pub const NONE: Self = Self::new(key::NO_SENSE, (0, 0));
    /// No such command.
    pub const INVALID_OPCODE: Self = Self::new(key::ILLEGAL_REQUEST, (0x20, 0));
    /// Blocks beyond the end.
    pub const OUT_OF_RANGE: Self = Self::new(key::ILLEGAL_REQUEST, (0x21, 0));
    /// A field of the CDB.
    pub const INVALID_FIELD: Self = Self::new(key::ILLEGAL_REQUEST, (0x24, 0));
    /// No such logical unit.
    pub const NO_UNIT: Self = Self::new(key::ILLEGAL_REQUEST, (0x25, 0));
    /// A field of the parameters.
    pub const INVALID_PARAMETER: Self = Self::new(key::ILLEGAL_REQUEST, (0x26, 0));
    /// A key that is not registered is to be released, or the type is not the reservation's.
    pub const INVALID_RELEASE: Self = Self::new(key::ILLEGAL_REQUEST, (0x26, 4));
    /// The parameters are shorter or longer than they say.
    pub const PARAMETER_LENGTH: Self = Self::new(key::ILLEGAL_REQUEST, (0x1a, 0));
    /// There are no saved mode pages.
    pub const NO_SAVED_PAGES: Self = Self::new(key::ILLEGAL_REQUEST, (0x39, 0));
    /// More registrations than are kept.
    pub const NO_REGISTRATION_RESOURCES: Self = Self::new(key::ILLEGAL_REQUEST, (0x55, 4));
    /// Removal is prevented.
    pub const REMOVAL_PREVENTED: Self = Self::new(key::ILLEGAL_REQUEST, (0x53, 2));
    /// Somebody stopped the unit.
    pub const STOPPED: Self = Self::new(key::NOT_READY, (0x04, 2));
    /// The volume is somebody else's now, or closed.
    pub const NOT_ACCESSIBLE: Self = Self::new(key::NOT_READY, (0x04, 0));
    /// No good copy of a block.
    pub const UNREADABLE: Self = Self::new(key::MEDIUM_ERROR, (0x11, 0));
    /// Writes are refused, always.
    pub const WRITE_PROTECTED: Self = Self::new(key::DATA_PROTECT, (0x27, 0));
    /// Writes are refused, because an initiator said so in the control mode page.
    pub const SOFTWARE_PROTECTED: Self = Self::new(key::DATA_PROTECT, (0x27, 2));
    /// The pool is full.
    pub const NO_SPACE: Self = Self::new(key::DATA_PROTECT, (0x27, 7));
    /// Bytes differ.
    pub const MISCOMPARE: Self = Self::new(key::MISCOMPARE, (0x1d, 0));
    /// Data came that nobody asked for.
    pub const UNEXPECTED_DATA: Self = Self::new(key::ABORTED_COMMAND, (0x0c, 0x0c));
    /// Less data came than is needed.
    pub const NOT_ENOUGH_DATA: Self = Self::new(key::ABORTED_COMMAND, (0x0c, 0x0d));
    /// Data came in wrong order.
    pub const DATA_OUT_OF_ORDER: Self = Self::new(key::ABORTED_COMMAND, (0x4b, 0x05));
    /// The state of the cluster's reservations could not be changed.
    pub const INTERNAL: Self = Self::new(key::ABORTED_COMMAND, (0x44, 0));

    /// More units in the list of a copy than are taken (SPC-4 clause 6.4.3.4).
    pub const TOO_MANY_TARGETS: Self = Self::new(key::ILLEGAL_REQUEST, (0x26, 6));
    /// A unit is described in a way that is not known.
    pub const UNSUPPORTED_TARGET: Self = Self::new(key::ILLEGAL_REQUEST, (0x26, 7));
    /// More segments than are taken (SPC-4 clause 6.4.3.5).
    pub const TOO_MANY_SEGMENTS: Self = Self::new(key::ILLEGAL_REQUEST, (0x26, 8));
    /// A segment of a kind that is not known.
    pub const UNSUPPORTED_SEGMENT: Self = Self::new(key::ILLEGAL_REQUEST, (0x26, 9));
    /// More data in the list itself than is taken.
    pub const INLINE_DATA_LENGTH: Self = Self::new(key::ILLEGAL_REQUEST, (0x26, 0xb));
    /// Errors of a copy whose segments were looked at (SPC-4 clause 5.17.7.4).
    pub const COPY_ABORTED: Self = Self::new(key::COPY_ABORTED, (0, 0));
    /// A segment names a unit that is not in the list.
    pub const UNREACHABLE_COPY_TARGET: Self = Self::new(key::COPY_ABORTED, (0x08, 4));
    /// A unit could not do its part.
    pub const COPY_TARGET_FAILED: Self = Self::new(key::COPY_ABORTED, (0x0d, 1));
    /// There is no such unit here.
    pub const COPY_TARGET_NOT_REACHABLE: Self = Self::new(key::COPY_ABORTED, (0x0d, 2));
    /// A unit is no disk.
    pub const WRONG_COPY_TARGET: Self = Self::new(key::COPY_ABORTED, (0x0d, 3));
    /// What is copied is not a number of whole blocks at both ends.
    pub const INEXACT_SEGMENT: Self = Self::new(key::COPY_ABORTED, (0x26, 0xa));

    /// Unit attentions (SPC-4 clause 5.8).
    pub const POWER_ON: Self = Self::new(key::UNIT_ATTENTION, (0x29, 0));
    /// The unit was reset by a function.
    pub const RESET: Self = Self::new(key::UNIT_ATTENTION, (0x29, 3));
    /// Mode parameters changed.
    pub const MODE_CHANGED: Self = Self::new(key::UNIT_ATTENTION, (0x2a, 1));
    /// The reservation was preempted.
    pub const RESERVATIONS_PREEMPTED: Self = Self::new(key::UNIT_ATTENTION, (0x2a, 3));
    /// The reservation was released.
    pub const RESERVATIONS_RELEASED: Self = Self::new(key::UNIT_ATTENTION, (0x2a, 4));
    /// The registration was preempted.
    pub const REGISTRATIONS_PREEMPTED: Self = Self::new(key::UNIT_ATTENTION, (0x2a, 5));
    /// The size is another one.
    pub const CAPACITY_CHANGED: Self = Self::new(key::UNIT_ATTENTION, (0x2a, 9));
    /// The unit is reached best by other portals than before.
    pub const ACCESS_STATE_CHANGED: Self = Self::new(key::UNIT_ATTENTION, (0x2a, 6));
    /// The unit's volume is being opened again: a moment later it can be used.
    pub const BECOMING_READY: Self = Self::new(key::NOT_READY, (0x04, 1));
    /// There are other logical units now.
    pub const UNITS_CHANGED: Self = Self::new(key::UNIT_ATTENTION, (0x3f, 0xe));

    /// The same about byte `byte` of the CDB.
    pub const fn cdb(byte: u16) -> Self {
        let mut sense = Self::INVALID_FIELD;
        sense.field = Some(Field { in_cdb: true, byte });
        sense
    }

    /// A wrong field at byte `byte` of the parameters.
    pub const fn parameter(byte: u16) -> Self {
        Self::INVALID_PARAMETER.about(byte)
    }

    /// The same about byte `byte` of the parameters.
    #[must_use]
    pub const fn about(mut self, byte: u16) -> Self {
        self.field = Some(Field { in_cdb: false, byte });
        self
    }

    /// The same about a segment of a copy, by its position.
    #[must_use]
    pub const fn of_segment(mut self, segment: u16) -> Self {
        self.segment = Some(segment);
        self
    }

    /// The same about a block or a byte.
    #[must_use]
    pub const fn at(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    /// As it travels: with descriptors if `descriptor`, else in the fixed format of 18 bytes.
    pub fn encode(&self, descriptor: bool) -> Vec<u8> {
        if descriptor {
            self.descriptors()
        } else {
            self.fixed()
        }
    }

    fn fixed(&self) -> Vec<u8> {
        let mut bytes = vec![0; 18];
        bytes[0] = 0x70;
        bytes[2] = self.key;
        bytes[7] = 10;
        (bytes[12], bytes[13]) = self.code;
        // A block that four bytes cannot tell is not told.
        if let Some(information) = self.information.and_then(|number| u32::try_from(number).ok()) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        // Of what is specific to the command, the third and fourth byte (SPC-4 clause 5.17.7.4).
        if let Some(segment) = self.segment {
            bytes[10..12].copy_from_slice(&segment.to_be_bytes());
        }
        if let Some(field) = self.field {
            bytes[15..18].copy_from_slice(&field.encode());
        }
        bytes
    }

    fn descriptors(&self) -> Vec<u8> {
        let mut bytes = vec![0x72, self.key, self.code.0, self.code.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            bytes.extend_from_slice(&[0x00, 0x0a, 0x80, 0]);
            bytes.extend_from_slice(&information.to_be_bytes());
        }
        if let Some(segment) = self.segment {
            let [high, low] = segment.to_be_bytes();
            bytes.extend_from_slice(&[0x01, 0x0a, 0, 0, 0, 0, high, low, 0, 0, 0, 0]);
        }
        if let Some(field) = self.field {
            bytes.extend_from_slice(&[0x02, 0x06, 0, 0]);
            bytes.extend_from_slice(&field.encode());
            bytes.push(0);
        }
        // At most twice 12 and 8 bytes follow the first 8.
        bytes[7] = u8::try_from(bytes.len() - 8).unwrap_or(u8::MAX);
        bytes
    }
}

impl Field {
    /// The sense-key specific bytes (SPC-4 clause 4.5.2.4.2).
    fn encode(self) -> [u8; 3] {
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | if self.in_cdb { 0x40 } else { 0 }, high, low]
    }
}

#[cfg(test)]
mod tests {
    //! Golden bytes of both formats.
    use super::*;

    #[test]
    fn both_formats() {
        let sense = Sense::cdb(1);
        assert_eq!(
            sense.encode(false),
            [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xc0, 0, 1]
        );
        assert_eq!(
            sense.encode(true),
            [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xc0, 0, 1, 0]
        );
        let miscompare = Sense::MISCOMPARE.at(7);
        assert_eq!(miscompare.encode(false)[..8], [0xf0, 0, 0xe, 0, 0, 0, 7, 10]);
        assert_eq!(
            miscompare.encode(true)[8..],
            [0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 7]
        );
        let copy = Sense::COPY_TARGET_FAILED.about(16).of_segment(2);
        assert_eq!(
            copy.encode(false),
            [0x70, 0, 0xa, 0, 0, 0, 0, 10, 0, 0, 0, 2, 0x0d, 1, 0, 0x80, 0, 16]
        );
        assert_eq!(
            copy.encode(true),
            [
                0x72, 0xa, 0x0d, 1, 0, 0, 0, 20, 1, 10, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 6, 0, 0, 0x80, 0,
                16, 0
            ]
        );
    }
}
