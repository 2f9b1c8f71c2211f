//! The reference page names every function, with every number of arguments, and no other.

use std::collections::BTreeSet;

use rhai::Engine;

/// `name/arity` of all that is registered.
fn registered() -> BTreeSet<String> {
    let mut engine = Engine::new_raw();
    super::super::register(&mut engine);
    let mut global = Engine::new_raw();
    global.register_global_module(super::super::control::module().into());
    let namespaced = engine.gen_fn_signatures(false).into_iter().filter(|signature| signature.contains("::"));
    let all = namespaced.chain(global.gen_fn_signatures(true));
    all.filter_map(|signature| {
        let (name, rest) = signature.split_once('(')?;
        let parameters = rest.split(") ->").next()?.trim_end_matches(')');
        Some(format!("{name}/{}", parameters.split(',').filter(|parameter| !parameter.trim().is_empty()).count()))
    })
    .collect()
}

/// `name/arity` of every call in backticks of the page.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../../../docs/host-functions.md");
    let in_backticks = page.split('`').skip(1).step_by(2);
    in_backticks
        .filter_map(|text| {
            let (name, rest) = text.split_once('(')?;
            let is_call = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | ':'));
            let arguments = rest.strip_suffix(')').filter(|_| is_call)?;
            Some(format!("{name}/{}", arguments.split(',').filter(|argument| !argument.trim().is_empty()).count()))
        })
        .collect()
}

#[test]
fn the_page_and_the_functions_agree() {
    let (registered, documented) = (registered(), documented());
    assert!(registered.len() > 30, "{registered:?}");
    assert_eq!(documented, registered);
}
