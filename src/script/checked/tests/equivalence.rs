//! Replaced functions give what Rhai's own give: every one of them, called with every combination of the sample values
//! of its parameter types, on an engine with and one without the replacements.

use rhai::{AST, Blob, Dynamic, Engine, INT, Scope};

use super::{checked, listed};

/// Functions that samples name in strings.
const SCRIPT_FUNCTIONS: &str = "
    fn down(a, b) { if a > b { -1 } else if a < b { 1 } else { 0 } }
    fn same(a, b) { a == b }
";

const STRINGS: &[&str] = &[
    "",
    "a",
    ",",
    "abc",
    "a,b,,c,",
    "  two  words ",
    "naïve ñandú ß ŉ",
    "ΐΑΣ ΑΣ",
    "日本語テキスト",
    "🦀,🦀🦀",
    "tab\t\"quote\" \\ \u{1}\u{7f}\u{200b}",
    "a text that is longer than what is stored inline, with commas, and more",
];

const NUMBERS: &[INT] = &[INT::MIN, -100, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 30, 300, INT::MAX];

/// Sample values of a parameter type.
fn samples(engine: &Engine, kind: &str) -> Vec<Dynamic> {
    let expressions: &[&str] = match kind {
        "string" => return STRINGS.iter().map(|text| (*text).into()).collect(),
        "i64" => return NUMBERS.iter().map(|number| (*number).into()).collect(),
        "char" => &["'a'", "','", "' '", "'ß'", "'🦀'", "'\\\\'"],
        "range" => &["0..0", "0..2", "1..100", "-5..3", "5..1", "2..9_223_372_036_854_775_807"],
        "range=" => &["0..=0", "0..=2", "1..=100", "-5..=3", "5..=1", "2..=9_223_372_036_854_775_807"],
        "array" => &[
            "[]",
            "[1]",
            "[3, 1, 2, 2, 1]",
            "[1, 1, 2, 2, 1]",
            "[2.5, -1.0, 2.5]",
            "['b', 'a', 'b']",
            "[\"pear\", \"fig\", \"apple\", \"fig\"]",
            "[true, false, true]",
            "[(), ()]",
            "[#{ a: 1 }, #{ a: 1 }]",
            "[1, \"two\", 'c', 4.5, true, (), [5, [\"six\"]], #{ \"a b\": [7], c: \"\\n\" }, blob(9, 255), 0..3]",
            "[Fn(\"down\"), timestamp()]",
        ],
        "map" => &["#{}", "#{ a: 1, \"b c\": [true, ()], d: #{ \"ü\\n\": 1.5, e: 'x', f: Fn(\"down\") } }"],
        "blob" => &["blob()", "blob(5, 97)", "to_blob(\"naïve\")", "blob(20, 255)", "to_blob(\"a\") + blob(2, 0xC3)"],
        "Fn" => &["Fn(\"down\")", "Fn(\"same\")"],
        "Dynamic" => &["1", "2.5", "true", "()", "\"text\"", "'c'", "[1, \"a\"]", "#{ a: 'b' }", "blob(3, 1)", "0..3"],
        other => panic!("no samples of {other}"),
    };
    let value = |text: &&str| engine.eval_expression(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    expressions.iter().map(value).collect()
}

/// Ways to call a function with the variables `a`, `b` and `c`, giving its result and the changed first argument.
fn call(name: &str, parameters: usize) -> String {
    let others = ["b", "c"][..parameters - 1].join(", ");
    match name {
        "chars" => format!("let r = []; for x in a.chars({others}) {{ r += x }} [r]"),
        "get$chars" => "let r = []; for x in a.chars { r += x } [r]".into(),
        "blob" => format!("[{name}(a {} {others})]", if parameters > 1 { "," } else { "" }),
        "+" => "[a + b]".into(),
        "+=" => "a += b; [a]".into(),
        // They give the text to the printer.
        "print" | "debug" => "let r = []; [a.to_string(), a.to_debug()]".into(),
        _ => format!("let r = a.{name}({others}); [r, a]"),
    }
}

/// Combinations that plain Rhai answers by filling the memory, by never returning, or by chance.
fn is_excluded(name: &str, arguments: &[Dynamic]) -> bool {
    let huge = |argument: &Dynamic| argument.as_int() == Ok(INT::MAX);
    let text = |argument: &Dynamic| argument.to_string();
    match name {
        "pad" => huge(&arguments[1]) || arguments[2].as_immutable_string_ref().is_ok_and(|text| text.is_empty()),
        "blob" => huge(&arguments[0]),
        // A comparer that fits neither the values nor the purpose.
        "sort" | "sort_by" | "order" | "order_by" | "dedup" if arguments.len() == 2 => {
            let comparer = if name == "dedup" { "same" } else { "down" };
            !text(&arguments[1]).contains(comparer) || text(&arguments[0]).contains(['#', '<'])
        }
        _ => false,
    }
}

fn outcome(engine: &Engine, ast: &AST, values: &[Dynamic]) -> String {
    let mut scope = Scope::new();
    for (name, value) in ["a", "b", "c"].into_iter().zip(values) {
        scope.push_dynamic(name, value.clone());
    }
    match engine.eval_ast_with_scope::<Dynamic>(&mut scope, ast) {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

/// Every combination of one value from each list.
fn combinations(lists: &[Vec<Dynamic>]) -> Vec<Vec<Dynamic>> {
    lists.iter().fold(vec![vec![]], |combinations, list| {
        let longer = combinations.iter().flat_map(|start| list.iter().map(move |value| (start, value)));
        longer.map(|(start, value)| [start.as_slice(), std::slice::from_ref(value)].concat()).collect()
    })
}

#[test]
fn results_are_rhais_own() {
    let (plain, checked) = (Engine::new(), checked());
    let mut compared = 0;
    for function in [listed("replaced"), listed("added")].concat() {
        let (receiver, rest) = function.split_once('.').unwrap();
        let (name, others) = rest.trim_end_matches(')').split_once('(').unwrap();
        if name == "parse_json" {
            continue;
        }
        let mut types = vec![receiver];
        types.extend(others.split(',').filter(|kind| !kind.is_empty()));
        let script = format!("{SCRIPT_FUNCTIONS} {}", call(name, types.len()));
        let compile = |engine: &Engine| engine.compile(&script).unwrap_or_else(|error| panic!("{script}: {error}"));
        let (plain_ast, checked_ast) = (compile(&plain), compile(&checked));

        let mut lists: Vec<_> = types.iter().map(|kind| samples(&plain, kind)).collect();
        if types == ["array", "string"] {
            // The name of a comparer.
            lists[1] = vec!["down".into(), "same".into()];
        }
        for arguments in combinations(&lists) {
            if is_excluded(name, &arguments) {
                continue;
            }
            let expected = outcome(&plain, &plain_ast, &arguments);
            assert_eq!(outcome(&checked, &checked_ast, &arguments), expected, "{function} of {arguments:?}");
            compared += 1;
        }
    }
    assert!(compared > 10_000, "{compared} combinations");
}

#[test]
fn json_is_read_as_rhai_reads_it() {
    let (plain, checked) = (Engine::new(), checked());
    for json in [
        "null",
        "[1, -2.5e3, true, null, \"ü\\n\", {}, {\"a\": {\"b\": []}}]",
        "9223372036854775808",
        "18446744073709551616",
        "",
        "[1,",
        "{\"a\": tru}",
        "{\"a\": 1, \"a\": 2}",
        &["[".repeat(127), "]".repeat(127)].concat(),
        &["[".repeat(128), "]".repeat(128)].concat(),
    ] {
        let script = format!("parse_json(#\"{json}\"#)");
        let read = |engine: &Engine| match engine.eval::<Dynamic>(&script) {
            Ok(value) => format!("{value:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(read(&checked), read(&plain), "{json}");

        // The same when the account is too small to be sure beforehand.
        let small = crate::script::account::Account::new(json.len() * 100 + 60_000);
        let interruptible = small.charge(|| read(&checked));
        assert_eq!(interruptible, read(&plain), "{json}");
    }
}

#[test]
fn an_empty_padding_is_an_error_instead_of_an_endless_loop() {
    let error = checked().eval::<()>("let s = \"a\"; s.pad(3, \"\")").unwrap_err();
    assert!(error.to_string().contains("the padding is empty"), "{error}");
}

#[test]
fn a_comparer_that_fails_ends_the_sort() {
    for call in ["sort(|x, y| x.a - y.a)", "sort_by(|x, y| throw 1)", "order(|x, y| throw 1)", "dedup(|x, y| throw 1)"]
    {
        let script = format!("let a = [2, 1]; try {{ a.{call} }} catch {{ a.push(3) }} a.sort(); a.to_string()");
        assert_eq!(checked().eval::<String>(&script).unwrap(), "[1, 2, 3]", "{call}");
    }
}

#[test]
fn deep_values_are_cut_short() {
    let nested = |levels: usize| format!("let a = 1; for i in 0..{levels} {{ a = [a] }}");
    let engine = checked();
    let shown = engine.eval::<String>(&format!("{} a.to_string()", nested(128))).unwrap();
    assert_eq!(shown, ["[".repeat(127), "…".into(), "]".repeat(127)].concat());
    let error = engine.eval::<String>(&format!("{} #{{ a: a }}.to_json()", nested(127))).unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
    let json = engine.eval::<String>(&format!("{} #{{ a: a }}.to_json()", nested(126))).unwrap();
    assert!(engine.eval::<Dynamic>(&format!("parse_json(`{json}`)")).is_ok());
}

#[test]
fn a_function_that_captured_itself_has_text_and_json() {
    let text = checked().eval::<String>("let f = 0; f = || f; `${[f]}` + #{ f: f }.to_json()").unwrap();
    assert!(text.contains("Fn(") && text.contains("{\"f\":\""), "{text}");
}

#[test]
fn invalid_bytes_become_text_of_the_exact_size() {
    let blob: Blob = (0..=255).chain([0xE2, 0x82, b'x', 0xF0, 0x9F]).collect();
    let text = super::super::strings::lossy(&blob).unwrap();
    assert_eq!(text, String::from_utf8_lossy(&blob));
    assert_eq!(text.len(), text.capacity());
}
