//! `POST /volumes/ID/action`: one key in the body says what is to be done.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::{find_for, image_metadata, images};
use crate::door;
use crate::fault::Fault;
use crate::records::{Edit, Stored, Volume};
use crate::request::{Body, Context, Fields};
use crate::service::{Service, Shared};

mod admin;
mod attach;
mod connect;
mod size;
mod switches;

/// What an action works with.
pub(super) struct Act<'a> {
    /// The service.
    pub(super) service: &'a Service,
    /// Who asks.
    pub(super) context: &'a Context,
    /// The volume.
    pub(super) id: &'a str,
    /// What stands under the action's name; nothing if that is null.
    pub(super) fields: Fields<'a>,
}

impl Act<'_> {
    /// Changes the volume, if a rule lets the caller do so and `decide` does not refuse.
    pub(super) async fn on_volume(
        &self,
        rule: &str,
        decide: impl Fn(&mut Edit<'_>, &Stored<Volume>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let edited = self.service.records.edit(|edit| {
            let volume = find_for(self.service, edit.tables, self.context, rule, self.id)?.clone();
            decide(edit, &volume)
        });
        edited.await
    }

    /// Changes nothing but fields of the volume.
    pub(super) async fn set(&self, rule: &str, becomes: impl Fn(&mut Volume)) -> Result<(), Fault> {
        self.on_volume(rule, |edit, volume| {
            edit.change(volume, &becomes);
            Ok(())
        })
        .await
    }
}

pub(super) async fn act(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let (name, inside) = body.action()?;
    if !inside.is_object() && !inside.is_null() {
        return Err(Fault::field(name, inside, "it is no object"));
    }
    let act = Act {
        service: &service,
        context: &context,
        id: &id,
        fields: Fields::inside(inside),
    };
    dispatch(&act, name).await
}

async fn dispatch(act: &Act<'_>, name: &str) -> Result<Response, Fault> {
    let accepted = |()| door::accepted();
    let done = |()| door::empty(StatusCode::OK);
    let since = |minor| {
        let known = act.context.version.is(minor);
        if known { Ok(()) } else { Err(unknown(name)) }
    };
    match name {
        "os-reserve" => attach::reserve(act).await.map(accepted),
        "os-unreserve" => attach::unreserve(act).await.map(accepted),
        "os-begin_detaching" => attach::begin_detaching(act).await.map(accepted),
        "os-roll_detaching" => attach::roll_detaching(act).await.map(accepted),
        "os-attach" => attach::attach(act).await.map(accepted),
        "os-detach" => attach::detach(act, false).await.map(accepted),
        "os-force_detach" => attach::detach(act, true).await.map(accepted),
        "os-initialize_connection" => connect::initialize(act).await,
        "os-terminate_connection" => connect::terminate(act).await.map(accepted),
        "os-extend" => size::extend(act).await.map(accepted),
        "os-extend_volume_completion" => {
            since(71)?;
            size::complete_extend(act).await.map(accepted)
        }
        "os-retype" => size::retype(act).await.map(accepted),
        "revert" => {
            since(40)?;
            size::revert(act).await.map(accepted)
        }
        "os-reset_status" => admin::reset_status(act).await.map(accepted),
        "os-force_delete" => admin::force_delete(act).await.map(accepted),
        "os-unmanage" => admin::unmanage(act).await.map(accepted),
        "os-migrate_volume" => admin::migrate(act).await.map(accepted),
        "os-migrate_volume_completion" => admin::complete_migration(act).await,
        "os-set_bootable" => switches::bootable(act).await.map(done),
        "os-update_readonly_flag" => switches::read_only(act).await.map(accepted),
        "os-set_image_metadata" => image_metadata::set(act).await,
        "os-unset_image_metadata" => image_metadata::unset(act).await.map(done),
        "os-show_image_metadata" => image_metadata::show(act).await,
        "os-volume_upload_image" => images::upload(act).await,
        "os-reimage" => {
            since(68)?;
            images::reimage(act).await.map(accepted)
        }
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Fault {
    Fault::bad_request(format!(
        "There is no such action: {name}. Is it one of a newer version?"
    ))
}
