//! One module for each noun of the command line: asks the API, shows the answer.

mod access;
mod adopt;
mod cluster;
mod disk;
mod documents;
mod drain;
mod event;
mod image;
mod iscsi;
mod node;
mod offline;
mod pool;
mod scrub;
mod snapshot;
mod status;
mod task;
mod top;
mod upgrade;
mod vhost;
mod volume;

use anyhow::Result;

use crate::api::Api;
use crate::arguments::{Arguments, Command, DiskCommand};
use crate::output::Form;

/// Does what the command line says.
pub(crate) async fn perform(arguments: Arguments) -> Result<()> {
    let form = if arguments.json { Form::Json } else { Form::People };
    match &arguments.command {
        Command::Completion { shell } => return documents::completion(*shell),
        Command::Man { folder } => return documents::man(folder),
        Command::Disk(DiskCommand::Inspect { directory }) => return offline::inspect(directory, form),
        Command::Disk(DiskCommand::Check { directory }) => return offline::check(directory, form),
        _ => {}
    }
    if let Command::Vhost(command) = arguments.command {
        return vhost::perform(form, command).await;
    }
    let api = Api::new(arguments.socket)?;
    match arguments.command {
        Command::Volume(command) => volume::perform(&api, form, command).await,
        Command::Snapshot(command) => snapshot::perform(&api, form, command).await,
        Command::Pool(command) => pool::perform(&api, form, command).await,
        Command::Disk(command) => disk::perform(&api, form, command).await,
        Command::Cluster(command) => cluster::perform(&api, form, command).await,
        Command::Access(command) => access::perform(&api, form, command).await,
        Command::Node(command) => node::perform(&api, form, command).await,
        Command::Upgrade(command) => upgrade::perform(&api, form, command).await,
        Command::Iscsi(command) => iscsi::perform(&api, form, command).await,
        Command::Task(command) => task::perform(&api, form, command).await,
        Command::Status { check } => status::status(&api, form, check).await,
        Command::Top(arguments) => top::top(&api, form, &arguments).await,
        Command::Events { follow, number } => event::events(&api, form, follow, number).await,
        Command::Import(arguments) => image::import(&api, form, arguments).await,
        Command::Adopt(arguments) => adopt::adopt(&api, form, arguments).await,
        Command::Export(arguments) => image::export(&api, form, arguments).await,
        Command::Vhost(_) | Command::Completion { .. } | Command::Man { .. } => Ok(()),
    }
}
