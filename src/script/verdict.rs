//! What the end of a run means for its job: done, another attempt, given back. One rule for the worker and for the tests of
//! scripts. Knows neither.

use std::time::Duration;

use super::context::StopReason;
use super::fiber::ScriptEnd;
use crate::job::{JobSpec, RunEnd};

/// How long a job that a worker cannot run stays away, so that another worker gets it.
pub const AWAY: Duration = Duration::from_secs(1);

pub const SHUTTING_DOWN: &str = "the worker is shutting down";

/// Where the job stands.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    pub attempt: u32,
    pub max: u32,
}

/// What the broker is told; none when there is nothing to say, since the run is somebody else's by now.
#[must_use]
pub fn verdict(end: ScriptEnd, spec: &JobSpec, attempts: Attempts, random: f64) -> Option<RunEnd> {
    let again = attempts.attempt < attempts.max;
    Some(match end {
        ScriptEnd::Returned(result) => RunEnd::Succeeded { result },
        ScriptEnd::Failed(error) if error.retryable && again => {
            RunEnd::Retry { error, delay: spec.backoff.delay(attempts.attempt, random) }
        }
        ScriptEnd::RetryIn { error, delay } if again => RunEnd::Retry { error, delay },
        ScriptEnd::Failed(error) | ScriptEnd::RetryIn { error, .. } => RunEnd::Failed { error },
        ScriptEnd::Stopped(StopReason::Cancelled) => RunEnd::Cancelled,
        ScriptEnd::Stopped(StopReason::Shutdown | StopReason::TimeUp) => {
            RunEnd::Released { reason: SHUTTING_DOWN.to_owned(), delay: Duration::ZERO }
        }
        ScriptEnd::Stopped(StopReason::LeaseLost) => return None,
        ScriptEnd::NotStarted(why) => RunEnd::Released { reason: why, delay: AWAY },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{ErrorKind, JobError};

    fn error(retryable: bool) -> JobError {
        JobError::new(ErrorKind::Thrown, "no", retryable)
    }

    fn outcome(end: ScriptEnd, attempt: u32) -> Option<&'static str> {
        verdict(end, &JobSpec::default(), Attempts { attempt, max: 3 }, 0.5).map(|end| end.outcome().as_str())
    }

    #[test]
    fn a_failed_attempt_is_retried_while_attempts_are_left_and_it_can_help() {
        assert_eq!(outcome(ScriptEnd::Failed(error(true)), 2), Some("retried"));
        assert_eq!(outcome(ScriptEnd::Failed(error(true)), 3), Some("failed"));
        assert_eq!(outcome(ScriptEnd::Failed(error(false)), 1), Some("failed"));
        let delay = Duration::from_secs(7);
        assert_eq!(outcome(ScriptEnd::RetryIn { error: error(true), delay }, 3), Some("failed"));
        let end = verdict(
            ScriptEnd::RetryIn { error: error(true), delay },
            &JobSpec::default(),
            Attempts { attempt: 1, max: 3 },
            1.0,
        );
        assert!(matches!(end, Some(RunEnd::Retry { delay: asked, .. }) if asked == delay), "{end:?}");
    }

    #[test]
    fn a_stopped_run_burns_no_attempt() {
        assert_eq!(outcome(ScriptEnd::Stopped(StopReason::Shutdown), 3), Some("released"));
        assert_eq!(outcome(ScriptEnd::Stopped(StopReason::Cancelled), 3), Some("cancelled"));
        assert_eq!(outcome(ScriptEnd::Stopped(StopReason::LeaseLost), 3), None);
        assert_eq!(outcome(ScriptEnd::NotStarted("no stack".into()), 3), Some("released"));
    }
}
