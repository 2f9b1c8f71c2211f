//! Array functions whose result can outgrow the array (`pad`), or whose comparisons could not be interrupted
//! (`sort`, `order`, `dedup` and their variants).

use std::cmp::Ordering;

use rhai::{Array, Dynamic, EvalAltResult, FnPtr, INT, NativeCallContext, OP_EQUALS, Position};

use super::{Checked, sort::sort, tick};
use crate::script::account;

/// Values written or compared between two chances for the engine to interrupt.
const STEPS_PER_TICK: usize = 1024;

/// Bytes of text that are compared in about the time of one step.
const BYTES_PER_STEP: usize = 256;

/// Sorts by a script function, which gives a number, or whether its arguments are in order. For other results,
/// as in plain Rhai, values are ordered by their types.
fn sort_by_function(ctx: &NativeCallContext, array: &mut Array, comparer: &FnPtr) -> Checked<()> {
    sort(array, |left, right| {
        let order = comparer.call_raw(ctx, None, [left.clone(), right.clone()])?;
        Ok(match (order.as_int(), order.as_bool()) {
            (Ok(order), _) => order.cmp(&0),
            (_, Ok(true)) => Ordering::Less,
            (_, Ok(false)) => Ordering::Greater,
            _ => left.type_id().cmp(&right.type_id()),
        })
    })
}

/// Sorts values of one type that has an order of its own.
fn sort_by_value(ctx: &NativeCallContext, array: &mut Array, direction: fn(Ordering) -> Ordering) -> Checked<()> {
    let unsortable = |reason: String| Err(EvalAltResult::ErrorFunctionNotFound(reason, Position::NONE).into());
    let Some((first, rest)) = array.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Ok(());
    };
    if rest.iter().any(|value| value.type_id() != first.type_id()) {
        return unsortable("elements of different types cannot be sorted".into());
    }
    let compare = if first.is_int() {
        |left: &Dynamic, right: &Dynamic| left.as_int().cmp(&right.as_int())
    } else if first.is_float() {
        |left: &Dynamic, right: &Dynamic| {
            let order = left.as_float().ok().partial_cmp(&right.as_float().ok());
            order.unwrap_or(Ordering::Equal)
        }
    } else if first.is_string() {
        |left: &Dynamic, right: &Dynamic| {
            let text = Dynamic::as_immutable_string_ref;
            text(left).as_deref().cmp(&text(right).as_deref())
        }
    } else if first.is_char() {
        |left: &Dynamic, right: &Dynamic| left.as_char().cmp(&right.as_char())
    } else if first.is_bool() {
        |left: &Dynamic, right: &Dynamic| left.as_bool().cmp(&right.as_bool())
    } else if first.is_unit() {
        return Ok(());
    } else {
        return unsortable(format!("elements of {} cannot be sorted", first.type_name()));
    };

    let mut steps = 0;
    sort(array, |left, right| {
        steps += 1 + text_len(left).min(text_len(right)) / BYTES_PER_STEP;
        if steps >= STEPS_PER_TICK {
            steps = 0;
            tick(ctx)?;
        }
        Ok(direction(compare(left, right)))
    })
}

fn text_len(value: &Dynamic) -> usize {
    value.as_immutable_string_ref().map_or(0, |text| text.len())
}

/// Removes values that are equal to the one before them.
fn dedup_by(array: &mut Array, mut equal: impl FnMut(&Dynamic, &Dynamic) -> Checked<bool>) -> Checked<()> {
    let mut failure = Ok(());
    array.dedup_by(|value, before| {
        failure.is_ok()
            && equal(before, value).unwrap_or_else(|error| {
                failure = Err(error);
                false
            })
    });
    failure
}

fn dedup_by_function(ctx: &NativeCallContext, array: &mut Array, comparer: &FnPtr) -> Checked<()> {
    dedup_by(array, |before, value| {
        let equal = comparer.call_raw(ctx, None, [before.clone(), value.clone()])?;
        Ok(equal.as_bool().unwrap_or(false))
    })
}

#[rhai::export_module]
pub(super) mod functions {
    #[rhai_fn(return_raw)]
    pub fn pad(ctx: NativeCallContext, array: &mut Array, len: INT, item: Dynamic) -> Checked<()> {
        let missing = usize::try_from(len).map_or(0, |len| len.saturating_sub(array.len()));
        account::reserve(missing.saturating_mul(size_of::<Dynamic>()))?;
        array.reserve_exact(missing);
        for step in 0..missing {
            // What a copy of the item holds is known only once there is one.
            account::reserve(0)?;
            if step % STEPS_PER_TICK == 0 {
                tick(&ctx)?;
            }
            array.push(item.clone());
        }
        Ok(())
    }

    #[rhai_fn(name = "sort", name = "sort_by", return_raw)]
    pub fn sort_by(ctx: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Checked<()> {
        sort_by_function(&ctx, array, &comparer)
    }

    #[rhai_fn(name = "sort", return_raw)]
    pub fn sort_by_name(ctx: NativeCallContext, array: &mut Array, comparer: &str) -> Checked<()> {
        sort_by_function(&ctx, array, &FnPtr::new(comparer)?)
    }

    #[rhai_fn(name = "sort", return_raw)]
    pub fn sort_plain(ctx: NativeCallContext, array: &mut Array) -> Checked<()> {
        sort_by_value(&ctx, array, |order| order)
    }

    #[rhai_fn(return_raw)]
    pub fn sort_desc(ctx: NativeCallContext, array: &mut Array) -> Checked<()> {
        sort_by_value(&ctx, array, Ordering::reverse)
    }

    #[rhai_fn(name = "order", name = "order_by", pure, return_raw)]
    pub fn order_by(ctx: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Checked<Array> {
        let mut sorted = array.clone();
        sort_by_function(&ctx, &mut sorted, &comparer)?;
        Ok(sorted)
    }

    #[rhai_fn(name = "order", pure, return_raw)]
    pub fn order_plain(ctx: NativeCallContext, array: &mut Array) -> Checked<Array> {
        let mut sorted = array.clone();
        sort_by_value(&ctx, &mut sorted, |order| order)?;
        Ok(sorted)
    }

    #[rhai_fn(pure, return_raw)]
    pub fn order_desc(ctx: NativeCallContext, array: &mut Array) -> Checked<Array> {
        let mut sorted = array.clone();
        sort_by_value(&ctx, &mut sorted, Ordering::reverse)?;
        Ok(sorted)
    }

    #[rhai_fn(return_raw)]
    pub fn dedup(ctx: NativeCallContext, array: &mut Array) -> Checked<()> {
        dedup_by(array, |before, value| {
            let (mut before, mut value) = (before.clone(), value.clone());
            match ctx.call_native_fn_raw(OP_EQUALS, false, &mut [&mut before, &mut value]) {
                Ok(equal) => Ok(equal.as_bool().unwrap_or(false)),
                Err(error) if !error.is_catchable() => Err(error),
                // Values of a type without `==` differ.
                Err(_) => Ok(false),
            }
        })
    }

    #[rhai_fn(name = "dedup", return_raw)]
    pub fn dedup_by_fn(ctx: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Checked<()> {
        dedup_by_function(&ctx, array, &comparer)
    }

    #[rhai_fn(name = "dedup", return_raw)]
    pub fn dedup_by_name(ctx: NativeCallContext, array: &mut Array, comparer: &str) -> Checked<()> {
        dedup_by_function(&ctx, array, &FnPtr::new(comparer)?)
    }
}
