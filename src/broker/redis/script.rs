//! The scripts: one Lua file per operation, put together with the library files that it needs and the names of its keys.

use std::sync::LazyLock;

use redis::{Cmd, ToRedisArgs, Value};

use super::keys::{OF_QUEUE, OF_REGISTRY, prelude};
use super::link::{Link, Refusal};
use crate::broker::Result;

/// What a script may do when Redis is full, and whether it changes anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Brings something new: refused when there is no room.
    Adds,
    /// Work under way goes on without room.
    Goes,
    Reads,
}

/// Whose keys a script touches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Queue,
    Registry,
    /// One key of its own.
    Key,
}

pub(super) struct Script {
    pub name: &'static str,
    source: String,
    sha: String,
}

impl Script {
    fn new(name: &'static str, kind: Kind, slot: Slot, parts: &[&str]) -> Self {
        let body = parts.concat();
        let flags = match kind {
            Kind::Adds => "#!lua\n",
            Kind::Goes => "#!lua flags=allow-oom\n",
            Kind::Reads => "#!lua flags=no-writes\n",
        };
        let keys = match slot {
            Slot::Queue => prelude(&body, OF_QUEUE, "QUEUE"),
            Slot::Registry => prelude(&body, OF_REGISTRY, "REGISTRY"),
            Slot::Key => prelude(&body, &[], "KEY"),
        };
        let source = format!("{flags}{keys}{body}");
        let sha = redis::Script::new(&source).get_hash().to_owned();
        Self { name, source, sha }
    }

    /// A call of this script.
    pub fn on(&self, key: &str) -> Call<'_> {
        let mut args = Cmd::with_capacity(16, 512);
        args.arg("EVALSHA").arg(&self.sha).arg(1).arg(key);
        Call { script: self, args }
    }
}

/// One call, with its arguments.
pub(super) struct Call<'a> {
    script: &'a Script,
    args: Cmd,
}

impl Call<'_> {
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.args.arg(arg);
        self
    }

    /// Sends it, and sends it again as long as that may help: every script may run twice.
    pub async fn run(&self, link: &Link) -> Result<Value> {
        self.run_knowing(link).await.map(|(answer, _)| answer)
    }

    /// The same; says whether it was sent more than once, so that an earlier time may have gone through.
    pub async fn run_knowing(&self, link: &Link) -> Result<(Value, bool)> {
        match link.send(&self.args).await {
            Err(Refusal::NoScript) => {}
            answer => return answer.map_err(|refusal| refusal.of(self.script.name)),
        }
        // The whole text this once, by which Redis knows it from now on. A flush may come right after: that costs the text
        // again, never the call.
        let mut whole = Cmd::with_capacity(16, self.script.source.len() + 512);
        whole.arg("EVAL").arg(&self.script.source);
        for arg in self.args.args_iter().skip(2) {
            if let redis::Arg::Simple(arg) = arg {
                whole.arg(arg);
            }
        }
        link.send(&whole).await.map_err(|refusal| refusal.of(self.script.name))
    }
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $field:ident: $kind:ident, $slot:ident, [$($lib:literal),*];)*) => {
        pub(super) struct Scripts { $($(#[$doc])* pub $field: Script,)* }

        pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
            $($field: Script::new(
                stringify!($field),
                Kind::$kind,
                Slot::$slot,
                &[$(include_str!(concat!("lua/lib/", $lib, ".lua")),)* include_str!(concat!("lua/", stringify!($field), ".lua"))],
            ),)*
        });

        #[cfg(test)]
        impl Scripts {
            fn all(&self) -> Vec<&Script> { vec![$(&self.$field),*] }
        }
    };
}

scripts! {
    enqueue: Adds, Queue, ["now", "wake", "state", "quarantine", "changes"];
    reserve: Adds, Key, ["now"];
    claim: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    finish: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    lose: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    walk: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    due: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    aside: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    current: Reads, Queue, ["now", "state"];
    extend: Goes, Queue, ["now", "state"];
    progress: Adds, Queue, ["now", "wake", "state"];
    record_file: Adds, Queue, ["now", "wake", "state"];
    log: Adds, Queue, ["now", "wake", "state", "quarantine", "changes"];
    by_hand: Goes, Queue, ["now", "wake", "state", "quarantine", "changes", "forget"];
    prune: Goes, Queue, ["now", "wake", "state", "quarantine", "changes", "forget"];
    pause: Goes, Queue, ["now", "wake"];
    listen: Goes, Queue, ["now", "wake"];
    read: Reads, Queue, ["now"];
    lines: Reads, Queue, ["now"];
    queue: Reads, Queue, ["now", "state"];
    page: Reads, Queue, ["now"];
    renew: Goes, Registry, ["now"];
    leased: Reads, Registry, ["now"];
    mark: Goes, Registry, ["now"];
    bury: Goes, Registry, ["now"];
    workers: Reads, Registry, ["now"];
    publish: Goes, Registry, ["now"];
    types: Reads, Registry, ["now"];
    served: Reads, Registry, ["now"];
    reload: Goes, Registry, ["now"];
    reloads: Reads, Registry, ["now"];
    ping: Goes, Registry, ["now"];
    fsck_jobs: Goes, Queue, ["now", "wake", "state", "quarantine", "changes", "place"];
    fsck_places: Goes, Queue, ["now", "wake", "state", "quarantine", "changes", "place"];
    fsck_heads: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    fsck_ended: Goes, Queue, ["now", "wake", "state", "quarantine", "changes"];
    fsck_keeps: Goes, Queue, ["now"];
    fsck_sides: Goes, Queue, ["now"];
    fsck_tally: Goes, Queue, ["now"];
    fsck_registry: Goes, Registry, ["now"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_takes_and_answers() {
        for script in SCRIPTS.all() {
            let head: String = script.source.lines().filter(|line| line.starts_with("-- ")).collect();
            for word in ["-- KEYS: ", "-- ARGV: now", "-- returns"] {
                assert!(head.contains(word), "{}.lua does not say {word}", script.name);
            }
            assert!(script.source.starts_with("#!lua"));
        }
    }

    #[test]
    fn no_name_of_a_key_is_used_without_being_defined() {
        let known: Vec<&str> = OF_QUEUE.iter().chain(OF_REGISTRY).map(|key| key.name).collect();
        for script in SCRIPTS.all() {
            for name in &known {
                let defined = script.source.contains(&format!("local {name} = "));
                let used =
                    script.source.contains(&format!(" {name},")) || script.source.contains(&format!(" {name} .."));
                assert!(defined || !used, "{}.lua uses {name} of the other slot", script.name);
            }
        }
    }
}
