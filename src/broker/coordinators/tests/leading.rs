//! What views say of who leads and who is in sync.

use super::*;
use crate::config::TopicConfig;

impl Stage {
    /// The partition has these replicas, these of them in sync.
    fn replicate(&mut self, replicas: &[i32], isr: &[i32]) {
        let nodes = |ids: &[i32]| Some(ids.iter().copied().collect());
        self.builder = ImageBuilder::new(&self.view.image);
        let version = self.view.image.version() + 1;
        let change = PartitionChange {
            topic_id: TOPIC,
            leader_epoch: 1,
            partition_epoch: version as i32,
            replicas: nodes(replicas),
            directories: Some(replicas.iter().map(|_| Uuid::nil()).collect()),
            isr: nodes(isr),
            ..PartitionChange::default()
        };
        self.builder.apply(&Record::PartitionChange(change)).unwrap();
        self.view.image = self.builder.publish(version).0;
        self.coordinators.reconcile(self.now, &self.view);
    }
}

#[test]
fn a_process_coordinates_nothing_before_it_is_registered() {
    let mut stage = Stage::serving();
    stage.view.leads_nothing = true;
    stage.publish(1, 2);
    stage.commit(1);
    assert!(stage.calls().is_empty(), "it neither loads nor appends");
    assert_eq!(stage.answers(), [Response::Refused(ErrorCode::NotCoordinator)]);
    stage.view.leads_nothing = false;
    stage.view.changed = Arc::new([]);
    stage.coordinators.reconcile(stage.now, &stage.view);
    stage.bounds(0, 0);
    assert_eq!(stage.fetched(), Ok(None));
}

#[test]
fn a_commit_that_the_partition_would_refuse_costs_no_load() {
    let mut stage = Stage::serving();
    let config = TopicConfig { min_insync_replicas: 2, ..TopicConfig::default() };
    stage.view.topic_configs.insert(TOPIC, Arc::new(config));
    stage.replicate(&[1, 2], &[1]);
    stage.commit(1);
    assert!(stage.calls().is_empty());
    assert_eq!(stage.answers(), [Response::Refused(ErrorCode::CoordinatorNotAvailable)]);
    assert_eq!(stage.fetched(), Ok(None), "it serves");
    stage.replicate(&[1, 2], &[1, 2]);
    stage.commit(2);
    assert_eq!(stage.calls().len(), 1);
}
