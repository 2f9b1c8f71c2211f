//! Scripts that would take a worker down: each ends its own job with an error that says why; the process and its
//! neighbours go on. Run in debug and in release.

use ryemill::job::ErrorKind::{self, Denied, InvalidResult, Memory, Script, Stack, Thrown, Timeout};
use ryemill::job::JobError;
use ryemill::script::fiber::ScriptEnd;
use serde_json::json;

use super::harness::{Harness, failed, returned, script, timeout_for};

/// Bodies of `run`, and the kinds of error that may end them.
const ABUSES: &[(&str, &str, &[ErrorKind])] = &[
    ("endless recursion", "f(1) } fn f(x) { f(x + 1) + 1", &[Stack]),
    ("mutual recursion", "f(1) } fn f(x) { g(x) + 1 } fn g(x) { f(x) + 1", &[Stack]),
    ("a closure that calls itself", "let f = |f, n| f.call(f, n + 1) + 1; f.call(f, 0)", &[Stack]),
    ("recursion through map", "f([1]) } fn f(a) { a.map(|x| f([x])) ", &[Stack]),
    ("recursion through sort", "f() } fn f() { let a = [2, 1]; a.sort(|x, y| { f(); 1 }); ", &[Stack, Timeout]),
    // Each level copies the ones below, so that the time may run out before the memory.
    ("nested maps", "let m = #{}; loop { m = #{ a: m }; }", &[Memory, Timeout]),
    ("nested arrays", "let a = []; loop { a = [a]; }", &[Memory, Timeout]),
    ("nested closures", "let f = || 1; loop { let g = f; f = || g; }", &[Memory]),
    ("nested maps as a value", "let m = #{}; for i in 0..500 { m = #{ a: m }; } m", &[InvalidResult]),
    ("nested arrays as a value", "let m = []; for i in 0..500 { m = [m]; } m", &[InvalidResult]),
    ("nested arrays thrown", "let m = []; for i in 0..500 { m = [m]; } throw m", &[Thrown]),
    ("nested maps thrown", "let m = #{}; for i in 0..500 { m = #{ a: m }; } throw m", &[Thrown]),
    ("nested values printed", "let m = []; for i in 0..500 { m = [m]; } print(m); 1", &[]),
    ("nested values compared", "let m = []; for i in 0..500 { m = [m]; } let n = m; m == n", &[]),
    ("string doubling", "let s = \"x\"; loop { s += s; }", &[Memory]),
    ("string doubling by +", "let s = \"x\"; loop { s = s + s; }", &[Memory]),
    ("string doubling by interpolation", "let s = \"x\"; loop { s = `${s}${s}`; }", &[Memory]),
    ("array doubling", "let a = [1]; loop { a += a; }", &[Memory]),
    ("array doubling by +", "let a = [1]; loop { a = a + a; }", &[Memory]),
    ("blob doubling", "let b = blob(1); loop { b += b; }", &[Memory]),
    ("replace", "let s = \"\"; s.pad(20000, \"a\"); s.replace(\"a\", s); s.len", &[Memory]),
    ("repeated replace", "let s = \"a\"; loop { s.replace(\"a\", \"aaaaaaaaaaaaaaaa\"); }", &[Memory]),
    ("pad a string", "let s = \"\"; s.pad(9000000000, \"ab\"); s.len", &[Memory, Script]),
    ("pad an array", "let a = []; a.pad(9000000000, 1); a.len", &[Memory, Script]),
    ("a huge blob", "blob(2 ** 33)", &[Memory, Script]),
    ("a negative blob", "blob(-1).len", &[]),
    ("split", "let s = \"\"; s.pad(4000000, \"a,\"); loop { s.split(\",\"); }", &[Memory, Timeout]),
    ("array growth", "let a = []; loop { a.push(1); }", &[Memory]),
    ("map growth", "let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1; }", &[Memory, Timeout]),
    ("a wide shift", "1 << 400", &[]),
    ("an overflow", "let x = 9223372036854775807; x += 1; x", &[Script]),
    ("a division of the smallest", "(-9223372036854775807 - 1) / -1", &[Script]),
    ("a huge power", "2 ** 400", &[Script]),
    (
        "an endless comparer within try",
        "try { let a = [3, 1, 2]; a.sort(|x, y| { loop {} }); } catch { } loop {}",
        &[Timeout],
    ),
    ("an endless loop within try", "loop { try { loop {} } catch { } }", &[Timeout]),
    ("a data race in a loop", "let a = [1, 2]; loop { a.map(|x| a.len()); }", &[Script, Timeout]),
    ("an endless map", "loop { [1, 2, 3].map(|x| x + 1); }", &[Timeout]),
    ("an endless range", "let n = 0; for i in 0..9223372036854775807 { n += 1; } n", &[Timeout]),
    ("a collected range", "let a = []; for i in 0..9000000000 { a.push(i); } a", &[Memory, Timeout]),
    ("eval by pointer", "let f = Fn(\"eval\"); f.call(\"40 + 2\")", &[Script]),
    ("a native stack through a deep type", "let x = 1; loop { x = [x, x]; }", &[Memory, Stack]),
    ("a large result", "let s = \"\"; s.pad(10000000, \"x\"); s", &[InvalidResult]),
    ("a large thrown value", "let s = \"\"; s.pad(10000000, \"x\"); throw s", &[Thrown]),
    // Some kilobytes of array whose text is gigabytes, because its elements share one string.
    ("shared text", "let t = \"\"; t.pad(2000000, \"x\"); let a = []; a.pad(2000, t); `${a}`", &[Memory]),
    (
        "shared text as the result",
        "let t = \"\"; t.pad(2000000, \"x\"); let a = []; a.pad(2000, t); a",
        &[InvalidResult],
    ),
    ("shared text thrown", "let t = \"\"; t.pad(2000000, \"x\"); let a = []; a.pad(2000, t); throw a", &[Thrown]),
    // The copy that is to be interpolated takes the account over its limit.
    (
        "interpolating at the limit",
        "let t = \"\"; t.pad(10000, \"x\"); let a = []; a.pad(520000, t); `${a}`",
        &[Memory],
    ),
    (
        "many values",
        "let m = #{}; for i in 0..100 { let a = []; a.pad(100000, i); m[`k${i}`] = a; } m.len()",
        &[Memory],
    ),
    // Host functions: the largest, the longest, the deepest.
    ("a time of a megabyte", "let s = \"\"; s.pad(1000000, \"9\"); time::parse(s)", &[Script]),
    ("a format that grows", "let s = \"\"; s.pad(1000000, \"%c\"); time::format(time::now(), s)", &[Script]),
    ("a wide format", "time::format(time::now(), \"%999999999999Y\")", &[]),
    ("the end of time", "let t = time::now(); loop { t = time::add(t, \"3650d\"); }", &[Script]),
    (
        "a month of many",
        "time::add(time::now(), #{ months: 9223372036854775807, years: 9223372036854775807 })",
        &[Script],
    ),
    ("zones without end", "let i = 0; loop { try { time::now(`Zone/${i}`) } catch {} i += 1; }", &[Timeout]),
    ("hashing without end", "let s = \"\"; s.pad(4000000, \"x\"); loop { crypto::sha512(s); }", &[Timeout]),
    ("encoding what was encoded", "let s = \"x\"; loop { s = crypto::hex_encode(s); }", &[Memory]),
    ("base64 of base64", "let s = blob(100000); loop { s = crypto::base64_encode(s); }", &[Memory, Timeout]),
    ("decoding a large text", "let s = \"\"; s.pad(9000000, \"a\"); crypto::hex_decode(s).len()", &[Memory]),
    ("random bytes kept", "let a = []; loop { a.push(random::bytes(1048576)); }", &[Memory]),
    ("a large shuffle", "let a = []; a.pad(400000, 1); loop { random::shuffle(a); }", &[Memory, Timeout]),
    ("a pattern that explodes", "regex::is_match(\"((((a{1,100}){1,100}){1,100}){1,100}){1,100}\", \"a\")", &[Script]),
    (
        "a pattern of brackets",
        "let s = \"\"; s.pad(2000, \"(\"); let t = \"\"; t.pad(2000, \")\"); regex::find(s + t, \"\")",
        &[Script],
    ),
    ("a pattern of a megabyte", "let s = \"\"; s.pad(1000000, \"a\"); regex::find(s, s)", &[Script]),
    ("patterns without end", "let i = 0; loop { regex::find(`a{${i % 900}}[b-z]${i}`, \"aaa\"); i += 1; }", &[Timeout]),
    (
        "a search that is slow at each place",
        "let s = \"\"; s.pad(30000, \"ab\"); loop { regex::is_match(\"(.?){40}[ab]{1000}c\", s); }",
        &[Timeout],
    ),
    (
        "a search that begins again at each place",
        "let s = \"\"; s.pad(1000000, \"a\"); regex::find_all(\".*[^a]|a\", s).len()",
        &[Timeout, Script],
    ),
    ("many matches", "let s = \"\"; s.pad(1000000, \"a\"); regex::find_all(\"a\", s).len()", &[Script, Memory]),
    (
        "a replacement that grows",
        "let s = \"\"; s.pad(6000, \"a\"); regex::replace(\"a\", s, s).len()",
        &[Script, Memory],
    ),
    (
        "a replacement that doubles",
        "let s = \"a\"; loop { s = regex::replace(\".*\", s, \"$0$0\"); }",
        &[Script, Memory],
    ),
    (
        "groups within groups",
        "let s = \"\"; s.pad(4000000, \"a\"); regex::captures(\"((((((a*))))))\", s)[\"1\"].len()",
        &[Memory],
    ),
    ("an address of a megabyte", "let s = \"https://\"; s.pad(1000000, \"a\"); url::parse(s)", &[Script]),
    ("encoding a text again and again", "let s = \"%\"; loop { s = url::encode(s + s); }", &[Memory, Timeout]),
    ("a query that grows", "let s = \"\"; s.pad(1000000, \"%\"); url::query(#{ a: [s, s, s] })", &[Script]),
    ("a query of many names", "let s = \"\"; s.pad(1000000, \"a&\"); url::parse_query(s).a.len()", &[Memory, Timeout]),
    ("a wide sheet", "let a = []; a.pad(20000, 1); xlsx::format(#{ a: [a] })", &[Script]),
    ("a long sheet", "let a = []; a.pad(300000, [1, 2]); xlsx::format(#{ a: a }).len()", &[Memory]),
    (
        "a sheet of a shared text",
        "let t = \"\"; t.pad(30000, \"x\"); let a = []; a.pad(9000, [t]); xlsx::format(#{ a: a }).len()",
        &[Memory],
    ),
    ("JSON of brackets", "let s = \"\"; s.pad(1000000, \"[\"); json::parse(s)", &[Script]),
    ("JSON that grows", "let s = \"[\"; s.pad(2000000, \"1,\"); json::parse(s + \"1]\").len()", &[Memory]),
    (
        "JSON of a shared text",
        "let t = \"\"; t.pad(2000000, \"x\"); let a = []; a.pad(2000, t); json::format(a).len()",
        &[Memory, Script],
    ),
    (
        "CSV of a shared text",
        "let t = \"\"; t.pad(2000000, \"x\"); let a = []; a.pad(2000, [t]); csv::format(a).len()",
        &[Memory, Script],
    ),
];

fn check(what: &str, kinds: &[ErrorKind], end: &ScriptEnd) -> Result<(), String> {
    match end {
        ScriptEnd::Failed(JobError { kind, message, .. }) if kinds.contains(kind) && !message.is_empty() => Ok(()),
        ScriptEnd::Returned(_) if kinds.is_empty() => Ok(()),
        ScriptEnd::Failed(error) if kinds.is_empty() && [Script, Memory, Stack].contains(&error.kind) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    }
}

#[test]
fn each_abuse_ends_its_own_job_and_nothing_else() {
    let harness = Harness::new(2);
    let mut wrong = Vec::new();
    for (what, body, kinds) in ABUSES {
        let limits = format!("timeout: \"{}\", memory: \"16MiB\"", timeout_for(kinds));
        let text = format!("const JOB = #{{ {limits} }};\nfn run(job) {{ {body} }}");
        let end = harness.start(&script(&text), "{}").wait().end;
        wrong.extend(check(what, kinds, &end).err());
        let neighbour = harness.body("40 + 2");
        assert_eq!(returned(&neighbour), json!(42), "after {what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn abuses_run_side_by_side_with_a_neighbour() {
    let harness = Harness::new(2);
    let runs: Vec<_> = ABUSES
        .iter()
        .filter(|(_, _, kinds)| !kinds.contains(&Timeout))
        .map(|(what, body, kinds)| {
            let text = format!("const JOB = #{{ timeout: \"60s\", memory: \"16MiB\" }};\nfn run(job) {{ {body} }}");
            (what, kinds, harness.start(&script(&text), "{}"))
        })
        .collect();
    assert_eq!(returned(&harness.body("40 + 2")), json!(42));
    let wrong: Vec<String> =
        runs.iter().filter_map(|(what, kinds, run)| check(what, kinds, &run.wait().end).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn values_nested_up_to_the_whole_memory_end_cleanly() {
    let harness = Harness::new(1);
    // Shared by a closure, a value is nested without being copied.
    for body in [
        "let f = || 1; loop { let g = f; f = || g; }",
        "let m = #{}; loop { let n = m; let keep = || n; m = #{ a: keep }; }",
        "let m = []; loop { let n = m; let keep = || n; m = [keep]; }",
    ] {
        let text = format!("const JOB = #{{ timeout: \"60s\" }};\nfn run(job) {{ {body} }}");
        let report = harness.start(&script(&text), "{}").wait();
        assert_eq!(failed(&report).kind, Memory, "{body}: {:?}", report.end);
    }
}

#[test]
fn an_error_of_a_stopped_run_says_where_it_was() {
    let harness = Harness::new(1);
    let report = harness.start(&script("const JOB = #{ timeout: \"1s\" };\nfn run(job) {\n  loop {}\n}"), "{}").wait();
    let error = failed(&report);
    assert_eq!((error.kind, error.file.as_deref(), error.line), (Timeout, Some("probe.rhai"), Some(3)), "{error:?}");
    assert!(error.message.contains("1s"));
    assert_ne!(error.kind, Denied);
}
