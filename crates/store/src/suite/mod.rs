//! What every store must do, as functions that any backend can be run through. A failure is a panic, as in a test.

mod documents;
mod inbox;
mod marks;
mod reading;
mod rotation;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use contacts::contact::content_hash;
use contacts::ports::{Commit, Committed, HeadChange, Page, Slice};
use contacts::record::{Known, Removal, Row};
use contacts::{AccountId, Clock, Fence, Generation, Micros, Position, Store, Stream, SystemClock};
use rand::Rng;

macro_rules! behaviours {
    ($($module:ident::$name:ident),+ $(,)?) => {
        /// Runs every behaviour. `make` gives an empty store each time: a namespace of its own.
        pub async fn run_all(make: impl AsyncFn() -> Arc<dyn Store>) {
            $(
                tracing::info!("{}", stringify!($name));
                $module::$name(&make).await;
            )+
        }
    };
}

behaviours![
    documents::a_document_is_created_replaced_and_deleted_by_version,
    documents::a_swap_against_another_version_changes_nothing,
    documents::sixteen_writers_lose_no_change,
    documents::ids_are_listed_in_order_and_in_pieces,
    documents::an_index_returns_what_is_due_oldest_first,
    documents::an_index_is_summed_up,
    documents::documents_hold_any_bytes_under_any_id,
    documents::namespaces_do_not_see_each_other,
    writing::without_a_snapshot_nothing_is_read_or_written,
    writing::opening_creates_once_and_raises_the_fence,
    writing::an_old_fence_writes_nothing,
    writing::new_changed_same_and_stale_rows,
    writing::rows_of_one_commit_are_placed_in_their_order,
    writing::numbers_of_64_bits_are_compared_exactly,
    writing::removals_need_proof,
    writing::an_older_observation_revives_nobody,
    writing::tombstones_are_swept_when_they_are_old,
    writing::the_head_moves_with_the_commit,
    writing::a_dropped_snapshot_is_gone_whole,
    writing::streams_and_accounts_keep_apart,
    writing::a_full_commit_of_a_hundred_rows,
    reading::pages_cover_everything_once_and_in_order,
    reading::a_slice_is_bounded_by_positions_rows_and_bytes,
    reading::records_that_are_not_newer_are_passed_over,
    reading::a_record_that_changes_while_it_is_read_moves_behind_the_reader,
    reading::invariant_1_a_reader_behind_several_writers_misses_nothing,
    reading::unseen_records_are_found_in_pieces,
    reading::lookup_keys_follow_the_content,
    reading::a_lookup_key_of_many_loses_one_at_a_time,
    reading::odd_ids_and_texts_come_back_as_they_were,
    marks::a_mark_made_during_a_fetch_outlives_it,
    marks::a_full_dirty_set_says_so,
    marks::scratch_values_expire,
    marks::a_claim_is_given_once,
    inbox::what_was_taken_is_handed_out_once_it_is_due_and_oldest_first,
    inbox::sixteen_senders_lose_nothing_and_double_nothing,
    inbox::news_go_ahead_of_what_was_looked_up,
    inbox::a_full_inbox_takes_nothing_and_loses_nothing,
    inbox::what_was_replaced_meanwhile_is_not_settled,
    inbox::invariant_12_payloads_lie_sealed_for_their_account_alone,
    inbox::a_forgotten_inbox_is_empty_and_due_for_nobody,
    inbox::what_lies_in_another_drawer_is_worked_off,
    rotation::what_an_old_key_sealed_is_sealed_anew_and_opens_without_it,
    rotation::what_no_key_opens_stays_as_it_is_and_shows,
    rotation::accounts_that_were_called_for_before_tokens_were_noted_are_unknown,
];

/// The machine's time now.
fn now() -> Micros {
    SystemClock.now()
}

/// An account that nobody else uses.
pub fn any_account() -> AccountId {
    let mut rng = rand::rng();
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let id: String = (0..AccountId::LENGTH)
        .map(|_| char::from(letters[rng.random_range(0..32)]))
        .collect();
    id.parse().expect("made of the letters of account ids")
}

/// A row whose body says its id and text.
pub fn row(id: &str, updated: u64, observed: u64, text: &str) -> Row {
    let body = format!("{{\"id\":\"{id}\",\"name\":\"{text}\"}}").into_bytes();
    Row {
        id: id.to_owned(),
        updated: Micros(updated),
        observed: Micros(observed),
        indexed: false,
        waits: false,
        hash: content_hash(&body),
        body,
        keys: Vec::new(),
    }
}

pub fn removal(id: &str, updated: u64, observed: u64) -> Removal {
    Removal {
        id: id.to_owned(),
        updated: Micros(updated),
        observed: Micros(observed),
    }
}

/// From the start, without bounds.
pub const EVERYTHING: Slice = Slice {
    after: Position::START,
    until: None,
    rows: 10_000,
    bytes: usize::MAX,
    newer_than: None,
};

/// Polls until `holds`; panics after ten seconds.
pub async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited for ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An open snapshot.
struct Opened {
    store: Arc<dyn Store>,
    account: AccountId,
    stream: Stream,
    fence: Fence,
    generation: Generation,
}

impl Opened {
    async fn new(make: &impl AsyncFn() -> Arc<dyn Store>) -> Opened {
        Opened::on(make().await).await
    }

    async fn on(store: Arc<dyn Store>) -> Opened {
        let opened = Opened {
            store,
            account: any_account(),
            stream: Stream::Contacts,
            fence: Fence(1),
            generation: Generation(7),
        };
        opened
            .store
            .open(&opened.account, opened.stream, opened.fence, opened.generation)
            .await
            .expect("opens");
        opened
    }

    fn commit_of(&self, rows: Vec<Row>, removals: Vec<Removal>) -> Commit {
        Commit {
            fence: self.fence,
            generation: self.generation,
            now: now(),
            rows,
            removals,
            head: HeadChange::default(),
        }
    }

    async fn commit(&self, rows: Vec<Row>, removals: Vec<Removal>) -> Committed {
        let commit = self.commit_of(rows, removals);
        self.store
            .commit(&self.account, self.stream, &commit)
            .await
            .expect("commits")
    }

    /// Commits one row: (written, same, stale).
    async fn write(&self, row: Row) -> (u32, u32, u32) {
        let done = self.commit(vec![row], vec![]).await;
        assert_eq!(done.removed, 0);
        (done.written, done.same, done.stale)
    }

    async fn known(&self, id: &str) -> Option<Known> {
        let ids = [id.to_owned()];
        self.store
            .known(&self.account, self.stream, &ids)
            .await
            .expect("reads")
            .pop()
            .expect("one answer an id")
    }

    async fn count(&self) -> u64 {
        self.store
            .head(&self.account, self.stream)
            .await
            .expect("reads")
            .expect("is open")
            .count
    }

    async fn page(&self, slice: &Slice) -> Page {
        self.store.page(&self.account, self.stream, slice).await.expect("reads")
    }

    /// The ids of a page's bodies.
    async fn ids(&self, slice: &Slice) -> Vec<String> {
        ids(&self.page(slice).await)
    }
}

/// The ids that the bodies of a page name.
pub fn ids(page: &Page) -> Vec<String> {
    let id = |body: &bytes::Bytes| -> String {
        let json: serde_json::Value = serde_json::from_slice(body).expect("a body is JSON");
        json["id"].as_str().expect("a body has an id").to_owned()
    };
    page.bodies.iter().map(id).collect()
}
