//! Blob functions that allocate from a number (`blob`, `pad`) or turn bytes into something larger (`to_array`,
//! `as_string`).

use rhai::{Array, Blob, Dynamic, INT};

use super::{Checked, strings::lossy};
use crate::script::account;

/// The low byte of a number, as everywhere in Rhai's blobs.
fn low_byte(value: INT) -> u8 {
    value.to_le_bytes()[0]
}

/// Fills up to `len` bytes.
fn padded(blob: &mut Blob, len: INT, value: INT) -> Checked<()> {
    let len = usize::try_from(len).unwrap_or(0).max(blob.len());
    let missing = len - blob.len();
    account::reserve(missing)?;
    blob.reserve_exact(missing);
    blob.resize(len, low_byte(value));
    Ok(())
}

#[rhai::export_module]
pub(super) mod functions {
    #[rhai_fn(name = "blob", return_raw)]
    pub fn blob(len: INT) -> Checked<Blob> {
        blob_of(len, 0)
    }

    #[rhai_fn(name = "blob", return_raw)]
    pub fn blob_of(len: INT, value: INT) -> Checked<Blob> {
        let mut blob = Blob::new();
        padded(&mut blob, len, value)?;
        Ok(blob)
    }

    #[rhai_fn(return_raw)]
    pub fn pad(blob: &mut Blob, len: INT, value: INT) -> Checked<()> {
        padded(blob, len, value)
    }

    #[rhai_fn(pure, return_raw)]
    pub fn to_array(blob: &mut Blob) -> Checked<Array> {
        account::reserve(blob.len().saturating_mul(size_of::<Dynamic>()))?;
        Ok(blob.iter().map(|byte| INT::from(*byte).into()).collect())
    }

    #[rhai_fn(pure, return_raw)]
    pub fn as_string(blob: &mut Blob) -> Checked<String> {
        lossy(blob)
    }
}
