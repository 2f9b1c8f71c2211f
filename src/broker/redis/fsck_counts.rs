//! What a queue counts of itself, held against its jobs: exact, and only when nothing changed while they were counted.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use super::fsck::{Jobs, Look};
use super::reply::{bytes, list, number, parts, text};
use super::script::SCRIPTS;
use crate::broker::Result;
use crate::job::QueueName;

/// How often the jobs of a queue are counted before it is said to change all the while.
const PASSES: usize = 5;

/// What a queue counts of itself.
#[derive(Default, PartialEq, Eq, Clone, Debug)]
pub(super) struct Tally {
    counts: BTreeMap<Vec<u8>, i64>,
    busy: BTreeMap<Vec<u8>, i64>,
    bytes: i64,
}

impl Look<'_> {
    /// `stable`: a count that was made already, with nothing changed meanwhile.
    pub(super) async fn counts(
        &mut self,
        queue: &QueueName,
        key: &str,
        stable: Option<((String, Tally), Jobs)>,
    ) -> Result<()> {
        let mut last = None;
        let mut first = stable;
        for _ in 0..PASSES {
            let counted = if let Some(counted) = first.take() {
                counted
            } else {
                let before = self.tally(key, "", &Tally::default()).await?;
                let jobs = self.jobs(queue, key, false).await?;
                if self.tally(key, "", &Tally::default()).await?.0 != before.0 {
                    continue;
                }
                (before, jobs)
            };
            let ((mark, shown), jobs) = counted;
            let there = Tally::of(&jobs);
            if shown == there {
                return Ok(());
            }
            if last.as_ref() == Some(&(shown.clone(), there.clone())) {
                if self.repair {
                    let (now, _) = self.tally(key, &mark, &there).await?;
                    if now != mark {
                        continue;
                    }
                }
                self.differences(key, &shown, &there);
                return Ok(());
            }
            last = Some((shown, there));
        }
        self.checked.uncounted.push(queue.clone());
        Ok(())
    }

    fn differences(&mut self, key: &str, shown: &Tally, there: &Tally) {
        let mut compare = |place: &str, shown: &BTreeMap<Vec<u8>, i64>, there: &BTreeMap<Vec<u8>, i64>| {
            for field in shown.keys().chain(there.keys()).collect::<BTreeSet<_>>() {
                let (a, b) = (shown.get(field).unwrap_or(&0), there.get(field).unwrap_or(&0));
                if a != b {
                    let what = format!("{}: counted {a}, there are {b}", String::from_utf8_lossy(field));
                    self.add(format!("{key}:{place}"), None, what);
                }
            }
        };
        compare("counts", &shown.counts, &there.counts);
        compare("busy", &shown.busy, &there.busy);
        if shown.bytes != there.bytes {
            let what = format!("bytes of ended jobs: counted {}, there are {}", shown.bytes, there.bytes);
            self.add(key.to_owned(), None, what);
        }
    }

    /// What the queue counts, and the mark under which it does; with a mark: sets it to `wanted` if the mark still holds.
    pub(super) async fn tally(&self, key: &str, mark: &str, wanted: &Tally) -> Result<(String, Tally)> {
        let mut call = SCRIPTS.fsck_tally.on(key);
        call.arg(self.inner.now()).arg(mark);
        for map in [&wanted.counts, &wanted.busy] {
            call.arg(map.len());
            for (field, count) in map {
                call.arg(field.as_slice()).arg(*count);
            }
        }
        let [mark, counts, busy, total, _] = parts(call.arg(wanted.bytes).run(&self.inner.link).await?)?;
        let map = |value: Value| -> Result<BTreeMap<Vec<u8>, i64>> {
            let mut map = BTreeMap::new();
            for pair in list(value)?.chunks_exact(2) {
                let count = number(&pair[1])?;
                if count != 0 {
                    map.insert(bytes(&pair[0])?.to_owned(), count);
                }
            }
            Ok(map)
        };
        Ok((text(&mark)?.to_owned(), Tally { counts: map(counts)?, busy: map(busy)?, bytes: number(&total)? }))
    }
}

impl Tally {
    fn of(jobs: &Jobs) -> Self {
        let mut tally = Self::default();
        for seen in jobs.values() {
            *tally.counts.entry(seen.kind.clone()).or_default() += 1;
            if seen.kind.first() == Some(&b'2') {
                *tally.busy.entry(seen.more.clone()).or_default() += 1;
            }
            if seen.kind.first() >= Some(&b'3') {
                tally.bytes += seen.bytes;
            }
        }
        tally
    }
}
