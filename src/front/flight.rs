//! Single flight: of many who want the same answer at the same time, one fetches it and all get it.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

pub struct Flights<K, V> {
    open: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Flights<K, V> {
        Flights {
            open: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    /// Joins the flight of `key`, or starts it. If the one who fetches gives up, the next in line fetches.
    pub async fn join<F: Future<Output = V>>(&self, key: &K, fetch: impl FnOnce() -> F) -> V {
        let cell = self.open.lock().entry(key.clone()).or_default().clone();
        let value = cell.get_or_init(fetch).await.clone();
        let mut open = self.open.lock();
        // Landed: who comes now starts a new one.
        if open.get(key).is_some_and(|current| Arc::ptr_eq(current, &cell)) {
            open.remove(key);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn fifty_at_once_lead_to_one_fetch_and_the_next_to_another() {
        let flights = Arc::new(Flights::<u8, u32>::default());
        let fetched = Arc::new(AtomicU32::new(0));
        let go = Arc::new(tokio::sync::Barrier::new(50));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (flights, fetched, go) = (flights.clone(), fetched.clone(), go.clone());
                tokio::spawn(async move {
                    go.wait().await;
                    let fetch = || async {
                        tokio::task::yield_now().await;
                        fetched.fetch_add(1, Ordering::SeqCst) + 1
                    };
                    flights.join(&7, fetch).await
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 1);
        }
        assert_eq!(
            flights
                .join(&7, || async { fetched.fetch_add(1, Ordering::SeqCst) + 1 })
                .await,
            2
        );
        assert!(flights.open.lock().is_empty());
    }
}
