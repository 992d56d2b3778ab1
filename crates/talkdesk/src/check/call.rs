//! Requests of the checker, bounded in number, time and size.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Client, Method};
use serde_json::Value;
use url::Url;

use super::Limits;
use crate::player::patience::{Next, retry_after, worth_repeating};
use crate::player::{chain, message_of};

/// Why the checker cannot go on. Names no URL: that may hold a path secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("no answer after {attempts} attempts: {why}")]
    Unreachable { attempts: u32, why: String },
    #[error("an answer is larger than {limit} bytes (--body-limit)")]
    TooLarge { limit: usize },
    #[error("still answered {status} after {attempts} attempts{}", told(message))]
    Busy {
        status: u16,
        attempts: u32,
        message: String,
    },
    #[error("the bridge wants a pause of {} s, more than the {} s allowed (--longest-pause)", asked.as_secs(), allowed.as_secs())]
    PauseTooLong { asked: Duration, allowed: Duration },
    #[error("{limit} calls are used up (--calls)")]
    Calls { limit: u64 },
    #[error("{} s are used up (--time-limit)", limit.as_secs())]
    Time { limit: Duration },
    #[error("{0}")]
    Unfit(String),
}

impl Stop {
    /// Whether nothing else can be checked either.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Stop::Calls { .. } | Stop::Time { .. })
    }
}

fn told(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// `None`: the body is not JSON.
    pub json: Option<Value>,
    pub is_empty: bool,
    pub content_type: Option<String>,
    pub allow: Option<String>,
    pub time: Duration,
    /// The bridge's own words of an error, short and plain.
    pub message: String,
    pause: Option<Duration>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// 4xx.
    pub(super) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// What to say of an answer that is not what it should be.
    pub(super) fn told(&self) -> String {
        let what = match (&self.json, self.is_success()) {
            _ if self.is_empty => " with an empty body",
            (None, true) => " with a body that is not JSON",
            _ => "",
        };
        format!("answered {}{what}{}", self.status, told(&self.message))
    }

    /// The `message` of an error, if it has one.
    pub(super) fn has_message(&self) -> bool {
        let message = self.json.as_ref().and_then(|json| json.get("message"));
        message
            .and_then(Value::as_str)
            .is_some_and(|text| !text.trim().is_empty())
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    content_type: Option<&'static str>,
    body: Vec<u8>,
}

impl Ask {
    pub(super) fn json(body: &Value) -> Self {
        Self::raw(body.to_string())
    }

    pub(super) fn raw(body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: Method::POST,
            content_type: Some("application/json"),
            body: body.into(),
        }
    }

    pub(super) fn get() -> Self {
        Self {
            method: Method::GET,
            content_type: None,
            body: Vec::new(),
        }
    }

    pub(super) fn content_type(mut self, name: Option<&'static str>) -> Self {
        self.content_type = name;
        self
    }
}

/// Sends requests and keeps count.
pub(super) struct Caller {
    http: Client,
    limits: Limits,
    began: Instant,
    calls: u64,
}

impl Caller {
    pub(super) fn new(http: Client, limits: Limits) -> Self {
        Self {
            http,
            limits,
            began: Instant::now(),
            calls: 0,
        }
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn spent(&self) -> Duration {
        self.began.elapsed()
    }

    /// What should be answered: repeated while the bridge is busy or away, as the player does.
    pub(super) async fn ask(&mut self, url: &Url, ask: &Ask) -> Result<Answer, Stop> {
        let mut attempt = 1;
        loop {
            let (answer, asked) = match self.try_once(url, ask).await? {
                Ok(answer) if !worth_repeating(answer.status) => return Ok(answer),
                Ok(answer) => {
                    let asked = answer.pause;
                    (Ok(answer), asked)
                }
                Err(error) => (Err(error), None),
            };
            let pause = match self.limits.patience.after(attempt, asked) {
                Next::Wait(pause) => pause,
                Next::PauseTooLong(asked) => {
                    let allowed = self.limits.patience.longest_pause;
                    return Err(Stop::PauseTooLong { asked, allowed });
                }
                Next::GiveUp => return Err(gave_up(answer, attempt)),
            };
            if pause > self.left()? {
                return Err(self.out_of_time());
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// What should be refused: sent once. The inner error is a connection that broke.
    pub(super) async fn try_once(&mut self, url: &Url, ask: &Ask) -> Result<reqwest::Result<Answer>, Stop> {
        if self.calls >= self.limits.calls {
            return Err(Stop::Calls {
                limit: self.limits.calls,
            });
        }
        let left = self.left()?;
        self.calls += 1;
        let timeout = left.min(self.limits.patience.page_timeout);
        let mut request = self.http.request(ask.method.clone(), url.clone()).timeout(timeout);
        if let Some(name) = ask.content_type {
            request = request.header(CONTENT_TYPE, name);
        }
        if ask.method == Method::POST {
            request = request.body(ask.body.clone());
        }
        let began = Instant::now();
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return self.broke(error),
        };
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.limits.patience.body_limit => {
                    let limit = self.limits.patience.body_limit;
                    return Err(Stop::TooLarge { limit });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return self.broke(error),
            }
        }
        Ok(Ok(read(status, &headers, &body, began.elapsed())))
    }

    fn broke(&self, error: reqwest::Error) -> Result<reqwest::Result<Answer>, Stop> {
        // A timeout that was cut short by the end of the whole check is that end.
        if error.is_timeout() {
            self.left()?;
        }
        Ok(Err(error.without_url()))
    }

    fn left(&self) -> Result<Duration, Stop> {
        let left = self.limits.time.saturating_sub(self.began.elapsed());
        if left.is_zero() {
            return Err(self.out_of_time());
        }
        Ok(left)
    }

    fn out_of_time(&self) -> Stop {
        Stop::Time {
            limit: self.limits.time,
        }
    }
}

fn gave_up(answer: reqwest::Result<Answer>, attempts: u32) -> Stop {
    match answer {
        Ok(answer) => Stop::Busy {
            status: answer.status,
            attempts,
            message: answer.message,
        },
        Err(error) if error.is_timeout() => Stop::Unreachable {
            attempts,
            why: "too slow (--page-timeout)".into(),
        },
        Err(error) => Stop::Unreachable {
            attempts,
            why: chain(&error),
        },
    }
}

fn read(status: u16, headers: &HeaderMap, body: &[u8], time: Duration) -> Answer {
    let text = |name: HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let content_type = text(CONTENT_TYPE);
    let is_json = content_type
        .as_deref()
        .is_some_and(|name| name.to_ascii_lowercase().contains("json"));
    let failed = !(200..300).contains(&status);
    Answer {
        status,
        json: serde_json::from_slice(body).ok(),
        is_empty: body.is_empty(),
        content_type,
        allow: text(ALLOW),
        time,
        message: if failed {
            message_of(body, is_json)
        } else {
            String::new()
        },
        pause: text(RETRY_AFTER).and_then(|value| retry_after(&value, Timestamp::now())),
    }
}
