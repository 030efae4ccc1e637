//! Many worlds at once: each stays on one thread, as it must, and there are as many threads as cores.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Does something for each item, on all cores, and hands what came of it to `done` on this thread, in the order
/// in which they end.
pub fn on_all_cores<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&T, R),
) {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let (ended, ends) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (ended, next, work) = (ended.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if ended.send((item, work(item))).is_err() {
                        return; // Nobody wants to know any more.
                    }
                }
            });
        }
        drop(ended);
        for (item, result) in ends {
            done(item, result);
        }
    });
}

#[cfg(test)]
mod tests {
    //! Each item once, whoever does it.
    use super::*;

    #[test]
    fn every_item_is_done_once() {
        let items: Vec<u64> = (0..1000).collect();
        let mut sums = Vec::new();
        on_all_cores(&items, |item| item * 2, |item, double| sums.push((*item, double)));
        sums.sort_unstable();
        assert_eq!(
            sums,
            items.iter().map(|item| (*item, item * 2)).collect::<Vec<_>>()
        );
    }
}
