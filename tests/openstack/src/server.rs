//! A WSGI application of an environment, served on a free port of this host. What it answers is its own affair.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use test_node::Process;

use crate::Environment;

/// The program that serves.
const SERVE: &str = include_str!("serve.py");

/// A port that is this process's until a server has it: nobody else can take it in between.
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// A free one. Who connects from now on waits for the server.
    pub fn find() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// What is to be served.
pub struct Application<'a> {
    /// `MODULE:NAME`.
    pub place: &'a str,
    /// How many requests it works on at a time.
    pub threads: u32,
    /// Its own arguments.
    pub arguments: &'a [String],
    /// Its own variables.
    pub variables: &'a [(&'a str, String)],
}

/// Serves an application on a port; what it says is appended to the file `log`. It answers when it has started. It ends with
/// the value, and with this program however that ends: a value in a `static` leaves nothing behind.
pub fn serve(
    environment: &Environment,
    application: &Application,
    port: Port,
    log: &Path,
) -> Result<Process> {
    let mut command = Command::new(environment.program("python"));
    command
        .args(["-W", "ignore", "-c", SERVE, application.place])
        .arg(application.threads.to_string())
        .args(application.arguments)
        .envs(application.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(OwnedFd::from(port.listener)));
    Process::start_command(command, log)
}
