//! When a failed attempt is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the delay grows from attempt to attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackoffKind {
    /// `first`, then twice as long after each attempt, never over `max`.
    Exponential,
    /// `first`, always.
    Fixed,
}

/// The rule for retries. The delay is what `kind` says plus up to `jitter` times as much at random, so that jobs
/// which failed together do not come back together, and none comes back sooner than the rule says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Backoff {
    pub kind: BackoffKind,
    pub first: Duration,
    pub max: Duration,
    /// 0.0 to 1.0.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            kind: BackoffKind::Exponential,
            first: Duration::from_secs(5),
            max: Duration::from_secs(3600),
            jitter: 0.2,
        }
    }
}

impl Backoff {
    /// The delay before the attempt that follows `attempt` (1 for the first). `random` is in 0.0..=1.0.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let base = match self.kind {
            BackoffKind::Fixed => self.first,
            BackoffKind::Exponential => {
                let factor = 2u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
                self.first.saturating_mul(factor).min(self.max)
            }
        };
        let extra = base.as_secs_f64() * self.jitter.clamp(0.0, 1.0) * random.clamp(0.0, 1.0);
        base.saturating_add(Duration::try_from_secs_f64(extra).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(jitter: f64) -> Backoff {
        Backoff { kind: BackoffKind::Exponential, first: Duration::from_secs(1), max: Duration::from_secs(10), jitter }
    }

    #[test]
    fn exponential_doubles_up_to_its_maximum() {
        let delays: Vec<u64> = (1..=6).map(|n| exponential(0.0).delay(n, 1.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
        assert_eq!(exponential(0.0).delay(u32::MAX, 0.0).as_secs(), 10);
    }

    #[test]
    fn fixed_stays() {
        let backoff = Backoff { kind: BackoffKind::Fixed, ..exponential(0.0) };
        assert_eq!(backoff.delay(1, 0.0), backoff.delay(9, 0.0));
    }

    #[test]
    fn jitter_only_adds_and_at_most_its_share() {
        for random in [0.0, 0.3, 1.0, f64::NAN, 7.0] {
            let delay = exponential(0.2).delay(2, random);
            assert!(delay >= Duration::from_secs(2), "{random}: {delay:?}");
            assert!(delay <= Duration::from_millis(2_400), "{random}: {delay:?}");
        }
    }

    #[test]
    fn no_input_panics() {
        let huge = Backoff { first: Duration::MAX, max: Duration::MAX, jitter: 1.0, ..exponential(1.0) };
        assert!(huge.delay(u32::MAX, 1.0) >= Duration::from_secs(u64::MAX));
    }
}
