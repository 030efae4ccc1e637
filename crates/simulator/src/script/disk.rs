//! The disks of a script: what replicas want done.

use super::*;

impl Script {
    /// A source answers, or the driver in its place.
    pub(super) fn tell(&mut self, to: DiskId, number: u64, told: Result<Told, Refusal>) {
        if self.asked.remove(&(to, number)).is_some() {
            let (life, number) = life_and_number(number);
            let mail = Mail::Told(to, number, Box::new(told));
            self.mail.push_back((Wire::Told(to), life, mail));
        }
    }

    pub(super) fn feed_disk(&mut self, id: DiskId, event: replica::Event) {
        let mut out = Vec::new();
        let Some(replica) = self.disks.get_mut(&id).and_then(|disk| disk.replica.as_mut()) else {
            return;
        };
        replica.apply(event, &mut out);
        self.perform_disk(id, out);
    }

    fn perform_disk(&mut self, id: DiskId, actions: Vec<replica::Action>) {
        use replica::Action;
        for action in actions {
            match action {
                Action::Reply {
                    connection,
                    number,
                    response,
                } => {
                    if let Some((front, disk)) = self.connections.get(&connection) {
                        let wire = Wire::FromDisk(*front, *disk);
                        self.send(wire, Mail::Response(connection, number, response));
                    }
                }
                Action::Store { token, request } => self.submit(id, token, request),
                Action::Reclaimed { token, result } => self.reclaimed.push((token, result.is_ok())),
                Action::Question { to, number, question } => {
                    let mail = Mail::Question(id, to, number, Box::new(question));
                    self.send(Wire::Question(id), mail);
                }
                Action::Tell { to, number, told } => self.tell(to, number, told),
                Action::Propose {
                    pg,
                    interval,
                    from,
                    to,
                } => self.send(Wire::Swap(id), Mail::Swap(id, (pg, interval), (from, to))),
                Action::Refresh => self.tell_map(id),
                Action::Alarm { volume, after_ms } => {
                    let life = self.disks.get(&id).map_or(0, |disk| disk.life);
                    self.alarms.push((self.now + after_ms, id, life, volume));
                }
                Action::Scrubbed { .. } | Action::Readmit => {}
            }
        }
    }

    fn submit(&mut self, id: DiskId, token: u64, request: StorageRequest) {
        let Some(disk) = self.disks.get_mut(&id) else {
            return;
        };
        let (wire, mail) = match disk.store.take(&request) {
            Taken::Queued => (Wire::Medium(id), Mail::Stored(id, token, None)),
            // Who looks does not wait for what is to become durable.
            Taken::Look => (Wire::Told(id), Mail::Stored(id, token, Some(request))),
            Taken::Answered(result) => (Wire::Told(id), Mail::Answered(id, token, result)),
        };
        self.send(wire, mail);
    }

    /// A disk's process starts with what its store remembers and the map as it is.
    pub(super) fn start(&mut self, id: DiskId) {
        let map = self.cluster.map.clone();
        let mut out = Vec::new();
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.life += 1;
            let remembered = Remembered {
                generations: disk.store.generations(),
                intervals: disk.store.intervals(),
                doubts: disk.store.doubts(),
                vouched: true,
            };
            disk.replica = Some(Replica::new(id, remembered, map, &mut out));
        }
        self.perform_disk(id, out);
        for front in 0..self.fronts.len() {
            self.send(Wire::FromDisk(front, id), Mail::Connected(front, id));
        }
        self.settle();
    }
}
