//! Sorting that can be interrupted and that passes on the errors of its comparer.
//!
//! Rhai's own `sort` calls the comparer inside `catch_unwind` and ignores its errors, so a run that must end
//! would first finish sorting, a comparer call for every comparison. Its plain `sort` of strings compares without
//! a pause, for hours when an array holds the same long strings many times. It must not know how values compare.

use std::cmp::Ordering;
use std::mem;

use rhai::{Array, Dynamic};

use super::Checked;
use crate::script::account;

/// Sorts `items`, stable, by merging the runs that are already in order: at most `n log₂ n` comparisons, `n − 1`
/// when they are sorted already. Any comparer is fine: one without a total order gives some order.
///
/// # Errors
/// The first error of `compare`, which is then not called again; `items` holds the same values in some order.
pub(super) fn sort(items: &mut Array, mut compare: impl FnMut(&Dynamic, &Dynamic) -> Checked<Ordering>) -> Checked<()> {
    account::reserve(items.len().saturating_mul(size_of::<Dynamic>()))?;
    let mut bounds = runs(items, &mut compare)?;
    let mut merged = Array::new();
    while bounds.len() > 2 {
        let mut failure = Ok(());
        let mut goes_first = |right: &Dynamic, left: &Dynamic| {
            failure.is_ok()
                && compare(left, right).unwrap_or_else(|error| {
                    failure = Err(error);
                    Ordering::Equal
                }) == Ordering::Greater
        };
        merged.clear();
        merged.reserve_exact(items.len());
        for pair in bounds.windows(3).step_by(2) {
            merge(items, (pair[0], pair[1], pair[2]), &mut merged, &mut goes_first);
        }
        // The last run has no partner when there is an odd number.
        let rest = merged.len();
        merged.extend(items[rest..].iter_mut().map(mem::take));
        mem::swap(items, &mut merged);
        failure?;
        let last = items.len();
        bounds = bounds.into_iter().step_by(2).collect();
        if bounds.last() != Some(&last) {
            bounds.push(last);
        }
    }
    Ok(())
}

/// The bounds of the runs that are in order: run `i` is `bounds[i]..bounds[i + 1]`. Falling ones are reversed.
fn runs(items: &mut Array, compare: &mut impl FnMut(&Dynamic, &Dynamic) -> Checked<Ordering>) -> Checked<Vec<usize>> {
    let mut bounds = vec![0];
    let mut start = 0;
    while start < items.len() {
        let mut end = start + 1;
        if end < items.len() {
            // Only strictly falling ones, or equal values would change places.
            let falling = compare(&items[start], &items[end])? == Ordering::Greater;
            end += 1;
            while end < items.len() && (compare(&items[end - 1], &items[end])? == Ordering::Greater) == falling {
                end += 1;
            }
            if falling {
                items[start..end].reverse();
            }
        }
        bounds.push(end);
        start = end;
    }
    Ok(bounds)
}

/// Moves two neighbouring runs of `items` to the end of `merged`, in order.
fn merge(
    items: &mut Array,
    (start, middle, end): (usize, usize, usize),
    merged: &mut Array,
    goes_first: &mut impl FnMut(&Dynamic, &Dynamic) -> bool,
) {
    let (mut left, mut right) = (start, middle);
    while left < middle && right < end {
        let next = if goes_first(&items[right], &items[left]) { &mut right } else { &mut left };
        merged.push(mem::take(&mut items[*next]));
        *next += 1;
    }
    merged.extend(items[left..middle].iter_mut().map(mem::take));
    merged.extend(items[right..end].iter_mut().map(mem::take));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: i64 = 1_000_000;

    /// Values that carry their key and their position.
    fn tagged(keys: &[u8]) -> Array {
        let tagged = (0..).zip(keys).map(|(at, key)| i64::from(*key) * KEY + at);
        tagged.map(Dynamic::from).collect()
    }

    fn key_order(left: &Dynamic, right: &Dynamic) -> Ordering {
        let key = |value: &Dynamic| value.as_int().unwrap() / KEY;
        key(left).cmp(&key(right))
    }

    fn ints(items: &Array) -> Vec<i64> {
        items.iter().map(|item| item.as_int().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn sorts_like_the_standard_library(keys in prop::collection::vec(0_u8..20, 0..300)) {
            let mut items = tagged(&keys);
            // Key and position: a stable sort by key is a plain sort of these.
            let mut expected = ints(&items);
            expected.sort_unstable();
            sort(&mut items, |left, right| Ok(key_order(left, right))).unwrap();
            prop_assert_eq!(ints(&items), expected);
        }

        #[test]
        fn a_failing_comparer_loses_no_value(
            keys in prop::collection::vec(0_u8..20, 2..300),
            allowed in 0_usize..600,
        ) {
            let mut items = tagged(&keys);
            let mut expected = ints(&items);
            let mut calls = 0;
            let outcome = sort(&mut items, |left, right| {
                calls += 1;
                if calls > allowed { Err("no".into()) } else { Ok(key_order(left, right)) }
            });
            prop_assert_eq!(outcome.is_err(), calls > allowed);
            prop_assert!(calls <= allowed + 1, "called again after its error");
            let mut found = ints(&items);
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_comparer_without_order_ends(keys in prop::collection::vec(0_u8..20, 0..300), seed: u64) {
            let mut items = tagged(&keys);
            let mut state = seed;
            sort(&mut items, |_, _| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                Ok((state >> 60).cmp(&8))
            }).unwrap();
            let mut found = ints(&items);
            found.sort_unstable();
            let mut expected = ints(&tagged(&keys));
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn sorted_input_takes_one_pass() {
        for keys in [(0..100).collect::<Vec<u8>>(), (0..100).rev().collect()] {
            let mut items = tagged(&keys);
            let mut calls = 0;
            sort(&mut items, |left, right| {
                calls += 1;
                Ok(key_order(left, right))
            })
            .unwrap();
            assert_eq!(calls, 99);
        }
    }
}
