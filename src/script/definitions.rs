//! The host library for editors: `.d.rhai` files that the Rhai language server completes and explains from. Made from
//! the same reference as the page of the host functions.

use std::fmt::Write as _;

use rhai::Engine;

use super::reference::{Function, Namespace, Signature, reference};
use super::testing;

/// Name and text of each file: Rhai's own functions, ours without a namespace, those of tests, and one per namespace.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Engine::new().definitions().iter_files().collect();
    // Methods are called without their namespace.
    let all = reference();
    let global = |text: &mut String, namespace: &Namespace| {
        let functions = namespace.functions.iter().filter(|function| namespace.name.is_empty() || function.method);
        functions.for_each(|function| write(text, function));
    };
    let mut text = "module static;\n".to_owned();
    for namespace in &all {
        global(&mut text, namespace);
    }
    files.push(("ryemill.d.rhai".to_owned(), text));
    let mut text = "module static;\n".to_owned();
    global(&mut text, &testing::REFERENCE);
    files.push(("ryemill-tests.d.rhai".to_owned(), text));
    for namespace in all.iter().filter(|namespace| !namespace.name.is_empty()) {
        let mut text = format!("module {};\n", namespace.name);
        let own = namespace.functions.iter().filter(|function| !function.method);
        own.for_each(|function| write(&mut text, function));
        files.push((format!("{}.d.rhai", namespace.name), text));
    }
    files
}

/// Each way to call a function, under what there is to say about it.
fn write(text: &mut String, function: &Function) {
    for signature in function.signatures.iter().map(|signature| Signature::of(signature)) {
        let _ = writeln!(text, "\n/// {}\n///\n/// ```rhai", function.about);
        for line in function.example.lines() {
            let _ = writeln!(text, "/// {line}");
        }
        let parameters: Vec<String> =
            signature.parameters.iter().map(|(name, kind)| format!("{name}: {}", known(kind))).collect();
        let returns = known(signature.returns);
        let _ = writeln!(text, "/// ```\nfn {}({}) -> {returns};", signature.name, parameters.join(", "));
    }
}

/// A type as the language server writes it.
fn known(kind: &str) -> String {
    kind.replace("any", "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_a_file_that_declares_its_functions() {
        let files = files();
        let text = |name: &str| &files.iter().find(|(file, _)| file == name).expect(name).1;
        assert!(text("sql.d.rhai").starts_with("module sql;\n"));
        assert!(text("sql.d.rhai").contains("fn query(db: string | transaction, "), "{}", text("sql.d.rhai"));
        assert!(text("ryemill.d.rhai").contains("fn sleep(duration: string) -> ();"), "{}", text("ryemill.d.rhai"));
        assert!(text("ryemill.d.rhai").contains("fn json(answer: map) -> ?;"), "a method has no namespace");
        assert!(!text("http.d.rhai").contains("fn json("));
        assert!(text("ryemill-tests.d.rhai").contains("fn run_job(name: string, payload: ?) -> map;"));
        assert!(text("__static__.d.rhai").contains("fn to_upper"), "Rhai's own");
    }

    /// What the language server's grammar has for a declaration, and the words that it keeps for itself.
    #[test]
    fn every_line_is_one_that_the_language_server_reads() {
        const WORDS: &str = "as async await break case catch const continue default do else exit export fn for go goto if import in \
                             let loop match module new nil null package private protected public return spawn static super \
                             switch sync thread throw try until use var void while with yield";
        let kinds = r"(?:\w+|\?|\(\))(?: \| (?:\w+|\?|\(\)))*";
        let line = format!(r"^(?:|///.*|module (?:static|\w+);|fn (\w+)\(((?:\w+: {kinds}(?:, )?)*)\) -> {kinds};)$");
        let line = regex::Regex::new(&line).unwrap();
        for (file, text) in files().iter().filter(|(file, _)| !file.starts_with("__")) {
            assert!(text.starts_with("module "), "{file}");
            for declared in text.lines() {
                let parts = line.captures(declared).unwrap_or_else(|| panic!("{file}: {declared}"));
                let parameters = parts.get(2).map_or("", |found| found.as_str()).split(", ");
                let names = parameters
                    .filter_map(|parameter| Some(parameter.split_once(':')?.0))
                    .chain(parts.get(1).map(|found| found.as_str()));
                for name in names {
                    assert!(!WORDS.split_whitespace().any(|word| word == name), "{file}: {declared}");
                }
            }
        }
    }

    #[test]
    fn the_reference_of_tests_names_what_only_tests_can_call() {
        let described: std::collections::BTreeSet<String> = testing::REFERENCE
            .functions
            .iter()
            .flat_map(|function| function.signatures)
            .map(|text| Signature::of(text))
            .map(|signature| format!("{}/{}", signature.name, signature.parameters.len()))
            .collect();
        assert_eq!(described, testing::registered());
        let page = include_str!("../../docs/testing.md");
        for function in described {
            let name = function.split('/').next().unwrap();
            assert!(page.contains(&format!("`{name}(")), "docs/testing.md does not name {name}");
        }
    }
}
