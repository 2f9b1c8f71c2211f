//! Broken scripts, and the error cards that their authors see: each must tell what is wrong, where, and what helps.

use std::fs;

use super::{fixture, ryemill};

/// Every script of the folder: checked, and run if nothing was found.
fn cards() -> Vec<(String, String)> {
    let folder = fixture("broken");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".rhai")?.to_owned()))
        .collect();
    names.sort();
    let card = |name: &String| {
        // Alone with the modules, so that the others' faults are not told.
        let place = tempfile::tempdir().unwrap();
        let file = format!("{name}.rhai");
        fs::copy(folder.join(&file), place.path().join(&file)).unwrap();
        fs::create_dir(place.path().join("lib")).unwrap();
        fs::copy(folder.join("lib/money.rhai"), place.path().join("lib/money.rhai")).unwrap();
        if name == "broken_module" {
            fs::copy(folder.join("lib/broken.rhai"), place.path().join("lib/broken.rhai")).unwrap();
        }
        let mut said = ryemill(place.path(), &["check"]);
        if said.code == 0 {
            said = ryemill(place.path(), &["run", name]);
        }
        assert_eq!(said.code, 1, "{name}: {said:?}");
        (name.clone(), format!("{}{}", said.out, said.err))
    };
    names.iter().map(card).collect()
}

#[test]
fn every_broken_script_has_a_card_that_teaches() {
    let cards = cards();
    assert!(cards.len() >= 20, "{}", cards.len());
    let filters = vec![
        (r"[\d.]+ ms, \d+ operations, at most [\d.]+ \S+ of memory", "[usage]"),
        (r"(needs more than its memory of 4MiB): .*", "$1: [what]"),
    ];
    insta::with_settings!({ filters => filters, omit_expression => true }, {
        for (name, card) in cards {
            insta::assert_snapshot!(name, card);
        }
    });
}
