//! What a process counts and times, rendered for Prometheus. A value passed in an `Arc`, no globals: two
//! configurations fit into one test process. Labels are names of job types, queues, states and outcomes, which are
//! few; ids never are labels.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds; from what a start takes inside one process to what a full queue makes it wait.
const LATENCY_BUCKETS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0,
    3600.0,
];

/// Seconds; from a script that does nothing to one that works for an hour.
const RUN_BUCKETS: [f64; 14] =
    [0.000_1, 0.000_5, 0.002_5, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByName {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    name: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByQueue {
    queue: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct ByState {
    queue: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLog {
    log: &'static str,
}

type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// How many jobs of a queue are in one state, asked from the broker for a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueDepth<'a> {
    pub queue: &'a str,
    pub state: &'a str,
    pub jobs: u64,
    /// How long the oldest of them has been in the broker; `None` where the broker does not say.
    pub oldest: Option<Duration>,
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: Family<ByName, Counter>,
    started: Family<ByName, Counter>,
    finished: Family<ByOutcome, Counter>,
    in_flight: Gauge,
    depth: Family<ByState, Gauge>,
    oldest: Family<ByState, Gauge<f64, AtomicU64>>,
    start_latency: Histograms<ByQueue>,
    run_time: Histograms<ByName>,
    loads: Family<ByName, Counter>,
    refusals: Family<ByName, Counter>,
    lease_losses: Counter,
    rescues: Counter,
    dropped_lines: Family<ByLog, Counter>,
    /// What the last [`Metrics::set_queues`] set, so that the next one can remove what is gone.
    shown: Mutex<BTreeSet<ByState>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("ryemill"),
            accepted: Family::default(),
            started: Family::default(),
            finished: Family::default(),
            in_flight: Gauge::default(),
            depth: Family::default(),
            oldest: Family::default(),
            start_latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            run_time: Family::new_with_constructor(|| Histogram::new(RUN_BUCKETS)),
            loads: Family::default(),
            refusals: Family::default(),
            lease_losses: Counter::default(),
            rescues: Counter::default(),
            dropped_lines: Family::default(),
            shown: Mutex::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("jobs_accepted", "Jobs that the broker acknowledged", self.accepted.clone());
        r.register("jobs_started", "Runs started here", self.started.clone());
        r.register("jobs_finished", "Runs ended here, by outcome", self.finished.clone());
        r.register("jobs_in_flight", "Runs going on here", self.in_flight.clone());
        r.register("queue_depth", "Jobs in a queue by state", self.depth.clone());
        r.register("queue_oldest_age_seconds", "Age of the oldest job of a queue in a state", self.oldest.clone());
        r.register(
            "job_start_latency_seconds",
            "From accepted by the broker to the first statement of the script",
            self.start_latency.clone(),
        );
        r.register("job_run_time_seconds", "From the first statement to the end of a run", self.run_time.clone());
        r.register("script_loads", "Versions of scripts that went live", self.loads.clone());
        r.register("script_refusals", "Versions of scripts that failed their checks", self.refusals.clone());
        r.register(
            "lease_losses",
            "Runs that were given to another worker while going on here",
            self.lease_losses.clone(),
        );
        r.register("rescues", "Runs of dead workers that were put back from here", self.rescues.clone());
        r.register(
            "log_lines_dropped",
            "Log lines dropped: of jobs over their limits, or of the log files because the disk was slow",
            self.dropped_lines.clone(),
        );
        self
    }

    /// A job was accepted.
    pub fn job_accepted(&self, name: &str) {
        self.accepted.get_or_create(&ByName { name: name.into() }).inc();
    }

    /// A run starts, `latency` after the job was accepted. Each is followed by one [`Metrics::run_finished`].
    pub fn run_started(&self, name: &str, queue: &str, latency: Duration) {
        self.in_flight.inc();
        self.started.get_or_create(&ByName { name: name.into() }).inc();
        self.start_latency.get_or_create(&ByQueue { queue: queue.into() }).observe(latency.as_secs_f64());
    }

    /// A run that was started here has ended, after `time`.
    pub fn run_finished(&self, name: &str, outcome: &str, time: Duration) {
        self.in_flight.dec();
        self.finished.get_or_create(&ByOutcome { name: name.into(), outcome: outcome.into() }).inc();
        self.run_time.get_or_create(&ByName { name: name.into() }).observe(time.as_secs_f64());
    }

    /// A version of a script went live.
    pub fn script_loaded(&self, name: &str) {
        self.loads.get_or_create(&ByName { name: name.into() }).inc();
    }

    /// A version of a script failed its checks.
    pub fn script_refused(&self, name: &str) {
        self.refusals.get_or_create(&ByName { name: name.into() }).inc();
    }

    /// A run going on here was found to belong to somebody else by now.
    pub fn lease_lost(&self) {
        self.lease_losses.inc();
    }

    /// Runs of dead workers were put back.
    pub fn rescued(&self, runs: u64) {
        self.rescues.inc_by(runs);
    }

    /// Lines of job logs were dropped because of a limit.
    pub fn job_log_dropped(&self, lines: u64) {
        self.dropped_lines.get_or_create(&ByLog { log: "job" }).inc_by(lines);
    }

    /// How many lines the log files of this process have lost since it started.
    pub fn set_process_log_dropped(&self, lines: u64) {
        self.dropped_lines.get_or_create(&ByLog { log: "process" }).inner().fetch_max(lines, Ordering::Relaxed);
    }

    /// Replaces what is shown about queues; one that is missing disappears. Call before [`Metrics::render`].
    pub fn set_queues(&self, depths: &[QueueDepth<'_>]) {
        // Held throughout: two scrapes at the same time must not remove what the other has just set.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeSet::new();
        for depth in depths {
            let labels = ByState { queue: depth.queue.into(), state: depth.state.into() };
            self.depth.get_or_create(&labels).set(i64::try_from(depth.jobs).unwrap_or(i64::MAX));
            match depth.oldest {
                Some(age) => drop(self.oldest.get_or_create(&labels).set(age.as_secs_f64())),
                None => drop(self.oldest.remove(&labels)),
            }
            now.insert(labels);
        }
        for gone in shown.difference(&now) {
            self.depth.remove(gone);
            self.oldest.remove(gone);
        }
        *shown = now;
    }

    /// Everything in the `OpenMetrics` text format, see [`CONTENT_TYPE`]. A family without a value yet is left out.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used() -> Metrics {
        let metrics = Metrics::new();
        metrics.job_accepted("email");
        metrics.run_started("email", "mail", Duration::from_micros(700));
        metrics.run_finished("email", "succeeded", Duration::from_millis(30));
        metrics.script_loaded("email");
        metrics.script_refused("report");
        metrics.lease_lost();
        metrics.rescued(2);
        metrics.job_log_dropped(3);
        metrics.set_process_log_dropped(4);
        metrics.set_queues(&[QueueDepth {
            queue: "mail",
            state: "queued",
            jobs: 5,
            oldest: Some(Duration::from_millis(1500)),
        }]);
        metrics
    }

    #[test]
    fn all_names() {
        let text = used().render();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "ryemill_job_run_time_seconds histogram",
                "ryemill_job_start_latency_seconds histogram",
                "ryemill_jobs_accepted counter",
                "ryemill_jobs_finished counter",
                "ryemill_jobs_in_flight gauge",
                "ryemill_jobs_started counter",
                "ryemill_lease_losses counter",
                "ryemill_log_lines_dropped counter",
                "ryemill_queue_depth gauge",
                "ryemill_queue_oldest_age_seconds gauge",
                "ryemill_rescues counter",
                "ryemill_script_loads counter",
                "ryemill_script_refusals counter",
            ]
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn values_and_labels() {
        let text = used().render();
        for line in [
            "ryemill_jobs_accepted_total{name=\"email\"} 1",
            "ryemill_jobs_started_total{name=\"email\"} 1",
            "ryemill_jobs_finished_total{name=\"email\",outcome=\"succeeded\"} 1",
            "ryemill_jobs_in_flight 0",
            "ryemill_queue_depth{queue=\"mail\",state=\"queued\"} 5",
            "ryemill_queue_oldest_age_seconds{queue=\"mail\",state=\"queued\"} 1.5",
            "ryemill_job_start_latency_seconds_bucket{le=\"0.0005\",queue=\"mail\"} 0",
            "ryemill_job_start_latency_seconds_bucket{le=\"0.001\",queue=\"mail\"} 1",
            "ryemill_job_start_latency_seconds_sum{queue=\"mail\"} 0.0007",
            "ryemill_job_run_time_seconds_count{name=\"email\"} 1",
            "ryemill_script_loads_total{name=\"email\"} 1",
            "ryemill_script_refusals_total{name=\"report\"} 1",
            "ryemill_lease_losses_total 1",
            "ryemill_rescues_total 2",
            "ryemill_log_lines_dropped_total{log=\"job\"} 3",
            "ryemill_log_lines_dropped_total{log=\"process\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn in_flight_counts_what_has_started_and_not_finished() {
        let metrics = Metrics::new();
        metrics.run_started("a", "q", Duration::ZERO);
        metrics.run_started("b", "q", Duration::ZERO);
        metrics.run_finished("a", "lost", Duration::ZERO);
        assert!(metrics.render().contains("\nryemill_jobs_in_flight 1\n"));
    }

    #[test]
    fn a_queue_that_is_gone_is_not_shown_any_more() {
        let metrics = used();
        let depth = |queue| QueueDepth { queue, state: "running", jobs: 1, oldest: None };
        metrics.set_queues(&[depth("mail"), depth("default")]);
        let text = metrics.render();
        assert!(!text.contains("state=\"queued\""), "{text}");
        assert!(!text.contains("ryemill_queue_oldest_age_seconds"), "{text}");
        assert!(text.contains("ryemill_queue_depth{queue=\"default\",state=\"running\"} 1"), "{text}");
        metrics.set_queues(&[]);
        assert!(!metrics.render().contains("ryemill_queue_depth"));
    }

    #[test]
    fn lost_lines_never_count_backwards() {
        let metrics = used();
        metrics.set_process_log_dropped(2);
        assert!(metrics.render().contains("{log=\"process\"} 4"));
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let metrics = Metrics::new();
        metrics.job_accepted("a\"} 1\nforged 1");
        assert!(!metrics.render().lines().any(|line| line.starts_with("forged")));
    }
}
