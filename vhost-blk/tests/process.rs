//! The program itself, driven by a virtio driver that is not ours, over its socket and shared memory.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that it did not expect"
)]

#[path = "program/driver.rs"]
mod driver;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use driver::{Driver, PATIENCE, SIZE, Server, await_socket, command, pattern, wait};
use virtio_driver::VirtioBlkFeatureFlags;

#[test]
fn data_written_through_one_queue_is_read_through_every_other() {
    let server = Server::start(&["--queues", "4"]);
    let mut driver = Driver::connect(&server.socket, 4);
    for queue in 0..4 {
        let bytes = pattern(queue as u64, 65536);
        assert_eq!(driver.write(queue, queue as u64 * 65536, &bytes), 0);
    }
    for queue in 0..4 {
        for other in 0..4u64 {
            let (status, bytes) = driver.read(queue, other * 65536, 65536);
            assert!(status == 0 && bytes == pattern(other, 65536));
        }
    }
}

#[test]
fn a_deep_queue_is_answered_completely_and_each_request_with_its_own_data() {
    let server = Server::start(&["--queues", "2"]);
    let mut driver = Driver::connect(&server.socket, 2);
    for round in 0..20u64 {
        let place = |number: u64| (number * 4096, (round * 16 + number) * 4096);
        for number in 0..16 {
            let (at, offset) = place(number);
            driver.fill(at, &pattern(offset, 4096));
            driver.queue_write(0, offset, at, 4096);
        }
        driver.kick(0);
        assert!(driver.answers(0, 16).iter().all(|(_, status)| *status == 0));
        for number in 0..16 {
            let (at, offset) = place(number);
            driver.queue_read(1, offset, at + (1 << 20), 4096);
        }
        driver.kick(1);
        assert!(driver.answers(1, 16).iter().all(|(_, status)| *status == 0));
        for number in 0..16 {
            let (at, offset) = place(number);
            assert!(driver.bytes(at + (1 << 20), 4096) == pattern(offset, 4096));
        }
    }
}

#[test]
fn sectors_of_512_bytes_are_kept_apart() {
    let server = Server::start(&[]);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 8192)), 0);
    assert_eq!(driver.write(0, 512 * 3, &pattern(2, 512 * 9)), 0);
    let mut expected = pattern(1, 8192);
    expected[512 * 3..512 * 12].copy_from_slice(&pattern(2, 512 * 9));
    assert!(driver.read(0, 0, 8192) == (0, expected));
}

#[test]
fn discard_write_zeroes_and_flush_are_offered_and_work() {
    let server = Server::start(&[]);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 3 * 4096)), 0);
    driver.queues[0].discard(0, 4096, 0).unwrap();
    assert_eq!(driver.one(0), 0);
    driver.queues[0].write_zeroes(8192, 4096, true, 0).unwrap();
    assert_eq!(driver.one(0), 0);
    driver.queues[0].flush(0).unwrap();
    assert_eq!(driver.one(0), 0);
    let (status, bytes) = driver.read(0, 0, 3 * 4096);
    assert_eq!(status, 0);
    assert!(bytes[..4096].iter().all(|byte| *byte == 0) && bytes[8192..].iter().all(|byte| *byte == 0));
    assert!(bytes[4096..8192] == pattern(1, 3 * 4096)[4096..8192]);
}

#[test]
fn a_request_beyond_the_end_is_an_error_and_harms_nothing() {
    let server = Server::start(&[]);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, SIZE - 512, &pattern(1, 1024)), -libc::EIO);
    assert_eq!(driver.write(0, SIZE - 512, &pattern(1, 512)), 0);
}

#[test]
fn the_guest_learns_block_size_and_read_only_from_the_configuration() {
    let server = Server::start(&["--block-size", "4096", "--read-only"]);
    let mut driver = Driver::connect(&server.socket, 1);
    let features = VirtioBlkFeatureFlags::from_bits_truncate(driver.features());
    assert!(features.contains(VirtioBlkFeatureFlags::RO | VirtioBlkFeatureFlags::BLK_SIZE));
    assert!(!features.intersects(VirtioBlkFeatureFlags::DISCARD | VirtioBlkFeatureFlags::WRITE_ZEROES));
    let config = driver.transport.read().unwrap().get_config().unwrap();
    assert_eq!(
        (u32::from(config.blk_size), u64::from(config.capacity)),
        (4096, SIZE / 512)
    );
    assert_eq!(driver.write(0, 0, &pattern(1, 4096)), -libc::EIO);
    assert_eq!(driver.read(0, 512, 4096).0, -libc::EIO, "between two blocks");
    assert_eq!(driver.read(0, 0, 4096), (0, vec![0; 4096]));
}

#[test]
fn a_front_end_that_comes_back_finds_its_data() {
    let server = Server::start(&["--queues", "2"]);
    for round in 0..5u64 {
        let mut driver = Driver::connect(&server.socket, 2);
        if round > 0 {
            assert!(driver.read(1, (round - 1) * 4096, 4096) == (0, pattern(round - 1, 4096)));
        }
        assert_eq!(driver.write(0, round * 4096, &pattern(round, 4096)), 0);
    }
}

#[test]
fn a_front_end_that_leaves_with_requests_under_way_hurts_nobody() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        let mut driver = Driver::connect(&server.socket, 1);
        for number in 0..16 {
            driver.queue_write(0, number * 65536, number * 65536, 65536);
        }
        driver.kick(0);
    }
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(3, 4096)), 0);
    assert!(driver.read(0, 0, 4096) == (0, pattern(3, 4096)));
}

#[test]
fn sigterm_finishes_what_was_taken_and_ends_with_success() {
    let mut server = Server::start(&[]);
    let mut driver = Driver::connect(&server.socket, 1);
    for number in 0..16 {
        driver.queue_write(0, number * 65536, number * 65536, 65536);
    }
    driver.kick(0);
    assert!(server.terminate().success());
    // Whatever was taken is published; with a device that never waits that is a number from 0 to 16,
    // and each answer is a good one.
    assert!(driver.queues[0].completions().all(|done| done.ret == 0));
}

#[test]
fn garbage_on_the_socket_ends_that_connection_only() {
    let server = Server::start(&[]);
    for seed in 0..50u64 {
        let mut stream = UnixStream::connect(&server.socket).unwrap();
        let mut bytes = pattern(seed, 64);
        if seed % 2 == 0 {
            // A sound header with any request and any length.
            bytes[..4].copy_from_slice(&u32::try_from(seed % 45).unwrap().to_le_bytes());
            bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
            bytes[8..12].copy_from_slice(&u32::try_from(seed * 3).unwrap().to_le_bytes());
        }
        // The server may have closed already.
        let _ = stream.write_all(&bytes);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 4096)), 0);
}

#[test]
fn a_socket_in_use_is_left_alone_and_an_abandoned_one_is_replaced() {
    let mut server = Server::start(&[]);
    let second = wait(&mut command(&server.socket, &[]).spawn().unwrap());
    assert!(!second.success());
    assert!(server.terminate().success());
    assert!(server.socket.exists(), "the file stays, as after a crash");
    server.child = command(&server.socket, &[]).spawn().unwrap();
    await_socket(&server.socket);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 4096)), 0);
}

#[test]
fn a_service_manager_hands_over_the_socket_and_is_told_when_it_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vhost.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let news = std::os::unix::net::UnixDatagram::bind(directory.path().join("notify")).unwrap();
    news.set_read_timeout(Some(PATIENCE)).unwrap();
    // The shell plays the service manager: the socket is descriptor 3 of a process that knows its number.
    let start = |path: &Path| {
        let vhost_blk = command(path, &[]);
        let mut shell = Command::new("sh");
        shell
            .args([
                "-c",
                "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null",
            ])
            .arg(vhost_blk.get_program())
            .args(vhost_blk.get_args())
            .env("NOTIFY_SOCKET", directory.path().join("notify"))
            .env("WATCHDOG_USEC", "300000")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(
                listener.try_clone().unwrap(),
            )))
            .stderr(Stdio::null());
        shell.spawn().unwrap()
    };
    for _ in 0..2 {
        let mut child = start(&socket);
        let heard = || {
            let mut word = [0; 64];
            let length = news.recv(&mut word).unwrap();
            String::from_utf8_lossy(&word[..length]).into_owned()
        };
        while !heard().starts_with("READY=1\n") {}
        // In its sandbox, too, it says that it is alive, again and again.
        for _ in 0..3 {
            while heard() != "WATCHDOG=1\n" {}
        }
        let mut driver = Driver::connect(&socket, 1);
        assert_eq!(driver.write(0, 0, &pattern(1, 4096)), 0);
        // The next one has the same socket, which nobody had to bind again.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let elsewhere = wait(&mut start(&directory.path().join("other.sock")));
    assert!(!elsewhere.success(), "a socket at another path is not taken");
}
