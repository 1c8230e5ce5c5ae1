//! The broker beside the load: what it takes while nobody asks anything of it, and how it comes back after a stop and
//! after it was killed, with the run's topics in it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Conditions, Rest, Restart, Stage};
use crate::admin::Admin;
use crate::broker::{Broker, Stop};
use crate::host;

/// A broker that was started again serves every partition within this time.
const SERVE_PATIENCE: Duration = Duration::from_secs(120);
/// The broker settles for as long as it is looked at before, and for so long at most.
const SETTLE: Duration = Duration::from_secs(3);

/// What was noted when the topics were made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opened {
    /// How long it took until they served.
    pub(super) took: Duration,
    /// The broker's resident bytes before.
    pub(super) resident_before_bytes: u64,
}

/// The cores that the broker takes over that time, and its resident bytes at the end.
fn look(broker: &Broker, length: Duration) -> Result<(f64, u64)> {
    std::thread::sleep(SETTLE.min(length));
    let pids = broker.pids();
    ensure!(!pids.is_empty(), "the broker's process is not known");
    let (used, began) = (host::cpu_times(&pids)?, Instant::now());
    std::thread::sleep(length);
    let used = host::cpu_times(&pids)?.saturating_sub(used);
    Ok((used.as_secs_f64() / began.elapsed().as_secs_f64(), broker.resident_bytes()))
}

impl Rest {
    /// Looks at the broker after the load.
    pub(super) fn after(&mut self, broker: &Broker) -> Result<()> {
        (self.cores_after, self.resident_after_bytes) = look(broker, Duration::from_secs_f64(self.seconds))?;
        Ok(())
    }
}

impl Stage {
    /// Looks at the broker before the load, where that is asked for.
    pub(super) fn rest_before(
        &self,
        broker: &Broker,
        conditions: &Conditions,
        connections: usize,
    ) -> Result<Option<Rest>> {
        let Some(length) = conditions.rest else { return Ok(None) };
        let (cores_before, resident_connected_bytes) = look(broker, length)?;
        Ok(Some(Rest {
            seconds: length.as_secs_f64(),
            connections,
            partitions: self.workload.partitions,
            created_s: self.opened.took.as_secs_f64(),
            resident_before_bytes: self.opened.resident_before_bytes,
            resident_topics_bytes: self.resident_topics_bytes,
            resident_connected_bytes,
            cores_before,
            ..Rest::default()
        }))
    }

    /// Starts the broker again, after a clean stop and after it was killed.
    pub(super) fn restart(&mut self, broker: &mut Broker) -> Result<Restart> {
        let (stop_s, clean_answer_s, clean_served_s) = self.again(broker, Stop::Clean)?;
        let (_, killed_answer_s, killed_served_s) = self.again(broker, Stop::Kill)?;
        Ok(Restart { stop_s, clean_answer_s, clean_served_s, killed_answer_s, killed_served_s })
    }

    /// Seconds that the stop took, until the first answer, and until every partition served.
    fn again(&mut self, broker: &mut Broker, how: Stop) -> Result<(f64, f64, f64)> {
        let (stop, answer) = broker.restart(how)?;
        let answered = Instant::now();
        self.admin = Admin::connect(self.address)?;
        let each = self.workload.partitions_each_topic();
        for topic in &self.topics {
            self.admin.await_serving(topic, each, answered + SERVE_PATIENCE)?;
        }
        let served = answer + answered.elapsed();
        Ok((stop.as_secs_f64(), answer.as_secs_f64(), served.as_secs_f64()))
    }
}
