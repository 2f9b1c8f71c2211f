//! `ryemill test`.

use std::path::Path;

use serde_json::Value;

use super::{fixture, ryemill};

#[test]
fn tests_are_told_as_cargo_tells_them() {
    let said = ryemill(&fixture("tests"), &["test", "--timeout", "1s"]);
    assert_eq!(said.code, 1, "{}", said.err);
    insta::with_settings!({ filters => [(r"finished in \d+\.\d\ds", "finished in [time]")] }, {
        insta::assert_snapshot!(said.out);
    });
}

#[test]
fn one_test_can_be_chosen_and_told_as_json() {
    let said = ryemill(&fixture("tests"), &["test", "order::test_charges_once", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&report["passed"], &report["failed"]), (&1.into(), &0.into()), "{report}");
    assert_eq!(report["tests"][0]["name"], "order::test_charges_once");
    let said = ryemill(&fixture("tests"), &["test", "order::test_throws", "--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["tests"][0]["error"]["message"], r#"{"code":7}"#);
    assert_eq!(report["tests"][0]["error"]["file"], "order.test.rhai");
}

#[test]
fn what_is_not_there_is_wrong_usage() {
    for (args, expected) in [
        (["test", "nothing"], "there is no nothing.test.rhai"),
        (["test", "order::test_nothing"], "there is no `fn test_nothing()`; there are: test_charges_once"),
        (["test", "--timeout=soon"], "--timeout"),
    ] {
        let said = ryemill(&fixture("tests"), &args);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        assert!(said.err.contains(expected), "{args:?}: {}", said.err);
    }
    assert_eq!(ryemill(Path::new("/nowhere"), &["test"]).code, 2);
}

#[test]
fn a_test_file_with_faults_fails() {
    let said = ryemill(&fixture("broken_tests"), &["test"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("order.test.rhai:1:1") && said.out.contains("order.test.rhai:2:4"), "{}", said.out);
    assert!(
        said.out.contains("test result: FAILED. 0 passed; 0 failed; 2 faults in scripts and test files"),
        "{}",
        said.out
    );
    let checked = ryemill(&fixture("broken_tests"), &["check"]);
    assert_eq!(checked.code, 1);
    assert!(checked.out.contains("order.test.rhai:1:1"), "{}", checked.out);
}

#[test]
fn the_shipped_jobs_pass_their_tests() {
    let said = ryemill(&Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs"), &["test"]);
    assert_eq!(said.code, 0, "{}", said.out);
    assert!(said.out.contains("0 failed"), "{}", said.out);
    for name in ["email", "report", "long_task"] {
        assert!(said.out.contains(&format!("test {name}::test_")), "{name} has tests: {}", said.out);
    }
}
