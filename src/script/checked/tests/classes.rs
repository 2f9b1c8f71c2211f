//! The classification is complete, exact, and true of this module.

use std::collections::BTreeSet;

use rhai::Engine;

use super::{checked, listed};

/// `name(a: A, b: B) -> C` as `A.name(B)`, with one name for the number types that scripts seldom see.
fn normalised(signature: &str) -> String {
    let open = signature.find('(').expect("a parameter list");
    let end = signature.find(" -> ").unwrap_or(signature.len());
    let parameters = &signature[open + 1..end - 1];
    let types = parameters.split(", ").filter(|parameter| !parameter.is_empty());
    let mut types = types.map(|parameter| {
        let kind = parameter.rsplit_once(": ").map_or(parameter, |(_, kind)| kind);
        let kind = kind.trim_start_matches("&mut ");
        let inner = kind.strip_prefix("std::ops::Range<").and_then(|kind| kind.strip_suffix('>'));
        match inner {
            Some(inner) => format!("Range<{}>", number(inner)),
            None => number(kind).to_owned(),
        }
    });
    let receiver = types.next().unwrap_or("-".into());
    let others = types.collect::<Vec<_>>().join(",");
    format!("{receiver}.{}({others})", &signature[..open])
}

fn number(kind: &str) -> &str {
    match kind {
        "i8" | "u8" | "i16" | "u16" | "i32" | "u32" | "u64" | "i128" | "u128" | "f32" => "N",
        "INT" => "i64",
        "FLOAT" => "f64",
        other => other,
    }
}

fn normal_set(signatures: &[String]) -> BTreeSet<String> {
    signatures.iter().map(|signature| normalised(signature)).collect()
}

#[test]
fn every_standard_function_is_classified_once() {
    let standard = normal_set(&Engine::new().gen_fn_signatures(true));
    let rows = listed("*");
    let classified: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), classified.len(), "a function is listed twice");

    let missing: Vec<_> = standard.difference(&classified).collect();
    assert!(missing.is_empty(), "classify in standard.txt: {missing:#?}");
    let added: BTreeSet<_> = listed("added").into_iter().collect();
    let stale: Vec<_> = classified.difference(&standard).filter(|row| !added.contains(*row)).collect();
    assert!(stale.is_empty(), "not in the standard package: {stale:#?}");
}

#[test]
fn this_module_replaces_exactly_what_is_listed() {
    let ours = normal_set(&checked().gen_fn_signatures(false));
    let listed: BTreeSet<_> = [listed("replaced"), listed("added")].concat().into_iter().collect();
    assert_eq!(ours, listed);
}
