//! Records that somebody else wrote over. One bad record costs itself: it is moved aside and counted, and all others go on.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, ToSingleRedisArg};
use ryemill::broker::{ClaimedJob, NewJob};
use ryemill::job::{JobId, RunEnd, State};

use super::{namespace, open};
use crate::contract::harness::{Harness, LONG, claim, finish, job, succeeded, sweep_with};
use crate::redis as servers;

struct Yard {
    h: Harness,
    redis: MultiplexedConnection,
    names: String,
}

impl Yard {
    async fn new() -> Self {
        let (server, names) = (servers::shared().await, namespace());
        let broker = open(&server.address(), &names).await;
        Self { h: Harness::new(Arc::new(broker), None, ()), redis: server.connect().await, names }
    }

    /// A key of the queue `default`.
    fn key(&self, suffix: &str) -> String {
        format!("{}:{{default}}{suffix}", self.names)
    }

    /// Jobs that wait.
    async fn wait(&self, count: usize) -> Vec<JobId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.h.enqueue(job("email")).await);
        }
        ids
    }

    /// Jobs that run, by a worker that is gone.
    async fn run(&self, count: usize) -> Vec<JobId> {
        self.wait(count).await;
        let worker = self.h.worker().await;
        let runs = self.h.claim(&worker, count).await;
        let leases = format!("{}:{{:registry}}:leases", self.names);
        self.redis.clone().zrem::<_, _, ()>(leases, worker.as_str()).await.unwrap();
        runs.into_iter().map(|job| job.run.job).collect()
    }

    async fn write_over(&self, suffix: &str, id: JobId, with: impl ToSingleRedisArg + Send + Sync) {
        let id = id.as_bytes().as_slice();
        let there: bool = self.redis.clone().hexists(self.key(suffix), id).await.unwrap();
        assert!(there, "{suffix} has nothing to be written over");
        self.redis.clone().hset::<_, _, _, ()>(self.key(suffix), id, with).await.unwrap();
    }

    async fn wipe(&self, suffix: &str, id: JobId) {
        let removed: u32 = self.redis.clone().hdel(self.key(suffix), id.as_bytes().as_slice()).await.unwrap();
        assert_eq!(removed, 1, "{suffix}");
    }

    /// A key becomes one of another type.
    async fn spoil(&self, suffix: &str) {
        assert!(self.redis.clone().exists::<_, bool>(self.key(suffix)).await.unwrap(), "{suffix}");
        self.redis.clone().set::<_, _, ()>(self.key(suffix), "spoilt").await.unwrap();
    }

    /// A sweep, and then a worker that takes and ends all it gets: exactly the good jobs. So many things are quarantined.
    async fn goes_on(&self, good: &[JobId], quarantined: u64) {
        let swept = self.h.broker.sweep(&sweep_with(LONG)).await.unwrap();
        let worker = self.h.worker().await;
        let mut got = Vec::new();
        // What a claim moves aside takes the place of a job.
        for _ in 0..3 {
            let runs: Vec<ClaimedJob> = self.h.claim(&worker, 10).await;
            let ends = runs.iter().map(|job| finish(&job.run, succeeded())).collect();
            for answer in self.h.broker.finish(ends).await.unwrap() {
                answer.unwrap();
            }
            got.extend(runs.into_iter().map(|job| job.run.job));
        }
        got.sort_unstable();
        let mut good = good.to_vec();
        good.sort_unstable();
        assert_eq!(got, good);
        for id in good {
            assert_eq!(self.h.state(id).await, State::Succeeded);
        }
        let counted: Option<u64> = self.redis.clone().hget(self.key(""), "quarantined").await.unwrap();
        assert_eq!(counted.unwrap_or_default(), quarantined);
        assert!(swept.quarantined <= quarantined);
        // Nothing is left over that would be moved aside again.
        let again = self.h.broker.sweep(&sweep_with(LONG)).await.unwrap();
        assert_eq!((again.quarantined, again.lost.len()), (0, 0));
    }

    async fn aside(&self) -> usize {
        self.redis.clone().hlen(self.key(":quarantine")).await.unwrap()
    }
}

#[tokio::test]
async fn waiting_jobs_with_a_body_that_nobody_can_read() {
    let yard = Yard::new().await;
    let ids = yard.wait(5).await;
    let record: Vec<u8> = yard.redis.clone().hget(yard.key(":jobs"), ids[2].as_bytes().as_slice()).await.unwrap();
    yard.write_over(":jobs", ids[0], "garbage").await;
    yard.write_over(":jobs", ids[1], "").await;
    // The scripts can read its head, and nobody the rest.
    yard.write_over(":jobs", ids[2], &record[..record.len() / 2]).await;
    yard.goes_on(&ids[3..], 3).await;
    yard.h.counts_are_right().await;
    assert_eq!(yard.aside().await, 3);
    for id in &ids[..3] {
        assert!(yard.h.broker.get(*id).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn waiting_jobs_whose_records_are_gone() {
    let yard = Yard::new().await;
    // One that came back has a state, too.
    let worker = yard.h.worker().await;
    let back = yard.wait(1).await[0];
    let run = yard.h.claim_one(&worker).await.run;
    let released = RunEnd::Released { reason: "back".into(), delay: std::time::Duration::ZERO };
    yard.h.finish(&run, released).await;
    let ids = yard.wait(3).await;
    yard.wipe(":jobs", back).await;
    yard.wipe(":jobs", ids[0]).await;
    let fresh_is_as_if_deleted = 1;
    yard.goes_on(&ids[1..], fresh_is_as_if_deleted).await;
}

#[tokio::test]
async fn running_jobs_with_a_state_that_nobody_can_read() {
    let yard = Yard::new().await;
    let ids = yard.run(4).await;
    yard.write_over(":states", ids[0], "garbage").await;
    yard.write_over(":states", ids[1], "").await;
    yard.goes_on(&ids[2..], 2).await;
    assert_eq!(yard.aside().await, 2);
}

#[tokio::test]
async fn running_jobs_whose_records_are_gone() {
    let yard = Yard::new().await;
    let ids = yard.run(4).await;
    yard.wipe(":states", ids[0]).await;
    yard.wipe(":jobs", ids[0]).await;
    yard.wipe(":jobs", ids[1]).await;
    yard.goes_on(&ids[2..], 2).await;
}

#[tokio::test]
async fn a_place_among_the_running_without_a_job() {
    let yard = Yard::new().await;
    let ids = yard.run(2).await;
    yard.redis.clone().zadd::<_, _, _, ()>(yard.key(":running"), "sixteen bytes it", 7).await.unwrap();
    yard.redis.clone().zadd::<_, _, _, ()>(yard.key(":running"), "short", 8).await.unwrap();
    yard.goes_on(&ids, 2).await;
    yard.h.counts_are_right().await;
}

#[tokio::test]
async fn a_lease_without_a_worker() {
    let yard = Yard::new().await;
    let ids = yard.run(1).await;
    let leases = format!("{}:{{:registry}}:leases", yard.names);
    yard.redis.clone().zadd::<_, _, _, ()>(leases, "ghost", "9000000000000000").await.unwrap();
    yard.h.broker.workers().await.unwrap();
    yard.goes_on(&ids, 0).await;
}

#[tokio::test]
async fn a_line_of_another_type() {
    let yard = Yard::new().await;
    yard.wait(2).await;
    let other = yard.h.enqueue(job("report")).await;
    yard.spoil(":line:5femail").await;
    let worker = yard.h.worker().await;
    assert_eq!(yard.h.claim_one(&worker).await.run.job, other);
    let later = yard.wait(1).await[0];
    assert_eq!(yard.h.claim_one(&worker).await.run.job, later);
    let counted: u64 = yard.redis.clone().hget(yard.key(""), "quarantined").await.unwrap();
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn a_list_of_due_jobs_of_another_type() {
    let yard = Yard::new().await;
    let later = || NewJob { delay: LONG, ..job("email") };
    yard.h.enqueue(later()).await;
    let ids = yard.wait(2).await;
    yard.spoil(":due").await;
    yard.goes_on(&ids, 1).await;
    // What comes now is due in its time.
    yard.h.enqueue(later()).await;
    let claimed = yard.h.broker.claim(&claim(&yard.h.worker().await, 1)).await.unwrap();
    assert!(claimed.jobs.is_empty() && claimed.next_due.is_some());
}

#[tokio::test]
async fn a_list_of_running_jobs_of_another_type() {
    let yard = Yard::new().await;
    yard.run(1).await;
    yard.spoil(":running").await;
    let ids = yard.wait(2).await;
    yard.goes_on(&ids, 1).await;
}
