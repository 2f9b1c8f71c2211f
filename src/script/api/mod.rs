//! The host library.

pub fn register(_engine: &mut rhai::Engine) {}
