//! Python programs that serve on a free port of this host. What they answer is their own affair.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use test_node::Process;

use crate::Environment;

/// A port that is this process's until a server has it: nobody else can take it in between.
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// A free one. Who connects from now on waits for the server.
    pub fn find() -> Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// This one, which was found before.
    pub(crate) fn at(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).context("find a free port")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives it up for a server that wants to take it itself; gives its address. Somebody else may be faster.
    pub fn leave(self) -> SocketAddr {
        self.address
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A Python program that serves on the socket that is its standard input.
pub(crate) struct Program<'a> {
    /// The whole of it.
    pub(crate) text: &'a str,
    /// Its arguments.
    pub(crate) arguments: &'a [String],
    /// Variables of its environment.
    pub(crate) variables: &'a [(&'a str, String)],
}

impl Program<'_> {
    /// Starts it on a port; what it says is appended to the file `log`. It ends with the value, and with this program however
    /// that ends: a value in a `static` leaves nothing behind.
    pub(crate) fn start(&self, environment: &Environment, port: Port, log: &Path) -> Result<Process> {
        let mut command = Command::new(environment.program("python"));
        command
            .args(["-W", "ignore", "-c", self.text])
            .args(self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(port.listener)));
        Process::start_command(command, log)
    }
}
