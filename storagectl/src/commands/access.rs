//! `storagectl access`: tokens for the network.

use admin_api::access_tokens::{
    AccessRole, AccessTokenList, AuthorityCertificate, MakeAccessToken, NewAccessToken,
};
use admin_api::routes::{self, fill};
use anyhow::Result;

use crate::api::Api;
use crate::arguments::{AccessCommand, RoleArgument};
use crate::clock::format_time;
use crate::output::{Form, table};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: AccessCommand) -> Result<()> {
    match command {
        AccessCommand::Create { name, role, days } => {
            let wish = MakeAccessToken {
                name,
                role: match role {
                    RoleArgument::Viewer => AccessRole::Viewer,
                    RoleArgument::Operator => AccessRole::Operator,
                    RoleArgument::Administrator => AccessRole::Administrator,
                },
                limit_ms: Some(days.saturating_mul(DAY_MS)),
            };
            let made: NewAccessToken = api.post(routes::ACCESS_TOKENS, &wish).await?;
            form.show(&made, render_new)
        }
        AccessCommand::List => {
            let list: AccessTokenList = api.get(routes::ACCESS_TOKENS).await?;
            form.show(&list, render_list)
        }
        AccessCommand::Revoke { token } => {
            api.delete::<()>(&fill(routes::ACCESS_TOKEN, &[&token])).await?;
            form.say(&format!(
                "token {token} is worthless: on this node now, on others within ten seconds"
            ))
        }
        AccessCommand::Authority => {
            let authority: AuthorityCertificate = api.get(routes::AUTHORITY).await?;
            form.show(&authority, |authority| {
                authority.certificate.trim_end().to_owned()
            })
        }
    }
}

fn render_new(made: &NewAccessToken) -> String {
    format!(
        "{}\n\nWhoever has this token may ask the nodes of this cluster over the network, until {} UTC.\nIt is not shown \
         again; `storagectl access revoke {}` makes it worthless.",
        made.token,
        format_time(made.expires_ms),
        made.id
    )
}

fn render_list(list: &AccessTokenList) -> String {
    let rows = list.tokens.iter().map(|token| {
        [
            token.id.clone(),
            token.name.clone(),
            in_words(token.role).to_owned(),
            format_time(token.made_ms),
            format_time(token.expires_ms),
            if token.expired { "expired" } else { "good" }.to_owned(),
        ]
    });
    table(
        ["token", "for", "role", "made (UTC)", "good until (UTC)", "state"],
        &[],
        rows,
    )
}

fn in_words(role: AccessRole) -> &'static str {
    match role {
        AccessRole::Viewer => "viewer",
        AccessRole::Operator => "operator",
        AccessRole::Administrator => "administrator",
    }
}

#[cfg(test)]
mod tests {
    //! What a person sees of tokens.
    use admin_api::access_tokens::AccessToken;

    use super::*;

    #[test]
    fn a_new_token_is_alone_on_its_line_and_never_in_the_list() {
        let made = NewAccessToken {
            id: "0123456789abcdef".into(),
            token: "sdaccess_x".into(),
            expires_ms: 0,
        };
        let text = render_new(&made);
        assert!(text.lines().any(|line| line == "sdaccess_x"), "{text}");
        assert!(text.contains("revoke 0123456789abcdef"), "{text}");
        let token = AccessToken {
            id: made.id,
            name: "proxmox".into(),
            role: AccessRole::Operator,
            node: 1,
            made_ms: 0,
            expires_ms: 1,
            expired: true,
        };
        let text = render_list(&AccessTokenList { tokens: vec![token] });
        for word in ["0123456789abcdef", "proxmox", "operator", "expired"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
