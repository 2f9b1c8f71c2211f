//! `ryemill dev`: server and worker in one process on one broker, scripts watched, sample database made.

use std::sync::Arc;

use super::{Outcome, sample, setup};
use crate::config::Config;
use crate::server;
use crate::telemetry::metrics::Metrics;

pub fn run(mut config: Config) -> Outcome {
    config.watch = true;
    let _logs = setup::logging(&config, "dev")?;
    sample::provide(&mut config)?;
    setup::runtime()?.block_on(async {
        let shutdown = setup::shutdown()?;
        let (broker, metrics) = (setup::broker(&config).await?, Arc::new(Metrics::new()));
        let listener = setup::api_listener(&config).await?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!("the API is on http://{address}; edit scripts in {}", config.jobs_dir.display());
        }
        let state = setup::server_state(&config, Arc::clone(&broker), Arc::clone(&metrics))?;
        let worker = setup::worker(&config, broker, metrics, &shutdown).await?;
        // Each stops the other: half a `dev` is of no use.
        let serve = async {
            server::run(listener, state, shutdown.clone()).await;
            shutdown.request();
        };
        let work = async {
            let ended = worker.run(shutdown.clone()).await;
            shutdown.request();
            ended
        };
        let ((), ended) = tokio::join!(serve, work);
        Ok(ended?)
    })
}
