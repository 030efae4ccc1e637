//! A place for things that are known by a number while they are under way.

/// Things by number; numbers are used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            places: Vec::new(),
            vacant: Vec::new(),
        }
    }

    /// Keeps a thing and gives its number.
    pub(crate) fn insert(&mut self, thing: T) -> u64 {
        let place = if let Some(place) = self.vacant.pop() {
            self.places[place] = Some(thing);
            place
        } else {
            self.places.push(Some(thing));
            self.places.len() - 1
        };
        place as u64
    }

    /// Gives a thing back, if there is one with this number.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let place = usize::try_from(number).ok()?;
        let thing = self.places.get_mut(place)?.take()?;
        self.vacant.push(place);
        Some(thing)
    }

    /// How many things are kept.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }
}
