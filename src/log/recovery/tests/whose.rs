//! Whose directory a recovery finds, by `partition.metadata`.

use super::*;

#[test]
fn a_malformed_topic_id_keeps_the_log_closed() {
    let (_, mut dir) = three_segments();
    dir.insert("partition.metadata".into(), b"version: 0\ntopic_id: nonsense".to_vec());
    let step = run(&mut dir, &clean(), 1000).unwrap();
    assert!(matches!(step, RecoveryStep::Failed(RecoveryError::Malformed(_))), "{step:?}");
}

#[test]
fn a_directory_of_another_topic_is_left_as_it_is() {
    let (_, mut dir) = three_segments();
    dir.insert("00000000000000000000.log.deleted".into(), vec![]);
    dir.insert("leader-epoch-checkpoint.tmp".into(), vec![]);
    let before = dir.clone();
    let other = RecoveryPlan { topic_id: Uuid::from_u128(5), ..plan(0) };
    let step = run(&mut dir, &other, 1000).unwrap();
    assert!(
        matches!(step, RecoveryStep::Failed(RecoveryError::OtherTopic(id)) if id == TOPIC_ID),
        "{step:?}"
    );
    assert_eq!(dir, before);
}

#[test]
fn a_log_without_the_id_of_its_topic_gets_it_back() {
    let (_, whole) = three_segments();
    let mut dir = whole.clone();
    dir.remove("partition.metadata");
    assert_eq!(recover(&mut dir, &same_boot(0)).topic_id, Some(TOPIC_ID));
    assert_eq!(dir, whole);
}
