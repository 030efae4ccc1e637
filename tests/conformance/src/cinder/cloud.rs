//! A small cloud: a Keystone, and a Glance and a Block Storage API that are in its catalogue. What is asked of it is the tests' business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use test_node::{Node, Process, program};
use test_openstack::accounts::{ADMIN, CINDER, PASSWORD};
use test_openstack::http::Question;
use test_openstack::{Glance, Keystone, Port, Reference};

use crate::stage;

/// Disks of the node behind our server, and copies that it keeps.
const DISKS: u32 = 3;
/// The pool of volumes.
const POOL: &str = "conformance";

/// Bytes of the image.
const IMAGE_BYTES: usize = 1 << 20;

/// Who serves the API.
#[derive(Clone, Debug)]
pub enum Server {
    /// Our program: the one that was built, or that of a path.
    Ours(Option<PathBuf>),
    /// The real Cinder.
    Reference,
}

/// A running cloud. It ends with this value.
pub(crate) struct Cloud {
    /// Who says who is who.
    pub(crate) keystone: Keystone,
    /// Where the API is.
    pub(crate) url: String,
    /// An image that all projects see.
    pub(super) image: String,
    /// For configurations and logs.
    pub(super) folder: PathBuf,
    _server: Running,
    _glance: Glance,
}

/// What runs. Dropped in this order.
enum Running {
    Reference {
        _cinder: Reference,
    },
    Ours {
        _api: Process,
        _gateway: stage::Server,
        _node: Box<Node>,
    },
}

impl Cloud {
    /// Starts one, with configurations and logs in a folder.
    pub(super) fn start(folder: &Path, server: &Server) -> Result<Self> {
        Self::seen_at(folder, server, None)
    }

    /// The same, whose gateways are told to hosts under another address than that of this machine.
    pub(crate) fn seen_at(folder: &Path, server: &Server, outside: Option<&str>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let folder = std::path::absolute(folder)?;
        let keystone = Keystone::start(&folder.join("keystone")).context("start Keystone")?;
        let glance = Glance::start(&folder.join("glance"), &keystone).context("start Glance")?;
        let image = image(&folder, &keystone, &glance).context("make an image")?;
        let (running, url) = match server {
            Server::Reference => {
                let cinder = Reference::start(&folder.join("cinder"), &keystone).context("start Cinder")?;
                let url = cinder.url().to_owned();
                (Running::Reference { _cinder: cinder }, url)
            }
            Server::Ours(path) => {
                let path = match path {
                    Some(path) => path.clone(),
                    None => program("cinder-api")?,
                };
                ours(&path, &folder, &keystone, outside)?
            }
        };
        keystone.register(&format!("{url}/v3/%(project_id)s"))?;
        Ok(Self {
            keystone,
            url,
            image,
            folder,
            _server: running,
            _glance: glance,
        })
    }
}

/// A small image, whose content nobody looks at.
fn image(folder: &Path, keystone: &Keystone, glance: &Glance) -> Result<String> {
    let file = folder.join("image.raw");
    fs::write(&file, vec![0x5a; IMAGE_BYTES])?;
    let token = keystone.token(ADMIN, ADMIN)?;
    let image = glance.upload(&token, "small", "raw", &file)?;
    glance.publish(&token, &image)?;
    Ok(image)
}

fn ours(path: &Path, folder: &Path, keystone: &Keystone, outside: Option<&str>) -> Result<(Running, String)> {
    let node = Node::start(DISKS)?;
    node.storagectl(&["pool", "create", POOL, "--copies", &DISKS.to_string()])?;
    let mut command = Command::new(program("storaged-iscsi")?);
    command.arg("--storaged").arg(node.session_socket());
    command.arg("--admin-socket").arg(node.admin_socket());
    let portal = Port::find()?.leave();
    command
        .args(["--listen", &portal.to_string()])
        .env("RUST_LOG", "error");
    if let Some(outside) = outside {
        command.args(["--announce", &format!("{outside}:{}", portal.port())]);
    }
    let gateway = stage::Server::start(&mut command, 1)?;
    let address = Port::find()?.leave();
    let url = format!("http://{address}");
    let inside = |name: &str| folder.join(name).display().to_string();
    let configuration = inside("cinder-api.toml");
    // Whoever judges answers asks as fast as it can.
    let text = format!(
        "listen = [\"{address}\"]\n\
         [keystone]\nauth_url = \"{}\"\nusername = \"{CINDER}\"\npassword = \"{PASSWORD}\"\n\
         [records]\nfile = \"{}\"\n\
         [storage]\nadmin_socket = \"{}\"\nsession_socket = \"{}\"\ndefault_pool = \"{POOL}\"\n\
         [images]\nwork_dir = \"{}\"\n[backups]\ndirectory = \"{}\"\n\
         [limits]\nproject_requests_per_second = 0\n",
        keystone.url(),
        inside("cinder-api.records"),
        node.admin_socket().display(),
        node.session_socket().display(),
        folder.display(),
        inside("backups"),
    );
    fs::write(&configuration, text).context("write the configuration of cinder-api")?;
    let arguments = ["--config".to_owned(), configuration];
    let mut api = Process::start_at(path, arguments, &folder.join("cinder-api.log"))?;
    api.wait_for("cinder-api to answer", || {
        Question::get(format!("{url}/")).expect(300).ok()
    })?;
    let running = Running::Ours {
        _api: api,
        _gateway: gateway,
        _node: Box::new(node),
    };
    Ok((running, url))
}
