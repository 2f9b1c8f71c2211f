//! Scripts that ask for far more memory than they have.

use std::cell::Cell;
use std::rc::Rc;

use super::super::is_interpolating;
use super::{checked, over_memory, run};

const LIMIT: usize = 8 << 20;

/// Each must end its run, with at most the limit plus twice its largest possible input in use.
const SCRIPTS: &[(&str, &str)] = &[
    ("doubling a string", r#"let s = "x"; loop { s += s }"#),
    ("adding a string", r#"let s = "x"; loop { s = s + s }"#),
    ("interpolating", r#"let s = "x"; loop { s = `${s}${s}` }"#),
    ("doubling an array", "let a = [1]; loop { a += a }"),
    ("adding an array", "let a = [1]; loop { a = a + a }"),
    ("appending an array to itself", "let a = [1]; loop { a.append(a) }"),
    ("nesting an array in itself", "let a = [1]; loop { a.push(a) }"),
    ("doubling a blob", "let b = blob(1); loop { b += b }"),
    ("adding a blob", "let b = blob(1); loop { b = b + b }"),
    ("growing a map", "let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1 }"),
    ("pushing", "let a = []; loop { a.push(#{ a: 1 }) }"),
    ("pushing inside a callback", "let a = []; [1].map(|x| loop { a.push([x]) })"),
    ("replace", r#"let s = "a"; s.pad(20_000, 'a'); s.replace("a", s)"#),
    ("replace nothing", r#"let s = "a"; s.pad(20_000, 'a'); s.replace("", s)"#),
    ("replace a char", r#"let s = "a"; s.pad(20_000, 'a'); s.replace('a', s)"#),
    ("pad a string", r#"let s = ""; s.pad(1 << 33, 'x')"#),
    ("pad a string with text", r#"let s = ""; s.pad(9_223_372_036_854_775_807, "abc")"#),
    ("pad an array", "let a = []; a.pad(1 << 40, 0)"),
    ("pad an array with arrays", "let b = []; b.pad(10_000, 0); let a = []; a.pad(10_000, b)"),
    ("pad a blob", "let b = blob(); b.pad(1 << 40, 0)"),
    ("blob", "blob(1 << 33)"),
    ("blob of a value", "blob(9_223_372_036_854_775_807, 1)"),
    ("split", r#"let s = ""; s.pad(2_000_000, ','); s.split(",")"#),
    ("split by char", r#"let s = ""; s.pad(2_000_000, ','); s.split(',')"#),
    ("split in characters", r#"let s = ""; s.pad(2_000_000, ','); s.split("")"#),
    ("split from the end", r#"let s = ""; s.pad(2_000_000, ','); s.split_rev(",")"#),
    ("to_chars", r#"let s = ""; s.pad(2_000_000, ','); s.to_chars()"#),
    ("to_array", "blob(2_000_000).to_array()"),
    ("as_string", "blob(3_000_000, 255).as_string()"),
    ("string with a blob", r#""" + blob(3_000_000, 255)"#),
    ("case", r#"let s = ""; s.pad(1_400_000, 'ΐ'); s.to_upper()"#),
    ("debug text", r#"let s = ""; s.pad(2_000_000, '\x01'); s.to_debug()"#),
    ("text of a blob", "blob(5_000_000).to_string()"),
    ("parse_json", r#"let s = "["; s.pad(2_000_000, "{\"\":0},"); s += "0]"; parse_json(s)"#),
    ("sort", "let a = []; a.pad(300_000, 0); a.sort()"),
];

/// A few kilobytes of array whose text is gigabytes, because its strings are shared.
const SHARED: &str = r#"let t = ""; t.pad(2_000_000, 'x'); let a = []; a.pad(1_000, t);"#;

/// The same, with such an array `a`.
const SHARED_SCRIPTS: &[(&str, &str)] = &[
    ("text of an array", "a.to_string()"),
    ("debug text of an array", "a.to_debug()"),
    ("text of a map", "#{ a: a }.to_string()"),
    ("print an array", "print(a)"),
    ("interpolate an array", "`${a}`"),
    ("add an array to a string", r#""" + a"#),
    ("add an array to a string variable", r#"let s = ""; s += a"#),
    ("add a string to an array", r#"a + """#),
    ("to_json", "#{ a: a }.to_json()"),
    ("map to larger values", r#"a.map(Fn("to_blob"))"#),
];

fn scripts() -> impl Iterator<Item = (&'static str, String)> {
    let shared = SHARED_SCRIPTS.iter().map(|(name, script)| (*name, format!("{SHARED} {script}")));
    let plain = SCRIPTS.iter().map(|(name, script)| (*name, (*script).to_owned()));
    plain.chain(shared)
}

fn assert_ends(name: &str, script: &str) {
    let (outcome, peak) = run(LIMIT, script);
    let Err(error) = outcome else {
        panic!("{name}: not ended");
    };
    let over = over_memory(&error).unwrap_or_else(|| panic!("{name}: {error}"));
    assert_eq!(over.limit, LIMIT, "{name}");
    assert!(error.position().line().is_some(), "{name}: no line in {error}");
    assert!(peak <= 3 * LIMIT, "{name}: at its peak {peak} bytes");
}

#[test]
fn every_abuse_ends_its_run() {
    for (name, script) in scripts() {
        assert_ends(name, &format!("{script}; 42"));
    }
}

/// Evaluating the interpolated value takes the account over its limit, so that the operation at which the run is found
/// over is the very one that makes text of it.
#[test]
fn an_interpolated_value_that_no_longer_fits_is_not_printed() {
    const LIMIT: usize = 256 << 10;
    let shared = "let t = \"\"; t.pad(8_000, 'x'); let a = []; a.pad(8_000, t);";
    for script in ["`${a}`", "`x${a}y`", "`${#{ a: a }}`", "`${[a]}`", "let f = |a| `${a}`; f.call(a)", "`${a}${a}`"] {
        let (outcome, peak) = run(LIMIT, &format!("{shared} {script}; 42"));
        assert!(over_memory(&outcome.unwrap_err()).is_some(), "{script}");
        assert!(peak <= 3 * LIMIT, "{script}: at its peak {peak} bytes");
    }
}

#[test]
fn only_making_text_of_an_interpolated_value_is_exempt() {
    let seen = Rc::new(Cell::new((0, 0)));
    let counts = Rc::clone(&seen);
    let mut engine = checked();
    engine.on_progress(move |_| {
        let (operations, exempt) = counts.get();
        counts.set((operations + 1, exempt + u32::from(is_interpolating())));
        None
    });
    engine.on_print(|_| {});
    let plain = "fn text(x) { to_string(x) + x.to_debug() + [x].to_string() + (\"\" + x) } let a = [1, true];
                 for x in a { text(x); text(a); print(a); print(x); a.map(|x| text(x)); }";
    engine.run(plain).unwrap();
    let (operations, exempt) = seen.take();
    assert!(operations > 200 && exempt == 0, "{exempt} of {operations} operations without interpolation");

    // Text needs no call: 3 calls for a, 1 and 2.
    engine.run("let a = 5; let f = |x| `${x} ${\"y\"}`; `${a}` + f.call(1) + f.call(2) + f.call(\"z\")").unwrap();
    assert_eq!(seen.get().1, 3);
}

#[test]
fn no_abuse_can_be_caught() {
    for (name, script) in scripts() {
        assert_ends(name, &format!("try {{ {script} }} catch {{ }} 42"));
    }
}
