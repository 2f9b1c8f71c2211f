//! What a row of `jobs` says, and the numbers that stand for states, outcomes and levels in the file.

use rusqlite::Row;

use super::db::{Db, damaged};
use super::writer::Tx;
use crate::broker::{BrokerError, Result, Run};
use crate::job::{JobId, LogLevel, Outcome, State};

/// The version of the records that this program writes, and the newest that it reads.
pub(super) const RECORD: i64 = 1;

pub(super) const LEVELS: [LogLevel; 4] = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];

const OUTCOMES: [Outcome; 6] =
    [Outcome::Succeeded, Outcome::Failed, Outcome::Retried, Outcome::Released, Outcome::Lost, Outcome::Cancelled];

/// `State::ALL[n]` is the state with number `n`.
pub(super) fn state(number: i64) -> Result<State> {
    pick(&State::ALL, number, "state")
}

pub(super) fn outcome(number: i64) -> Result<Outcome> {
    pick(&OUTCOMES, number, "outcome")
}

pub(super) fn level(number: i64) -> Result<LogLevel> {
    pick(&LEVELS, number, "level")
}

fn pick<T: Copy>(all: &[T], number: i64, what: &str) -> Result<T> {
    usize::try_from(number)
        .ok()
        .and_then(|number| all.get(number).copied())
        .ok_or_else(|| damaged(format!("no {what} {number}")))
}

pub(super) fn count(number: i64) -> Result<u32> {
    u32::try_from(number).map_err(|_| damaged(format!("no count {number}")))
}

pub(super) fn job_id(bytes: &[u8]) -> Result<JobId> {
    bytes.try_into().map(JobId::from_bytes).map_err(|_| damaged("a job id that has not 16 bytes"))
}

/// An unsigned number for SQLite, which has none.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The part of a job that decides what may happen to it.
#[derive(Debug)]
pub(super) struct Head {
    pub seq: i64,
    pub id: JobId,
    pub queue: i64,
    pub name: i64,
    pub state: State,
    pub attempt: i64,
    pub suspect: bool,
    pub charged: i64,
    pub uncharged: i64,
    pub bytes: i64,
    pub ended_bytes: i64,
    /// Of the run under way or of the last one; empty when there is none.
    pub worker: String,
    pub token: i64,
    pub cancel: bool,
    pub started_at: Option<i64>,
}

macro_rules! head {
    ($condition:literal) => {
        concat!(
            "SELECT seq, v, id, queue, name, state, attempt, suspect, charged, uncharged, bytes, ended_bytes,
                    worker, token, cancel, started_at
             FROM jobs WHERE ",
            $condition
        )
    };
}

impl Head {
    pub fn find(db: &Db, id: JobId) -> Result<Option<Self>> {
        Self::read(db, head!("id = ?1"), id.as_bytes().as_slice())
    }

    pub fn at(db: &Db, seq: i64) -> Result<Option<Self>> {
        Self::read(db, head!("seq = ?1"), seq)
    }

    fn read(db: &Db, sql: &str, key: impl rusqlite::ToSql) -> Result<Option<Self>> {
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([key])?;
        rows.next()?.map(Self::decode).transpose()
    }

    fn decode(row: &Row<'_>) -> Result<Self> {
        check_record(row.get(1)?)?;
        Ok(Self {
            seq: row.get(0)?,
            id: job_id(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?,
            queue: row.get(3)?,
            name: row.get(4)?,
            state: state(row.get(5)?)?,
            attempt: row.get(6)?,
            suspect: row.get(7)?,
            charged: row.get(8)?,
            uncharged: row.get(9)?,
            bytes: row.get(10)?,
            ended_bytes: row.get(11)?,
            worker: row.get(12)?,
            token: row.get(13)?,
            cancel: row.get(14)?,
            started_at: row.get(15)?,
        })
    }
}

/// Refuses a record that a newer program wrote.
pub(super) fn check_record(version: i64) -> Result<()> {
    if version == RECORD { Ok(()) } else { Err(damaged(format!("a record of version {version}"))) }
}

impl Tx<'_> {
    /// The job of a run, when that run is still the current one.
    pub fn current(&self, run: &Run) -> Result<Head> {
        Head::find(self.db, run.job)?
            .filter(|head| head.state == State::Running && head.token == run.token.0)
            .ok_or(BrokerError::LeaseLost)
    }

    /// The job with this id.
    pub fn job(&self, id: JobId) -> Result<Head> {
        Head::find(self.db, id)?.ok_or(BrokerError::NotFound(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The partial indexes and the files on disk depend on these numbers.
    #[test]
    fn a_number_stands_for_its_state_for_ever() {
        use State as S;
        for (number, expected) in
            [S::Scheduled, S::Queued, S::Running, S::Succeeded, S::Failed, S::Cancelled].into_iter().enumerate()
        {
            assert_eq!(state(i64::try_from(number).unwrap()).unwrap(), expected);
            assert_eq!(expected as usize, number);
        }
        assert!(matches!(state(6), Err(BrokerError::Damaged(_))));
        for (number, expected) in OUTCOMES.into_iter().enumerate() {
            assert_eq!(expected as usize, number);
        }
        for (number, expected) in LEVELS.into_iter().enumerate() {
            assert_eq!(expected as usize, number);
        }
    }
}
