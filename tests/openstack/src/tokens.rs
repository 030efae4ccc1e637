//! Tokens and application credentials: had, looked at, revoked.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::accounts::{CINDER, DOMAIN, PASSWORD, SERVICES};
use crate::http::{Answer, Method, Question};
use crate::keystone::Keystone;

/// What somebody with an application credential may ask for, if not everything.
#[derive(Clone, Copy, Debug)]
pub struct AccessRule<'a> {
    /// A type of service in the catalogue.
    pub service: &'a str,
    /// A method of HTTP.
    pub method: &'a str,
    /// A path, with `*`, `**` or `{NAME}` for what may stand there.
    pub path: &'a str,
}

/// What stands for a user in a project, without the password.
#[derive(Clone, Debug)]
pub struct ApplicationCredential {
    /// Its identity.
    pub id: String,
    /// What proves it.
    pub secret: String,
}

impl Keystone {
    /// A token of a user for a project.
    pub fn token(&self, user: &str, project: &str) -> Result<String> {
        let scope = json!({"project": {"name": project, "domain": {"name": DOMAIN}}});
        self.authenticate(&json!({"identity": password(user), "scope": scope}))
    }

    /// A token of a user for no project.
    pub fn unscoped_token(&self, user: &str) -> Result<String> {
        self.authenticate(&json!({"identity": password(user), "scope": "unscoped"}))
    }

    /// A token of the Block Storage service.
    pub fn service_token(&self) -> Result<String> {
        self.token(CINDER, SERVICES)
    }

    /// Makes an application credential of a user for a project, limited to `rules` unless there are none.
    pub fn application_credential(
        &self,
        user: &str,
        project: &str,
        rules: &[AccessRule],
    ) -> Result<ApplicationCredential> {
        let token = self.token(user, project)?;
        let path = format!(
            "{}/users/{}/application_credentials",
            self.url(),
            self.user_id(user)?
        );
        // Names are the user's own: any number of credentials may be made.
        let mut wanted = json!({"name": uuid::Uuid::new_v4().to_string()});
        if !rules.is_empty() {
            let rule = |rule: &AccessRule| json!({"service": rule.service, "method": rule.method, "path": rule.path});
            wanted["access_rules"] = rules.iter().map(rule).collect();
        }
        let question = Question::new(Method::POST, path).token(&token);
        let answer = question
            .body(json!({"application_credential": wanted}))
            .expect(201)?;
        let made = &answer.body["application_credential"];
        let text = |name: &str| made[name].as_str().map(str::to_owned);
        Ok(ApplicationCredential {
            id: text("id").context("an application credential without an identity")?,
            secret: text("secret").context("an application credential without a secret")?,
        })
    }

    /// A token by an application credential.
    pub fn token_of(&self, credential: &ApplicationCredential) -> Result<String> {
        let words = json!({"id": credential.id, "secret": credential.secret});
        self.authenticate(&json!({"identity": {
            "methods": ["application_credential"], "application_credential": words,
        }}))
    }

    /// Makes a token worthless.
    pub fn revoke(&self, token: &str) -> Result<()> {
        let question = Question::new(Method::DELETE, format!("{}/auth/tokens", self.url()));
        let question = question
            .token(&self.admin_token()?)
            .header("X-Subject-Token", token);
        question.expect(204).map(drop)
    }

    /// What Keystone says of a token to the Block Storage service: 200 with what it is for, or 404.
    pub fn validate(&self, token: &str) -> Result<Answer> {
        Question::get(format!("{}/auth/tokens", self.url()))
            .token(&self.service_token()?)
            .header("X-Subject-Token", token)
            .header("OpenStack-Identity-Access-Rules", "1.0")
            .ask()
    }

    fn authenticate(&self, words: &Value) -> Result<String> {
        let question = Question::new(Method::POST, format!("{}/auth/tokens", self.url()));
        let answer = question.body(json!({"auth": words})).expect(201)?;
        let token = answer.header("X-Subject-Token");
        Ok(token.context("Keystone gave no token")?.to_owned())
    }
}

fn password(user: &str) -> Value {
    json!({"methods": ["password"], "password": {"user": {
        "name": user, "domain": {"name": DOMAIN}, "password": PASSWORD,
    }}})
}
