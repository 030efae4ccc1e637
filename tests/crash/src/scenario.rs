//! A scenario: operations on a prepared disk, what the model says after each, and a run of it.

use std::collections::BTreeMap;

use protocol::rows::is_rows;
use protocol::storage::{StorageError, StorageReply, StorageRequest, StorageView};
use protocol::{BlockRange, DiskId, LayerChain, LayerId, Stamp};
use store::medium::memory::{Disk, Image};
use store::{Format, MemoryBudget, Options, Store};

use crate::model::{Model, View};
use crate::operation::{self, BLOCK, BLOCKS, FAMILY, Kind, LAYERS};

/// The smallest log, so that wrapping and filling are near.
const LOG_BYTES: u64 = 1 << 20;
/// The stamp of the first operation of a scenario.
const FIRST: u64 = 11;
/// Polls after which a store that has not answered will not.
const POLLS_MAX: usize = 10_000;

/// How disks are opened here: all caches small.
pub fn options() -> Options {
    let memory = MemoryBudget {
        overlay: 1 << 20,
        metadata: 1 << 16,
        blocks: 0,
        tables: 1 << 20,
    };
    Options {
        capacity_bytes: 64 << 20,
        reserve_bytes: 0,
        memory,
        ..Options::default()
    }
}

/// Opens a disk.
pub fn open(disk: &Disk) -> Result<Store, String> {
    Store::open_on(Box::new(disk.medium()), &options()).map_err(|error| format!("it does not open: {error}"))
}

/// What a step asks of a store.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request, which is answered.
    Ask(StorageRequest),
    /// A checkpoint, which is not.
    Checkpoint,
}

/// Operations, and what they come to.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For people.
    pub kinds: Vec<Kind>,
    /// In order.
    pub steps: Vec<Step>,
    /// Where in these the last kind begins.
    pub last_step: usize,
    /// What is to be seen at first, and after each request; also what is to be seen if a merge and what
    /// waits behind it are not yet done though requests after them are.
    pub states: Vec<State>,
    /// How many requests there are.
    pub requests: usize,
    /// Those that are answered at once and promise nothing, counted from 1.
    pub settles: Vec<usize>,
}

/// What is to be seen after some requests.
#[derive(Clone, Debug)]
pub struct State {
    /// After so many,
    pub after: usize,
    /// but without these, counted from 1: a merge that was overtaken, and what waits behind it.
    pub without: Vec<usize>,
    /// this.
    pub view: View,
}

/// Which states are allowed: all that was answered must be seen.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// The requests that were answered, counted from 1.
    pub answered: Vec<usize>,
    /// How many were submitted.
    pub most: usize,
}

impl Allowed {
    /// Whatever is not older than what follows so many requests.
    pub fn from(least: usize) -> Self {
        Self {
            answered: (1..=least).collect(),
            most: usize::MAX,
        }
    }

    fn allows(&self, state: &State) -> bool {
        let has = |number: &usize| *number <= state.after && !state.without.contains(number);
        state.after <= self.most && self.answered.iter().all(has)
    }

    /// These, but for what is older than a state that was seen: what was seen once stays.
    #[must_use]
    pub fn since(mut self, state: &State) -> Self {
        self.answered
            .extend((1..=state.after).filter(|number| !state.without.contains(number)));
        self
    }
}

/// A disk with two layers in tables and slots, and the model of it.
pub fn prepared() -> Result<(Image, Model), String> {
    let disk = Disk::default();
    let format = Format {
        cluster: [1; 16],
        disk: DiskId(1),
        serial: [3; 16],
        log_bytes: LOG_BYTES,
    };
    Store::create_on(&mut disk.medium(), &format).map_err(|error| error.to_string())?;
    let mut store = open(&disk)?;
    let mut model = Model::default();
    // So that a merge has to copy blocks in chunk 0, to move a slot in chunk 1, and to move chunk 2.
    let kinds = [
        (Kind::WriteUnaligned, 1),
        (Kind::Level, 1),
        (Kind::WriteSmall, 2),
        (Kind::ZeroSmall, 2),
    ];
    for (count, (kind, layer)) in (1..).zip(kinds) {
        let follows = model.stamp(layer);
        let request = match kind {
            Kind::Level => operation::level(layer, follows, count),
            write => operation::write(write, layer, (follows, Stamp::ZERO), count).ok_or("no such write")?,
        };
        ask(&mut store, &request)?.map_err(|error| error.to_string())?;
        model.apply(&request);
    }
    // One layer in doubt, and one that is not.
    ask(
        &mut store,
        &StorageRequest::Settle(vec![(operation::object(2), model.stamp(2))]),
    )?
    .map_err(|error| error.to_string())?;
    model.doubts.remove(&2);
    store.close().map_err(|error| error.to_string())?;
    Ok((disk.image(), model))
}

impl Scenario {
    /// The steps of these kinds, after a prepared disk.
    pub fn new(kinds: &[Kind], start: &Model) -> Self {
        let mut model = start.clone();
        let (mut head, mut count) = (2, FIRST - 1);
        let (mut steps, mut last_step) = (Vec::new(), 0);
        let state = |after, without, model: &Model| State {
            after,
            without,
            view: model.view(),
        };
        let mut states = vec![state(0, Vec::new(), &model)];
        let (mut requests_before, mut settles) = (0, Vec::new());
        let mut delayed = Delayed::default();
        for kind in kinds {
            last_step = steps.len();
            count += 1;
            let oldest = model.layers.keys().next().copied().unwrap_or(1);
            let requests = match kind {
                Kind::Snapshot => {
                    head = LAYERS.min(head + 1);
                    Vec::new()
                }
                Kind::Level => vec![operation::level(head, model.stamp(head), count)],
                Kind::Replace => vec![operation::replace(head, model.stamp(head), count)],
                Kind::Merge if oldest < head => vec![operation::merge(oldest, None)],
                Kind::MergeFront if oldest < head => {
                    vec![operation::merge(oldest, Some(operation::ROW_CHUNKS))]
                }
                Kind::Merge | Kind::MergeFront => Vec::new(),
                Kind::MergeHead => vec![operation::merge(head - 1, None)],
                Kind::Drop => vec![StorageRequest::Drop(operation::object(oldest))],
                Kind::Settle => {
                    vec![StorageRequest::Settle(vec![(
                        operation::object(head),
                        model.stamp(head),
                    )])]
                }
                Kind::Raise => operation::raise(count).to_vec(),
                Kind::Checkpoint => {
                    steps.push(Step::Checkpoint);
                    Vec::new()
                }
                write => {
                    let follows = match write {
                        Kind::WriteRow => model.rows_stamp(head),
                        _ => model.stamp(head),
                    };
                    let stamps = (follows, operation::stamp(FIRST));
                    operation::write(*write, head, stamps, count)
                        .into_iter()
                        .collect()
                }
            };
            for request in requests {
                requests_before += 1;
                if matches!(request, StorageRequest::Settle(_)) {
                    settles.push(requests_before);
                    for state in &mut states {
                        state.view.settle(head);
                    }
                }
                for (without, model) in delayed.take(requests_before, &request, &model) {
                    states.push(state(requests_before, without, &model));
                }
                model.apply(&request);
                states.push(state(requests_before, Vec::new(), &model));
                steps.push(Step::Ask(request));
            }
        }
        Self {
            kinds: kinds.to_vec(),
            steps,
            last_step,
            states,
            requests: requests_before,
            settles,
        }
    }
}

/// A merge, which takes several steps, and what waits for its end: later requests may be done before.
#[derive(Default)]
struct Delayed {
    /// Their numbers, the merge first.
    requests: Vec<(usize, StorageRequest)>,
    /// The disk with none of them done, but with all that has overtaken them.
    without: Model,
}

impl Delayed {
    /// Takes in the next request, with the model before it. Gives what may be seen once it is done and
    /// some or all of those before it are not: which, and the model.
    fn take(&mut self, number: usize, request: &StorageRequest, before: &Model) -> Vec<(Vec<usize>, Model)> {
        // A write waits only if something waits already; what is no business of an object never does.
        let overtakes = match request {
            StorageRequest::Merge { .. }
            | StorageRequest::Level { .. }
            | StorageRequest::Replace { .. }
            | StorageRequest::Drop(_) => false,
            StorageRequest::Write(_) => self.requests.len() == 1,
            _ => true,
        };
        if self.requests.is_empty() {
            if matches!(request, StorageRequest::Merge { .. }) {
                self.without = before.clone();
                self.requests.push((number, request.clone()));
            }
            return Vec::new();
        }
        if !overtakes {
            self.requests.push((number, request.clone()));
            return Vec::new();
        }
        self.without.apply(request);
        let mut model = self.without.clone();
        let mut seen = Vec::new();
        for (done, (_, next)) in self.requests.iter().enumerate() {
            let missing = self.requests[done..].iter().map(|(number, _)| *number);
            seen.push((missing.collect(), model.clone()));
            model.apply(next);
        }
        seen
    }
}

/// What a run of a scenario did.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// For each request, in which poll it was answered; nothing if it was not.
    pub answered: Vec<Option<u64>>,
    /// For each request, after which poll it was submitted.
    pub submitted: Vec<u64>,
    /// After which poll the last kind began.
    pub last_from: u64,
    /// What was answered other than `Done`.
    pub errors: Vec<StorageError>,
}

impl Run {
    /// What a disk may show that was cut in a poll: what was surely answered before, and no more than
    /// was submitted.
    pub fn allowed_before(&self, round: u64, scenario: &Scenario) -> Allowed {
        let answered = (1..).zip(&self.answered);
        Allowed {
            answered: answered
                .filter(|(_, at)| at.is_some_and(|at| at < round))
                .filter(|(number, _)| !scenario.settles.contains(number))
                .map(|(number, _)| number)
                .collect(),
            most: self.submitted.iter().take_while(|at| **at < round).count(),
        }
    }
}

/// Runs a scenario: one request after the other, or all of them under way together.
pub fn run(disk: &Disk, store: &mut Store, scenario: &Scenario, together: bool) -> Result<Run, String> {
    let mut run = Run::default();
    for (number, step) in scenario.steps.iter().enumerate() {
        if number == scenario.last_step {
            run.last_from = disk.round();
        }
        match step {
            Step::Checkpoint => store.checkpoint(),
            Step::Ask(request) => {
                if is_about_rows(request) {
                    settle(disk, store, &mut run)?;
                }
                let token = run.submitted.len() as u64;
                run.submitted.push(disk.round());
                run.answered.push(None);
                store.submit(token, request.clone());
            }
        }
        let alone = matches!(step, Step::Ask(request) if is_about_rows(request));
        if !together || alone {
            settle(disk, store, &mut run)?;
        }
    }
    settle(disk, store, &mut run)?;
    Ok(run)
}

/// What a merge of a front comes to depends on which of these it meets, so they are done one by one: all else of a
/// merge is the same whatever overtakes it.
fn is_about_rows(request: &StorageRequest) -> bool {
    match request {
        StorageRequest::Write(write) => is_rows(write.object.index) || write.floor > Stamp::ZERO,
        StorageRequest::Merge { row_chunks, .. } => row_chunks.is_some(),
        _ => false,
    }
}

fn settle(disk: &Disk, store: &mut Store, run: &mut Run) -> Result<(), String> {
    let mut answers = Vec::new();
    store.kick();
    for _ in 0..POLLS_MAX {
        store.poll(&mut answers);
        for (token, answer) in answers.drain(..) {
            let place = usize::try_from(token).map_err(|error| error.to_string())?;
            match answer {
                Ok(_) => run.answered[place] = Some(disk.round()),
                Err(error) => run.errors.push(error),
            }
        }
        if !store.is_busy() || store.poisoned().is_some() {
            return Ok(());
        }
    }
    Err("the store does not come to rest".to_owned())
}

/// Asks one thing and waits for the answer.
pub fn ask(
    store: &mut Store,
    request: &StorageRequest,
) -> Result<Result<StorageReply, StorageError>, String> {
    store.submit(u64::MAX, request.clone());
    store.kick();
    let mut answers = Vec::new();
    for _ in 0..POLLS_MAX {
        store.poll(&mut answers);
        if let Some((_, answer)) = answers.pop() {
            return Ok(answer);
        }
    }
    Err("a request is never answered".to_owned())
}

/// What is seen of a store. The inner error is one that a store may give for damage.
pub fn view(store: &mut Store) -> Result<Result<View, StorageError>, String> {
    let mut chains = Vec::new();
    let (mut stamps, mut rows) = (Vec::new(), Vec::new());
    for head in 1..=LAYERS {
        let chain = LayerChain::new((1..=head).rev().map(LayerId).collect());
        let range = BlockRange::new(0, BLOCKS).ok_or("no such range")?;
        let request = StorageRequest::Read {
            chain,
            family: FAMILY,
            index: 0,
            ranges: range.into(),
        };
        let (bytes, checksums) = match ask(store, &request)? {
            Ok(StorageReply::Data { bytes, checksums, .. }) => (bytes, checksums),
            Ok(other) => return Err(format!("a read is answered with {other:?}")),
            Err(error) => return Ok(Err(error)),
        };
        let mut values = Vec::new();
        for (block, checksum) in bytes.chunks(BLOCK).zip(checksums.iter()) {
            if crc32c::crc32c(block) != *checksum {
                return Err(format!("chain {head}: a block is given with a wrong checksum"));
            }
            values.push(operation::value(block).ok_or("a block is a mixture")?);
        }
        chains.push(values);
        let objects = [operation::object(head), operation::rows_object(head)];
        match objects.map(|object| store.stamp(object)) {
            [Ok(stamp), Ok(of_rows)] => {
                stamps.push(stamp);
                rows.push(of_rows);
            }
            [Err(error), _] | [_, Err(error)] => return Ok(Err(error)),
        }
    }
    let generation = store
        .generations()
        .first()
        .map_or(0, |(_, generation)| generation.0);
    let interval = store.intervals().first().map_or(0, |(_, interval)| interval.0);
    Ok(Ok(View {
        chains,
        stamps,
        rows,
        highest: (generation, interval),
        doubts: doubts_of(store, 0),
        settled: BTreeMap::new(),
    }))
}

/// The doubts of one index, by layer.
pub fn doubts_of(store: &Store, index: u32) -> BTreeMap<u64, Stamp> {
    let doubts = store.doubts().into_iter();
    doubts
        .filter(|(object, _)| object.index == index)
        .map(|(object, stamp)| (object.layer.0, stamp))
        .collect()
}

/// Which of the scenario's states a store shows; an error if it is none of those allowed.
pub fn recognize<'a>(
    store: &mut Store,
    scenario: &'a Scenario,
    allowed: &Allowed,
) -> Result<&'a State, String> {
    let seen = view(store)?.map_err(|error| format!("it cannot be read: {error}"))?;
    let matching = |state: &&State| state.view.allows(&seen);
    let mut candidates = scenario.states.iter().rev();
    if let Some(state) = candidates.find(|state| allowed.allows(state) && matching(state)) {
        return Ok(state);
    }
    let what = match scenario.states.iter().find(matching) {
        None => "nothing that ever was".to_owned(),
        Some(state) => format!("the state after {} without {:?}", state.after, state.without),
    };
    Err(format!(
        "it shows {what}, but must show what requests {:?} did, of {} submitted",
        allowed.answered, allowed.most
    ))
}
