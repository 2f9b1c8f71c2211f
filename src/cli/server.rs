//! `ryemill server`: the HTTP API, until SIGTERM or SIGINT.

use std::sync::Arc;

use super::{Outcome, setup};
use crate::config::Config;
use crate::server;
use crate::telemetry::metrics::Metrics;

#[expect(clippy::needless_pass_by_value, reason = "every command takes its configuration")]
pub fn run(config: Config) -> Outcome {
    let _logs = setup::logging(&config, "server")?;
    setup::runtime()?.block_on(async {
        let shutdown = setup::shutdown()?;
        let state = setup::server_state(&config, setup::broker(&config).await?, Arc::new(Metrics::new()))?;
        let listener = setup::api_listener(&config).await?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!("the API is on http://{address}");
        }
        server::run(listener, state, shutdown).await;
        tracing::info!("the server has stopped");
        Ok(())
    })
}
