//! `storagectl cluster join`: from a token to a machine on which `storaged` can start as a node.

use std::path::PathBuf;

use anyhow::{Context, Result};
use joining::{Admitted, Token, knock};
use serde::Serialize;

use super::configuration::{Configuration, Placed, absolute, check_place, listen, listen_at, name};
use super::work_dir::WorkDir;
use crate::arguments::JoinArguments;
use crate::output::Form;

/// What a machine has after it joined.
#[derive(Serialize)]
struct Joined {
    config: PathBuf,
    work_dir: PathBuf,
    cluster: String,
    let_in_by: String,
}

/// Looks whether everything can be written, asks to be let in, and writes it.
pub(super) async fn join(form: Form, arguments: JoinArguments) -> Result<()> {
    let JoinArguments {
        token,
        address,
        machine,
    } = arguments;
    let token: Token = given(&token)?.parse()?;
    let listen_there = address.as_deref().map(listen).transpose()?;
    let config = absolute(&machine.config)?;
    check_place(&config)?;
    let work_dir = absolute(&machine.work_dir)?;
    let place = WorkDir::prepare(work_dir.clone())?;

    let Admitted {
        bundle,
        door,
        own_address,
    } = knock(&token, &name(&machine)).await?;
    let write = || -> Result<Placed> {
        let listen_there = match listen_there {
            Some(listen_there) => listen_there,
            None => listen_at(own_address)?,
        };
        let mut furnished = place.furnish(&bundle)?;
        // The last thing, so that storaged does not start with half of it.
        let configuration = Configuration::new(&machine, furnished.etcd.take(), Some(listen_there))?;
        let written = configuration.place(&config)?;
        furnished.keep();
        Ok(written)
    };
    let written =
        write().context("the token is used up, and nothing is left here: mend this, and take a new token")?;
    let joined = Joined {
        config: written.config,
        work_dir,
        cluster: bundle.cluster_text(),
        let_in_by: door,
    };
    form.show(&joined, describe)
}

/// The token, from the command line or from standard input.
fn given(word: &str) -> Result<String> {
    if word != "-" {
        return Ok(word.trim().to_owned());
    }
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("cannot read the token from standard input")?;
    Ok(line.trim().to_owned())
}

fn describe(joined: &Joined) -> String {
    let (config, work_dir) = (joined.config.display(), joined.work_dir.display());
    format!(
        "let in by {} to cluster {}\nwrote {work_dir}/authority and {config}\n\nNext: start it, by `systemctl enable --now \
         storaged` or\n\n  storaged --config {config}\n\nThen `storagectl node list` shows it, and `storagectl disk add` \
         gives it disks.",
        joined.let_in_by, joined.cluster
    )
}
