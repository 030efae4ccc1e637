//! A Keystone's files as `keystone-manage` makes them, with all users and projects: made once for each list of requirements,
//! and copied for each run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::accounts::{self, ADMIN, PASSWORD, REGION};
use crate::environment::{Environment, lock};
use crate::keystone::{CONFIGURATION, Keystone};

/// The database, in a Keystone's folder.
pub(crate) const DATABASE: &str = "keystone.db";
/// The keys of tokens, in a Keystone's folder.
pub(crate) const TOKEN_KEYS: &str = "token-keys";
/// The keys of credentials, in a Keystone's folder.
pub(crate) const CREDENTIAL_KEYS: &str = "credential-keys";
/// Keystone's own address, which it puts in itself.
const OWN_URL: &str = "$(public_endpoint)s/v3";

/// Fills a folder with a Keystone's files.
pub(crate) fn copy_into(folder: &Path, environment: &Environment) -> Result<()> {
    let template = ensure(environment)?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::copy(template.join(DATABASE), folder.join(DATABASE)).context("copy Keystone's database")?;
    for keys in [TOKEN_KEYS, CREDENTIAL_KEYS] {
        let (from, to) = (template.join(keys), folder.join(keys));
        fs::create_dir_all(&to)?;
        for key in fs::read_dir(&from).context("read Keystone's keys")? {
            let key = key?;
            fs::copy(key.path(), to.join(key.file_name())).context("copy Keystone's keys")?;
        }
    }
    Ok(())
}

/// The template's folder; made now if it is not there, or was made for other accounts.
fn ensure(environment: &Environment) -> Result<PathBuf> {
    let content = format!("{:?}{CONFIGURATION}{OWN_URL}{PASSWORD}", accounts::all());
    let identity = Uuid::new_v5(&Uuid::NAMESPACE_OID, content.as_bytes()).simple();
    let folder = environment.folder().join(format!("template-{identity}"));
    let _lock = lock(environment.folder(), "template")?;
    if !folder.exists() {
        let made = tempfile::tempdir_in(environment.folder())?;
        make(made.path(), environment)?;
        fs::rename(made.keep(), &folder).context("put Keystone's template in its place")?;
    }
    Ok(folder)
}

fn make(folder: &Path, environment: &Environment) -> Result<()> {
    let configuration = Keystone::configure(folder, "http://127.0.0.1")?;
    let configuration = configuration.display().to_string();
    let manage = |arguments: &[&str]| {
        let all = ["--config-file", &configuration]
            .into_iter()
            .chain(arguments.iter().copied());
        environment.run("keystone-manage", all, folder)
    };
    for keys in [TOKEN_KEYS, CREDENTIAL_KEYS] {
        fs::create_dir_all(folder.join(keys))?;
    }
    let user = owner(folder)?;
    let owned = ["--keystone-user", &user.0, "--keystone-group", &user.1];
    manage(&["db_sync"])?;
    manage(&[&["fernet_setup"], &owned[..]].concat())?;
    manage(&[&["credential_setup"], &owned[..]].concat())?;
    manage(&[
        "bootstrap",
        "--bootstrap-username",
        ADMIN,
        "--bootstrap-project-name",
        ADMIN,
        "--bootstrap-password",
        PASSWORD,
        "--bootstrap-region-id",
        REGION,
        "--bootstrap-public-url",
        OWN_URL,
        "--bootstrap-internal-url",
        OWN_URL,
        "--bootstrap-admin-url",
        OWN_URL,
    ])?;
    Keystone::serve(folder, environment)?.make_accounts()
}

/// Whose a folder is, by numbers.
fn owner(folder: &Path) -> Result<(String, String)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(folder)?;
    Ok((metadata.uid().to_string(), metadata.gid().to_string()))
}
