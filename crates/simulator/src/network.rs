//! Connections between front ends and disks: in order, each way; delayed; lost at any moment, which
//! the two ends learn at different times, while what is on its way may still arrive.

use std::fmt::from_fn;

use protocol::DiskId;
use protocol::message::{Request, Response, SEVERAL_SINCE, VERSIONS, VOUCH_SINCE};
use replication::owner;
use replication::replica::{self, ConnectionId};

use crate::schedule::Time;
use crate::world::{Happening, Life, World};

/// Of so many lives of a disk, one is of a process that does not understand questions about many groups.
const OLD_LIVES: u64 = 4;
/// When a stopped process is looked at again that has a connection to take up, in microseconds.
const STOPPED: u64 = 5_000;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) life: Life,
    pub(crate) disk: DiskId,
    pub(crate) disk_life: u64,
    front_open: bool,
    disk_open: bool,
    /// When the last request arrives: the next one comes after it.
    to_disk: Time,
}

impl Connection {
    /// The version of the messages that is spoken: as if programs were being replaced.
    fn version(&self) -> u16 {
        let is_old = (u64::from(self.disk.0) + self.disk_life).is_multiple_of(OLD_LIVES);
        if is_old { VOUCH_SINCE - 1 } else { *VERSIONS.end() }
    }
}

impl World {
    /// A front end tries to reach a disk, again and again until it succeeds.
    pub(crate) fn connect(&mut self, life: Life, disk: DiskId) {
        let wanted = self.front(life).is_some_and(|front| front.wants(disk));
        if !wanted {
            return;
        }
        let disk_life = match self.disks.get(&disk) {
            Some(state) if state.is_up() && !self.chance.percent(5) => state.life,
            _ => {
                let pause = self.chance.between(5_000, 50_000);
                self.schedule.after(pause, Happening::Connect { life, disk });
                return;
            }
        };
        let id = self.next_connection;
        self.next_connection += 1;
        let now = self.schedule.now;
        let connection = Connection {
            life,
            disk,
            disk_life,
            front_open: true,
            disk_open: true,
            to_disk: now,
        };
        self.connections.insert(id, connection);
        let delay = self.delay(5_000);
        self.schedule
            .after(delay, Happening::Connected { connection: id });
    }

    pub(crate) fn connected(&mut self, id: u64) {
        let Some(connection) = self
            .connections
            .get(&id)
            .filter(|connection| connection.front_open)
        else {
            return;
        };
        let (life, disk, version) = (connection.life, connection.disk, connection.version());
        if !self.front(life).is_some_and(|front| front.wants(disk)) {
            // Its owner has given it up meanwhile.
            self.close_connection(id);
            return;
        }
        if let Some(front) = self.front_mut(life) {
            if front.is_stopped() {
                // It takes up a connection and tells its owner in one go: nothing is sent there in between.
                self.schedule
                    .after(STOPPED, Happening::Connected { connection: id });
                return;
            }
            // What was told on another connection ends with it, and the disk behind it may be another one now.
            front.direct.forget(disk);
            front.connections.insert(disk, id);
            self.feed(life, owner::Event::Connected { disk, version });
        }
    }

    /// A front end sends a request.
    pub(crate) fn send_request(&mut self, life: Life, disk: DiskId, number: u64, request: Request) {
        let id = self
            .front(life)
            .and_then(|front| front.connections.get(&disk).copied());
        let delay = self.delay(3_000);
        let now = self.schedule.now;
        let Some(connection) = id.and_then(|id| self.connections.get_mut(&id)) else {
            return;
        };
        connection.to_disk = connection.to_disk.max(now.after(delay));
        let at = connection.to_disk;
        if let Some(connection) = id {
            self.schedule.at(
                at,
                Happening::Request {
                    connection,
                    number,
                    request,
                },
            );
        }
    }

    /// A disk sends an answer. Answers come in any order.
    pub(crate) fn send_response(&mut self, id: u64, number: u64, response: Response) {
        let delay = self.delay(3_000);
        self.schedule.after(
            delay,
            Happening::Response {
                connection: id,
                number,
                response,
            },
        );
    }

    pub(crate) fn request_arrives(&mut self, id: u64, number: u64, request: Request) {
        let Some(connection) = self
            .connections
            .get(&id)
            .filter(|connection| connection.disk_open)
        else {
            return;
        };
        let (disk, life) = (connection.disk, connection.disk_life);
        let since = match &request {
            Request::Vouch(_) => Some((VOUCH_SINCE, "asked about many groups at once")),
            Request::ReadSeveral { .. } => Some((SEVERAL_SINCE, "asked for several chunks at once")),
            _ => None,
        };
        if let Some((version, meeting)) = since {
            if connection.version() < version {
                return self.violate(format!("{disk} is asked what its version does not know"));
            }
            self.meet(meeting);
        }
        if self
            .disks
            .get(&disk)
            .is_some_and(|state| state.is_up() && state.life == life)
        {
            let asked = from_fn(|f| f.write_str(&brief(&request)));
            self.note(format_args!("{disk} <- {number}: {asked}"));
            self.feed_replica(
                disk,
                replica::Event::Request {
                    connection: ConnectionId(id),
                    number,
                    request,
                },
            );
        }
    }

    pub(crate) fn response_arrives(&mut self, id: u64, number: u64, response: Response) {
        let Some(connection) = self
            .connections
            .get(&id)
            .filter(|connection| connection.front_open)
        else {
            return;
        };
        let (disk, life) = (connection.disk, connection.life);
        let told = from_fn(|f| f.write_str(&brief_response(&response)));
        self.note(format_args!("front {} <- {disk} {number}: {told}", life.front));
        let Some(response) = self.places_answered(life, number, response) else {
            return;
        };
        self.feed(
            life,
            owner::Event::Response {
                disk,
                number,
                response,
            },
        );
    }

    /// A connection breaks. The ends learn of it at different times.
    pub(crate) fn break_connection(&mut self, id: u64) {
        let (front, disk) = (self.delay(20_000), self.delay(50_000));
        self.schedule
            .after(front, Happening::FrontSeesEnd { connection: id });
        self.schedule
            .after(disk, Happening::DiskSeesEnd { connection: id });
    }

    /// A connection is closed in order: the disk gets all that was sent on it first.
    pub(crate) fn close_connection(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let at = connection.to_disk.after(1);
        self.front_sees_end(id);
        self.schedule.at(at, Happening::DiskSeesEnd { connection: id });
    }

    pub(crate) fn front_sees_end(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut connection.front_open, false) {
            return;
        }
        let (life, disk) = (connection.life, connection.disk);
        self.forget_connection(id);
        let Some(front) = self.front_mut(life) else { return };
        if front.connections.get(&disk).is_some_and(|present| *present != id) {
            return; // Of a former generation of this owner: it has another one by now.
        }
        if front.connections.get(&disk) == Some(&id) {
            front.connections.remove(&disk);
            front.direct.forget(disk);
        }
        self.feed(life, owner::Event::Disconnected { disk });
        let pause = self.chance.between(1_000, 20_000);
        self.schedule.after(pause, Happening::Connect { life, disk });
    }

    pub(crate) fn disk_sees_end(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut connection.disk_open, false) {
            return;
        }
        let (disk, life) = (connection.disk, connection.disk_life);
        self.forget_connection(id);
        if self
            .disks
            .get(&disk)
            .is_some_and(|state| state.is_up() && state.life == life)
        {
            self.feed_replica(
                disk,
                replica::Event::Closed {
                    connection: ConnectionId(id),
                },
            );
        }
    }

    fn forget_connection(&mut self, id: u64) {
        if self
            .connections
            .get(&id)
            .is_some_and(|connection| !connection.front_open && !connection.disk_open)
        {
            self.connections.remove(&id);
        }
    }

    /// All connections for which a condition holds.
    pub(crate) fn connections_where(&self, condition: impl Fn(&Connection) -> bool) -> Vec<u64> {
        self.connections
            .iter()
            .filter(|(_, connection)| condition(connection))
            .map(|(id, _)| *id)
            .collect()
    }
}

pub(crate) fn brief(request: &Request) -> String {
    match request {
        Request::Write { scope, write } => format!(
            "write {} {} {} -> {} {}",
            write.object, write.range, write.follows, write.stamp, scope.interval
        ),
        Request::Level { follows, delta, .. } => {
            format!("level {} {follows} -> {}", delta.object, delta.stamp)
        }
        Request::Read {
            layer, index, range, ..
        } => format!("read {index}/{layer} {range}"),
        Request::ReadSeveral {
            layer, index, ranges, ..
        } => {
            let ranges: Vec<String> = ranges.iter().map(|range| range.to_string()).collect();
            format!("read {index}/{layer} {}", ranges.join(", "))
        }
        Request::Map {
            layer, index, range, ..
        } => format!("map {index}/{layer} {range}"),
        Request::Places {
            layer, index, range, ..
        } => format!("places {index}/{layer} {range}"),
        Request::Replace { follows, delta, .. } => {
            let chunks: Vec<u8> = delta.chunks.iter().map(|chunk| chunk.chunk).collect();
            format!(
                "replace of {} {follows} -> {}, chunks {chunks:?}",
                delta.object, delta.stamp
            )
        }
        Request::Column { layer, index, .. } => format!("column {index}/{layer}"),
        Request::Fence { scope, .. } => format!("fence {} {} {}", scope.pg, scope.generation, scope.interval),
        Request::Pull { object, above, .. } => format!("pull {object} above {above}"),
        Request::Complete { scope, up_to } => format!("complete {} {} {up_to}", scope.pg, scope.generation),
        Request::Ping { .. } => "ping".to_owned(),
        Request::Vouch(vouch) => format!("ping about {} groups", vouch.groups.len()),
        Request::Hello { .. } => "hello".to_owned(),
        Request::Question(_) => "question".to_owned(),
        Request::Share | Request::Area { .. } | Request::WriteShared { .. } => "of shared memory".to_owned(),
    }
}

pub(crate) fn brief_response(response: &Response) -> String {
    match response {
        Response::Data { stamp, .. } => format!("data at {stamp}"),
        Response::Map { stamp, .. } => format!("map at {stamp}"),
        Response::Delta(delta) => format!("delta to {}", delta.stamp),
        Response::Doubt { objects, more } => format!("{} in doubt, more: {more}", objects.len()),
        Response::Refused(refusal) => format!("refused: {refusal}"),
        Response::Ok => "ok".to_owned(),
        Response::Welcome { .. } => "welcome".to_owned(),
        Response::Told(_) => "told".to_owned(),
        Response::Standing { refused } => format!("all stand but {}", refused.len()),
        Response::Column { objects } => format!("column of {} layers", objects.len()),
        Response::Shared { .. } => "shared".to_owned(),
        Response::Placed { chunks, .. } => format!("places of {} chunks", chunks.len()),
    }
}
