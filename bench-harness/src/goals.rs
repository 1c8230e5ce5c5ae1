//! What Tidemill is to reach beside Apache Kafka: the rows of the design's table of figures. A result that was measured
//! against Kafka carries them, so that a stored one is judged by the goals of its day.

use serde::{Deserialize, Serialize};

/// For each workload how many times less than Kafka, by the workload's own figure.
const RATIOS: [(&str, f64); 11] = [
    ("produce-small", 6.5),
    ("produce-medium", 3.5),
    ("produce-large", 2.0),
    ("produce-64-connections", 2.8),
    ("produce-32-partitions", 6.0),
    ("fetch-1mb", 1.6),
    ("fetch-16kb", 2.6),
    ("one-at-a-time", 1.6),
    ("cluster-small", 4.0),
    ("cluster-medium", 4.0),
    ("cluster-large", 2.5),
];

/// What holds for the process as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goals {
    /// Resident memory after the start, in 10⁶ bytes, at most.
    pub started_mb: f64,
    /// Resident memory under all of these loads, in 10⁶ bytes, at most.
    pub loaded_mb: f64,
    /// From the start of the process to its first answer, in milliseconds, at most.
    pub start_up_ms: f64,
}

impl Goals {
    /// Those of the design.
    pub fn of_the_design() -> Goals {
        Goals { started_mb: 30.0, loaded_mb: 120.0, start_up_ms: 100.0 }
    }
}

/// How many times less than Kafka a workload is to need.
pub fn ratio(workload: &str) -> Option<f64> {
    RATIOS.iter().find(|(name, _)| *name == workload).map(|(_, ratio)| *ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn every_goal_is_one_of_a_workload() {
        for (name, goal) in RATIOS {
            assert!(Workload::named(name).is_some(), "{name}");
            assert!(goal > 1.0 && ratio(name) == Some(goal));
        }
    }
}
