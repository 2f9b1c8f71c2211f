//! `ryemill worker`: runs jobs, until SIGTERM or SIGINT.

use std::sync::Arc;

use super::{Outcome, setup};
use crate::config::Config;
use crate::telemetry::metrics::Metrics;

#[expect(clippy::needless_pass_by_value, reason = "every command takes its configuration")]
pub fn run(config: Config) -> Outcome {
    let _logs = setup::logging(&config, "worker")?;
    setup::runtime()?.block_on(async {
        let shutdown = setup::shutdown()?;
        let broker = setup::broker(&config).await?;
        let worker = setup::worker(&config, broker, Arc::new(Metrics::new()), &shutdown).await?;
        Ok(worker.run(shutdown).await?)
    })
}
