//! Scripts: loading, running, and what they may call. Knows the domain; knows neither broker nor HTTP server.

pub mod convert;
pub mod ports;
