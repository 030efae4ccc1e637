//! A real Barbican, with keys in a file. Whose keys they are, its Keystone says.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use test_node::Process;

use crate::accounts::{CINDER, DOMAIN, PASSWORD, SERVICES};
use crate::environment::Environment;
use crate::http::Question;
use crate::keystone::Keystone;
use crate::server::{Port, Program};

/// What serves it.
const SERVE: &str = include_str!("keystone/serve.py");
/// What it is made of is said in a file that it looks for in one place only, unless a module of ours looks elsewhere.
const APPLICATION: &str = "\
import os
from paste import deploy
application = deploy.loadapp('config:' + os.environ['BARBICAN_PASTE'])
";
/// One request at a time: the database is a file.
const THREADS: &str = "1";

/// A running Barbican. It ends with this value, or with the program that started it.
pub struct Barbican {
    process: Process,
    url: String,
}

impl Barbican {
    /// Starts one, with its files in a folder that is its own, and puts it into the catalogue.
    pub fn start(folder: &Path, keystone: &Keystone) -> Result<Self> {
        let environment = Environment::of("barbican")?;
        // It looks for its configuration in the home of whoever starts it.
        let configuration = folder.join(".barbican");
        fs::create_dir_all(&configuration).with_context(|| format!("make {}", configuration.display()))?;
        let folder = std::path::absolute(folder)?;
        let port = Port::find()?;
        let url = port.url();
        fs::write(configuration.join("barbican.conf"), text(&folder, &url, keystone))?;
        fs::write(folder.join("barbican_here.py"), APPLICATION)?;
        let paste = environment.folder().join("etc/barbican/barbican-api-paste.ini");
        let variables = [
            ("HOME", folder.display().to_string()),
            ("PYTHONPATH", folder.display().to_string()),
            ("BARBICAN_PASTE", paste.display().to_string()),
        ];
        let program = Program {
            text: SERVE,
            arguments: &["barbican_here:application".to_owned(), THREADS.to_owned()],
            variables: &variables,
        };
        let mut process = program.start(&environment, port, &folder.join("barbican.log"))?;
        process.wait_for("Barbican to answer", || {
            Question::get(format!("{url}/")).expect(300).ok()
        })?;
        keystone.register_service("key-manager", "barbican", &url)?;
        Ok(Self { process, url })
    }

    /// Lets it stand still: it takes connections, and answers nothing.
    pub fn freeze(&self) -> Result<()> {
        self.process.freeze()
    }

    /// Lets it go on, after [`Barbican::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.process.thaw()
    }

    /// What it says of a key to who has a token; nothing if the key is not there.
    pub fn key(&self, token: &str, id: &str) -> Result<Option<Value>> {
        let answer = Question::get(format!("{}/v1/secrets/{id}", self.url))
            .token(token)
            .ask()?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            other => anyhow::bail!("a key is answered with {other}: {}", answer.text),
        }
    }

    /// How many keys a project has.
    pub fn count(&self, token: &str) -> Result<u64> {
        let all = Question::get(format!("{}/v1/secrets", self.url))
            .token(token)
            .expect(200)?;
        all.body["total"].as_u64().context("a listing without a total")
    }

    /// The bytes of a key, which its project may have.
    pub fn bytes(&self, token: &str, id: &str) -> Result<Vec<u8>> {
        let question = Question::get(format!("{}/v1/secrets/{id}/payload", self.url)).token(token);
        let answer = question
            .header("Accept", "application/octet-stream")
            .expect(200)?;
        Ok(answer.bytes)
    }
}

/// Its configuration.
fn text(folder: &Path, own: &str, keystone: &Keystone) -> String {
    let (database, url) = (folder.join("barbican.db"), keystone.url());
    let database = database.display();
    format!(
        "[DEFAULT]\nhost_href = {own}\ndb_auto_create = true\n\
         [database]\nconnection = sqlite:///{database}\nsqlite_synchronous = false\n\
         [queue]\nenable = false\n\
         [secretstore]\nenabled_secretstore_plugins = store_crypto\n\
         [crypto]\nenabled_crypto_plugins = simple_crypto\n\
         [simple_crypto_plugin]\nkek = dGhpcnR5X3R3b19ieXRlX2tleWJsYWhibGFoYmxhaGg=\n\
         [keystone_authtoken]\nauth_type = password\nauth_url = {url}\nwww_authenticate_uri = {url}\n\
         username = {CINDER}\npassword = {PASSWORD}\nproject_name = {SERVICES}\n\
         user_domain_name = {DOMAIN}\nproject_domain_name = {DOMAIN}\n"
    )
}
