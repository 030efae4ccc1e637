//! The real Cinder, all of its services in one process, with volumes in sparse files: what cinder-api is compared with.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use test_node::Process;

use crate::accounts::{CINDER, DOMAIN, PASSWORD, SERVICES};
use crate::environment::Environment;
use crate::http::Question;
use crate::keystone::Keystone;
use crate::server::{Port, Program};

/// All services in one process.
const SERVICES_IN_ONE: &str = include_str!("reference/cinder_in_one.py");
/// Where volumes are.
const FILE_DRIVER: &str = include_str!("reference/file_driver.py");

/// A running Cinder. It ends with this value, or with the program that started it.
pub struct Reference {
    process: Process,
    url: String,
}

impl Reference {
    /// Starts one, with its files in a folder that is its own. Whoever wants it in the catalogue puts it there.
    pub fn start(folder: &Path, keystone: &Keystone) -> Result<Self> {
        let environment = Environment::of("cinder")?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let folder = std::path::absolute(folder)?;
        fs::write(folder.join("file_driver.py"), FILE_DRIVER)?;
        let configuration = folder.join("cinder.conf");
        fs::write(&configuration, text(&folder, &environment, keystone))?;
        let arguments = ["--config-file".to_owned(), configuration.display().to_string()];
        let synchronise = [&arguments[..], &["db".to_owned(), "sync".to_owned()]].concat();
        environment.run("cinder-manage", synchronise, &folder)?;
        let port = Port::find()?;
        let url = port.url();
        let variables = [("PYTHONPATH", folder.display().to_string())];
        let program = Program {
            text: SERVICES_IN_ONE,
            arguments: &arguments,
            variables: &variables,
        };
        let mut process = program.start(&environment, port, &folder.join("cinder.log"))?;
        process.wait_for("Cinder to answer", || {
            Question::get(format!("{url}/")).expect(300).ok()
        })?;
        Ok(Self { process, url })
    }

    /// Where its API is: `http://127.0.0.1:PORT`, without a version.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Its configuration.
fn text(folder: &Path, environment: &Environment, keystone: &Keystone) -> String {
    let inside = |name: &str| folder.join(name).display().to_string();
    let shipped = |name: &str| {
        let folder = environment.folder().join("etc/cinder");
        folder.join(name).display().to_string()
    };
    let (state, backups, volumes) = (inside("state"), inside("backups"), inside("volumes"));
    let (database, locks, coordination) = (inside("cinder.db"), inside("locks"), inside("coordination"));
    let (paste, filters) = (shipped("api-paste.ini"), shipped("resource_filters.json"));
    let url = keystone.url();
    format!(
        "[DEFAULT]\nhost = reference\nstate_path = {state}\nauth_strategy = keystone\n\
         api_paste_config = {paste}\nresource_query_filters_file = {filters}\n\
         transport_url = fake://\nenabled_backends = files\n\
         backup_driver = cinder.backup.drivers.posix.PosixBackupDriver\nbackup_posix_path = {backups}\n\
         [files]\nvolume_driver = file_driver.FileDriver\nvolume_backend_name = files\n\
         file_driver_folder = {volumes}\n\
         [database]\nconnection = sqlite:///{database}\nsqlite_synchronous = false\n\
         [oslo_concurrency]\nlock_path = {locks}\n\
         [coordination]\nbackend_url = file://{coordination}\n\
         [keystone_authtoken]\nwww_authenticate_uri = {url}\nauth_url = {url}\nauth_type = password\n\
         username = {CINDER}\npassword = {PASSWORD}\nproject_name = {SERVICES}\n\
         user_domain_name = {DOMAIN}\nproject_domain_name = {DOMAIN}\nservice_token_roles_required = true\n"
    )
}
