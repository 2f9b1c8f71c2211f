//! In which order a claim goes through the queues: weighted round robin, so that a queue of weight 3 comes first three
//! times as often as one of weight 1, and none starves.

use crate::job::QueueName;

/// Which queues a worker serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Queues {
    /// Every queue that its scripts name or that the broker has, equally.
    #[default]
    All,
    /// These only, with their weights (at least 1).
    Weighted(Vec<(QueueName, u32)>),
}

/// The turn.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Queue, weight, credit.
    entries: Vec<(QueueName, i64, i64)>,
}

impl Rotation {
    #[must_use]
    pub fn new(queues: &Queues) -> Self {
        let Queues::Weighted(queues) = queues else { return Self::default() };
        let entry = |(name, weight): &(QueueName, u32)| (name.clone(), i64::from((*weight).max(1)), 0);
        Self { entries: queues.iter().map(entry).collect() }
    }

    /// Takes these queues instead, at equal weights; those that stay keep their turn.
    pub fn set(&mut self, queues: &[QueueName]) {
        if queues.len() == self.entries.len() && queues.iter().zip(&self.entries).all(|(new, old)| *new == old.0) {
            return;
        }
        let credit = |name: &QueueName| self.entries.iter().find(|entry| entry.0 == *name).map_or(0, |entry| entry.2);
        self.entries = queues.iter().map(|name| (name.clone(), 1, credit(name))).collect();
    }

    /// The order of this turn. Each queue's credit grows by its weight; the richest goes first and pays for all.
    pub fn turn(&mut self) -> Vec<QueueName> {
        let total: i64 = self.entries.iter().map(|entry| entry.1).sum();
        for entry in &mut self.entries {
            entry.2 += entry.1;
        }
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(self.entries[at].2));
        if let Some(&first) = order.first() {
            self.entries[first].2 -= total;
        }
        order.into_iter().map(|at| self.entries[at].0.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    #[test]
    fn the_first_place_goes_by_weight_and_every_turn_has_all() {
        let mut rotation = Rotation::new(&Queues::Weighted(vec![(queue("high"), 3), (queue("low"), 1)]));
        let turns: Vec<Vec<QueueName>> = (0..8).map(|_| rotation.turn()).collect();
        assert_eq!(turns.iter().filter(|turn| turn[0] == queue("high")).count(), 6);
        assert!(turns.iter().all(|turn| turn.len() == 2));
        assert!(turns.windows(4).all(|four| four.iter().any(|turn| turn[0] == queue("low"))), "{turns:?}");
    }

    #[test]
    fn equal_queues_take_turns_also_when_one_joins() {
        let mut rotation = Rotation::new(&Queues::All);
        assert!(rotation.turn().is_empty());
        rotation.set(&[queue("a"), queue("b")]);
        assert_ne!(rotation.turn()[0], rotation.turn()[0]);
        rotation.set(&[queue("a"), queue("b"), queue("c")]);
        let firsts: std::collections::BTreeSet<String> = (0..3).map(|_| rotation.turn()[0].to_string()).collect();
        assert_eq!(firsts.len(), 3);
    }
}
