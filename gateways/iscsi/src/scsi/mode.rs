//! Mode pages: caching, control and informational exceptions (SPC-4 clause 7.5, SBC-3 clause 6.5).

use crate::scsi::command::ModeQuery;
use crate::scsi::fields::{length16, u16_at};
use crate::scsi::sense::Sense;

/// What initiators may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeState {
    /// Sense data travels with descriptors.
    pub descriptor_sense: bool,
    /// Writes are refused.
    pub software_protected: bool,
}

/// What a unit is, as far as mode pages tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Whether writes are always refused.
    pub read_only: bool,
}

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const EXCEPTIONS: u8 = 0x1c;
const ALL: u8 = 0x3f;

/// Bits in the third and the fifth byte of the control page that may be changed.
const DESCRIPTOR_SENSE: u8 = 0x04;
const SOFTWARE_PROTECT: u8 = 0x08;
/// In the sixth byte: TAS.
const TASK_ABORTED_STATUS: u8 = 0x40;

/// The values of a page: present or default ones, or which bits may be changed.
fn page(number: u8, state: Option<ModeState>) -> Vec<u8> {
    let changeable = state.is_none();
    let state = state.unwrap_or(ModeState {
        descriptor_sense: true,
        software_protected: true,
    });
    match number {
        CONTROL => {
            let mut page = vec![CONTROL, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            page[2] = if state.descriptor_sense {
                DESCRIPTOR_SENSE
            } else {
                0
            };
            page[4] = if state.software_protected {
                SOFTWARE_PROTECT
            } else {
                0
            };
            if !changeable {
                // Commands may be done in any order; what another path aborts is answered; there is no limit to how long
                // the unit is busy.
                page[3] = 0x10;
                page[5] = TASK_ABORTED_STATUS;
                page[8..10].copy_from_slice(&[0xff, 0xff]);
            }
            page
        }
        // No volatile cache: every write is on stable storage when it is answered.
        CACHING => [&[CACHING, 18][..], &[0; 18]].concat(),
        _ => [&[EXCEPTIONS, 10][..], &[0; 10]].concat(),
    }
}

/// The answer to MODE SENSE.
pub fn sense(query: ModeQuery, state: ModeState, medium: Medium) -> Result<Vec<u8>, Sense> {
    let state = match query.control {
        0 => Some(state),
        1 => None,
        2 => Some(ModeState::default()),
        _ => return Err(Sense::NO_SAVED_PAGES),
    };
    let pages: Vec<u8> = match (query.page, query.subpage) {
        (ALL, 0 | 0xff) => [CACHING, CONTROL, EXCEPTIONS]
            .into_iter()
            .flat_map(|number| page(number, state))
            .collect(),
        (number @ (CACHING | CONTROL | EXCEPTIONS), 0 | 0xff) => page(number, state),
        (CACHING | CONTROL | EXCEPTIONS | ALL, _) => return Err(Sense::cdb(3)),
        _ => return Err(Sense::cdb(2)),
    };
    let blocks = block_descriptor(query, medium);
    let protected = medium.read_only || state.is_some_and(|state| state.software_protected);
    // Write protected; FUA is known.
    let device = 0x10 | if protected { 0x80 } else { 0 };
    let length = pages.len() + blocks.len();
    let header = if query.long {
        let [high, low] = length16(length + 6);
        let [blocks_high, blocks_low] = length16(blocks.len());
        vec![
            high,
            low,
            0,
            device,
            u8::from(blocks.len() == 16),
            0,
            blocks_high,
            blocks_low,
        ]
    } else {
        let [_, low] = length16(length + 3);
        let [_, blocks_low] = length16(blocks.len());
        vec![low, 0, device, blocks_low]
    };
    Ok([header, blocks, pages].concat())
}

fn block_descriptor(query: ModeQuery, medium: Medium) -> Vec<u8> {
    if query.no_descriptors {
        return Vec::new();
    }
    let size = medium.block_size.to_be_bytes();
    if query.long_blocks {
        return [&medium.blocks.to_be_bytes()[..], &[0; 4], &size].concat();
    }
    // More blocks than the field can tell are told as the most that it can.
    let blocks = u32::try_from(medium.blocks).unwrap_or(u32::MAX);
    let mut descriptor = [blocks.to_be_bytes(), size].concat();
    descriptor[4] = 0;
    descriptor
}

/// What MODE SELECT with these parameters makes of a state.
pub fn select(long: bool, parameters: &[u8], state: ModeState, medium: Medium) -> Result<ModeState, Sense> {
    if parameters.is_empty() {
        return Ok(state);
    }
    let header = if long { 8 } else { 4 };
    if parameters.len() < header {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let blocks = usize::from(if long {
        u16_at(parameters, 6)
    } else {
        parameters[3].into()
    });
    let rest = parameters.get(header..).unwrap_or_default();
    let (descriptor, mut pages) = rest.split_at_checked(blocks).ok_or(Sense::PARAMETER_LENGTH)?;
    check_descriptor(descriptor, medium)?;
    let mut changed = state;
    while !pages.is_empty() {
        let length = usize::from(*pages.get(1).ok_or(Sense::PARAMETER_LENGTH)?) + 2;
        let (first, others) = pages.split_at_checked(length).ok_or(Sense::PARAMETER_LENGTH)?;
        changed = select_page(first, changed)?;
        pages = others;
    }
    Ok(changed)
}

/// The block size cannot be changed; a descriptor that names the present one changes nothing.
fn check_descriptor(descriptor: &[u8], medium: Medium) -> Result<(), Sense> {
    let size = match descriptor.len() {
        0 => return Ok(()),
        8 => [0, descriptor[5], descriptor[6], descriptor[7]],
        16 => [descriptor[12], descriptor[13], descriptor[14], descriptor[15]],
        _ => return Err(Sense::INVALID_PARAMETER),
    };
    if u32::from_be_bytes(size) == medium.block_size {
        Ok(())
    } else {
        Err(Sense::INVALID_PARAMETER)
    }
}

fn select_page(given: &[u8], state: ModeState) -> Result<ModeState, Sense> {
    let number = given[0] & 0x3f;
    if given[0] & 0x40 != 0 || !matches!(number, CACHING | CONTROL | EXCEPTIONS) {
        return Err(Sense::INVALID_PARAMETER);
    }
    let present = page(number, Some(state));
    let changeable = page(number, None);
    if given.len() != present.len() {
        return Err(Sense::INVALID_PARAMETER);
    }
    let fixed = given.iter().zip(&present).zip(&changeable).skip(2);
    for ((given, present), changeable) in fixed {
        if (given ^ present) & !changeable != 0 {
            return Err(Sense::INVALID_PARAMETER);
        }
    }
    if number != CONTROL {
        return Ok(state);
    }
    Ok(ModeState {
        descriptor_sense: given[2] & DESCRIPTOR_SENSE != 0,
        software_protected: given[4] & SOFTWARE_PROTECT != 0,
    })
}

#[cfg(test)]
mod tests {
    //! Golden pages; what is read may be written back; what cannot be changed is refused.
    use super::*;
    use proptest::prelude::*;

    const MEDIUM: Medium = Medium {
        blocks: 2048,
        block_size: 512,
        read_only: false,
    };

    fn query(page: u8, control: u8) -> ModeQuery {
        ModeQuery {
            long: false,
            no_descriptors: false,
            long_blocks: false,
            control,
            page,
            subpage: 0,
        }
    }

    #[test]
    fn the_caching_page_says_that_nothing_is_cached() {
        let bytes = sense(query(CACHING, 0), ModeState::default(), MEDIUM).unwrap();
        assert_eq!(bytes[..14], [31, 0, 0x10, 8, 0, 0, 8, 0, 0, 0, 2, 0, 8, 18]);
        assert_eq!(bytes[14], 0);
    }

    #[test]
    fn descriptor_sense_is_set_and_the_write_cache_is_not() {
        let mut bytes = sense(query(CONTROL, 0), ModeState::default(), MEDIUM).unwrap();
        bytes[0] = 0;
        assert_eq!(
            select(false, &bytes, ModeState::default(), MEDIUM),
            Ok(ModeState::default())
        );
        bytes[12 + 2] |= DESCRIPTOR_SENSE;
        let changed = select(false, &bytes, ModeState::default(), MEDIUM).unwrap();
        assert!(changed.descriptor_sense && !changed.software_protected);
        let mut bytes = sense(query(CACHING, 0), ModeState::default(), MEDIUM).unwrap();
        bytes[12 + 2] |= 4;
        assert_eq!(
            select(false, &bytes, ModeState::default(), MEDIUM),
            Err(Sense::INVALID_PARAMETER)
        );
    }

    proptest! {
        #[test]
        fn any_parameters_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), long in any::<bool>()) {
            let _ = select(long, &bytes, ModeState::default(), MEDIUM);
        }
    }
}
