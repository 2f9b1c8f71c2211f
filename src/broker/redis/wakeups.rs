//! Wake-ups: a connection of its own that listens to one channel, and counts what it hears. Nothing is polled; a connection
//! that breaks is made again, and then everybody looks once, since something may have been missed.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::link::{CONNECT, jittered};
use super::reply::text;
use super::script::SCRIPTS;
use super::{Inner, named_queue};
use crate::broker::Topic;
use crate::job::QueueName;

const TOPICS: [(Topic, char); 4] =
    [(Topic::Work, 'w'), (Topic::Jobs, 'j'), (Topic::Cancel, 'c'), (Topic::JobTypes, 't')];
/// A queue that has announced a change is quiet for this long, however much changes.
const QUIET: Duration = Duration::from_millis(3);
/// How often the listening connection is tried, and how long it may take to answer.
const TRY: Duration = Duration::from_secs(5);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Wakeups {
    topics: [watch::Sender<u64>; 4],
    /// Somebody waits for a topic for which nobody here has waited.
    wanted: Notify,
}

impl Wakeups {
    pub fn new() -> Self {
        Self { topics: TOPICS.map(|_| watch::Sender::new(0)), wanted: Notify::new() }
    }

    pub fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        let topic = &self.topics[topic as usize];
        if topic.receiver_count() == 0 {
            self.wanted.notify_one();
        }
        topic.subscribe()
    }

    fn heard(&self, letters: &str) {
        for (topic, letter) in TOPICS {
            if letters.contains(letter) {
                self.topics[topic as usize].send_modify(|n| *n += 1);
            }
        }
    }

    /// The topics that somebody here waits for, as letters.
    fn waited_for(&self) -> String {
        let waits = |topic: Topic| self.topics[topic as usize].receiver_count() > 0;
        TOPICS.iter().filter(|(topic, _)| waits(*topic)).map(|(_, letter)| letter).collect()
    }
}

/// Listens for as long as the broker lives.
pub(super) async fn listen(broker: Weak<Inner>, wakeups: Arc<Wakeups>) {
    let mut complained = false;
    while let Some(inner) = broker.upgrade() {
        let problem = match timeout(CONNECT * 2, subscribe(&inner)).await {
            Ok(Ok(channel)) => {
                complained = false;
                drop(inner);
                wakeups.heard("wjct");
                follow(&broker, &wakeups, channel).await
            }
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if broker.strong_count() == 0 {
            return;
        }
        if !complained {
            tracing::warn!("the wake-up connection to Redis is broken, changes are seen late: {problem}");
            complained = true;
        }
        sleep(jittered(PAUSE)).await;
    }
}

async fn subscribe(inner: &Inner) -> redis::RedisResult<redis::aio::PubSub> {
    let mut channel = inner.link.target().master().await?.get_async_pubsub().await?;
    channel.subscribe(inner.names.wake()).await?;
    Ok(channel)
}

/// Passes on what comes, until the connection breaks; answers why.
async fn follow(broker: &Weak<Inner>, wakeups: &Wakeups, channel: redis::aio::PubSub) -> String {
    let (mut sink, mut messages) = channel.split();
    let mut quiet: BTreeSet<(QueueName, char)> = BTreeSet::new();
    let mut listen_at: Option<Instant> = Some(Instant::now());
    let mut all_queues = true;
    let mut try_at = Instant::now() + TRY;
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return "the connection was closed".into() };
                let payload = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
                let (letters, queue) = payload.split_once(' ').unwrap_or((&payload, ""));
                wakeups.heard(letters);
                if let Some(queue) = named_queue(queue) {
                    quiet.extend(letters.chars().map(|letter| (queue.clone(), letter)));
                    listen_at.get_or_insert(Instant::now() + QUIET);
                }
                try_at = Instant::now() + TRY;
            }
            () = wakeups.wanted.notified() => {
                all_queues = true;
                listen_at.get_or_insert(Instant::now());
            }
            () = at(listen_at) => {
                let Some(inner) = broker.upgrade() else { return String::new() };
                listen_at = None;
                // After a new connection: of every queue.
                if std::mem::take(&mut all_queues) {
                    match inner.all_queues().await {
                        Ok(queues) => quiet.extend(queues.into_iter().flat_map(|queue| {
                            ['w', 'j'].map(|letter| (queue.clone(), letter))
                        })),
                        Err(problem) => return problem.to_string(),
                    }
                }
                let wanted = wakeups.waited_for();
                let mut left = BTreeSet::new();
                let mut by_queue: std::collections::BTreeMap<QueueName, String> = std::collections::BTreeMap::new();
                for (queue, letter) in std::mem::take(&mut quiet) {
                    if wanted.contains(letter) {
                        by_queue.entry(queue).or_default().push(letter);
                    } else {
                        left.insert((queue, letter));
                    }
                }
                quiet = left;
                for (queue, letters) in by_queue {
                    let key = inner.names.queue(&queue);
                    let mut call = SCRIPTS.listen.on(&key);
                    match call.arg(inner.now()).arg(letters).run(&inner.link).await {
                        // What came in between was not announced.
                        Ok(missed) => wakeups.heard(text(&missed).unwrap_or_default()),
                        Err(problem) => return problem.to_string(),
                    }
                }
            }
            () = sleep_until(try_at) => {
                if broker.strong_count() == 0 {
                    return String::new();
                }
                match timeout(TRY, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => try_at = Instant::now() + TRY,
                    Ok(Err(problem)) => return problem.to_string(),
                    Err(_) => return "no answer in time".into(),
                }
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
