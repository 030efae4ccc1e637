//! A `vhost-blk` process, as tests start and stop it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use test_node::{Node, Process, program};

/// A running `vhost-blk`. Ends with this value.
pub struct Backend {
    process: Process,
    socket: PathBuf,
}

impl Backend {
    /// Starts it with these arguments, and waits until it listens. What it says goes into a file beside
    /// its socket.
    pub fn start(socket: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_inside(None, socket, arguments)
    }

    /// As [`Backend::start`], in a network namespace if one is named.
    fn start_inside(namespace: Option<&Path>, socket: &Path, arguments: &[&str]) -> Result<Self> {
        // The file of an earlier process would look as if somebody listened.
        if socket.exists() {
            std::fs::remove_file(socket)?;
        }
        let own = [Path::new("--socket"), socket].into_iter();
        let all = own.chain(arguments.iter().map(Path::new));
        let log = socket.with_extension("log");
        let mut process = Process::start_inside(namespace, &program("vhost-blk")?, all, &log)?;
        process.wait_for("vhost-blk to listen", || socket.exists().then_some(()))?;
        Ok(Self {
            process,
            socket: socket.to_owned(),
        })
    }

    /// Offers a volume of `node` at `NAME.vhost` in the node's folder, if no other process has it or
    /// leaves it within so many seconds.
    pub fn offer(node: &Node, volume: &str, name: &str, wait: u64) -> Result<Self> {
        let storaged = node.session_socket().display().to_string();
        let socket = node.folder().join(format!("{name}.vhost"));
        let wait = wait.to_string();
        Self::start_inside(
            node.namespace(),
            &socket,
            &["--storaged", &storaged, "--volume", volume, "--wait", &wait],
        )
    }

    /// As [`Backend::offer`], for a guest that runs elsewhere and comes by a live migration.
    pub fn await_guest(node: &Node, volume: &str, name: &str) -> Result<Self> {
        let storaged = node.session_socket().display().to_string();
        let socket = node.folder().join(format!("{name}.vhost"));
        Self::start(
            &socket,
            &["--storaged", &storaged, "--volume", volume, "--incoming"],
        )
    }

    /// Kills it with SIGKILL, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// What it and those before it on this socket have said, without colours.
    pub fn log(socket: &Path) -> Result<String> {
        let text = std::fs::read_to_string(socket.with_extension("log"))?;
        let mut plain = String::with_capacity(text.len());
        for (number, part) in text.split('\u{1b}').enumerate() {
            // Behind an escape comes a colour, which ends with an m.
            let colour = if number == 0 { None } else { part.split_once('m') };
            plain.push_str(colour.map_or(part, |(_, rest)| rest));
        }
        Ok(plain)
    }

    /// Where QEMU connects to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it with SIGTERM: what it has taken is finished before.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop()
    }

    /// Stops it with SIGSTOP: it is there and does nothing.
    pub fn pause(&self) -> Result<()> {
        self.process.freeze()
    }

    /// Lets it go on after [`Backend::pause`].
    pub fn resume(&self) -> Result<()> {
        self.process.thaw()
    }
}
