//! What an operator should know of this Redis: version, room, what an accepted job survives, replicas, and whether records
//! were moved aside. Asks, and changes nothing.

use redis::{Cmd, Value};

use super::check::{self, field};
use super::reply::{number, text};
use super::{Inner, Target};
use crate::broker::{Note, Result};

/// Settings that INFO does not tell. None: whoever we are may not ask.
struct Settings {
    appendfsync: Option<String>,
    save: Option<String>,
}

impl Inner {
    pub(super) async fn do_examine(&self) -> Result<Vec<Note>> {
        let mut info = Cmd::new();
        info.arg("INFO");
        let nodes = check::answers(self.link.command(&info, "INFO").await?);
        let settings = Settings { appendfsync: self.setting("appendfsync").await, save: self.setting("save").await };
        let is_cluster = matches!(self.link.target(), Target::Cluster { .. });
        let looks = nodes.iter().map(|info| {
            let said = vec![
                version(info),
                memory(info),
                policy(info, self.allow_eviction),
                persistence(info, &settings),
                replication(info, is_cluster),
            ];
            (field(info, "tcp_port").to_owned(), said)
        });
        let mut found = merged(&looks.collect::<Vec<_>>());
        if is_cluster {
            found.push(self.cluster(nodes.len()).await?);
        }
        found.push(self.quarantined().await?);
        Ok(found)
    }

    /// A setting of the server.
    async fn setting(&self, name: &str) -> Option<String> {
        let mut get = Cmd::new();
        get.arg("CONFIG").arg("GET").arg(name);
        let value = match self.link.command(&get, "CONFIG GET").await.ok()? {
            Value::Array(pair) => pair.into_iter().nth(1)?,
            Value::Map(pairs) => pairs.into_iter().next()?.1,
            _ => return None,
        };
        text(&value).ok().map(str::to_owned)
    }

    async fn cluster(&self, nodes: usize) -> Result<Note> {
        let mut info = Cmd::new();
        info.arg("CLUSTER").arg("INFO");
        let Ok(answer) = self.link.command(&info, "CLUSTER INFO").await else {
            return Ok(Note::warning(
                "cluster",
                format!("{nodes} nodes; CLUSTER INFO was not answered"),
                "ACL: +cluster|info",
            ));
        };
        let answers = check::answers(answer);
        let info = answers.first().map_or("", String::as_str);
        let what = format!(
            "{nodes} nodes, state {}, {} of 16384 slots served",
            field(info, "cluster_state"),
            field(info, "cluster_slots_ok")
        );
        Ok(if field(info, "cluster_state") == "ok" && field(info, "cluster_slots_ok") == "16384" {
            Note::ok("cluster", what)
        } else {
            Note::wrong("cluster", what, "look at `redis-cli --cluster check`")
        })
    }

    async fn quarantined(&self) -> Result<Note> {
        let (mut all, mut places) = (0, Vec::new());
        for queue in self.all_queues().await? {
            let key = format!("{}:quarantine", self.names.queue(&queue));
            let mut count = Cmd::new();
            count.arg("HLEN").arg(&key);
            let count = number(&self.link.command(&count, "HLEN").await?)?;
            if count > 0 {
                all += count;
                places.push(format!("{count} in {key}"));
            }
        }
        if all == 0 {
            return Ok(Note::ok("quarantine", "empty"));
        }
        Ok(Note::warning(
            "quarantine",
            format!("{all} records that could not be read were moved aside: {}", places.join(", ")),
            "look at them (HGETALL), and HDEL what is of no more use",
        ))
    }
}

fn version(info: &str) -> Note {
    let version = field(info, "redis_version");
    let what = format!("version {version}");
    if check::is_too_old(version) {
        let (major, minor) = check::OLDEST;
        return Note::wrong("redis", what, format!("Ryemill needs Redis {major}.{minor} or newer"));
    }
    Note::ok("redis", what)
}

fn memory(info: &str) -> Note {
    let bytes = |name: &str| field(info, name).parse::<u64>().unwrap_or(0);
    let (used, most) = (bytes("used_memory"), bytes("maxmemory"));
    if most == 0 {
        return Note::warning(
            "memory",
            format!("{} used, and no `maxmemory`: it may take all that the machine has, and be killed then", mib(used)),
            "set `maxmemory` in Redis; when it is reached new jobs get 503 and all others go on",
        );
    }
    let what = format!("{} of {} used", mib(used), mib(most));
    if used >= most {
        Note::wrong(
            "memory",
            what,
            "new jobs are refused: raise `maxmemory`, or let ended jobs go sooner (RETAIN_BYTES, `keep`)",
        )
    } else if used > most / 10 * 9 {
        Note::warning("memory", what, "raise `maxmemory`, or let ended jobs go sooner (RETAIN_BYTES, `keep`)")
    } else {
        Note::ok("memory", what)
    }
}

fn policy(info: &str, allowed: bool) -> Note {
    let policy = field(info, "maxmemory_policy");
    if policy == "noeviction" {
        return Note::ok("eviction", "`maxmemory-policy noeviction`: nothing is thrown away when the memory is full");
    }
    let what = format!("`maxmemory-policy {policy}`: jobs are thrown away when the memory is full");
    let advice = "set `maxmemory-policy noeviction` in Redis";
    if allowed {
        Note::warning("eviction", format!("{what} (ALLOW_EVICTION=yes)"), advice)
    } else {
        Note::wrong("eviction", what, advice)
    }
}

/// The table of `docs/redis.md`, for this server.
fn persistence(info: &str, settings: &Settings) -> Note {
    const SUBJECT: &str = "persistence";
    for (name, what) in [
        ("aof_last_write_status", "the append-only file could not be written the last time"),
        ("rdb_last_bgsave_status", "the last snapshot could not be written"),
    ] {
        if field(info, name) == "err" {
            return Note::wrong(SUBJECT, what, "look at the log of Redis and the room on its disk");
        }
    }
    let advice = "set `appendonly yes` in Redis if accepted jobs are to survive that";
    if field(info, "aof_enabled") == "1" {
        return match settings.appendfsync.as_deref() {
            Some("always") => Note::ok(SUBJECT, "`appendfsync always`: an accepted job survives a power cut"),
            Some("everysec") => Note::ok(
                SUBJECT,
                "`appendfsync everysec`: an accepted job survives the end of Redis; a power cut may take the last two seconds",
            ),
            Some(other) => Note::warning(
                SUBJECT,
                format!(
                    "`appendfsync {other}`: an accepted job survives the end of Redis; a power cut may take half a minute or more"
                ),
                "set `appendfsync everysec` or `always` in Redis if accepted jobs are to survive that",
            ),
            None => Note::ok(
                SUBJECT,
                "`appendonly yes`: an accepted job survives the end of Redis; `appendfsync` may not be asked for (ACL: +config|get), \
                 with `everysec` a power cut may take the last two seconds",
            ),
        };
    }
    match settings.save.as_deref() {
        Some("") => Note::warning(SUBJECT, "none: every job is lost when Redis ends", advice),
        Some(save) => Note::warning(
            SUBJECT,
            format!("snapshots only (`save {save}`): when Redis ends, what came since the last one is lost"),
            advice,
        ),
        None => {
            Note::warning(SUBJECT, "snapshots at most: when Redis ends, what came since the last one is lost", advice)
        }
    }
}

fn replication(info: &str, is_cluster: bool) -> Note {
    const SUBJECT: &str = "replication";
    let master = field(info, "role") == "master";
    let replicas = field(info, "connected_slaves");
    match (master, is_cluster) {
        (true, _) if replicas == "0" => Note::ok(SUBJECT, "a master without replicas"),
        (true, _) => {
            Note::ok(SUBJECT, format!("a master with {replicas} replicas; a failover loses what they have not got yet"))
        }
        (false, true) if field(info, "master_link_status") == "up" => Note::ok(SUBJECT, "a replica, up to date"),
        (false, true) => Note::wrong(SUBJECT, "a replica without its master", "look at `redis-cli --cluster check`"),
        (false, false) => {
            Note::wrong(SUBJECT, "a replica, which takes no jobs", "BROKER_URL must name the master, or the sentinels")
        }
    }
}

/// What all nodes have in common once, the rest with the node's port.
fn merged(nodes: &[(String, Vec<Note>)]) -> Vec<Note> {
    let mut all: Vec<Note> = Vec::new();
    let Some((_, first)) = nodes.first() else { return all };
    for (kind, common) in first.iter().enumerate() {
        if nodes.iter().all(|(_, said)| said[kind] == *common) {
            all.push(common.clone());
            continue;
        }
        for (port, said) in nodes {
            let note = &said[kind];
            all.push(Note { what: format!("node {port}: {}", note.what), ..note.clone() });
        }
    }
    all
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
