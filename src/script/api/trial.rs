//! Natives that break the process, so that tests can show what a broken process does to jobs: no script can by itself.
//!
//! They are only in builds with debug assertions, never in a release, and there only when the environment has
//! `RYEMILL_TEST_NATIVES=yes`.

use rhai::{Engine, Module};

use super::put;
use crate::script::context::{self, ScriptResult};

pub fn register(engine: &mut Engine) {
    if std::env::var_os("RYEMILL_TEST_NATIVES").is_some_and(|value| value == "yes") {
        engine.register_global_module(module().into());
    }
}

fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "test_abort", || abort());
    put!(&mut module, "test_abort_computing", || context::compute::<()>(usize::MAX, || std::process::abort()));
    put!(&mut module, "test_wedge", || wedge());
    module
}

/// On the executor thread; the other one is on a blocking thread, while the fiber is suspended.
fn abort() -> ScriptResult<()> {
    std::process::abort()
}

/// Holds up the executor thread for ever.
fn wedge() -> ScriptResult<()> {
    loop {
        std::thread::park();
    }
}
