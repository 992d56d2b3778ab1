//! The steps of the topology on RabbitMQ. Names here are relative: on the broker each stands behind `{namespace}.`.
//!
//! Append only: a step that has been released is never edited. A broker refuses to declare a queue again with other
//! arguments, so names carry the version of their form (`v1`); a step that changes arguments declares new names beside
//! the old ones, which stay until they are empty.

/// One step: what to declare, in this order.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// 1, 2, 3 …; the highest one is the topology's number.
    pub number: u32,
    pub name: &'static str,
    pub description: &'static str,
    pub exchanges: &'static [Exchange],
    pub queues: &'static [Queue],
}

/// A durable exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub name: &'static str,
    pub kind: ExchangeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    Direct,
    Fanout,
}

/// A durable queue, bound to one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub name: &'static str,
    pub arguments: &'static [(&'static str, Argument)],
    pub exchange: &'static str,
    /// Empty for a fanout exchange.
    pub routing_key: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    Text(&'static str),
    Number(i64),
    /// An exchange's relative name.
    Exchange(&'static str),
}

/// Where jobs are published, by lane.
pub const JOBS: &str = "v1.jobs";
/// Where jobs go whose consumers died again and again.
pub const DEAD: &str = "v1.dead";
/// In front of a wait queue's delay: `v1.wait.5s`. Exchange and queue bear the same name.
pub const WAIT: &str = "v1.wait.";

const QUORUM: (&str, Argument) = ("x-queue-type", Argument::Text("quorum"));
// Without a target that confirms, dead-lettering is at most once; and it needs `reject-publish`.
const AT_LEAST_ONCE: (&str, Argument) = ("x-dead-letter-strategy", Argument::Text("at-least-once"));
const REJECT_PUBLISH: (&str, Argument) = ("x-overflow", Argument::Text("reject-publish"));
// Given explicitly: RabbitMQ 3.10 has no limit of its own, 4.x drops after 20 deliveries where there is no target.
const DELIVERY_LIMIT: (&str, Argument) = ("x-delivery-limit", Argument::Number(20));
// A drain that fails gives its jobs back, which counts as a delivery; the dead queue has no target beyond.
const PRACTICALLY_NO_LIMIT: (&str, Argument) = ("x-delivery-limit", Argument::Number(1_000_000));

const fn lane(name: &'static str, routing_key: &'static str) -> Queue {
    Queue {
        name,
        arguments: &[
            QUORUM,
            DELIVERY_LIMIT,
            ("x-dead-letter-exchange", Argument::Exchange(DEAD)),
            AT_LEAST_ONCE,
            REJECT_PUBLISH,
            ("x-max-length", Argument::Number(100_000)),
        ],
        exchange: JOBS,
        routing_key,
    }
}

/// One wait queue per delay, with the time on the queue: with a time on each message, a short wait behind a long one
/// comes late. There is no dead-letter routing key, so a job keeps its own and returns to its lane.
macro_rules! wait {
    ($name:literal, $millis:literal) => {
        Queue {
            name: $name,
            arguments: &[
                QUORUM,
                ("x-message-ttl", Argument::Number($millis)),
                ("x-dead-letter-exchange", Argument::Exchange(JOBS)),
                AT_LEAST_ONCE,
                REJECT_PUBLISH,
            ],
            exchange: $name,
            routing_key: "",
        }
    };
}

const fn fanout(name: &'static str) -> Exchange {
    Exchange {
        name,
        kind: ExchangeKind::Fanout,
    }
}

pub const STEPS: &[Step] = &[Step {
    number: 1,
    name: "first_topology",
    description: "lanes build, refresh and reconcile; waits of 5 s, 30 s, 2 min, 10 min and 1 h; the dead queue",
    exchanges: &[
        Exchange {
            name: JOBS,
            kind: ExchangeKind::Direct,
        },
        fanout(DEAD),
        fanout("v1.wait.5s"),
        fanout("v1.wait.30s"),
        fanout("v1.wait.2m"),
        fanout("v1.wait.10m"),
        fanout("v1.wait.1h"),
    ],
    queues: &[
        // First, so that nothing is ever dead-lettered to nowhere.
        Queue {
            name: DEAD,
            arguments: &[
                QUORUM,
                PRACTICALLY_NO_LIMIT,
                REJECT_PUBLISH,
                ("x-max-length", Argument::Number(10_000)),
            ],
            exchange: DEAD,
            routing_key: "",
        },
        lane("v1.build", "build"),
        lane("v1.refresh", "refresh"),
        lane("v1.reconcile", "reconcile"),
        wait!("v1.wait.5s", 5_000),
        wait!("v1.wait.30s", 30_000),
        wait!("v1.wait.2m", 120_000),
        wait!("v1.wait.10m", 600_000),
        wait!("v1.wait.1h", 3_600_000),
    ],
}];

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(queue: &Queue, name: &str) -> Option<Argument> {
        queue
            .arguments
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }

    #[test]
    fn steps_are_numbered_without_gaps_and_named() {
        for (at, step) in STEPS.iter().enumerate() {
            assert_eq!(step.number as usize, at + 1);
            assert!(!step.name.is_empty() && !step.description.is_empty());
        }
    }

    #[test]
    fn every_queue_hangs_on_an_exchange_of_its_step_and_no_name_comes_twice() {
        let mut names = Vec::new();
        for step in STEPS {
            let exchanges: Vec<&str> = step.exchanges.iter().map(|exchange| exchange.name).collect();
            for queue in step.queues {
                assert!(exchanges.contains(&queue.exchange), "{}", queue.name);
                names.push(queue.name);
                if let Some(Argument::Exchange(target)) = argument(queue, "x-dead-letter-exchange") {
                    assert!(exchanges.contains(&target), "{} has no target {target}", queue.name);
                }
            }
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    /// RabbitMQ drops, without a word, a message that goes round a ring of queues by time alone.
    #[test]
    fn no_ring_of_waits_is_without_a_worker() {
        for queue in STEPS.iter().flat_map(|step| step.queues) {
            if argument(queue, "x-message-ttl").is_some() {
                assert_eq!(
                    argument(queue, "x-dead-letter-exchange"),
                    Some(Argument::Exchange(JOBS)),
                    "{}",
                    queue.name
                );
            }
            if queue.exchange == JOBS {
                assert_eq!(argument(queue, "x-message-ttl"), None, "{}", queue.name);
            }
        }
    }

    #[test]
    fn dead_lettering_is_at_least_once() {
        for queue in STEPS.iter().flat_map(|step| step.queues) {
            assert_eq!(
                argument(queue, "x-queue-type"),
                Some(Argument::Text("quorum")),
                "{}",
                queue.name
            );
            assert_eq!(
                argument(queue, "x-overflow"),
                Some(Argument::Text("reject-publish")),
                "{}",
                queue.name
            );
            if argument(queue, "x-dead-letter-exchange").is_some() {
                assert_eq!(
                    argument(queue, "x-dead-letter-strategy"),
                    Some(Argument::Text("at-least-once")),
                    "{}",
                    queue.name
                );
            }
        }
    }
}
