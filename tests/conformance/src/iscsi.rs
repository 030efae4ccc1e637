//! iSCSI: what libiscsi's tools and its conformance suite find when they use `storaged-iscsi`.

mod access;
mod suite_of_libiscsi;

use std::process::Command;

use anyhow::{Context, Result};
use test_node::program;

use crate::stage::Server;
use crate::suite::{self, Selection, Tally};

/// The target in the gateway's memory.
const TARGET: &str = "iqn.2026-01.storaged:memory";
/// What libiscsi's suite calls itself, by its two names.
const SUITE_INITIATORS: [&str; 2] = [
    "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test",
    "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2",
];
/// An initiator that must prove who it is.
const CAREFUL: &str = "iqn.2026-01.example:careful";
/// An initiator that nobody asks.
const TRUSTED: &str = "iqn.2026-01.example:trusted";
/// The secret of the careful one.
const SECRET: &str = "a-secret-of-16-b";
/// Bytes of each unit: the suite reads and writes a whole one.
const UNIT: u64 = 100 << 20;
/// The unit with blocks of 512 bytes, and the one with blocks of 4096.
const SHORT_BLOCKS: u32 = 0;
const LONG_BLOCKS: u32 = 1;

/// A gateway with two units in memory.
struct Portal {
    gateway: Server,
}

impl Portal {
    fn start() -> Result<Self> {
        let mut command = Command::new(program("storaged-iscsi")?);
        command.args(["--listen", "127.0.0.1:0", "--memory-target", TARGET]);
        command.args(["--memory", &format!("short={UNIT}")]);
        command.args(["--memory", &format!("long={UNIT}/4096")]);
        for initiator in SUITE_INITIATORS.into_iter().chain([TRUSTED]) {
            command.args(["--memory-access", initiator]);
        }
        command.args(["--memory-access", &format!("{CAREFUL}/careful/{SECRET}")]);
        command.env("RUST_LOG", "error");
        let gateway = Server::start(&mut command, 1)?;
        Ok(Self { gateway })
    }

    /// Where it listens, with `user` as libiscsi's URLs have it before the host.
    fn portal(&self, user: &str) -> Result<String> {
        let address = self.gateway.addresses.first().context("no address")?;
        Ok(format!("iscsi://{user}{address}"))
    }

    fn unit(&self, user: &str, number: u32) -> Result<String> {
        Ok(format!("{}/{TARGET}/{number}", self.portal(user)?))
    }
}

impl suite::Stage for Portal {
    fn close(self) -> suite::Finding {
        self.gateway.stop()
    }
}

/// Runs the selected checks against a gateway that serves volumes from memory.
pub fn run(selection: &Selection) -> Tally {
    let mut tally = Tally::default();
    for checks in [access::CHECKS, suite_of_libiscsi::CHECKS] {
        tally.run("iscsi in memory", checks, selection, Portal::start);
    }
    tally
}
