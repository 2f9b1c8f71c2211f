//! The reference names every function, with every number of arguments, and no other; its examples come to what they
//! say; the page is made from it.

use std::collections::BTreeSet;

use rhai::Engine;

use super::super::reference::{Function, Namespace, Outcome, Signature, page, reference};
use super::{Host, JobId, queue, web};
use crate::script::fiber::ScriptEnd;

/// `name/arity` of all that is registered.
fn registered() -> BTreeSet<String> {
    let mut engine = Engine::new_raw();
    super::super::register(&mut engine);
    let mut global = Engine::new_raw();
    global.register_global_module(super::super::control::module().into());
    global.register_global_module(super::super::http::methods().into());
    let namespaced = engine.gen_fn_signatures(false).into_iter().filter(|signature| signature.contains("::"));
    let all = namespaced.chain(global.gen_fn_signatures(true));
    all.filter_map(|signature| {
        let (name, rest) = signature.split_once('(')?;
        let parameters = rest.split(") ->").next()?.trim_end_matches(')');
        Some(format!("{name}/{}", parameters.split(',').filter(|parameter| !parameter.trim().is_empty()).count()))
    })
    .collect()
}

fn described() -> BTreeSet<String> {
    let of = |namespace: &Namespace, function: &Function| {
        let before =
            if namespace.name.is_empty() || function.method { String::new() } else { format!("{}::", namespace.name) };
        let signatures = function.signatures.iter().map(|text| Signature::of(text));
        signatures
            .map(|signature| format!("{before}{}/{}", signature.name, signature.parameters.len()))
            .collect::<Vec<_>>()
    };
    let all = reference();
    all.iter().flat_map(|namespace| namespace.functions.iter().flat_map(|function| of(namespace, function))).collect()
}

#[test]
fn the_reference_and_the_functions_agree() {
    let (registered, described) = (registered(), described());
    assert!(registered.len() > 30, "{registered:?}");
    assert_eq!(described, registered);
}

#[test]
fn a_signature_is_of_known_types() {
    const TYPES: [&str; 13] =
        ["string", "int", "float", "bool", "char", "map", "array", "blob", "Fn", "time", "transaction", "any", "()"];
    for function in reference().iter().flat_map(|namespace| namespace.functions) {
        for signature in function.signatures.iter().map(|text| Signature::of(text)) {
            let types = signature.parameters.iter().map(|(_, kind)| *kind).chain([signature.returns]);
            for kind in types.flat_map(|kinds| kinds.split(" | ")) {
                assert!(TYPES.contains(&kind), "{signature:?} has the type `{kind}`");
            }
        }
        assert!(!function.about.is_empty() && !function.about.contains('\n'), "{function:?}");
    }
}

#[test]
fn the_page_is_made_from_the_reference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/host-functions.md");
    let made = page();
    if std::env::var_os("UPDATE_HOST_FUNCTIONS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(made == written, "docs/host-functions.md is old: UPDATE_HOST_FUNCTIONS=1 cargo test --lib reference");
}

#[test]
fn every_example_comes_to_what_it_says() {
    let (host, port) = (Host::new(), web::server());
    let mut wrong = Vec::new();
    for function in reference().iter().flat_map(|namespace| namespace.functions) {
        let body = function.example.replace("https://api.example.com", &format!("http://127.0.0.1:{port}"));
        let ran = host.run_as(JobId::new(&queue()), super::ALLOW_ALL, &body);
        let right = match (&ran.end, function.outcome) {
            (ScriptEnd::Returned(value), Outcome::Value(expected)) => {
                let expected: serde_json::Value = serde_json::from_str(expected).expect(expected);
                serde_json::from_str::<serde_json::Value>(value.get()).unwrap() == expected
            }
            (ScriptEnd::Returned(value), Outcome::Nothing) => value.get() == "null",
            (ScriptEnd::Failed(error) | ScriptEnd::RetryIn { error, .. }, Outcome::Fails(expected)) => {
                error.message == expected
            }
            _ => false,
        };
        if !right {
            wrong.push(format!("{body}\n=> {:?}", ran.end));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
