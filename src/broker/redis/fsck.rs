//! Holds every record, index and count against the others, on a Redis that is in use, and mends what disagrees when asked to.
//!
//! What is said of one job is read (and mended) by one script, so work that goes on meanwhile is never taken for damage. Counts
//! are compared only when nothing changed while the jobs were counted, and twice.

use std::collections::{BTreeSet, HashMap, HashSet};

use redis::{Cmd, Value};

use super::Inner;
use super::codec::micros;
use super::fsck_counts::Tally;
use super::fsck_keys::{Keys, OfQueue};
use super::reply::{bytes, list, number, parts, text};
use super::script::SCRIPTS;
use crate::broker::{Checked, RecordFault, Result};
use crate::job::{JobId, Keep, QueueName};

/// Places of a list that are read at once.
const PLACES: i64 = 1000;
/// Jobs or lines that one script looks at.
const AT_ONCE: usize = 100;

/// What was seen of a job: its state (a digit) and name; of a running one its worker, of an ended one `finished_at`, of a queued one
/// its line; the bytes of an ended one.
pub(super) struct Seen {
    pub kind: Vec<u8>,
    pub more: Vec<u8>,
    pub bytes: i64,
}

pub(super) type Jobs = HashMap<Vec<u8>, Seen>;

pub(super) struct Look<'a> {
    pub inner: &'a Inner,
    pub repair: bool,
    pub checked: Checked,
    /// A walk over a hash that grows may come to one twice.
    said: HashSet<(Vec<u8>, String)>,
}

impl Inner {
    pub(super) async fn do_check_records(&self, repair: bool) -> Result<Checked> {
        let mut look = Look { inner: self, repair, checked: Checked::default(), said: HashSet::new() };
        look.registry().await?;
        let keys = Keys::read(self).await?;
        let known: BTreeSet<QueueName> = self.all_queues().await?.into_iter().collect();
        for queue in keys.queues.keys().filter(|queue| !known.contains(*queue)) {
            look.add(self.names.queues(), None, format!("the queue {queue} has records and is not in the set"));
            if repair {
                self.forget_known();
                self.register(queue).await?;
            }
        }
        let none = OfQueue::default();
        for queue in known.iter().chain(keys.queues.keys().filter(|queue| !known.contains(*queue))) {
            look.queue(queue, keys.queues.get(queue).unwrap_or(&none)).await?;
        }
        Ok(look.checked)
    }
}

impl Look<'_> {
    pub(super) fn add(&mut self, place: String, id: Option<&[u8]>, what: String) {
        let job = id.and_then(|id| id.try_into().ok()).map(JobId::from_bytes);
        if id.is_none_or(|id| self.said.insert((id.to_owned(), format!("{place} {what}")))) {
            self.checked.faults.push(RecordFault { job, place, what, repaired: self.repair });
        }
    }

    async fn registry(&mut self) -> Result<()> {
        let mut call = SCRIPTS.fsck_registry.on(&self.inner.names.registry());
        call.arg(self.inner.now()).arg(i32::from(self.repair));
        for fault in list(call.run(&self.inner.link).await?)?.chunks_exact(2) {
            let place = format!("{}:{}", self.inner.names.registry(), text(&fault[0])?);
            self.add(place, None, text(&fault[1])?.to_owned());
        }
        Ok(())
    }

    async fn queue(&mut self, queue: &QueueName, keys: &OfQueue) -> Result<()> {
        let key = self.inner.names.queue(queue);
        if !self.types(&key, keys).await? {
            return Ok(());
        }
        let before = self.tally(&key, "", &Tally::default()).await?;
        let jobs = self.jobs(queue, &key, true).await?;
        let after = self.tally(&key, "", &Tally::default()).await?;
        self.checked.examined += jobs.len() as u64;
        let indexes = keys.indexes.iter().map(|name| format!("index:{name}"));
        let lines =
            keys.lines.iter().filter(|line| line.as_bytes().get(1) != Some(&b'f')).map(|line| format!("line:{line}"));
        for which in ["running".to_owned(), "due".to_owned()].into_iter().chain(indexes).chain(lines) {
            self.places(&key, &which).await?;
        }
        self.heads(&key, keys, &jobs).await?;
        self.ended(&key, keys, &jobs).await?;
        self.sides(&key, keys).await?;
        let stable = (before.0 == after.0).then_some((before, jobs));
        self.counts(queue, &key, stable).await
    }

    /// Every key is of its type; one that is not is in the way of everything, and is moved aside.
    async fn types(&mut self, key: &str, keys: &OfQueue) -> Result<bool> {
        let mut all_right = true;
        for (suffix, expected) in keys.expected() {
            let name = format!("{key}{suffix}");
            let mut ask = Cmd::new();
            ask.arg("TYPE").arg(&name);
            let found = match self.inner.link.command(&ask, "TYPE").await? {
                Value::SimpleString(found) => found,
                other => text(&other)?.to_owned(),
            };
            if found != "none" && found != expected {
                self.add(name.clone(), None, format!("the key is a {found}, and not a {expected}"));
                all_right &= self.repair;
                if self.repair {
                    let mut rename = Cmd::new();
                    rename
                        .arg("RENAME")
                        .arg(&name)
                        .arg(format!("{key}:quarantine:{}{suffix}", crate::job::RequestId::random()));
                    self.inner.link.command(&rename, "RENAME").await?;
                }
            }
        }
        Ok(all_right)
    }

    /// Goes through all jobs and states of a queue. `report`: says and mends what is wrong with them.
    pub(super) async fn jobs(&mut self, queue: &QueueName, key: &str, report: bool) -> Result<Jobs> {
        let mut jobs = Jobs::new();
        for which in ["jobs", "states"].into_iter().take(if report { 2 } else { 1 }) {
            let mut cursor = "0".to_owned();
            loop {
                let mut call = SCRIPTS.fsck_jobs.on(key);
                call.arg(self.inner.now()).arg(i32::from(self.repair && report)).arg(which).arg(&cursor);
                let [next, faults, found] = parts(call.run(&self.inner.link).await?)?;
                text(&next)?.clone_into(&mut cursor);
                if report {
                    for fault in list(faults)?.chunks_exact(3) {
                        let place = format!("{key}:{}", String::from_utf8_lossy(bytes(&fault[1])?));
                        self.add(place, Some(bytes(&fault[0])?), text(&fault[2])?.to_owned());
                    }
                }
                let mut ids = Vec::new();
                for job in list(found)?.chunks_exact(4) {
                    let seen = Seen {
                        kind: bytes(&job[1])?.to_owned(),
                        more: bytes(&job[2])?.to_owned(),
                        bytes: number(&job[3])?,
                    };
                    let id = bytes(&job[0])?;
                    ids.extend(<[u8; 16]>::try_from(id).ok().map(JobId::from_bytes));
                    jobs.insert(id.to_owned(), seen);
                }
                if report {
                    self.decode(queue, key, &ids).await?;
                }
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(jobs)
    }

    /// The parts of records that no script reads.
    async fn decode(&mut self, queue: &QueueName, key: &str, ids: &[JobId]) -> Result<()> {
        for (id, found) in self.inner.read(queue, ids).await? {
            let Err(why) = found else { continue };
            self.add(format!("{key}:jobs"), Some(id.as_bytes()), format!("it cannot be read: {why}"));
            if self.repair {
                let mut call = SCRIPTS.aside.on(key);
                call.arg(self.inner.now())
                    .arg(id.as_bytes().as_slice())
                    .arg(why.to_string())
                    .run(&self.inner.link)
                    .await?;
            }
        }
        Ok(())
    }

    async fn places(&mut self, key: &str, which: &str) -> Result<()> {
        let mut cursor = "0".to_owned();
        loop {
            let mut call = SCRIPTS.fsck_places.on(key);
            call.arg(self.inner.now()).arg(i32::from(self.repair)).arg(which).arg(&cursor);
            let [next, faults] = parts(call.run(&self.inner.link).await?)?;
            for fault in list(faults)?.chunks_exact(2) {
                self.add(format!("{key}:{which}"), Some(bytes(&fault[0])?), text(&fault[1])?.to_owned());
            }
            text(&next)?.clone_into(&mut cursor);
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    async fn heads(&mut self, key: &str, keys: &OfQueue, jobs: &Jobs) -> Result<()> {
        let mut lines: BTreeSet<Vec<u8>> = keys.lines.iter().map(|line| line.as_bytes().to_owned()).collect();
        lines.extend(jobs.values().filter(|seen| seen.kind.first() == Some(&b'1')).map(|seen| seen.more.clone()));
        let mut range = Cmd::new();
        range.arg("ZRANGE").arg(format!("{key}:heads")).arg(0).arg(-1);
        for line in list(self.inner.link.command(&range, "ZRANGE").await?)? {
            lines.insert(bytes(&line)?.to_owned());
        }
        let lines: Vec<Vec<u8>> = lines.into_iter().collect();
        for lines in lines.chunks(AT_ONCE) {
            let mut call = SCRIPTS.fsck_heads.on(key);
            call.arg(self.inner.now()).arg(i32::from(self.repair)).arg(lines);
            for line in list(call.run(&self.inner.link).await?)? {
                let line = String::from_utf8_lossy(bytes(&line)?).into_owned();
                self.add(
                    format!("{key}:heads"),
                    None,
                    format!("the head of the line {line} is not that of its first job"),
                );
            }
        }
        Ok(())
    }

    /// Every ended job is in a list, by which it expires.
    async fn ended(&mut self, key: &str, keys: &OfQueue, jobs: &Jobs) -> Result<()> {
        let ended = jobs.iter().filter(|(_, seen)| seen.kind.first() >= Some(&b'3'));
        let mut missing: HashMap<&[u8], &[u8]> =
            ended.map(|(id, seen)| (id.as_slice(), seen.more.as_slice())).collect();
        let mut members = Cmd::new();
        members.arg("SMEMBERS").arg(format!("{key}:keeps"));
        let mut keeps = BTreeSet::new();
        for keep in super::reply::members(self.inner.link.command(&members, "SMEMBERS").await?)? {
            keeps.insert(text(&keep)?.to_owned());
        }
        let mut call = SCRIPTS.fsck_keeps.on(key);
        call.arg(self.inner.now()).arg(i32::from(self.repair));
        for keep in &keys.ended {
            call.arg(keep);
        }
        for keep in list(call.run(&self.inner.link).await?)? {
            let what = format!("the list of jobs with keep {} is not in the set", text(&keep)?);
            self.add(format!("{key}:keeps"), None, what);
        }
        for keep in keeps.union(&keys.ended) {
            // From the tail: the head goes meanwhile, and what comes at the tail only makes some come twice.
            let mut last = -1;
            loop {
                let mut range = Cmd::new();
                range.arg("LRANGE").arg(format!("{key}:ended:{keep}")).arg(last + 1 - PLACES).arg(last);
                let places = list(self.inner.link.command(&range, "LRANGE").await?)?;
                for place in &places {
                    if let Some((finished, id)) = bytes(place)?.split_at_checked(8)
                        && missing.get(id) == Some(&finished)
                    {
                        missing.remove(id);
                    }
                }
                if places.is_empty() {
                    break;
                }
                last -= PLACES;
            }
        }
        let missing: Vec<(&[u8], &[u8])> = missing.into_iter().collect();
        for jobs in missing.chunks(10) {
            let mut call = SCRIPTS.fsck_ended.on(key);
            call.arg(self.inner.now()).arg(i32::from(self.repair)).arg(micros(Keep::default().failed));
            for (id, finished) in jobs {
                call.arg(*id).arg(*finished);
            }
            for id in list(call.run(&self.inner.link).await?)? {
                self.add(format!("{key}:ended"), Some(bytes(&id)?), "an ended job that never expires".into());
            }
        }
        Ok(())
    }

    /// Logs, histories, progress and files are of jobs that are there.
    async fn sides(&mut self, key: &str, keys: &OfQueue) -> Result<()> {
        for which in ["logs", "past", "progress"] {
            let mut cursor = b"0".to_vec();
            loop {
                cursor = self.side(key, which, &[cursor]).await?;
                if cursor == b"0" {
                    break;
                }
            }
        }
        for (which, ids) in [("log", &keys.logs), ("files", &keys.files)] {
            for ids in ids.chunks(AT_ONCE) {
                self.side(key, which, ids).await?;
            }
        }
        Ok(())
    }

    async fn side(&mut self, key: &str, which: &str, rest: &[Vec<u8>]) -> Result<Vec<u8>> {
        let mut call = SCRIPTS.fsck_sides.on(key);
        call.arg(self.inner.now()).arg(i32::from(self.repair)).arg(which).arg(rest);
        let [next, gone] = parts(call.run(&self.inner.link).await?)?;
        for id in list(gone)? {
            self.add(format!("{key}:{which}"), Some(bytes(&id)?), "there is no such job".into());
        }
        Ok(bytes(&next)?.to_owned())
    }
}
