//! One run, page by page.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Serialize;
use serde_json::Value;

use super::page::{Distinct, Page};
use super::patience::{Next, retry_after, worth_repeating};
use super::summary::{Ended, PageMillis, RunSummary};
use super::{Keep, PlayError, Player, PlayerState, Progress};
use crate::wire::{Auth, ErrorBody};

/// Characters of a bridge's own message that are repeated.
const MESSAGE_CHARS: usize = 200;

#[derive(Serialize)]
struct Request<'a, M> {
    auth: &'a std::collections::BTreeMap<String, String>,
    meta: &'a M,
}

/// What is absent is left out (Talkdesk contact sync, `meta`).
#[derive(Serialize)]
struct Meta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    synchronization_checkpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a Value>,
}

/// What a run has come to so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) progress: Progress,
    distinct: Distinct,
    bytes: u64,
    page_times: Vec<Duration>,
    waited: Duration,
    checkpoint_first: Option<String>,
    checkpoint_last: Option<String>,
}

impl Player {
    /// Plays one run from `state`'s checkpoint and leaves there the one to start the next run from. A run that fails
    /// leaves it as it was, except with [`Keep::Every`].
    pub async fn run(&mut self, state: &mut PlayerState) -> RunSummary {
        let start = Instant::now();
        let mut tally = Tally::default();
        let ended = match self.pages(state, &mut tally).await {
            Ok(()) => {
                match self.keep {
                    Keep::Last | Keep::Every => state.checkpoint = tally.checkpoint_last.clone(),
                    Keep::First => state.checkpoint = tally.checkpoint_first.clone(),
                }
                Ended::Complete
            }
            Err(error) => Ended::Failed { error },
        };
        RunSummary {
            contacts: tally.progress.contacts,
            distinct: tally.distinct.len() as u64,
            pages: tally.progress.pages,
            empty_pages: tally.progress.empty_pages,
            bytes: tally.bytes,
            page_ms: PageMillis::of(tally.page_times),
            wait_ms: millis(tally.waited),
            total_ms: millis(start.elapsed()),
            retries: tally.progress.retries,
            checkpoint_first: tally.checkpoint_first,
            checkpoint_last: tally.checkpoint_last,
            ended,
        }
    }

    async fn pages(&mut self, state: &mut PlayerState, tally: &mut Tally) -> Result<(), PlayError> {
        // The run's own checkpoint goes with every page of it, whatever the pages return meanwhile.
        let checkpoint = state.checkpoint.clone();
        let mut offset: Option<String> = None;
        let mut context: Option<Value> = None;
        let mut used_offsets = Distinct::default();
        let mut empty_in_a_row = 0;
        loop {
            if tally.progress.pages >= self.patience.pages {
                return Err(PlayError::EndlessPages {
                    limit: self.patience.pages,
                });
            }
            let meta = Meta {
                synchronization_checkpoint: checkpoint.as_deref(),
                offset: offset.as_deref(),
                context: context.as_ref(),
            };
            let (body, time) = self.page(&meta, tally).await?;
            let number = tally.progress.pages + 1;
            let page = Page::parse(&body).map_err(|why| PlayError::Garbage { page: number, why })?;

            tally.progress.pages = number;
            tally.progress.contacts += page.contacts.len() as u64;
            tally.bytes += body.len() as u64;
            for row in &page.contacts {
                tally.distinct.insert(&row.id);
                if let Some(out) = &mut self.out {
                    row.write_line(out.as_mut()).map_err(PlayError::Out)?;
                }
            }
            if let Some(out) = &mut self.out {
                out.flush().map_err(PlayError::Out)?;
            }
            if number == 1 {
                tally.checkpoint_first = page.checkpoint.clone();
            }
            if self.keep == Keep::Every {
                state.checkpoint = page.checkpoint.clone();
            }
            tally.checkpoint_last = page.checkpoint;

            if page.contacts.is_empty() && page.next_offset.is_some() {
                tally.progress.empty_pages += 1;
                tally.waited += time;
                empty_in_a_row += 1;
            } else {
                tally.page_times.push(time);
                empty_in_a_row = 0;
            }
            self.tell(&tally.progress);

            let Some(next) = page.next_offset else {
                return Ok(());
            };
            if !used_offsets.insert(&next) {
                return Err(PlayError::StuckOffset { page: number });
            }
            if empty_in_a_row >= self.patience.empty_pages {
                return Err(PlayError::EmptyPages {
                    limit: self.patience.empty_pages,
                });
            }
            offset = Some(next);
            context = page.context;
        }
    }

    /// Asks for one page until it comes, and returns its body and the time of the request that brought it.
    pub(super) async fn page<M: Serialize>(
        &mut self,
        meta: &M,
        tally: &mut Tally,
    ) -> Result<(Vec<u8>, Duration), PlayError> {
        let page = tally.progress.pages + 1;
        let mut attempt = 1;
        let mut renewed = false;
        loop {
            let start = Instant::now();
            let answer = self.ask(meta).await;
            let pause = match answer {
                Ok(Answer::Page(body)) => return Ok((body, start.elapsed())),
                Ok(Answer::TooLarge) => {
                    return Err(PlayError::TooLarge {
                        page,
                        limit: self.patience.body_limit,
                    });
                }
                Ok(Answer::Refused {
                    status: 401, message, ..
                }) => {
                    let new = match &self.new_auth {
                        Some(new_auth) if !renewed => new_auth().await,
                        _ => None,
                    };
                    let Some(new) = new else {
                        return Err(PlayError::Unauthorized { page, message });
                    };
                    self.auth = new;
                    renewed = true;
                    tally.progress.retries += 1;
                    continue;
                }
                Ok(Answer::Refused { status, message, pause }) if worth_repeating(status) => {
                    match self.patience.after(attempt, pause) {
                        Next::Wait(pause) => pause,
                        Next::GiveUp => {
                            return Err(PlayError::GaveUp {
                                page,
                                attempts: attempt,
                                status,
                                message,
                            });
                        }
                        Next::PauseTooLong(asked) => {
                            let allowed = self.patience.longest_pause;
                            return Err(PlayError::PauseTooLong { page, asked, allowed });
                        }
                    }
                }
                Ok(Answer::Refused { status, message, .. }) => {
                    return Err(PlayError::Refused { page, status, message });
                }
                Err(error) => match self.patience.after(attempt, None) {
                    Next::Wait(pause) => pause,
                    Next::GiveUp | Next::PauseTooLong(_) => {
                        // Without its URL: that may hold a path secret.
                        return Err(PlayError::Unreachable {
                            page,
                            attempts: attempt,
                            source: error.without_url(),
                        });
                    }
                },
            };
            attempt += 1;
            tally.progress.retries += 1;
            self.tell(&Progress {
                waiting: Some(pause),
                ..tally.progress
            });
            let waiting = Instant::now();
            tokio::time::sleep(pause).await;
            tally.waited += waiting.elapsed();
        }
    }

    async fn ask<M: Serialize>(&self, meta: &M) -> reqwest::Result<Answer> {
        let Auth(auth) = &self.auth;
        let mut response = self
            .http
            .post(self.url.clone())
            .timeout(self.patience.page_timeout)
            .json(&Request { auth, meta })
            .send()
            .await?;
        let status = response.status();
        let headers = response.headers();
        let pause = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, Timestamp::now()));
        let is_json = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains("json"));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.patience.body_limit {
                return Ok(Answer::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(if status.is_success() {
            Answer::Page(body)
        } else {
            Answer::Refused {
                status: status.as_u16(),
                message: message_of(&body, is_json),
                pause,
            }
        })
    }

    fn tell(&self, progress: &Progress) {
        if let Some(tell) = &self.on_progress {
            tell(progress);
        }
    }
}

enum Answer {
    Page(Vec<u8>),
    Refused {
        status: u16,
        message: String,
        pause: Option<Duration>,
    },
    TooLarge,
}

/// What the bridge says of its error, in one short plain line.
pub(crate) fn message_of(body: &[u8], is_json: bool) -> String {
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(error) => format!("{} ({})", error.message, error.code),
        Err(_) if is_json => String::from_utf8_lossy(body).into_owned(),
        // An HTML page of some proxy on the way says nothing that the status does not.
        Err(_) => String::new(),
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE_CHARS)
        .collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
