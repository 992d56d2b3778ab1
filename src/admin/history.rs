//! Depth and age of the lanes over time, as this process saw them: for the charts of the ops page. What must outlive a
//! restart is Prometheus' business.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use contacts::work::due_index;
use contacts::{Clock, Lane, Micros, Queue, Store};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(15);
/// Points of a chart, however long it is.
const POINTS: usize = 240;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    at: Micros,
    depth: f64,
    age: f64,
}

pub struct History {
    span: Duration,
    lanes: Mutex<BTreeMap<Lane, VecDeque<Sample>>>,
}

/// A line to draw: the greatest value of each part of the time, oldest first. `None`: nothing was seen then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    pub values: Vec<Option<f64>>,
    pub most: f64,
}

impl History {
    pub fn new(span: Duration) -> History {
        History {
            span,
            lanes: Mutex::default(),
        }
    }

    pub fn span(&self) -> Duration {
        self.span
    }

    fn add(&self, lane: Lane, sample: Sample) {
        let mut lanes = self.lanes.lock();
        let samples = lanes.entry(lane).or_default();
        samples.push_back(sample);
        let oldest = sample.at.minus(self.span);
        while samples.front().is_some_and(|first| first.at < oldest) {
            samples.pop_front();
        }
    }

    /// Depth and age (seconds) of a lane up to `now`.
    pub fn lines(&self, lane: Lane, now: Micros) -> (Line, Line) {
        let lanes = self.lanes.lock();
        let samples = lanes.get(&lane);
        let samples = samples.into_iter().flatten();
        let (mut depth, mut age) = (vec![None; POINTS], vec![None; POINTS]);
        let begin = now.minus(self.span);
        for sample in samples.filter(|sample| sample.at >= begin) {
            let part = sample.at.since(begin).as_secs_f64() / self.span.as_secs_f64();
            let place = ((part * POINTS as f64) as usize).min(POINTS - 1);
            let greater =
                |known: &mut Option<f64>, value: f64| *known = Some(known.map_or(value, |known| known.max(value)));
            greater(&mut depth[place], sample.depth);
            greater(&mut age[place], sample.age);
        }
        (Line::of(depth), Line::of(age))
    }

    /// Samples until `stop`.
    pub async fn keep(&self, store: &dyn Store, queue: &dyn Queue, clock: &dyn Clock, stop: CancellationToken) {
        loop {
            let depths = queue.depth().await.ok();
            let now = clock.now();
            for lane in Lane::ALL {
                let Ok(backlog) = store.index_summary(&due_index(lane), now).await else {
                    continue;
                };
                let ready = depths
                    .iter()
                    .flat_map(|depths| &depths.lanes)
                    .find(|depth| depth.lane == lane)
                    .map_or(0, |depth| depth.ready);
                let sample = Sample {
                    at: now,
                    depth: ready.max(backlog.count) as f64,
                    age: backlog.oldest.map_or(0.0, |at| now.since(at).as_secs_f64()),
                };
                self.add(lane, sample);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

impl Line {
    fn of(values: Vec<Option<f64>>) -> Line {
        let most = values.iter().flatten().fold(0.0, |most: f64, value| most.max(*value));
        Line { values, most }
    }

    /// An SVG path of the line in a box of `width` × `height`; a gap is not drawn over.
    pub fn path(&self, width: f64, height: f64) -> String {
        use std::fmt::Write as _;
        let most = self.most.max(1.0);
        let step = width / (self.values.len().max(2) - 1) as f64;
        let mut path = String::new();
        let mut down = false;
        for (place, value) in self.values.iter().enumerate() {
            let Some(value) = value else {
                down = false;
                continue;
            };
            let (x, y) = (place as f64 * step, height - value / most * height);
            // A point alone is a short dash, else it would not be seen.
            let _ = match down {
                true => write!(path, "L{x:.1} {y:.1}"),
                false => write!(path, "M{x:.1} {y:.1}h0.1"),
            };
            down = true;
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_peaks_and_gaps_and_forgets_what_is_too_old() {
        let history = History::new(Duration::from_secs(2_400));
        let at = |second: u64, depth: f64| Sample {
            at: Micros::from_secs(10_000 + second),
            depth,
            age: depth * 2.0,
        };
        for sample in [
            at(0, 99.0),
            at(2_000, 1.0),
            at(2_001, 7.0),
            at(2_002, 2.0),
            at(3_995, 4.0),
        ] {
            history.add(Lane::Build, sample);
        }
        let (depth, age) = history.lines(Lane::Build, Micros::from_secs(14_000));
        let seen: Vec<(usize, f64)> = depth
            .values
            .iter()
            .enumerate()
            .filter_map(|(at, value)| Some((at, (*value)?)))
            .collect();
        assert_eq!(seen, [(40, 7.0), (239, 4.0)]);
        assert_eq!((depth.most, age.most), (7.0, 14.0));
        let path = depth.path(100.0, 10.0);
        assert_eq!(path.matches('M').count(), 2, "a gap is a gap: {path}");
        assert!(path.contains("0.0h"), "the peak reaches the top: {path}");
        assert_eq!(history.lines(Lane::Refresh, Micros::from_secs(14_000)).0.most, 0.0);
    }
}
