//! Looking: one job, lists, logs, queues. Reads only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use redis::Value;

use super::Inner;
use super::codec::{Input, Parts, damaged, job, job_id, named};
use super::reply::{bytes, list, number, parts, text};
use super::script::SCRIPTS;
use crate::broker::{BrokerError, Filter, Logs, Page, QueueInfo, Result};
use crate::job::{Job, JobId, JobName, LogLevel, LogLine, QueueName, State, Timestamp};

/// Records that one list call examines.
const MAX_EXAMINED: usize = 10_000;
/// Places that one script looks up, and jobs that one reads.
const PLACES: usize = 200;
const JOBS: usize = 100;

impl Inner {
    pub(super) async fn do_get(&self, id: JobId) -> Result<Option<Job>> {
        for queue in self.queues_of(id).await? {
            if let Some((_, found)) = self.read(&queue, &[id]).await?.pop() {
                let mut jobs = vec![found?];
                self.say_why(&mut jobs).await?;
                return Ok(jobs.pop());
            }
        }
        Ok(None)
    }

    /// The queue and type of a job.
    pub(super) async fn find(&self, id: JobId) -> Result<(QueueName, JobName)> {
        for queue in self.queues_of(id).await? {
            if let Some((_, found)) = self.read(&queue, &[id]).await?.pop() {
                return found.map(|job| (queue, job.name));
            }
        }
        Err(BrokerError::NotFound(id))
    }

    /// Those of some jobs that are there, each as far as it can be read.
    pub(super) async fn read(&self, queue: &QueueName, ids: &[JobId]) -> Result<Vec<(JobId, Result<Job>)>> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(JOBS) {
            let mut call = SCRIPTS.read.on(&self.names.queue(queue));
            call.arg(self.now());
            for id in ids {
                call.arg(id.as_bytes().as_slice());
            }
            let [paused, jobs] = parts(call.run(&self.link).await?)?;
            let paused = number(&paused)? == 1;
            for (id, stored) in ids.iter().zip(list(jobs)?) {
                let stored = list(stored)?;
                if !stored.is_empty() {
                    found.push((*id, decode(*id, &stored, queue, paused)));
                }
            }
        }
        Ok(found)
    }

    /// Says of queued jobs that no live worker has their type. (That their queue is paused is said already.)
    async fn say_why(&self, jobs: &mut [Job]) -> Result<()> {
        let waiting = |job: &&mut Job| job.state == State::Queued && job.reason.as_deref() != Some(&paused(&job.queue));
        let names: HashSet<JobName> = jobs.iter_mut().filter(waiting).map(|job| job.name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<JobName> = names.into_iter().collect();
        let mut call = SCRIPTS.served.on(&self.names.registry());
        call.arg(self.now());
        for name in &names {
            call.arg(name.as_str());
        }
        let mut missing = HashSet::new();
        for (name, served) in names.iter().zip(list(call.run(&self.link).await?)?) {
            if number(&served)? == 0 {
                missing.insert(name);
            }
        }
        for job in jobs.iter_mut().filter(waiting).filter(|job| missing.contains(&job.name)) {
            job.reason = Some(format!("no worker has the job type {}", job.name));
        }
        Ok(())
    }

    pub(super) async fn do_list(&self, filter: &Filter) -> Result<Page> {
        let start = filter.cursor.as_deref().map(Place::read).transpose()?;
        let mut walks = Vec::new();
        for queue in self.all_queues().await? {
            if filter.queue.as_ref().is_none_or(|wanted| *wanted == queue) {
                let below = start.as_ref().map_or(Place::newest(), |start| start.below_in(&queue));
                walks.push(Walk { queue, below, ahead: Vec::new(), over: false });
            }
        }
        walks.sort_by(|a, b| a.queue.cmp(&b.queue));
        let limit = filter.limit.max(1);
        let mut page = Page::default();
        let (mut examined, mut last) = (0, None);
        while page.jobs.len() < limit && examined < MAX_EXAMINED {
            // As many as are still wanted, newest first over all queues.
            let wanted = (limit - page.jobs.len()).min(MAX_EXAMINED - examined).min(PLACES);
            let mut places = Vec::new();
            while places.len() < wanted {
                for walk in &mut walks {
                    self.look_ahead(walk, filter, wanted).await?;
                }
                let heads = walks.iter_mut().filter(|walk| !walk.ahead.is_empty());
                // Of equal ranks the first queue by name goes first, as `Place` says.
                let Some(walk) = heads.reduce(|a, b| if b.head() > a.head() { b } else { a }) else { break };
                let (rank, id) = walk.ahead.remove(0);
                places.push((rank, walk.queue.clone(), id));
            }
            if places.is_empty() {
                return self.finished(page).await;
            }
            examined += places.len();
            let read = self.read_all(&places).await?;
            for (rank, queue, id) in places {
                last = Some(Place { rank, queue: queue.as_str().to_owned() });
                match read.get(&id) {
                    Some(Ok(job)) if matches(job, filter) => page.jobs.push(job.clone()),
                    // The list of the others must not depend on it; a claim or a sweep moves it aside.
                    Some(Err(why)) => tracing::error!(job_id = %id, "a job's record cannot be read: {why}"),
                    _ => {}
                }
            }
        }
        let mut more = false;
        for walk in &mut walks {
            self.look_ahead(walk, filter, 1).await?;
            more |= !walk.ahead.is_empty();
        }
        page.next = last.filter(|_| more).map(|place| place.write());
        self.finished(page).await
    }

    async fn finished(&self, mut page: Page) -> Result<Page> {
        self.say_why(&mut page.jobs).await?;
        Ok(page)
    }

    async fn read_all(&self, places: &[(i64, QueueName, JobId)]) -> Result<HashMap<JobId, Result<Job>>> {
        let mut by_queue: BTreeMap<&QueueName, Vec<JobId>> = BTreeMap::new();
        for (_, queue, id) in places {
            by_queue.entry(queue).or_default().push(*id);
        }
        let mut read = HashMap::new();
        for (queue, ids) in by_queue {
            read.extend(self.read(queue, &ids).await?);
        }
        Ok(read)
    }

    /// Reads the next places of a queue when none are left.
    async fn look_ahead(&self, walk: &mut Walk, filter: &Filter, wanted: usize) -> Result<()> {
        while walk.ahead.is_empty() && !walk.over {
            let mut call = SCRIPTS.page.on(&self.names.queue(&walk.queue));
            call.arg(self.now()).arg(walk.below).arg(wanted.clamp(16, PLACES));
            call.arg(filter.state.map_or(String::new(), |state| (state as u8).to_string()));
            call.arg(filter.name.as_ref().map_or("", JobName::as_str));
            let [over, places] = parts(call.run(&self.link).await?)?;
            walk.over = number(&over)? == 1;
            for place in list(places)?.chunks_exact(2) {
                walk.below = number(&place[0])?;
                // A place that names no job is none.
                if let Ok(id) = job_id(bytes(&place[1])?) {
                    walk.ahead.push((walk.below, id));
                }
            }
        }
        Ok(())
    }

    pub(super) async fn do_logs(&self, id: JobId, after: u64, limit: usize) -> Result<Option<Logs>> {
        for queue in self.queues_of(id).await? {
            let mut call = SCRIPTS.lines.on(&self.names.queue(&queue));
            call.arg(self.now()).arg(id.as_bytes().as_slice()).arg(after.min(1 << 52)).arg(limit.min(1 << 30));
            let answer = list(call.run(&self.link).await?)?;
            let [dropped, first, lines] = answer.as_slice() else { continue };
            let (dropped, mut seq) = (number(dropped)?.unsigned_abs(), number(first)?.unsigned_abs());
            let mut logs = Logs { lines: Vec::new(), dropped };
            for line in list(lines.clone())? {
                logs.lines.push(read_line(seq, bytes(&line)?)?);
                seq += 1;
            }
            return Ok(Some(logs));
        }
        Ok(None)
    }

    pub(super) async fn do_queues(&self) -> Result<Vec<QueueInfo>> {
        let mut queues = self.all_queues().await?;
        queues.sort();
        let calls = queues.iter().map(|queue| self.queue_info(queue));
        futures_util::future::join_all(calls).await.into_iter().map(|info| info.map(|(info, _)| info)).collect()
    }

    /// Runs per worker, over all queues.
    pub(super) async fn busy(&self) -> Result<HashMap<String, u64>> {
        let queues = self.all_queues().await?;
        let calls = queues.iter().map(|queue| self.queue_info(queue));
        let mut busy = HashMap::new();
        for info in futures_util::future::join_all(calls).await {
            for (worker, count) in info?.1 {
                *busy.entry(worker).or_insert(0) += count;
            }
        }
        Ok(busy)
    }

    async fn queue_info(&self, queue: &QueueName) -> Result<(QueueInfo, Vec<(String, u64)>)> {
        let mut call = SCRIPTS.queue.on(&self.names.queue(queue));
        let [paused, counted, since, _quarantined, now, busy] = parts(call.arg(self.now()).run(&self.link).await?)?;
        let mut counts = [0_u64; State::ALL.len()];
        for pair in list(counted)?.chunks_exact(2) {
            let state = bytes(&pair[0])?.first().and_then(|digit| digit.checked_sub(b'0')).map(usize::from);
            if let Some(count) = state.and_then(|state| counts.get_mut(state)) {
                *count += u64::try_from(number(&pair[1])?).unwrap_or(0);
            }
        }
        let [scheduled, queued, running, succeeded, failed, cancelled] = counts;
        let (since, now) = (number(&since)?, number(&now)?);
        let waited = || Duration::from_micros(u64::try_from(now - since).unwrap_or(0)).as_secs_f64();
        let info = QueueInfo {
            name: queue.clone(),
            paused: number(&paused)? == 1,
            scheduled,
            queued,
            running,
            succeeded,
            failed,
            cancelled,
            oldest_queued_seconds: (since >= 0).then(waited),
        };
        let mut runs = Vec::new();
        for pair in list(busy)?.chunks_exact(2) {
            runs.push((text(&pair[0])?.to_owned(), number(&pair[1])?.unsigned_abs()));
        }
        Ok((info, runs))
    }
}

fn paused(queue: &QueueName) -> String {
    format!("the queue {queue} is paused")
}

fn decode(id: JobId, stored: &[Value], queue: &QueueName, is_paused: bool) -> Result<Job> {
    let [record, state, past, progress, files] = stored else { return Err(damaged("an answer of another length")) };
    let Value::Array(files) = files else { return Err(damaged("an answer without files")) };
    let files = files.iter().map(bytes).collect::<Result<_>>()?;
    let parts = Parts { id, state: bytes(state)?, past: bytes(past)?, progress: bytes(progress)?, files };
    let mut job = job(Input::read(bytes(record)?)?, &parts, queue)?;
    if is_paused && job.state == State::Queued {
        job.reason = Some(paused(queue));
    }
    Ok(job)
}

fn matches(job: &Job, filter: &Filter) -> bool {
    filter.state.is_none_or(|state| job.state == state)
        && filter.name.as_ref().is_none_or(|name| job.name == *name)
        && filter.tag.as_ref().is_none_or(|tag| job.tags.contains(tag))
        && filter.request_id.as_ref().is_none_or(|id| job.request_id == *id)
}

/// A line as `runs.rs` stores it.
fn read_line(seq: u64, bytes: &[u8]) -> Result<LogLine> {
    const LEVELS: [LogLevel; 4] = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
    let broken = || damaged("a line of a log");
    let (head, texts) = bytes.split_at_checked(17).ok_or_else(broken)?;
    let number = |from: usize, to: usize| head[from..to].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let length = usize::try_from(number(13, 17)).map_err(|_| broken())?;
    let (message, fields) = texts.split_at_checked(length).ok_or_else(broken)?;
    let fields = super::codec::text(fields)?;
    Ok(LogLine {
        seq,
        time: Timestamp(number(0, 8).cast_signed()),
        level: *LEVELS.get(usize::from(head[8])).ok_or_else(broken)?,
        message: super::codec::text(message)?.to_owned(),
        fields: if fields.is_empty() { None } else { Some(serde_json::from_str(fields).map_err(|_| broken())?) },
        attempt: u32::try_from(number(9, 13)).map_err(|_| broken())?,
    })
}

/// The places of one queue, newest first, a few at a time.
struct Walk {
    queue: QueueName,
    below: i64,
    ahead: Vec<(i64, JobId)>,
    over: bool,
}

impl Walk {
    fn head(&self) -> i64 {
        self.ahead.first().map_or(i64::MIN, |(rank, _)| *rank)
    }
}

/// A place in the order of all lists: the rank, and among equal ranks the queue's name. Opaque to callers.
struct Place {
    rank: i64,
    queue: String,
}

impl Place {
    /// Above every rank.
    fn newest() -> i64 {
        1 << 53
    }

    /// What is left of a queue after this place has a rank below the answer.
    fn below_in(&self, queue: &QueueName) -> i64 {
        if queue.as_str() > self.queue.as_str() { self.rank + 1 } else { self.rank }
    }

    fn write(&self) -> String {
        let mut bytes = vec![2];
        bytes.extend(self.rank.to_be_bytes());
        bytes.extend(self.queue.as_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    fn read(text: &str) -> Result<Self> {
        let read = || {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
            let (version, rest) = bytes.split_first()?;
            let (rank, queue) = rest.split_at_checked(8)?;
            let queue: QueueName = named(std::str::from_utf8(queue).ok()?).ok()?;
            let rank = i64::from_be_bytes(rank.try_into().ok()?);
            (*version == 2).then(|| Self { rank, queue: queue.to_string() })
        };
        read().ok_or_else(|| {
            BrokerError::Invalid("the cursor is not one of this list: take `next_cursor` as it was".into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is_one() {
        let place = Place { rank: 77, queue: "mail".into() };
        let read = Place::read(&place.write()).unwrap();
        assert_eq!((read.rank, read.queue.as_str()), (77, "mail"));
        for bad in ["", "x", "AQ", "!!!!", &place.write()[1..]] {
            assert!(matches!(Place::read(bad), Err(BrokerError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn a_walk_over_queues_goes_on_right_behind_its_cursor() {
        let place = Place { rank: 77, queue: "mail".into() };
        let below = |queue: &str| place.below_in(&QueueName::new(queue).unwrap());
        assert_eq!((below("a"), below("mail"), below("z")), (77, 77, 78));
    }
}
