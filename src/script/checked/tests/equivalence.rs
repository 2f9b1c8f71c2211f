//! Replaced functions give what Rhai gives.
