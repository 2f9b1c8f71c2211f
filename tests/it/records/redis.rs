//! Damage in the keys of a Redis, on one server and in a cluster.

use redis::aio::ConnectionLike;
use redis::{Cmd, Value, cmd};
use ryemill::broker::redis::{Namespace, RedisBroker, Target};
use ryemill::job::JobId;
use std::sync::Arc;

use super::{Scene, is_found_and_mended};
use crate::contract::harness::Harness;
use crate::redis::{RedisServer, shared, shared_cluster};

/// A broker of its own on the server that all share, and a way to its keys.
struct Place {
    h: Harness,
    namespace: String,
    scene: Scene,
}

impl Place {
    async fn new() -> Self {
        let namespace = format!("f-{}", rand::random::<u64>());
        let target = Target::one(&shared().await.url()).unwrap();
        let broker = RedisBroker::open(target, Namespace::new(&namespace), false).await.unwrap();
        let h = Harness::new(Arc::new(broker), None, ());
        let scene = Scene::set(&h).await;
        Self { h, namespace, scene }
    }

    fn key(&self, end: &str) -> String {
        format!("{}:{{default}}{end}", self.namespace)
    }

    async fn ask(&self, command: &Cmd) -> Value {
        shared().await.connect().await.req_packed_command(command).await.unwrap()
    }

    /// Does `words` to the key with this end; `ID` stands for the job.
    async fn harm(&self, verb: &str, end: &str, words: &[&[u8]]) {
        let answer = self.ask(cmd(verb).arg(self.key(end)).arg(words)).await;
        assert!(!matches!(answer, Value::ServerError(_)), "{verb} {end}: {answer:?}");
    }

    async fn mended(&self, name: &str, place: &str, id: Option<JobId>, what: &str, aside: &[JobId]) {
        is_found_and_mended(&self.h, name, &self.scene, &[(place, id, what)], aside).await;
    }

    async fn quarantined(&self) -> Value {
        self.ask(cmd("HLEN").arg(self.key(":quarantine"))).await
    }
}

const GHOST: &[u8] = b"0123456789abcdef";

fn ghost() -> JobId {
    JobId::from_bytes(GHOST.try_into().unwrap())
}

#[tokio::test]
async fn jobs_without_a_place_are_put_back() {
    let p = Place::new().await;
    p.harm("DEL", ":line:5femail", &[]).await;
    p.mended("fresh", ":line:5femail", Some(p.scene.fresh), "not in its line", &[]).await;

    let p = Place::new().await;
    p.harm("ZREM", ":line:5bemail", &[p.scene.back.as_bytes()]).await;
    p.mended("back", ":line:5bemail", Some(p.scene.back), "missing there", &[]).await;

    for (end, of) in [(":running", 0), (":due", 1), (":index:0email", 1), (":index:3email", 2)] {
        let p = Place::new().await;
        let id = p.scene.all()[of];
        p.harm("ZREM", end, &[id.as_bytes()]).await;
        p.mended(end, end, Some(id), "missing there", &[]).await;
        let p = Place::new().await;
        let id = p.scene.all()[of];
        p.harm("ZADD", end, &[b"1", id.as_bytes()]).await;
        p.mended(end, end, Some(id), "another place than its own", &[]).await;
    }
}

#[tokio::test]
async fn ended_jobs_expire_again() {
    let p = Place::new().await;
    let keep = ":ended:86400000000";
    p.harm("LPOP", keep, &[]).await;
    p.mended("the list", ":ended", Some(p.scene.ended), "never expires", &[]).await;
    let p = Place::new().await;
    p.harm("DEL", ":keeps", &[]).await;
    p.mended("the set", ":keeps", None, "keep 86400000000 is not in the set", &[]).await;
}

#[tokio::test]
async fn places_of_no_job_or_another_one_go() {
    for end in [":running", ":due", ":index:0email", ":index:3email", ":line:5bemail", ":line:3semail"] {
        let p = Place::new().await;
        p.harm("ZADD", end, &[b"7", GHOST]).await;
        p.mended(end, end, Some(ghost()), "no such job", &[]).await;
        let p = Place::new().await;
        let id = if end.contains(":line:5b") { p.scene.ended } else { p.scene.back };
        p.harm("ZADD", end, &[b"7", id.as_bytes()]).await;
        p.mended(end, end, Some(id), "not there by its state", &[]).await;
    }
}

#[tokio::test]
async fn records_that_cannot_be_read_are_moved_aside() {
    for of in 0..4 {
        let p = Place::new().await;
        let id = p.scene.all()[of];
        p.harm("HDEL", ":jobs", &[id.as_bytes()]).await;
        p.mended("no input", ":jobs", Some(id), "its input is missing", &[id]).await;
        assert_eq!(p.quarantined().await, Value::Int(1));
        let p = Place::new().await;
        let id = p.scene.all()[of];
        p.harm("HSET", ":states", &[id.as_bytes(), b"\x09garbage"]).await;
        p.mended("state", ":states", Some(id), "its state cannot be read", &[id]).await;
        assert_eq!(p.quarantined().await, Value::Int(1));
    }
    for of in 0..5 {
        let p = Place::new().await;
        let id = p.scene.all()[of];
        p.harm("HSET", ":jobs", &[id.as_bytes(), b"garbage"]).await;
        p.mended("input", ":jobs", Some(id), "its input cannot be read", &[id]).await;
        assert_eq!(p.quarantined().await, Value::Int(1));
    }
    // What only the program reads: the record ends behind the name.
    let p = Place::new().await;
    let id = p.scene.fresh;
    let Value::BulkString(record) = p.ask(cmd("HGET").arg(p.key(":jobs")).arg(id.as_bytes())).await else { panic!() };
    p.harm("HSET", ":jobs", &[id.as_bytes(), &record[..26]]).await;
    p.mended("codec", ":jobs", Some(id), "too short", &[id]).await;
}

#[tokio::test]
async fn counts_are_made_anew() {
    let p = Place::new().await;
    p.harm("HINCRBY", ":counts", &[b"1email", b"5"]).await;
    p.mended("counts", ":counts", None, "1email: counted 7, there are 2", &[]).await;
    let p = Place::new().await;
    p.harm("HINCRBY", ":busy", &[b"ghost", b"5"]).await;
    p.mended("busy", ":busy", None, "ghost: counted 5, there are 0", &[]).await;
    let p = Place::new().await;
    p.harm("HINCRBY", "", &[b"bytes", b"-1000000"]).await;
    p.mended("bytes", "{default}", None, "bytes of ended jobs: counted -", &[]).await;
}

#[tokio::test]
async fn heads_are_those_of_the_lines() {
    for (verb, words) in [
        ("DEL", &[][..]),
        ("ZADD", &[&b"1"[..], b"5femail"]),
        ("ZADD", &[b"1", b"5bemail"]),
        ("ZADD", &[b"1", b"7fnothing"]),
        ("ZADD", &[b"1", b"nonsense"]),
    ] {
        let p = Place::new().await;
        p.harm(verb, ":heads", words).await;
        p.mended("heads", ":heads", None, "is not that of its first job", &[]).await;
    }
}

#[tokio::test]
async fn what_belongs_to_no_job_goes() {
    for which in [":logs", ":past", ":progress"] {
        let p = Place::new().await;
        p.harm("HSET", which, &[GHOST, b"x"]).await;
        p.mended(which, which, Some(ghost()), "no such job", &[]).await;
    }
    let end = |which: &str| format!("{which}{}", std::str::from_utf8(GHOST).unwrap());
    let p = Place::new().await;
    p.harm("RPUSH", &end(":log:"), &[b"x"]).await;
    p.mended("log", ":log", Some(ghost()), "no such job", &[]).await;
    let p = Place::new().await;
    p.harm("HSET", &end(":files:"), &[b"a", b"x"]).await;
    p.mended("files", ":files", Some(ghost()), "no such job", &[]).await;
}

#[tokio::test]
async fn keys_of_another_type_are_moved_aside() {
    for (end, id) in [(":running", 0), (":line:5femail", 4), (":index:3email", 2)] {
        let p = Place::new().await;
        p.harm("SET", end, &[b"x"]).await;
        let id = p.scene.all()[id];
        let what = "is a string, and not a";
        let checked = p.h.broker.check_records(false).await.unwrap();
        assert_eq!(checked.faults.len(), 1, "{checked:?}");
        assert!(checked.faults[0].place.ends_with(end) && checked.faults[0].what.contains(what), "{checked:?}");
        let checked = p.h.broker.check_records(true).await.unwrap();
        assert!(checked.faults.iter().any(|fault| fault.job == Some(id)), "and its job put back: {checked:?}");
        p.h.counts_are_right().await;
        assert_eq!(p.h.broker.check_records(false).await.unwrap().faults, []);
    }
}

#[tokio::test]
async fn a_queue_that_nobody_knows_is_known_again() {
    let p = Place::new().await;
    let registry = format!("{}:{{:registry}}", p.namespace);
    p.ask(cmd("SREM").arg(format!("{registry}:queues")).arg("default")).await;
    p.mended("queues", ":queues", None, "the queue default has records", &[]).await;
}

#[tokio::test]
async fn leases_cards_and_types_agree() {
    let p = Place::new().await;
    let registry = format!("{}:{{:registry}}", p.namespace);
    p.ask(cmd("HDEL").arg(format!("{registry}:workers")).arg(p.scene.worker.as_str())).await;
    p.mended("card", ":workers", None, "is missing", &[]).await;
    let p = Place::new().await;
    let registry = format!("{}:{{:registry}}", p.namespace);
    p.ask(cmd("HSET").arg(format!("{registry}:workers")).arg("ghost").arg("x")).await;
    p.mended("lease", ":workers", None, "ghost has a card and no lease", &[]).await;
    let p = Place::new().await;
    let registry = format!("{}:{{:registry}}", p.namespace);
    p.ask(cmd("HSET").arg(format!("{registry}:types")).arg("email").arg("01234567v9")).await;
    p.mended("type", ":types", None, "the live version v9 of email is not known", &[]).await;
}

#[tokio::test]
async fn in_a_cluster_every_master_is_looked_through() {
    let cluster = shared_cluster().await;
    let namespace = format!("f-{}", rand::random::<u64>());
    let nodes: Vec<String> = cluster.nodes().iter().map(RedisServer::url).collect();
    let target = Target::cluster(&nodes.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let broker = RedisBroker::open(target, Namespace::new(&namespace), false).await.unwrap();
    let h = Harness::new(Arc::new(broker), None, ());
    let mut queues = Vec::new();
    for n in 0..9 {
        let queue = format!("q{n}");
        h.job_in(ryemill::job::State::Queued, &queue).await;
        let line = format!("{namespace}:{{{queue}}}:line:5femail");
        cluster.nodes()[cluster.master_of(&line).await].ask::<u64>(&format!("DEL {line}")).await;
        queues.push(queue);
    }
    let set = format!("{namespace}:{{:registry}}:queues");
    cluster.nodes()[cluster.master_of(&set).await].ask::<u64>(&format!("DEL {set}")).await;
    let checked = h.broker.check_records(true).await.unwrap();
    for queue in queues {
        let named = |place: &str| checked.faults.iter().any(|fault| fault.place.contains(place));
        assert!(named(&format!("{{{queue}}}:line:5femail")), "{queue}: {checked:#?}");
        assert!(checked.faults.iter().any(|fault| fault.what.contains(&format!("the queue {queue} "))), "{queue}");
    }
    assert_eq!(h.broker.check_records(false).await.unwrap().faults, []);
    h.counts_are_right().await;
}
