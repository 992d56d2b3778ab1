//! What the recorded steps mean for one namespace: names, arguments, and the wait for a duration. No IO.

use std::time::Duration;

use contacts::Lane;
use contacts::queue::{QueueError, QueueErrorKind, QueueResult};
use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};
use migrations::rabbitmq::{Argument, DEAD, ExchangeKind as Kind, JOBS, Queue, STEPS, WAIT};

/// Queue names are AMQP short strings of at most 255 bytes.
const LONGEST_NAMESPACE: usize = 64;

/// Everything that belongs to a namespace, in the order in which it is declared.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) exchanges: Vec<ExchangeSpec>,
    pub(super) queues: Vec<QueueSpec>,
    /// The waits, shortest first.
    tiers: Vec<(Duration, String)>,
    prefix: String,
}

#[derive(Debug)]
pub(super) struct ExchangeSpec {
    pub(super) step: u32,
    pub(super) name: String,
    pub(super) kind: ExchangeKind,
}

#[derive(Debug)]
pub(super) struct QueueSpec {
    pub(super) step: u32,
    pub(super) name: String,
    pub(super) arguments: FieldTable,
    pub(super) exchange: String,
    pub(super) routing_key: String,
}

impl Layout {
    /// `extra_tiers` are waits beside the recorded ones; tests use short ones.
    pub(super) fn new(namespace: &str, extra_tiers: &[Duration]) -> QueueResult<Layout> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if namespace.is_empty() || namespace.len() > LONGEST_NAMESPACE || !namespace.bytes().all(legal) {
            let rule = format!("the queue's namespace must be 1 to {LONGEST_NAMESPACE} letters, digits, '-' or '_'");
            return Err(QueueError::new(QueueErrorKind::Topology, rule));
        }
        let mut layout = Layout {
            exchanges: Vec::new(),
            queues: Vec::new(),
            tiers: Vec::new(),
            prefix: format!("{namespace}."),
        };
        for step in STEPS {
            for exchange in step.exchanges {
                let kind = match exchange.kind {
                    Kind::Direct => ExchangeKind::Direct,
                    Kind::Fanout => ExchangeKind::Fanout,
                };
                layout.exchanges.push(ExchangeSpec {
                    step: step.number,
                    name: layout.name(exchange.name),
                    kind,
                });
            }
            for queue in step.queues {
                layout.add(step.number, queue);
            }
        }
        for tier in extra_tiers {
            layout.add_tier(*tier);
        }
        layout.tiers.sort();
        Ok(layout)
    }

    fn name(&self, relative: &str) -> String {
        format!("{}{relative}", self.prefix)
    }

    fn add(&mut self, step: u32, queue: &Queue) {
        let mut arguments = FieldTable::default();
        for (key, value) in queue.arguments {
            if let (&"x-message-ttl", Argument::Number(millis)) = (key, value) {
                self.tiers
                    .push((Duration::from_millis(millis.unsigned_abs()), self.name(queue.name)));
            }
            arguments.insert(
                (*key).into(),
                match value {
                    Argument::Text(text) => AMQPValue::LongString((*text).into()),
                    Argument::Number(number) => AMQPValue::LongLongInt(*number),
                    Argument::Exchange(name) => AMQPValue::LongString(self.name(name).into()),
                },
            );
        }
        self.queues.push(QueueSpec {
            step,
            name: self.name(queue.name),
            arguments,
            exchange: self.name(queue.exchange),
            routing_key: queue.routing_key.to_owned(),
        });
    }

    /// A wait like the recorded ones, with another time.
    fn add_tier(&mut self, tier: Duration) {
        let name = self.name(&format!("{WAIT}{}", spelled(tier)));
        let pattern = self
            .tiers
            .first()
            .and_then(|(_, name)| self.queues.iter().find(|queue| queue.name == *name));
        let Some(pattern) = pattern.filter(|_| self.tiers.iter().all(|(_, known)| *known != name)) else {
            return;
        };
        let mut arguments = pattern.arguments.clone();
        let millis = i64::try_from(tier.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis));
        let step = pattern.step;
        self.exchanges.push(ExchangeSpec {
            step,
            name: name.clone(),
            kind: ExchangeKind::Fanout,
        });
        self.queues.push(QueueSpec {
            step,
            name: name.clone(),
            arguments,
            exchange: name.clone(),
            routing_key: String::new(),
        });
        self.tiers.push((tier, name));
    }

    pub(super) fn jobs_exchange(&self) -> String {
        self.name(JOBS)
    }

    pub(super) fn dead_queue(&self) -> String {
        self.name(DEAD)
    }

    /// The queue that the jobs of a lane are in. A later step's wins.
    pub(super) fn lane_queue(&self, lane: Lane) -> QueueResult<&str> {
        let jobs = self.jobs_exchange();
        let queue = self
            .queues
            .iter()
            .rev()
            .find(|queue| queue.exchange == jobs && queue.routing_key == lane.as_str());
        queue.map(|queue| queue.name.as_str()).ok_or_else(|| {
            QueueError::new(
                QueueErrorKind::Topology,
                format!("no recorded step declares a queue for lane {lane}"),
            )
        })
    }

    pub(super) fn wait_queues(&self) -> impl Iterator<Item = &str> {
        self.tiers.iter().map(|(_, name)| name.as_str())
    }

    /// The exchange of the shortest wait that is no shorter than `after`, else of the longest one; `None` for no wait.
    pub(super) fn wait_exchange(&self, after: Duration) -> Option<&str> {
        if after.is_zero() {
            return None;
        }
        let tier = self.tiers.iter().find(|(tier, _)| *tier >= after).or(self.tiers.last());
        tier.map(|(_, name)| name.as_str())
    }
}

/// `1h`, `2m`, `5s`, `200ms`: how names spell a wait.
fn spelled(tier: Duration) -> String {
    let millis = tier.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let (unit, sign) = units
        .into_iter()
        .find(|(unit, _)| millis.is_multiple_of(*unit))
        .unwrap_or((1, "ms"));
    format!("{}{sign}", millis / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_waits_are_named_by_their_time() {
        let layout = Layout::new("n", &[]).unwrap();
        for (tier, name) in &layout.tiers {
            assert_eq!(*name, format!("n.{WAIT}{}", spelled(*tier)));
        }
        assert_eq!(layout.tiers.len(), 5);
    }

    #[test]
    fn a_wait_is_never_shorter_than_wanted_unless_none_is_long_enough() {
        let layout = Layout::new("n", &[Duration::from_millis(200), Duration::from_secs(5)]).unwrap();
        let wait = |millis| layout.wait_exchange(Duration::from_millis(millis));
        assert_eq!(wait(0), None);
        assert_eq!(wait(1), Some("n.v1.wait.200ms"));
        assert_eq!(wait(200), Some("n.v1.wait.200ms"));
        assert_eq!(wait(201), Some("n.v1.wait.5s"));
        assert_eq!(wait(30_001), Some("n.v1.wait.2m"));
        assert_eq!(wait(86_400_000), Some("n.v1.wait.1h"));
        assert_eq!(layout.tiers.len(), 6, "a recorded wait is not added twice");
    }

    #[test]
    fn every_lane_has_a_queue_of_the_namespace() {
        let layout = Layout::new("prod-1", &[]).unwrap();
        for lane in Lane::ALL {
            assert_eq!(layout.lane_queue(lane).unwrap(), format!("prod-1.v1.{lane}"));
        }
    }

    #[test]
    fn namespaces_that_could_be_taken_for_another_are_refused() {
        for namespace in ["", "a.b", "a b", "ü", &"x".repeat(65)] {
            assert!(Layout::new(namespace, &[]).is_err(), "{namespace}");
        }
    }
}
