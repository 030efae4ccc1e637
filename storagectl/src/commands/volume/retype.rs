//! `storagectl volume retype`: begins a move to another pool, and waits for its end with a bar.

use std::time::Duration;

use admin_api::names::check_name;
use admin_api::routes::{self, fill};
use admin_api::sizes::{format_size, parse_size};
use admin_api::volumes::{RetypeVolume, Volume, VolumeAnswer};
use anyhow::Result;

use crate::api::Api;
use crate::output::Form;
use crate::progress;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(500);

/// Does what the command says.
pub(super) async fn perform(
    api: &Api,
    form: Form,
    name: &str,
    pool: String,
    rate: Option<&str>,
    detach: bool,
) -> Result<()> {
    check_name(name)?;
    let rate = rate.map(parse_size).transpose()?;
    let path = fill(routes::VOLUME_RETYPE, &[name]);
    let begun: VolumeAnswer = api.post(&path, &RetypeVolume { pool, rate }).await?;
    let volume = if detach {
        begun.volume
    } else {
        wait(api, begun.volume).await?
    };
    form.show(&volume, |volume| {
        format!("volume {} {}", volume.name, told(volume))
    })
}

/// Waits until the volume is where it goes.
async fn wait(api: &Api, mut volume: Volume) -> Result<Volume> {
    let bar = progress::bar(&format!("volume {}", volume.name), volume.size, "bytes");
    while let Some(moving) = &volume.moving {
        bar.set_length(volume.size);
        bar.set_position(moving.moved);
        tokio::time::sleep(EVERY).await;
        volume = super::get(api, &volume.name).await?;
    }
    bar.finish_and_clear();
    Ok(volume)
}

/// What is said of it.
pub(super) fn told(volume: &Volume) -> String {
    let Some(moving) = &volume.moving else {
        return format!("is in pool {}", volume.pool);
    };
    let percent = u128::from(moving.moved) * 100 / u128::from(volume.size.max(1));
    format!(
        "from pool {} to {}: {} of {} ({percent} %), at most {} a second",
        moving.from,
        volume.pool,
        format_size(moving.moved),
        format_size(volume.size),
        format_size(moving.rate)
    )
}

#[cfg(test)]
mod tests {
    //! What a person reads.
    use admin_api::volumes::Moving;

    use super::super::tests::volume;
    use super::*;

    #[test]
    fn a_volume_that_moves_says_from_where_and_how_far_it_is() {
        let moving = Moving {
            from: "main".into(),
            moved: 1 << 30,
            rate: 100 << 20,
            started_ms: 0,
        };
        let volume = Volume {
            pool: "archive".into(),
            moving: Some(moving),
            ..volume()
        };
        let text = told(&volume);
        assert_eq!(
            text,
            "from pool main to archive: 1 GiB of 10 GiB (10 %), at most 100 MiB a second"
        );
        let there = Volume {
            moving: None,
            ..volume
        };
        assert_eq!(told(&there), "is in pool archive");
    }
}
