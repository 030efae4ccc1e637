//! Random operations on the records, with layers that hold made-up data, against a model that
//! keeps a whole copy of every volume and snapshot and knows no layers.

use std::collections::{BTreeMap, HashMap};

use coordination::map::family::Reclaim;
use proptest::prelude::*;

use super::*;

/// What a volume or a snapshot shows: a value for each block that was written.
type Content = BTreeMap<u8, u32>;

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Delete(u8),
    Write(u8, u8, u32),
    Snapshot(u8, u8),
    GroupSnapshot(u8, u8, u8),
    DeleteSnapshot(u8, u8),
    Clone(u8, u8, u8),
    RollBack(u8, u8),
    Rename(u8, u8),
    /// Reclaims one layer of those that can be, as far as a share of its objects, then finishes or,
    /// as after a crash, stops there.
    Reclaim {
        which: u8,
        share: u8,
        finish: bool,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let volume = || 0u8..5;
    let snapshot = || 0u8..4;
    prop_oneof![
        2 => volume().prop_map(Step::Create),
        1 => volume().prop_map(Step::Delete),
        6 => (volume(), 0u8..8, any::<u32>()).prop_map(|(v, b, x)| Step::Write(v, b, x)),
        4 => (volume(), snapshot()).prop_map(|(v, s)| Step::Snapshot(v, s)),
        1 => (volume(), volume(), snapshot()).prop_map(|(a, b, s)| Step::GroupSnapshot(a, b, s)),
        3 => (volume(), snapshot()).prop_map(|(v, s)| Step::DeleteSnapshot(v, s)),
        2 => (volume(), snapshot(), volume()).prop_map(|(v, s, w)| Step::Clone(v, s, w)),
        1 => (volume(), snapshot()).prop_map(|(v, s)| Step::RollBack(v, s)),
        1 => (volume(), volume()).prop_map(|(a, b)| Step::Rename(a, b)),
        5 => (any::<u8>(), 0u8..9, any::<bool>())
            .prop_map(|(which, share, finish)| Step::Reclaim { which, share, finish }),
    ]
}

/// What a step does to the model; none if it must be refused.
#[derive(Default)]
struct Model {
    volumes: BTreeMap<String, Content>,
    snapshots: BTreeMap<(String, String), Content>,
}

/// The real records, and layers' data as disks would keep them.
struct Real {
    world: World,
    layers: HashMap<LayerId, Content>,
}

fn volume_name(number: u8) -> String {
    format!("v{number}")
}

fn snapshot_name(number: u8) -> String {
    format!("s{number}")
}

impl Model {
    fn snapshot(&mut self, volumes: &[u8], snapshot: u8) -> bool {
        let names: Vec<_> = volumes.iter().map(|v| volume_name(*v)).collect();
        let taken = |name: &String| {
            self.snapshots
                .contains_key(&(name.clone(), snapshot_name(snapshot)))
        };
        if !names
            .iter()
            .all(|name| self.volumes.contains_key(name) && !taken(name))
        {
            return false;
        }
        for name in names {
            let content = self.volumes[&name].clone();
            self.snapshots.insert((name, snapshot_name(snapshot)), content);
        }
        true
    }

    /// Whether the step is to succeed.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Create(v) => {
                let name = volume_name(*v);
                !self.volumes.contains_key(&name) && self.volumes.insert(name, Content::new()).is_none()
            }
            Step::Delete(v) => {
                let name = volume_name(*v);
                self.snapshots.retain(|(volume, _), _| *volume != name);
                self.volumes.remove(&name).is_some()
            }
            Step::Write(v, block, value) => match self.volumes.get_mut(&volume_name(*v)) {
                Some(content) => {
                    content.insert(*block, *value);
                    true
                }
                None => false,
            },
            Step::Snapshot(v, s) => self.snapshot(&[*v], *s),
            Step::GroupSnapshot(a, b, s) => a != b && self.snapshot(&[*a, *b], *s),
            Step::DeleteSnapshot(v, s) => self
                .snapshots
                .remove(&(volume_name(*v), snapshot_name(*s)))
                .is_some(),
            Step::Clone(v, s, w) => {
                let Some(content) = self.snapshots.get(&(volume_name(*v), snapshot_name(*s))) else {
                    return false;
                };
                let name = volume_name(*w);
                let content = content.clone();
                !self.volumes.contains_key(&name) && self.volumes.insert(name, content).is_none()
            }
            Step::RollBack(v, s) => {
                let Some(content) = self.snapshots.get(&(volume_name(*v), snapshot_name(*s))) else {
                    return false;
                };
                self.volumes.insert(volume_name(*v), content.clone()).is_some()
            }
            Step::Rename(a, b) => {
                let (old, new) = (volume_name(*a), volume_name(*b));
                if !self.volumes.contains_key(&old) || (a != b && self.volumes.contains_key(&new)) {
                    return false;
                }
                if a != b
                    && let Some(content) = self.volumes.remove(&old)
                {
                    self.volumes.insert(new.clone(), content);
                    let snapshots = std::mem::take(&mut self.snapshots);
                    for ((volume, snapshot), content) in snapshots {
                        let volume = if volume == old { new.clone() } else { volume };
                        self.snapshots.insert((volume, snapshot), content);
                    }
                }
                true
            }
            Step::Reclaim { .. } => true,
        }
    }
}

impl Real {
    async fn apply(&mut self, step: &Step) -> bool {
        let volumes = &self.world.volumes;
        match step {
            Step::Create(v) => self.world.create(&volume_name(*v), 1 << 20).await.is_ok(),
            Step::Delete(v) => volumes.delete(&volume_name(*v), true).await.is_ok(),
            Step::Write(v, block, value) => {
                let map = volumes.map();
                let Some(id) = map.volume_named(&volume_name(*v)) else {
                    return false;
                };
                let head = volume(&map, id).unwrap().record.head;
                self.layers.entry(head).or_default().insert(*block, *value);
                true
            }
            Step::Snapshot(v, s) => volumes
                .snapshot(&volume_name(*v), &snapshot_name(*s))
                .await
                .is_ok(),
            Step::GroupSnapshot(a, b, s) => {
                let names = [volume_name(*a), volume_name(*b)];
                volumes.group_snapshot(&names, &snapshot_name(*s)).await.is_ok()
            }
            Step::DeleteSnapshot(v, s) => volumes
                .delete_snapshot(&volume_name(*v), &snapshot_name(*s))
                .await
                .is_ok(),
            Step::Clone(v, s, w) => {
                let (source, name) = (volume_name(*v), volume_name(*w));
                volumes
                    .clone_snapshot(&source, &snapshot_name(*s), &name)
                    .await
                    .is_ok()
            }
            Step::RollBack(v, s) => volumes
                .roll_back(&volume_name(*v), &snapshot_name(*s))
                .await
                .is_ok(),
            Step::Rename(a, b) => volumes.rename(&volume_name(*a), &volume_name(*b)).await.is_ok(),
            Step::Reclaim { which, share, finish } => {
                self.reclaim(*which, usize::from(*share), *finish).await;
                true
            }
        }
    }

    /// Moves up to `share` blocks, as a disk would, object by object.
    async fn reclaim(&mut self, which: u8, share: usize, finish: bool) {
        let map = self.world.volumes.map();
        let all: Vec<_> = map
            .families()
            .flat_map(|(id, family)| family.reclaimable().into_iter().map(move |what| (id, what)))
            .collect();
        let Some((family, what)) = all.get(usize::from(which) % all.len().max(1)).copied() else {
            return;
        };
        let gone = self.layers.entry(what.layer()).or_default();
        let limit = if finish { usize::MAX } else { share };
        let moved: Vec<_> = gone
            .iter()
            .map(|(block, value)| (*block, *value))
            .take(limit)
            .collect();
        for (block, _) in &moved {
            gone.remove(block);
        }
        if let Reclaim::Merge { child, .. } = what {
            let child = self.layers.entry(child).or_default();
            for (block, value) in moved {
                child.entry(block).or_insert(value);
            }
        }
        if finish {
            let done = (protocol::NodeId(1), self.world.volumes.map().revision());
            self.world.volumes.retire(family, what, done).await.unwrap();
            self.layers.remove(&what.layer());
        }
    }

    fn content(&self, family: FamilyId, layer: LayerId) -> Content {
        let chain = self
            .world
            .volumes
            .map()
            .family(family)
            .unwrap()
            .chain(layer)
            .unwrap();
        let mut content = Content::new();
        for layer in chain.layers().iter().rev() {
            content.extend(self.layers.get(layer).into_iter().flatten());
        }
        content
    }

    fn volumes(&self) -> BTreeMap<String, Content> {
        let map = self.world.volumes.map();
        let show = |(name, id): (&str, VolumeId)| {
            let record = &volume(&map, id).unwrap().record;
            assert_eq!(record.name, name);
            (name.to_owned(), self.content(record.family, record.head))
        };
        map.volume_names().map(show).collect()
    }

    fn snapshots(&self) -> BTreeMap<(String, String), Content> {
        let map = self.world.volumes.map();
        let mut all = BTreeMap::new();
        for (id, family) in map.families() {
            for ((volume, name), snapshot) in family.snapshots() {
                let volume = map.volume(*volume).unwrap().1.record.name.clone();
                all.insert(
                    (volume, name.to_string()),
                    self.content(id, snapshot.record.layer),
                );
            }
        }
        all
    }
}

async fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut real = Real {
        world: World::new().await,
        layers: HashMap::new(),
    };
    for step in steps {
        let expected = model.apply(step);
        prop_assert_eq!(real.apply(step).await, expected, "{:?}", step);
        prop_assert_eq!(&real.volumes(), &model.volumes, "after {:?}", step);
        prop_assert_eq!(&real.snapshots(), &model.snapshots, "after {:?}", step);
    }
    // A map that was kept up says the same as one that is built anew.
    let range = real.world.store.range(ROOT).await.unwrap();
    let rebuilt = ClusterMap::build(&range).unwrap();
    let kept = real.world.volumes.map.at_least(range.revision).await;
    prop_assert_eq!(&rebuilt, kept.as_ref());
    // At rest: everything that nobody needs goes, and then each layer is needed.
    for name in real.volumes().into_keys() {
        real.world.volumes.delete(&name, true).await.unwrap();
    }
    while real.world.volumes.map().families().next().is_some() {
        real.reclaim(0, 0, true).await;
    }
    prop_assert!(real.layers.is_empty());
    let left = real.world.stored().await;
    prop_assert!(
        left.iter()
            .all(|line| line.contains("/event/") || line.contains("/pool")),
        "{:?}",
        left
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn volumes_and_snapshots_show_what_a_model_without_layers_shows(
        steps in proptest::collection::vec(any_step(), 1..80)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(&steps))?;
    }
}
