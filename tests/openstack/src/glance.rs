//! A real Glance, with images in a folder. Whose images they are, its Keystone says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use test_node::Process;

use crate::accounts::{CINDER, DOMAIN, PASSWORD, SERVICES};
use crate::environment::Environment;
use crate::http::{Method, Question};
use crate::keystone::Keystone;
use crate::server::{Port, Program};

/// What serves it.
const SERVE: &str = include_str!("keystone/serve.py");
/// Requests at a time: bodies of images keep threads busy.
const THREADS: &str = "4";
/// Glance reads before it writes, in one transaction. Of two that do so at once in a database that is a file one is told at
/// once that it is locked, however long it would wait: so each has it for itself from its beginning.
const APPLICATION: &str = "\
from sqlalchemy import event
from sqlalchemy.engine import Engine
@event.listens_for(Engine, 'before_cursor_execute', retval=True)
def alone(connection, cursor, statement, parameters, context, many):
    return ('BEGIN IMMEDIATE' if statement == 'BEGIN' else statement), parameters
from glance.wsgi.api import application
";
/// How long one transaction waits for those before it, in seconds.
const TURN_SECONDS: u32 = 60;

/// A running Glance. It ends with this value, or with the program that started it.
pub struct Glance {
    _process: Process,
    folder: PathBuf,
    url: String,
}

impl Glance {
    /// Starts one, with its files in a folder that is its own, and puts it into the catalogue.
    pub fn start(folder: &Path, keystone: &Keystone) -> Result<Self> {
        let environment = Environment::of("glance")?;
        for name in ["images", "work"] {
            let inside = folder.join(name);
            fs::create_dir_all(&inside).with_context(|| format!("make {}", inside.display()))?;
        }
        let folder = std::path::absolute(folder)?;
        let configuration = folder.join("glance-api.conf");
        fs::write(&configuration, text(&folder, &environment, keystone))?;
        let configured = ["--config-file".to_owned(), configuration.display().to_string()];
        let synchronise = [&configured[..], &["db_sync".to_owned()]].concat();
        environment.run("glance-manage", synchronise, &folder)?;
        let port = Port::find()?;
        let url = port.url();
        fs::write(folder.join("glance_here.py"), APPLICATION)?;
        let variables = [
            ("OS_GLANCE_CONFIG_DIR", folder.display().to_string()),
            ("PYTHONPATH", folder.display().to_string()),
        ];
        let program = Program {
            text: SERVE,
            arguments: &["glance_here:application".to_owned(), THREADS.to_owned()],
            variables: &variables,
        };
        let mut process = program.start(&environment, port, &folder.join("glance.log"))?;
        process.wait_for("Glance to answer", || {
            Question::get(format!("{url}/")).expect(300).ok()
        })?;
        keystone.register_service("image", "glance", &url)?;
        Ok(Self {
            _process: process,
            folder,
            url,
        })
    }

    /// Where it is: `http://127.0.0.1:PORT`, without a version.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes an image of a file; gives its identity.
    pub fn upload(&self, token: &str, name: &str, disk_format: &str, file: &Path) -> Result<String> {
        let images = format!("{}/v2/images", self.url);
        let about = json!({"name": name, "disk_format": disk_format, "container_format": "bare"});
        let made = Question::new(Method::POST, &images)
            .token(token)
            .body(about)
            .expect(201)?;
        let id = made.body["id"]
            .as_str()
            .context("an image without an identity")?
            .to_owned();
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let question = Question::new(Method::PUT, format!("{images}/{id}/file")).token(token);
        question.bytes("application/octet-stream", bytes).expect(204)?;
        Ok(id)
    }

    /// Shows an image to all projects, which an administrator may.
    pub fn publish(&self, token: &str, image: &str) -> Result<()> {
        let change = json!([{"op": "replace", "path": "/visibility", "value": "public"}]);
        let bytes = change.to_string().into_bytes();
        Question::new(Method::PATCH, format!("{}/v2/images/{image}", self.url))
            .token(token)
            .bytes("application/openstack-images-v2.1-json-patch", bytes)
            .expect(200)
            .map(drop)
    }

    /// The file that an image's bytes are in.
    pub fn file(&self, image: &str) -> PathBuf {
        self.folder.join("images").join(image)
    }
}

/// Its configuration.
fn text(folder: &Path, environment: &Environment, keystone: &Keystone) -> String {
    let inside = |name: &str| folder.join(name).display().to_string();
    let paste = environment.folder().join("etc/glance/glance-api-paste.ini");
    let (database, images, work) = (inside("glance.db"), inside("images"), inside("work"));
    let (paste, url) = (paste.display(), keystone.url());
    format!(
        "[DEFAULT]\nenabled_backends = files:file\n\
         [database]\nconnection = sqlite:///{database}?timeout={TURN_SECONDS}\nsqlite_synchronous = false\n\
         [glance_store]\ndefault_backend = files\n\
         [files]\nfilesystem_store_datadir = {images}\n\
         [os_glance_staging_store]\nfilesystem_store_datadir = {work}\n\
         [os_glance_tasks_store]\nfilesystem_store_datadir = {work}\n\
         [oslo_concurrency]\nlock_path = {work}\n\
         [paste_deploy]\nflavor = keystone\nconfig_file = {paste}\n\
         [image_format]\nrequire_image_format_match = false\n\
         [keystone_authtoken]\nauth_type = password\nauth_url = {url}\nwww_authenticate_uri = {url}\n\
         username = {CINDER}\npassword = {PASSWORD}\nproject_name = {SERVICES}\n\
         user_domain_name = {DOMAIN}\nproject_domain_name = {DOMAIN}\n"
    )
}
