//! Modules that import each other: no load of one would come to its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rhai::{AST, Position};

use crate::script::diagnostics::Fault;
use crate::script::metadata;

/// One fault for each import that leads back to the module it stands in.
pub fn faults(parsed: &[(&String, Result<AST, Vec<Fault>>)]) -> Vec<Fault> {
    let imports: BTreeMap<&str, Vec<(String, Position)>> = parsed
        .iter()
        .filter_map(|(file, ast)| Some((file.trim_end_matches(".rhai"), metadata::imports_at_once(ast.as_ref().ok()?))))
        .collect();
    let mut faults = Vec::new();
    for (from, edges) in &imports {
        for (to, at) in edges {
            // The way back, nearest first.
            let mut ways = VecDeque::from([vec![to.as_str()]]);
            let mut seen = BTreeSet::new();
            while let Some(way) = ways.pop_front() {
                let last = way[way.len() - 1];
                if last == *from {
                    let way = [&[*from], &way[..]].concat().join(" → ");
                    let fault = Fault::new(&format!("{from}.rhai"), *at, format!("the import leads back here: {way}"));
                    faults.push(fault.with_hint("put what both need into a module of its own"));
                    break;
                }
                let next = imports.get(last).into_iter().flatten().map(|(next, _)| next.as_str());
                ways.extend(next.filter(|next| seen.insert(*next)).map(|next| [&way[..], &[next]].concat()));
            }
        }
    }
    faults
}
