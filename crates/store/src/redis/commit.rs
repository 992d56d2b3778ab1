//! Commits: what is known of the records is read, [`plan`] decides in Rust, and a transaction writes.
//!
//! **Nobody can have written between reading and writing.** The snapshot's head and what it counts are watched from before
//! the first read on, on a connection of the commit's own, so the transaction is carried out only if none of them was
//! touched, and else nothing of it is; then everything is read anew. A commit always changes the head, so what only commits
//! write, the lookup keys, is watched with it. A lease has one holder, so that is rare. What the transaction writes, position,
//! fence and progress included, becomes visible, and reaches the append-only file, as a whole.
//!
//! **Nothing appears at or behind a position already readable**, though the server's clock is read a trip before the
//! write. What readers hold (a position, a frozen end) comes from the head or from records, never from a clock, so it is at
//! most the head's position of that moment. The new positions lie after the head's position that was read, and it is
//! still the head's when they appear: the head is watched. The clock only shapes them like time, and lifts them above those
//! of a snapshot that was lost; a snapshot lost in between is a watched key touched.

use std::collections::BTreeMap;

use bytes::Bytes;
use contacts::ports::{Commit, Committed, Snapshots, StoreErrorKind, StoreResult};
use contacts::record::Known;
use contacts::{AccountId, Fence, Generation, Micros, Position, StoreError, Stream};
use redis::{FromRedisValue, Pipeline, Value};

use super::RedisStore;
use super::error::unreadable;
use super::frame::Reply;
use super::keys::SnapshotKeys;
use super::lookups::{Changes, rewritten};
use super::packed::{self, from_hex, hex};
use super::plan::{Plan, Touched, plan};
use super::pool::Conversation;
use crate::memory::{admit, no_snapshot};

const DOING: &str = "commit";
/// How often a commit begins anew because the snapshot was written to meanwhile. Each time somebody else got on.
const ATTEMPTS: usize = 50;

impl RedisStore {
    pub(super) async fn write(&self, account: &AccountId, stream: Stream, commit: &Commit) -> StoreResult<Committed> {
        let keys = self.keys.snapshot(account, stream);
        let attempts = async {
            for _ in 0..ATTEMPTS {
                if let Some(done) = self.attempt(account, stream, &keys, commit).await? {
                    return Ok(done);
                }
            }
            let message = "redis could not commit: others kept writing to the snapshot";
            Err(StoreError::new(StoreErrorKind::Unavailable, message))
        };
        self.commits.within(DOING, attempts).await
    }

    /// `None`: somebody else wrote to the snapshot meanwhile, and this commit nothing.
    async fn attempt(
        &self,
        account: &AccountId,
        stream: Stream,
        keys: &SnapshotKeys,
        commit: &Commit,
    ) -> StoreResult<Option<Committed>> {
        let touched = Touched::by(commit);
        let (asked, replies) = reading(keys, &touched.ids);
        let (mut conversation, replies) = self.commits.begin(DOING, &asked, replies).await?;
        let read = Read::of(replies, touched.ids.len())?;
        let Some(head) = read.head else {
            return Err(no_snapshot());
        };
        admit(commit, (head.generation, head.fence))?;
        if read.bodies != head.count || read.ids != head.count + read.stones {
            // A part is gone, or a commit came between the reads. The script counts at one moment.
            return match self.head(account, stream).await? {
                Some(_) => Ok(None),
                None => Err(no_snapshot()),
            };
        }
        let plan = plan(commit, &touched, read.known, head.position, head.count, read.clock);
        let lookups = plan.lookups();
        let due = due(&mut conversation, keys, &lookups).await?;
        let (write, replies) = writing(keys, commit, &plan, &lookups, due, read.clock)?;
        let answers = conversation.ask(DOING, &write, replies).await?;
        conversation.keep();
        match answers.last() {
            Some(Reply::Other(Value::Nil)) => Ok(None),
            Some(Reply::Other(Value::Array(_))) => Ok(Some(plan.done)),
            _ => Err(unreadable("a commit's answer")),
        }
    }
}

/// Everything that decides, and how many replies it has.
fn reading(keys: &SnapshotKeys, ids: &[&str]) -> (Pipeline, usize) {
    let mut asked = redis::pipe();
    asked.cmd("WATCH").arg(&keys.counted());
    asked
        .cmd("HMGET")
        .arg(&keys.head)
        .arg(&["generation", "fence", "position", "count"]);
    asked.zcard(&keys.bodies).hlen(&keys.ids).zcard(&keys.stones);
    asked.cmd("TIME");
    if !ids.is_empty() {
        asked.cmd("HMGET").arg(&keys.ids).arg(ids);
    }
    (asked, 6 + usize::from(!ids.is_empty()))
}

struct Read {
    head: Option<ReadHead>,
    bodies: u64,
    ids: u64,
    stones: u64,
    clock: Micros,
    known: Vec<Option<Known>>,
}

struct ReadHead {
    generation: Generation,
    fence: Fence,
    position: Position,
    count: u64,
}

impl Read {
    fn of(replies: Vec<Reply>, ids: usize) -> StoreResult<Read> {
        let mut replies = replies.into_iter().skip(1).map(value);
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let head: Vec<Option<Vec<u8>>> = read(next())?;
        let head = match head.as_slice() {
            [None, ..] => None,
            [Some(generation), Some(fence), Some(position), Some(count)] => Some(ReadHead {
                generation: Generation(from_hex(generation)?),
                fence: Fence(from_hex(fence)?),
                position: Position(from_hex(position)?),
                count: std::str::from_utf8(count)
                    .ok()
                    .and_then(|count| count.parse().ok())
                    .ok_or_else(|| unreadable("a snapshot's head"))?,
            }),
            _ => return Err(unreadable("a snapshot's head")),
        };
        let (bodies, in_ids, stones) = (read(next())?, read(next())?, read(next())?);
        let (seconds, micros): (u64, u64) = read(next())?;
        let known: Vec<Option<Vec<u8>>> = if ids == 0 { Vec::new() } else { read(next())? };
        let known: Vec<Option<Known>> = known
            .iter()
            .map(|packed| packed.as_deref().map(packed::known).transpose())
            .collect::<Result<_, _>>()?;
        if known.len() != ids {
            return Err(unreadable("what is known of ids"));
        }
        Ok(Read {
            head,
            bodies,
            ids: in_ids,
            stones,
            clock: Micros(seconds * 1_000_000 + micros),
            known,
        })
    }
}

fn value(reply: Reply) -> Value {
    match reply {
        Reply::Strings(strings) => Value::Array(
            strings
                .iter()
                .map(|string| Value::BulkString(string.to_vec()))
                .collect(),
        ),
        Reply::Other(value) => value,
    }
}

fn read<T: FromRedisValue>(value: Value) -> StoreResult<T> {
    redis::from_redis_value(value).map_err(|_| unreadable("what a commit read"))
}

/// Buckets of lookup keys that this commit is to write anew, as they are. Nothing is asked if it takes no pair away.
async fn due(
    conversation: &mut Conversation<'_>,
    keys: &SnapshotKeys,
    changes: &Changes,
) -> StoreResult<BTreeMap<u8, Bytes>> {
    let wearing: Vec<u8> = changes.wearing().collect();
    if wearing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut asked = redis::pipe();
    let worn = asked.cmd("HMGET").arg(&keys.worn);
    for bucket in &wearing {
        worn.arg(bucket);
    }
    for bucket in &wearing {
        asked.cmd("STRLEN").arg(keys.bucket(*bucket));
    }
    let mut replies = conversation.ask(DOING, &asked, 1 + wearing.len()).await?.into_iter();
    let mut next = || replies.next().map_or(Value::Nil, value);
    let worn: Vec<Option<u64>> = read(next())?;
    let mut state = Vec::with_capacity(wearing.len());
    for (bucket, worn) in wearing.into_iter().zip(worn) {
        state.push((bucket, read(next())?, worn.unwrap_or_default()));
    }
    let due = changes.due(state);
    if due.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<String> = due.iter().map(|bucket| keys.bucket(*bucket)).collect();
    let mut asked = redis::pipe();
    asked.cmd("MGET").arg(names);
    let reply = conversation.ask(DOING, &asked, 1).await?;
    let buckets: Vec<Option<Bytes>> = read(reply.into_iter().next().map_or(Value::Nil, value))?;
    let buckets = buckets.into_iter().map(Option::unwrap_or_default);
    Ok(due.into_iter().zip(buckets).collect())
}

/// The transaction, and how many replies it has.
fn writing(
    keys: &SnapshotKeys,
    commit: &Commit,
    plan: &Plan<'_>,
    lookups: &Changes,
    mut due: BTreeMap<u8, Bytes>,
    clock: Micros,
) -> StoreResult<(Pipeline, usize)> {
    let mut all = redis::pipe();
    all.atomic();
    for position in plan.records.iter().filter_map(|record| record.leaves()) {
        let [from, to] = packed::range(position);
        all.cmd("ZREMRANGEBYLEX").arg(&keys.bodies).arg(from).arg(to);
    }
    let mut bodies = Gathered::new("ZADD", &keys.bodies);
    let mut ids = Gathered::new("HSET", &keys.ids);
    let mut gone_stones = Gathered::new("ZREM", &keys.stones);
    let mut stones = Gathered::new("ZADD", &keys.stones);
    for record in &plan.records {
        if let (Some(row), Some(after)) = (record.content, &record.after) {
            bodies.pair(b"0", |member| packed::put_member(member, after.position, row));
        }
        if let Some(known) = record.changed() {
            ids.pair(record.id.as_bytes(), |value| packed::put_known(value, known));
        }
        let (gone, come) = record.stones();
        if let Some(time) = gone {
            gone_stones.one(|member| packed::put_pair(member, time.0, record.id));
        }
        if let Some(time) = come {
            stones.pair(b"0", |member| packed::put_pair(member, time.0, record.id));
        }
    }
    for gathered in [bodies, ids, gone_stones, stones] {
        gathered.add_to(&mut all);
    }
    for (number, change) in &lookups.buckets {
        let bucket = keys.bucket(*number);
        match due.remove(number) {
            Some(before) => {
                let kept = rewritten(&[&before, change.entries.as_slice()].concat())?;
                all.cmd("SET").arg(bucket).arg(kept);
                all.cmd("HDEL").arg(&keys.worn).arg(number);
            }
            None => {
                all.cmd("APPEND").arg(bucket).arg(&change.entries);
                if change.worn > 0 {
                    all.cmd("HINCRBY").arg(&keys.worn).arg(number).arg(change.worn);
                }
            }
        }
    }
    let head = all.cmd("HSET").arg(&keys.head);
    head.arg("fence").arg(hex(commit.fence.0));
    head.arg("position").arg(plan.done.position.hex());
    head.arg("count").arg(plan.count);
    head.arg("committed").arg(hex(clock.0));
    for (field, value) in changed_fields(commit) {
        head.arg(field).arg(value);
    }
    // Beside the answer of each: that it begins and what it comes to.
    let replies = all.len() + 2;
    Ok((all, replies))
}

/// One command with many arguments: a call costs more than what it does.
struct Gathered {
    command: redis::Cmd,
    empty: bool,
    argument: Vec<u8>,
}

impl Gathered {
    fn new(name: &str, key: &str) -> Gathered {
        let mut command = redis::cmd(name);
        command.arg(key);
        Gathered {
            command,
            empty: true,
            argument: Vec::new(),
        }
    }

    fn one(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        self.argument.clear();
        put(&mut self.argument);
        self.command.arg(&self.argument);
        self.empty = false;
    }

    fn pair(&mut self, one: &[u8], put: impl FnOnce(&mut Vec<u8>)) {
        self.command.arg(one);
        self.one(put);
    }

    fn add_to(self, pipeline: &mut Pipeline) {
        if !self.empty {
            pipeline.add_command(self.command);
        }
    }
}

/// Field and value of what a commit changes in the head of its own.
fn changed_fields(commit: &Commit) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let change = &commit.head;
    let ready = change
        .ready
        .map(|ready| if ready { b"1".to_vec() } else { b"0".to_vec() });
    [
        ("ready", ready),
        ("watermark", change.watermark.map(|time| hex(time.0).into_bytes())),
        ("progress", change.progress.clone()),
        ("fresh", change.fresh.map(|time| hex(time.0).into_bytes())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}
