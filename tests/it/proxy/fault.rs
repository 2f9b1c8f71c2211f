//! Any fault of a proxy as a value, so that a seed decides which.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::{Proxy, Way, Weather};

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Latency(Duration),
    Cut(Way, u64),
    Frozen([bool; 2]),
    Lost(Way),
    Close,
    Reset,
}

impl Fault {
    /// A cut falls within the next `bytes`.
    pub fn random(draws: &mut impl Rng, bytes: u64) -> Self {
        let way = if draws.random() { Way::Requests } else { Way::Replies };
        match draws.random_range(0..8) {
            0 => Self::Latency(Duration::from_millis(draws.random_range(1..40))),
            1..=2 => Self::Cut(way, draws.random_range(0..bytes)),
            3 => Self::Frozen([true, true]),
            4 => Self::Frozen([way == Way::Requests, way == Way::Replies]),
            5 => Self::Lost(way),
            6 => Self::Close,
            _ => Self::Reset,
        }
    }
}

impl Proxy {
    /// Lasts until [`Proxy::heal`], where it is not over at once.
    pub fn inflict(&self, fault: Fault) {
        match fault {
            Fault::Latency(latency) => self.set(Weather { latency, ..Weather::default() }),
            Fault::Cut(way, bytes) => self.cut_after(way, bytes),
            Fault::Frozen(frozen) => self.set(Weather { frozen, ..Weather::default() }),
            Fault::Lost(way) => {
                let lost = [way == Way::Requests, way == Way::Replies];
                self.set(Weather { lost, ..Weather::default() });
            }
            Fault::Close => self.close(),
            Fault::Reset => self.reset(),
        }
    }
}
