//! What operators see of a running process: [`logs`] (console and daily files) and [`metrics`] (Prometheus).
//! Nothing here is about jobs or brokers: names and ids arrive as plain text.

mod line;
pub mod logs;
pub mod metrics;
