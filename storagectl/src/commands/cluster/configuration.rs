//! The configuration file of a node: what is in it, and that no other one is lost to it. `storaged` judges the
//! values when it starts; here they are only put down.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::arguments::MachineArguments;

/// The port of a node unless somebody says otherwise; its disks take those after it.
const PORT: u16 = 7470;
/// There is no secret in the file: secrets are in files that it names.
const MODE: u32 = 0o644;
/// What the file begins with.
const HEADER: &str =
    "# Written by storagectl cluster. docs/configuration.md says what else may stand here.\n";

/// The file's words.
#[derive(Debug, Serialize)]
pub(super) struct Configuration {
    work_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    disks: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<EtcdSection>,
    cluster: ClusterSection,
}

/// How to reach etcd.
#[derive(Debug, Default, Serialize)]
pub(super) struct EtcdSection {
    pub(super) endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct ClusterSection {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
}

/// What was done about the file, for people and programs.
#[derive(Debug, Serialize)]
pub(super) struct Placed {
    /// The file.
    pub(super) config: PathBuf,
    /// Whether it was written now; else it said the same already.
    pub(super) written: bool,
    /// What is in it.
    pub(super) text: String,
}

impl Configuration {
    /// That of a machine as it was asked for. `listen` is where others reach it.
    pub(super) fn new(
        machine: &MachineArguments,
        etcd: Option<EtcdSection>,
        listen: Option<String>,
    ) -> Result<Self> {
        Ok(Self {
            work_dir: absolute(&machine.work_dir)?,
            disks: machine.disks,
            etcd,
            cluster: ClusterSection {
                name: name(machine),
                zone: machine.zone.clone(),
                listen,
            },
        })
    }

    fn text(&self) -> Result<String> {
        Ok(format!(
            "{HEADER}{}",
            toml::to_string(self).context("write TOML")?
        ))
    }

    /// Writes the file if there is none. One that says the same is left alone, one that says something else too,
    /// and that is an error.
    pub(super) fn place(&self, path: &Path) -> Result<Placed> {
        let path = absolute(path)?;
        let text = self.text()?;
        let written = match std::fs::read_to_string(&path) {
            Ok(present) => {
                let (present, ours) = (present.parse::<toml::Table>(), text.parse::<toml::Table>()?);
                ensure!(
                    present.is_ok_and(|present| present == ours),
                    "{} is there already and says something else, so it was left alone; this would have been \
                     written:\n\n{text}\nRemove it if nobody needs it, or name another file with --config",
                    path.display()
                );
                false
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
                true
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Placed {
            config: path,
            written,
            text,
        })
    }
}

/// Refuses a place for a new file where one is already, or none can be made.
pub(super) fn check_place(path: &Path) -> Result<()> {
    let (shown, unused) = (path.display(), "and the token was not used");
    ensure!(
        !path.exists(),
        "{shown} is there already, {unused}: remove the file if nobody needs it, or name another one with --config"
    );
    let folder = path
        .parent()
        .with_context(|| format!("{shown} is no path of a file"))?;
    std::fs::create_dir_all(folder)
        .and_then(|()| tempfile::tempfile_in(folder))
        .map(drop)
        .with_context(|| format!("cannot write {shown}, {unused}"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("it is no path of a file")?;
    std::fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.as_file().sync_all()?;
    // Whoever made one meanwhile keeps it.
    file.persist_noclobber(path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// What the machine is called.
pub(super) fn name(machine: &MachineArguments) -> String {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    machine.name.clone().unwrap_or_else(host)
}

/// A path that means the same wherever `storaged` is started.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

/// `HOST:PORT` of what somebody wrote as the address of a node.
pub(super) fn listen(text: &str) -> Result<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return listen_at(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (text, Some(PORT)),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>();
    let sound = !host.is_empty() && (!host.contains(':') || address.is_ok());
    let Some(port) = port.filter(|_| sound) else {
        bail!(
            "{text:?} is not an address of a node: write HOST or HOST:PORT, as in 10.0.0.1 or 10.0.0.1:{PORT}"
        );
    };
    refuse_unspecified(address.ok())?;
    Ok(format!("{host}:{port}"))
}

/// `HOST:PORT` of an address with the port that nodes have.
pub(super) fn listen_at(address: IpAddr) -> Result<String> {
    refuse_unspecified(Some(address))?;
    Ok(SocketAddr::new(address, PORT).to_string())
}

fn refuse_unspecified(address: Option<IpAddr>) -> Result<()> {
    if let Some(address) = address {
        ensure!(
            !address.is_unspecified(),
            "{address} is no address that others could connect to: name the one by which they reach this machine"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! A file that is there is never lost, and addresses are what others can connect to.
    use super::*;

    fn machine(folder: &Path) -> MachineArguments {
        MachineArguments {
            name: Some("a".to_owned()),
            zone: None,
            disks: Some(2),
            config: folder.join("etc/storaged.toml"),
            work_dir: folder.join("work"),
        }
    }

    #[test]
    fn the_file_is_written_once_and_a_different_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(folder.path());
        let etcd = EtcdSection {
            endpoints: vec!["http://a:1".to_owned()],
            ..EtcdSection::default()
        };
        let configuration = Configuration::new(&machine, Some(etcd), Some("a:7470".to_owned())).unwrap();
        let first = configuration.place(&machine.config).unwrap();
        assert!(first.written);
        let table: toml::Table = std::fs::read_to_string(&machine.config).unwrap().parse().unwrap();
        assert_eq!(table["cluster"]["listen"].as_str(), Some("a:7470"));
        assert_eq!(table["etcd"]["endpoints"][0].as_str(), Some("http://a:1"));
        assert!(table["etcd"].get("prefix").is_none());
        // The same with other comments is the same.
        std::fs::write(&machine.config, format!("# mine\n{}", first.text)).unwrap();
        assert!(!configuration.place(&machine.config).unwrap().written);
        for other in ["memory = \"2G\"\n", "this is no TOML"] {
            std::fs::write(&machine.config, other).unwrap();
            let error = configuration.place(&machine.config).unwrap_err().to_string();
            assert!(error.contains("something else"), "{error}");
            assert_eq!(std::fs::read_to_string(&machine.config).unwrap(), other);
        }
    }

    #[test]
    fn a_place_is_good_for_a_new_file_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        check_place(&folder.path().join("etc/storaged.toml")).unwrap();
        assert!(!folder.path().join("etc/storaged.toml").exists());
        std::fs::write(folder.path().join("file"), "").unwrap();
        for taken in ["file", "file/storaged.toml"] {
            let refused = check_place(&folder.path().join(taken)).unwrap_err().to_string();
            assert!(refused.contains("was not used"), "{refused}");
        }
    }

    #[test]
    fn an_address_gets_a_port_if_it_has_none() {
        for (text, listen_there) in [
            ("10.0.0.1", "10.0.0.1:7470"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("host-1", "host-1:7470"),
            ("fd00::1", "[fd00::1]:7470"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert_eq!(listen(text).unwrap(), listen_there);
        }
        for text in ["", ":80", "a:b", "a:99999", "0.0.0.0", "[::]:80", "a:b:80"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }
}
