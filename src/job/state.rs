//! The life of a job as one table: `State × Event → State`, or an illegal transition.
//!
//! Brokers may only make changes that this table allows; `docs/life-cycle.md` shows it and a test holds the two equal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Due later: submitted with a delay, or waiting for its retry. The broker moves it on when its time has come.
    Scheduled,
    /// Waiting for a worker that has its type. A claim moves it on.
    Queued,
    /// A worker holds it under a token. Its worker ends it, or the sweep gives it back.
    Running,
    /// Ended with a result. Removed by retention.
    Succeeded,
    /// Ended with an error and no attempt left. Retried by hand, or removed by retention.
    Failed,
    /// Ended by a caller. Retried by hand, or removed by retention.
    Cancelled,
}

/// What happens to a job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Its time has come.
    Due,
    /// A worker takes it.
    Claim,
    /// The run returned a result.
    Succeed,
    /// The run failed for good.
    Fail,
    /// The run is to start again after a delay: a retry, or a release with a delay.
    Defer,
    /// The run is handed back at once; no attempt burned.
    Release,
    /// The worker is gone; the job starts again.
    Lose,
    /// The worker is gone once too often.
    Abandon,
    /// A caller cancels it (a running job ends so when its run has stopped).
    Cancel,
    /// A caller retries an ended job.
    Requeue,
    /// A caller deletes it. Leads to no state, so the table never allows it; it names what a running job refuses.
    Delete,
}

/// A change that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot {event}")]
pub struct IllegalTransition {
    pub from: State,
    pub event: Event,
}

impl State {
    pub const ALL: [State; 6] =
        [Self::Scheduled, Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state after `event`.
    ///
    /// # Errors
    /// When `event` may not happen in this state.
    pub fn on(self, event: Event) -> Result<State, IllegalTransition> {
        use Event as E;
        use State as S;
        match (self, event) {
            (S::Scheduled, E::Due) => Ok(S::Queued),
            (S::Queued, E::Claim) => Ok(S::Running),
            (S::Running, E::Succeed) => Ok(S::Succeeded),
            (S::Running, E::Fail | E::Abandon) => Ok(S::Failed),
            (S::Running, E::Defer) => Ok(S::Scheduled),
            (S::Running, E::Release | E::Lose) => Ok(S::Queued),
            (S::Scheduled | S::Queued | S::Running, E::Cancel) => Ok(S::Cancelled),
            (S::Failed | S::Cancelled, E::Requeue) => Ok(S::Queued),
            (from, event) => Err(IllegalTransition { from, event }),
        }
    }

    /// Whether the job has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no state {0:?}; the states are scheduled, queued, running, succeeded, failed, cancelled")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

impl Event {
    pub const ALL: [Event; 11] = [
        Self::Due,
        Self::Claim,
        Self::Succeed,
        Self::Fail,
        Self::Defer,
        Self::Release,
        Self::Lose,
        Self::Abandon,
        Self::Cancel,
        Self::Requeue,
        Self::Delete,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "become due",
            Self::Claim => "be claimed",
            Self::Succeed => "succeed",
            Self::Fail => "fail",
            Self::Defer => "be deferred",
            Self::Release => "be released",
            Self::Lose => "be lost",
            Self::Abandon => "be abandoned",
            Self::Cancel => "be cancelled",
            Self::Requeue => "be retried",
            Self::Delete => "be deleted",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every legal change, written out a second time by hand: a change of the table must be made twice.
    const LEGAL: [(State, Event, State); 13] = [
        (State::Scheduled, Event::Due, State::Queued),
        (State::Scheduled, Event::Cancel, State::Cancelled),
        (State::Queued, Event::Claim, State::Running),
        (State::Queued, Event::Cancel, State::Cancelled),
        (State::Running, Event::Succeed, State::Succeeded),
        (State::Running, Event::Fail, State::Failed),
        (State::Running, Event::Abandon, State::Failed),
        (State::Running, Event::Defer, State::Scheduled),
        (State::Running, Event::Release, State::Queued),
        (State::Running, Event::Lose, State::Queued),
        (State::Running, Event::Cancel, State::Cancelled),
        (State::Failed, Event::Requeue, State::Queued),
        (State::Cancelled, Event::Requeue, State::Queued),
    ];

    #[test]
    fn the_whole_matrix_holds() {
        for from in State::ALL {
            for event in Event::ALL {
                let expected = LEGAL.iter().find(|(f, e, _)| *f == from && *e == event).map(|(_, _, to)| *to);
                assert_eq!(from.on(event).ok(), expected, "{from} on {event:?}");
            }
        }
    }

    #[test]
    fn an_ended_job_moves_only_by_hand() {
        for state in State::ALL.into_iter().filter(|state| state.is_terminal()) {
            for event in Event::ALL.into_iter().filter(|event| *event != Event::Requeue) {
                assert!(state.on(event).is_err(), "{state} on {event:?}");
            }
        }
    }

    #[test]
    fn the_diagram_in_the_docs_is_the_table() {
        let docs = include_str!("../../docs/life-cycle.md");
        let shown: Vec<&str> = docs.lines().map(str::trim).filter(|line| line.contains("-->")).collect();
        let table: Vec<String> = LEGAL.iter().map(|(from, event, to)| format!("{from} --> {to}: {event}")).collect();
        assert_eq!(shown, table);
    }

    #[test]
    fn a_state_is_read_back_from_its_text() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("done".parse::<State>().is_err());
    }
}
