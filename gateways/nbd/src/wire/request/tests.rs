//! The laws of judging: a task never leaves its export, never breaks its rights or its alignment,
//! and no bytes make the parser panic.

use super::*;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds {
    size: 1 << 20,
    alignment: 512,
    read_only: false,
    structured: true,
    allocation: true,
};

fn request(command: u16, flags: u16, offset: u64, length: u64) -> Request {
    Request {
        flags,
        command,
        cookie: 7,
        offset,
        length,
        payload: 0,
    }
}

fn judge(command: u16, flags: u16, offset: u64, length: u64) -> Result<Task, Errno> {
    let judged = request(command, flags, offset, length).judge(HeaderLayout::Compact, &BOUNDS);
    judged.map_err(|refusal| refusal.errno)
}

#[test]
fn the_bytes_of_a_request_are_these() {
    // The layout is the specification's: a change here breaks every client.
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    bytes.extend([0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0]);
    let parsed = Request::parse(HeaderLayout::Compact, &bytes).unwrap();
    let expected = Request {
        flags: 1,
        command: 1,
        cookie: 9,
        offset: 4096,
        length: 512,
        payload: 512,
    };
    assert_eq!(parsed, expected);
    assert_eq!(
        Request::parse(HeaderLayout::Extended, &bytes),
        None,
        "the magic of the other layout"
    );
}

#[test]
fn the_bytes_of_an_extended_request_are_these() {
    let mut bytes = vec![0x21, 0xe4, 0x1c, 0x71, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9];
    bytes.extend([0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let parsed = Request::parse(HeaderLayout::Extended, &bytes).unwrap();
    let expected = Request {
        flags: 0,
        command: 4,
        cookie: 9,
        offset: 4096,
        length: 1 << 32,
        payload: 0,
    };
    assert_eq!(parsed, expected);
}

#[test]
fn past_the_end_a_write_finds_no_space_and_a_read_is_invalid() {
    assert_eq!(judge(command::WRITE, 0, 1 << 20, 512), Err(Errno::NoSpace));
    assert_eq!(
        judge(command::WRITE_ZEROES, 0, (1 << 20) - 512, 1024),
        Err(Errno::NoSpace)
    );
    assert_eq!(judge(command::READ, 0, 1 << 20, 512), Err(Errno::Invalid));
    assert_eq!(judge(command::TRIM, 0, u64::MAX - 511, 512), Err(Errno::Invalid));
}

#[test]
fn a_read_only_export_refuses_every_change() {
    let bounds = Bounds {
        read_only: true,
        ..BOUNDS
    };
    for change in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        let judged = request(change, 0, 0, 512).judge(HeaderLayout::Compact, &bounds);
        assert_eq!(judged.unwrap_err().errno, Errno::NotPermitted);
    }
    assert!(
        request(command::READ, 0, 0, 512)
            .judge(HeaderLayout::Compact, &bounds)
            .is_ok()
    );
}

#[test]
fn allocated_zeros_are_never_promised_to_be_fast() {
    assert_eq!(
        judge(command::WRITE_ZEROES, flag::NO_HOLE | flag::FAST_ZERO, 0, 4096),
        Err(Errno::NotSupported)
    );
    assert_eq!(
        judge(command::WRITE_ZEROES, flag::FAST_ZERO | flag::FUA, 0, 4096),
        Ok(Task::Zero {
            offset: 0,
            length: 4096,
            allocate: false
        })
    );
}

#[test]
fn status_needs_an_agreed_context() {
    let bounds = Bounds {
        allocation: false,
        ..BOUNDS
    };
    let judged = request(command::BLOCK_STATUS, 0, 0, 4096).judge(HeaderLayout::Compact, &bounds);
    assert_eq!(judged.unwrap_err().errno, Errno::Invalid);
}

#[test]
fn an_extended_write_is_taken_with_and_without_the_flag_of_its_payload() {
    // Found with qemu-io 10.0: its client agrees on extended headers and does not set the flag.
    for flags in [0, flag::PAYLOAD_LENGTH] {
        let write = request(command::WRITE, flags, 0, 512);
        assert!(write.judge(HeaderLayout::Extended, &BOUNDS).is_ok());
    }
    let mut bytes = vec![0x21, 0xe4, 0x1c, 0x71, 0, 0, 0, 1];
    bytes.extend([0; 22]);
    bytes.extend([2, 0]);
    let parsed = Request::parse(HeaderLayout::Extended, &bytes).unwrap();
    assert_eq!(parsed.payload, 512, "the payload follows all the same");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(extended: bool, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let layout = if extended { HeaderLayout::Extended } else { HeaderLayout::Compact };
        let _ = Request::parse(layout, &bytes);
    }

    #[test]
    fn a_task_stays_inside_its_export(
        command in 0u16..9, flags in 0u16..64, extended: bool, read_only: bool,
        offset in prop_oneof![0u64..1 << 21, any::<u64>()],
        length in prop_oneof![0u64..1 << 21, any::<u64>()],
    ) {
        let layout = if extended { HeaderLayout::Extended } else { HeaderLayout::Compact };
        let bounds = Bounds { read_only, ..BOUNDS };
        let (start, count, changes) = match request(command, flags, offset, length).judge(layout, &bounds) {
            Ok(Task::Read { offset, length, .. } | Task::Status { offset, length, .. }) => (offset, length, false),
            Ok(Task::Write { offset, length } | Task::Trim { offset, length }
                | Task::Zero { offset, length, .. }) => (offset, length, true),
            Ok(Task::Flush | Task::Nothing | Task::Disconnect) | Err(_) => return Ok(()),
        };
        prop_assert!(count > 0 && start.checked_add(count).is_some_and(|end| end <= bounds.size));
        prop_assert!(start.is_multiple_of(512) && count.is_multiple_of(512));
        prop_assert!(!(changes && read_only));
    }
}
