//! `storaged` with its disks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::{Process, command_inside, program};

/// Where folders of nodes are made: on a disk by convention, unlike /tmp, and near the root, because
/// the path of a unix socket has at most 107 bytes.
const FOLDERS: &str = "/var/tmp";
/// Where they are made if the machine's disk must not matter: in memory.
const FOLDERS_IN_MEMORY: &str = "/dev/shm";

/// What it said, in a node's folder.
const LOG: &str = "storaged.log";
/// The configuration file in a node's folder.
const CONFIGURATION: &str = "storaged.toml";

/// A running `storaged`.
pub struct Node {
    storaged: Process,
    folder: TempDir,
    /// Nothing: the configuration says all.
    disks: Option<u32>,
    /// The network namespace that it runs in, if it is not this program's.
    namespace: Option<PathBuf>,
    /// Where its programs are, if they are not those that this program goes by.
    programs: Option<PathBuf>,
}

impl Node {
    /// Starts `storaged` with so many disks in a new folder, and waits until it answers.
    pub fn start(disks: u32) -> Result<Self> {
        Self::configured(disks, "")
    }

    /// As [`Node::start`], with a configuration file that says this.
    pub fn configured(disks: u32, configuration: &str) -> Result<Self> {
        Self::prepared(disks, configuration, |_| Ok(()))
    }

    /// As [`Node::configured`], with disks in memory: as fast as each other, whoever else writes to the machine's disk.
    pub fn in_memory(disks: u32, configuration: &str) -> Result<Self> {
        let folder = configured_folder(FOLDERS_IN_MEMORY, configuration)?;
        Self::start_in(folder, Some(disks), None, None)
    }

    /// As [`Node::configured`], with something done in its folder before it starts.
    pub fn prepared(
        disks: u32,
        configuration: &str,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::prepared_inside(None, disks, configuration, prepare)
    }

    /// As [`Node::prepared`], in a network namespace if one is named.
    pub fn prepared_inside(
        namespace: Option<PathBuf>,
        disks: u32,
        configuration: &str,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let folder = configured_folder(FOLDERS, configuration)?;
        prepare(folder.path())?;
        Self::start_in(folder, Some(disks), namespace, None)
    }

    /// As [`Node::configured`], of programs that are in this folder: those of another version.
    pub fn of_version(programs: &Path, disks: u32, configuration: &str) -> Result<Self> {
        let folder = configured_folder(FOLDERS, configuration)?;
        Self::start_in(folder, Some(disks), None, Some(programs.to_owned()))
    }

    /// As an operator does it: `set_up` is given a new folder and the configuration file to write, and `storaged`
    /// is started with that file alone.
    pub fn set_up(set_up: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<Self> {
        let folder = new_folder()?;
        set_up(folder.path(), &folder.path().join(CONFIGURATION))?;
        Self::start_in(folder, None, None, None)
    }

    fn start_in(
        folder: TempDir,
        disks: Option<u32>,
        namespace: Option<PathBuf>,
        programs: Option<PathBuf>,
    ) -> Result<Self> {
        let daemon = program_of(programs.as_deref(), "storaged")?;
        let storaged = spawn(&daemon, folder.path(), disks, namespace.as_deref())?;
        let mut node = Self {
            storaged,
            folder,
            disks,
            namespace,
            programs,
        };
        node.wait_until_it_serves()?;
        Ok(node)
    }

    /// Its work directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The network namespace that it runs in, if it is not this program's.
    pub fn namespace(&self) -> Option<&Path> {
        self.namespace.as_deref()
    }

    /// The socket for front ends.
    pub fn session_socket(&self) -> PathBuf {
        self.folder().join("storaged.sock")
    }

    /// The socket of the admin API.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder().join("admin.sock")
    }

    /// The disks' folders.
    pub fn disks(&self) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(self.folder().join("disks"))
            .into_iter()
            .flatten()
            .flatten();
        // A file system that is mounted there has a folder of its own.
        let is_disk = |path: &PathBuf| path.is_dir() && !path.ends_with("lost+found");
        let mut disks: Vec<PathBuf> = listed.map(|entry| entry.path()).filter(is_disk).collect();
        disks.sort();
        disks
    }

    /// Runs `storagectl`; the answer is what it printed.
    pub fn storagectl(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.admin_socket().display().to_string();
        let program = self.program("storagectl")?;
        run_storagectl(
            None,
            &program,
            &[&["--socket", socket.as_str()], arguments].concat(),
        )
    }

    /// Kills `storaged` as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.storaged.kill()
    }

    /// Starts `storaged` again after it was killed or stopped, and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        self.storaged = self.spawn()?;
        self.wait_until_it_serves()
    }

    /// Stops `storaged` in good order, and starts that of the programs in this folder.
    pub fn change_version(&mut self, programs: &Path) -> Result<()> {
        self.storaged.stop()?;
        self.programs = Some(programs.to_owned());
        self.start_again()
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        program_of(self.programs.as_deref(), name)
    }

    fn spawn(&self) -> Result<Process> {
        spawn(
            &self.program("storaged")?,
            self.folder(),
            self.disks,
            self.namespace(),
        )
    }

    /// Starts `storaged` again where it must wait before it serves, and waits until it says these words.
    pub fn start_waiting(&mut self, words: &str) -> Result<()> {
        let log = self.folder().join(LOG);
        let before = std::fs::read(&log).context("read a log")?.len();
        self.storaged = self.spawn()?;
        let what = format!("storaged to say {words:?}");
        self.storaged.wait_for(&what, || {
            let said = std::fs::read(&log).ok()?;
            let said = String::from_utf8_lossy(said.get(before..)?).into_owned();
            said.contains(words).then_some(())
        })
    }

    /// Stops `storaged` in good order.
    pub fn stop(&mut self) -> Result<()> {
        self.storaged.stop()
    }

    /// Writes another configuration, for the next start.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        std::fs::write(self.folder().join(CONFIGURATION), configuration).context("write a configuration")
    }

    /// Starts `storaged` where it must refuse; the answer is what it said.
    pub fn refused(&mut self) -> Result<String> {
        self.storaged.kill()?;
        let log = self.folder().join(LOG);
        let before = std::fs::read(&log).context("read a log")?.len();
        let status = self.spawn()?.wait_until_it_ends()?;
        ensure!(!status.success(), "storaged started, and should have refused");
        let said = std::fs::read(&log).context("read a log")?;
        let said = said.get(before..).unwrap_or_default();
        Ok(String::from_utf8_lossy(said).into_owned())
    }

    /// Whether `storaged` has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        self.storaged.has_ended()
    }

    /// `storaged` itself.
    pub fn storaged(&self) -> &Process {
        &self.storaged
    }

    /// Leaves the folder for whoever looks into what went wrong.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// Waits until it answers.
    pub fn wait_until_it_serves(&mut self) -> Result<()> {
        let (status, socket) = (self.program("storagectl")?, self.admin_socket());
        let answers = || {
            let mut command = Command::new(&status);
            command
                .arg("--socket")
                .arg(&socket)
                .arg("status")
                .stdin(Stdio::null());
            command
                .output()
                .is_ok_and(|output| output.status.success())
                .then_some(())
        };
        self.storaged.wait_for("storaged to answer", answers)
    }
}

/// Runs `storagectl` where no `storaged` is asked, or one that the arguments name; the answer is what it printed.
pub fn storagectl(arguments: &[&str]) -> Result<String> {
    storagectl_inside(None, arguments)
}

/// As [`storagectl`], in a network namespace if one is named.
pub(crate) fn storagectl_inside(namespace: Option<&Path>, arguments: &[&str]) -> Result<String> {
    run_storagectl(namespace, &program("storagectl")?, arguments)
}

fn run_storagectl(namespace: Option<&Path>, program: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = command_inside(namespace, program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().context("start storagectl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "storagectl {} failed: {}",
        arguments.join(" "),
        said.trim()
    );
    String::from_utf8(output.stdout).context("read storagectl's answer")
}

/// A new folder that a node may have for itself.
pub fn new_folder() -> Result<TempDir> {
    new_folder_in(FOLDERS)
}

/// One with a configuration file that says this.
fn configured_folder(place: &str, configuration: &str) -> Result<TempDir> {
    let folder = new_folder_in(place)?;
    std::fs::write(folder.path().join(CONFIGURATION), configuration).context("write a configuration")?;
    Ok(folder)
}

fn new_folder_in(place: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("storaged-test-")
        .tempdir_in(place)
        .context("make a folder")
}

/// A program in this folder; without one as [`program`] finds it.
fn program_of(programs: Option<&Path>, name: &str) -> Result<PathBuf> {
    programs.map_or_else(|| program(name), |folder| Ok(folder.join(name)))
}

fn spawn(program: &Path, folder: &Path, disks: Option<u32>, namespace: Option<&Path>) -> Result<Process> {
    let mut arguments = vec!["--config".into(), folder.join(CONFIGURATION)];
    if let Some(disks) = disks {
        arguments.extend(["--work-dir".into(), folder.to_owned()]);
        arguments.extend(["--disks".into(), PathBuf::from(disks.to_string())]);
    }
    Process::start_inside(namespace, program, arguments, &folder.join(LOG))
}
