//! The domain: what a job is and how it may change. No I/O, no clock of its own, no broker, no script engine.
//!
//! Start with [`record`] (the job as everybody sees it) and [`state`] (the one table of transitions).

pub mod id;
pub mod limits;
pub mod outcome;
pub mod record;
pub mod retry;
pub mod schema;
pub mod spec;
pub mod state;
pub mod time;
pub mod units;

pub use id::{ClaimTicket, JobId, JobName, QueueName, RequestId, RunToken, Version, WorkerId};
pub use limits::Limits;
pub use outcome::{ErrorKind, JobError, Outcome, RunEnd};
pub use record::{Attempt, FileInfo, Job, Json, LogLevel, LogLine, Priority, Progress};
pub use retry::Backoff;
pub use schema::{PayloadFault, PayloadSchema};
pub use spec::{JobSpec, JobType, Keep};
pub use state::{Event, State};
pub use time::{Clock, Timestamp};
