//! OpenStack's Block Storage API in the catalogue of a real Keystone: registered by the collection, and used by a member of a
//! project who knows nothing but Keystone's address.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_openstack::Keystone;
use test_openstack::accounts::{ADMIN, PASSWORD};
use test_openstack::http::{Method, Question};

use super::Stage;
use crate::command_lines::Watch;
use crate::inside::SWITCH_ADDRESS;

/// Keystone's port, on this side of the switch.
const PORT: u16 = 5000;
/// What the service is to Keystone: a name that nobody has there before.
const USER: &str = "block-storage";
/// Its password, which must be seen nowhere.
const SECRET: &str = "Quince-and-medlar-17";
/// What Keystone has been told it is, by somebody else.
const OTHER_SECRET: &str = "Neither-quince-nor-medlar";
/// Who makes volumes: a user of Keystone's, and the project.
const MEMBER: (&str, &str) = ("alpha-member", "alpha");
/// The types that the service has in the catalogue.
const TYPES: [&str; 2] = ["block-storage", "volumev3"];
/// Endpoints of each.
const ENDPOINTS: usize = 3;
/// How long a volume may take to be made.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Only the API, and its registration.
const REGISTER: [&str; 4] = ["--tags", "cinder_api", "-e", r#"{"cinder_api_register": true}"#];

/// What the inventory says of Keystone, whether it runs yet or not.
pub(super) fn variables() -> Value {
    let url = url();
    json!({
        "cinder_api_auth_url": url,
        "cinder_api_username": USER,
        "cinder_api_password": SECRET,
        "cinder_api_admin_environment": {
            "OS_AUTH_URL": url,
            "OS_USERNAME": ADMIN,
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": ADMIN,
        },
    })
}

/// Where Keystone is, version and all.
pub(super) fn url() -> String {
    format!("http://{}/v3", address())
}

fn address() -> SocketAddr {
    SocketAddr::new(SWITCH_ADDRESS.into(), PORT)
}

impl Stage {
    /// User, roles, services and endpoints are made once, and found from then on; the password is seen nowhere.
    pub(super) fn register(&mut self) -> Result<()> {
        let keystone = Keystone::start_at(&self.ansible.folder().join("keystone"), address())?;
        let looked = self
            .ansible
            .play("site", &[&REGISTER[..], &["--check"]].concat())?;
        ensure!(looked.changed > 0, "check mode says that nothing would be made");
        ensure!(endpoints(&keystone)?.is_empty(), "check mode has made endpoints");
        let watch = Watch::start(SECRET, "storaged.storaged.site")?;
        self.ansible.play("site", &REGISTER)?;
        watch.end()?;
        self.expect_no_secret()?;
        keystone.user_id(USER)?;
        let urls = endpoints(&keystone)?;
        ensure!(
            urls.len() == TYPES.len() * ENDPOINTS,
            "there are these endpoints: {urls:?}"
        );
        self.keystone = Some(keystone);
        self.use_api()?;
        self.ansible.play_idly("site", &REGISTER)?;
        let check = [&REGISTER[..], &["--check"]].concat();
        self.ansible.play_idly("site", &check).map(drop)
    }

    /// Keystone has another password of the user's than the inventory: after a run it has that of the inventory.
    pub(super) fn mend_password(&mut self) -> Result<()> {
        let keystone = self.keystone.as_ref().context("there is no Keystone")?;
        let user = format!("{}/users/{}", keystone.url(), keystone.user_id(USER)?);
        let other = json!({ "user": { "password": OTHER_SECRET } });
        let change = Question::new(Method::PATCH, user).body(other);
        change.token(&keystone.token(ADMIN, ADMIN)?).expect(200)?;
        let sums = self.ansible.play("site", &REGISTER)?;
        ensure!(sums.changed == 1, "{} things were changed", sums.changed);
        self.expect_no_secret()?;
        self.use_api()
    }

    /// A member of a project finds the API in the catalogue, makes a volume and deletes it.
    pub(super) fn use_api(&self) -> Result<()> {
        let Some(keystone) = &self.keystone else {
            return Ok(());
        };
        let token = keystone.token(MEMBER.0, MEMBER.1)?;
        let catalogue = Question::get(format!("{}/auth/catalog", keystone.url()));
        let catalogue = catalogue.token(&token).expect(200)?.body;
        let url = public_url(&catalogue).context("the catalogue has no volumev3")?;
        let asked = json!({ "volume": { "name": "first", "size": 1 } });
        let made = Question::new(Method::POST, format!("{url}/volumes")).token(&token);
        let made = made.body(asked).expect(202)?.body;
        let id = made["volume"]["id"]
            .as_str()
            .context("a volume has no identity")?;
        let volume = format!("{url}/volumes/{id}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = Question::get(&volume).token(&token).expect(200)?.body;
            if shown["volume"]["status"] == "available" {
                break;
            }
            ensure!(Instant::now() < deadline, "a volume is not made: {shown}");
            thread::sleep(LOOK_AGAIN);
        }
        let list = self.host(1)?.ssh("storagectl volume list")?;
        ensure!(list.contains(id), "storaged does not have {id}: {list}");
        Question::new(Method::DELETE, volume)
            .token(&token)
            .expect(202)
            .map(drop)
    }

    /// Neither what the run has said nor what the host has kept has the password, but for the file that is for it.
    fn expect_no_secret(&self) -> Result<()> {
        let said = fs::read_to_string(self.ansible.last_play())?;
        ensure!(!said.contains(SECRET), "the run says the password");
        let kept = self.host(0)?.ssh(&format!(
            "journalctl --no-pager | grep -c {SECRET}; grep -rl {SECRET} /etc /root /tmp /var/log /var/tmp || true"
        ))?;
        let kept: Vec<&str> = kept.lines().collect();
        ensure!(
            kept == ["0", "/etc/storaged/cinder-password"],
            "the host keeps the password: {kept:?}"
        );
        Ok(())
    }
}

/// The addresses of all endpoints of the service.
fn endpoints(keystone: &Keystone) -> Result<Vec<String>> {
    let token = keystone.token(ADMIN, ADMIN)?;
    let get = |path: &str| -> Result<Value> {
        let question = Question::get(format!("{}/{path}", keystone.url())).token(&token);
        Ok(question.expect(200)?.body)
    };
    let mut urls = Vec::new();
    for kind in TYPES {
        let services = get(&format!("services?type={kind}"))?;
        for service in services["services"].as_array().into_iter().flatten() {
            let id = service["id"].as_str().context("a service has no identity")?;
            let found = get(&format!("endpoints?service_id={id}"))?;
            let found = found["endpoints"].as_array().into_iter().flatten();
            urls.extend(found.filter_map(|endpoint| endpoint["url"].as_str().map(str::to_owned)));
        }
    }
    Ok(urls)
}

/// Where a catalogue says that the API is, for everybody.
fn public_url(catalogue: &Value) -> Option<String> {
    let services = catalogue["catalog"].as_array()?;
    let service = services.iter().find(|service| service["type"] == "volumev3")?;
    let endpoints = service["endpoints"].as_array()?;
    let public = endpoints
        .iter()
        .find(|endpoint| endpoint["interface"] == "public")?;
    public["url"].as_str().map(str::to_owned)
}
