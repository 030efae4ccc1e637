//! Whole sessions over a socket: data that is asked for, connections that share an order, rules that are broken.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod gateway;

use gateway::{log_in, with_doors, with_gateway};
use storaged_iscsi::scsi::identification::Identity;
use storaged_iscsi::source::serial;
use storaged_iscsi::wire::header::Header;
use test_initiator::{Initiator, Pdu, READ, WRITE};

const WRITE_16_BLOCKS: [u8; 10] = [0x2a, 0, 0, 0, 0, 3, 0, 0, 16, 0];
const READ_16_BLOCKS: [u8; 10] = [0x28, 0, 0, 0, 0, 3, 0, 0, 16, 0];

/// CLEAR TASK SET, ABORT TASK SET (RFC 7143 section 11.5.1).
const CLEAR_TASK_SET: u8 = 4;
const ABORT_TASK_SET: u8 = 2;

/// Sends what an R2T asks for of the rest of a write's data, which it must ask for in order; how many bytes that were.
async fn grant(initiator: &mut Initiator, wish: &Pdu, rest: &[u8]) -> usize {
    let wish = &wish.header;
    let asked = usize::try_from(wish.u32(44)).unwrap();
    assert_eq!(
        (wish.opcode(), wish.u32(40)),
        (0x31, 8192 - u32::try_from(rest.len()).unwrap())
    );
    let mut header = Header::new(0x05, 0x80, wish.task_tag());
    header.set_u32(20, wish.u32(20));
    header.set_u32(40, wish.u32(40));
    initiator.send(header, &rest[..asked]).await;
    asked
}

#[test]
fn a_write_that_another_initiator_has_aborted_is_answered_and_an_own_one_is_not() {
    with_gateway(|address| async move {
        let mut a = log_in(address, "a", 0, 0, "").await;
        let mut b = log_in(address, "b", 0, 0, "").await;
        a.be_told().await;
        b.be_told().await;
        let data = [7; 8192];
        for by_another in [true, false] {
            let tag = a.command_number;
            a.command(tag, WRITE, 8192, &WRITE_16_BLOCKS, &data[..512]).await;
            let wish = a.receive().await.unwrap();
            let aborted = if by_another {
                b.manage_tasks(CLEAR_TASK_SET).await
            } else {
                a.manage_tasks(ABORT_TASK_SET).await
            };
            assert_eq!(aborted, 0);
            grant(&mut a, &wish, &data[512..]).await;
            if by_another {
                assert!(a.outcome(tag).await.is_aborted());
            }
            assert!(
                a.ready().await.is_good(),
                "the next answer is to this, and there is no more to tell"
            );
        }
        assert_eq!(b.read(3, 16).await, [0; 8192]);
    });
}

#[test]
fn data_that_is_asked_for_is_read_back() {
    with_gateway(|address| async move {
        let mut initiator = log_in(address, "a", 0, 0, "MaxBurstLength=4096\0ImmediateData=Yes\0").await;
        initiator.be_told().await;
        let data: Vec<u8> = (0..8192u32).map(|at| u8::try_from(at % 249).unwrap()).collect();
        initiator
            .command(1, WRITE, 8192, &WRITE_16_BLOCKS, &data[..512])
            .await;
        let mut at = 512;
        while at < data.len() {
            let wish = initiator.receive().await.unwrap();
            at += grant(&mut initiator, &wish, &data[at..]).await;
        }
        assert_eq!(initiator.status(1).await, 0);
        initiator.command(2, READ, 8192, &READ_16_BLOCKS, &[]).await;
        let mut read = Vec::new();
        while read.len() < data.len() {
            read.extend(initiator.receive().await.unwrap().data);
        }
        assert!(read == data, "what was written is read");
    });
}

#[test]
fn a_command_waits_for_the_one_before_it_that_comes_by_another_connection() {
    with_gateway(|address| async move {
        let mut first = log_in(address, "a", 0, 0, "MaxConnections=2\0").await;
        first.be_told().await;
        let mut second = log_in(address, "a", 1, first.tsih, "").await;
        assert_eq!(second.tsih, first.tsih);
        let next = first.command_number;
        second.numbered(next + 1, 7, 0, 0, &[0; 6], &[]).await;
        first.numbered(next, 6, 0, 0, &[0; 6], &[]).await;
        assert_eq!(first.status(6).await, 0);
        assert_eq!(second.status(7).await, 0);
    });
}

#[test]
fn a_new_session_of_the_same_names_ends_the_old_one() {
    with_gateway(|address| async move {
        let mut old = log_in(address, "a", 0, 0, "").await;
        let mut new = log_in(address, "a", 0, 0, "").await;
        assert!(old.receive().await.is_none(), "the old one is closed");
        new.be_told().await;
        new.command(1, 0, 0, &[0; 6], &[]).await;
        assert_eq!(new.status(1).await, 0);
    });
}

#[test]
fn what_is_reserved_by_one_initiator_is_not_written_by_another() {
    with_gateway(|address| async move {
        let mut a = log_in(address, "a", 0, 0, "").await;
        let mut b = log_in(address, "b", 0, 0, "").await;
        a.be_told().await;
        b.be_told().await;
        assert!(a.reserve_out(0, 0, (0, 1)).await.is_good());
        assert!(a.reserve_out(1, 1, (1, 0)).await.is_good());
        let block = [9; 512];
        assert!(b.write(0, &block).await.is_conflict());
        assert!(a.write(0, &block).await.is_good());
    });
}

#[test]
fn a_pdu_that_is_too_long_ends_the_connection_and_others_go_on() {
    with_gateway(|address| async move {
        let mut broken = log_in(address, "a", 0, 0, "").await;
        let mut other = log_in(address, "b", 0, 0, "").await;
        let mut header = Header::new(0x05, 0x80, 1);
        header.0[5..8].copy_from_slice(&[0xff; 3]);
        // As it is: `send` would put the true length in.
        broken.send_raw(&header.0).await;
        assert!(broken.receive().await.is_none());
        other.be_told().await;
    });
}

#[test]
fn an_unknown_opcode_is_rejected_and_the_session_goes_on() {
    with_gateway(|address| async move {
        let mut initiator = log_in(address, "a", 0, 0, "").await;
        initiator.send(Header::new(0x1c, 0x80, 1), &[]).await;
        let reject = initiator.receive().await.unwrap();
        assert_eq!(
            (reject.header.opcode(), reject.header.0[2], reject.data.len()),
            (0x3f, 5, 48)
        );
        initiator.be_told().await;
    });
}

#[test]
fn reads_that_announce_no_data_are_counted_by_what_they_hold() {
    with_gateway(|address| async move {
        let mut initiator = log_in(address, "a", 0, 0, "").await;
        initiator.be_told().await;
        // Each reads 32 MiB, and says that it takes nothing. They come in one piece, so that none ends before all are there.
        let mut bytes = Vec::new();
        for tag in 0..6 {
            let mut header = Header::new(0x01, 0x80, tag);
            header.set_u32(24, initiator.command_number + tag);
            header.0[32..42].copy_from_slice(&[0x28, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0]);
            bytes.extend_from_slice(&header.0);
        }
        initiator.send_raw(&bytes).await;
        let mut full = 0;
        for _ in 0..6 {
            let response = initiator.receive().await.unwrap();
            match response.header.0[3] {
                0 => {}
                0x28 => full += 1,
                other => panic!("status {other:#x}"),
            }
        }
        assert!(full > 0, "some are told that the task set is full");
    });
}

#[test]
fn the_gateway_copies_blocks_and_tells_once_that_it_did() {
    with_gateway(|address| async move {
        let mut initiator = log_in(address, "a", 0, 0, "").await;
        initiator.be_told().await;
        let data: Vec<u8> = (0..4096u32).map(|at| u8::try_from(at % 241).unwrap()).collect();
        assert!(initiator.write(3, &data).await.is_good());
        // List 7: from block 3 of the only unit, by its name, to block 1000 of the unit that the command comes to.
        let mut list = [0; 16 + 32 + 28];
        (list[0], list[3], list[11]) = (7, 32, 28);
        list[16..24].copy_from_slice(&[0xe4, 0, 0, 0, 1, 3, 0, 8]);
        let unit = Identity::new(&serial(1), "any", 1);
        list[24..32].copy_from_slice(&unit.naa.to_be_bytes());
        list[46] = 2;
        (list[48], list[51], list[59], list[67]) = (2, 0x18, 8, 3);
        list[54..56].copy_from_slice(&[0xff, 0xff]);
        list[68..76].copy_from_slice(&1000u64.to_be_bytes());
        let copy = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 76, 0, 0];
        initiator.command(1, WRITE, 76, &copy, &list).await;
        assert!(initiator.outcome(1).await.is_good());
        assert!(initiator.read(1000, 8).await == data, "the blocks were copied");
        // All in one segment, of 4096 bytes.
        let status = [0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0];
        initiator.command(2, READ, 12, &status, &[]).await;
        let told = initiator.receive().await.unwrap().data;
        assert_eq!(told, [0, 0, 0, 8, 1, 0, 1, 0, 0, 0, 0x10, 0]);
        initiator.command(3, READ, 12, &status, &[]).await;
        let sense = initiator.outcome(3).await.sense.unwrap();
        assert_eq!((sense.key, sense.code), (5, (0x24, 0)));
        // A list that is cut off copies nothing.
        initiator
            .command(4, WRITE, 76, &[&copy[..13], &[75, 0, 0]].concat(), &list)
            .await;
        let sense = initiator.outcome(4).await.sense.unwrap();
        assert_eq!((sense.key, sense.code), (5, (0x1a, 0)));
    });
}

#[test]
fn initiators_are_asked_to_leave_when_nobody_is_let_in_any_more() {
    with_doors(async |address, leave, doors| {
        let mut initiator = log_in(address, "a", 0, 0, "").await;
        // A process that leaves shuts its doors at the same moment: a target may hear of that first.
        doors.abort();
        let asked = initiator.receive().await.unwrap();
        assert_eq!((asked.header.opcode(), asked.header.0[36]), (0x32, 1));
        initiator.log_out().await;
        drop(leave);
    });
}
