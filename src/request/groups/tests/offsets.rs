//! Committed offsets as each version of OffsetFetch tells them.

use super::*;

fn committed(offset: i64) -> Option<CommittedOffset> {
    Some(CommittedOffset {
        offset,
        leader_epoch: 4,
        metadata: "note".into(),
        commit_timestamp_ms: 0,
        expire_timestamp_ms: None,
        topic_id: Uuid::nil(),
    })
}

/// Answers each group with offset 5 for t-1 and nothing for t-0.
fn fetched(asked: Request) -> Response {
    let (groups, of_members): (Vec<_>, _) = match asked {
        Request::FetchOffsets { groups, .. } => (groups, false),
        Request::FetchMemberOffsets { groups, .. } => {
            (groups.into_iter().map(|(group, ..)| group).collect(), true)
        }
        _ => panic!("a fetch"),
    };
    let of = || OfTopic {
        topic: "t".into(),
        topic_id: Uuid::nil(),
        partitions: vec![(1, committed(5)), (0, None)],
    };
    let groups = groups.into_iter().map(|wanted| FetchedGroup { group: wanted.group, topics: vec![of()] });
    if of_members {
        return Response::MemberOffsetsFetched(groups.map(|of| (of.group.clone(), Ok(of))).collect());
    }
    Response::OffsetsFetched(groups.collect())
}

#[test]
fn offsets_of_one_group_are_fetched_and_errors_stand_where_the_version_has_room() {
    for version in 1..=7 {
        let wanted =
            OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![1, 0]);
        let mut request =
            OffsetFetchRequest::default().with_group_id(id("a")).with_topics(Some(vec![wanted]));
        request.require_stable = version >= 7;
        let told = |response: &OffsetFetchResponse| -> Vec<(i64, i32, i16)> {
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|p| (p.committed_offset, p.committed_leader_epoch, p.error_code)).collect()
        };
        let response: OffsetFetchResponse = ask(
            &mut stage(),
            ApiKey::OffsetFetch,
            version,
            &request,
            |_, asked| {
                assert!(
                    matches!(asked, Request::FetchOffsets { require_stable, .. } if require_stable == (version >= 7))
                );
                fetched(asked)
            },
        );
        let epoch = if version >= 5 { 4 } else { -1 };
        assert_eq!(told(&response), [(5, epoch, 0), (-1, -1, 0)]);
        let response: OffsetFetchResponse =
            ask(&mut stage(), ApiKey::OffsetFetch, version, &request, refused(ErrorCode::NotCoordinator));
        let expected = if version >= 2 { (16, vec![]) } else { (0, vec![(-1, -1, 16); 2]) };
        assert_eq!((response.error_code, told(&response)), expected, "v{version}");
    }
}

#[test]
fn offsets_of_many_groups_meet_in_the_order_of_the_request() {
    for version in [8, 9] {
        let wanted =
            OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![1, 0]);
        let group =
            |group, topics| OffsetFetchRequestGroup::default().with_group_id(id(group)).with_topics(topics);
        let groups = vec![
            group("a", None),
            group("b", Some(vec![wanted])),
            group("c", Some(vec![])),
            group("a", None),
        ];
        let request = OffsetFetchRequest::default().with_groups(groups);
        let response: OffsetFetchResponse =
            ask(&mut stage(), ApiKey::OffsetFetch, version, &request, |at, asked| match at {
                1 => fetched(asked),
                _ => Response::Refused(ErrorCode::CoordinatorLoadInProgress),
            });
        let told: Vec<(String, i16, usize)> = response
            .groups
            .iter()
            .map(|group| (group.group_id.to_string(), group.error_code, group.topics.len()))
            .collect();
        let expected = [("a", 0, 1), ("b", 14, 0), ("c", 0, 1), ("a", 0, 1)];
        assert_eq!(told, expected.map(|(group, error, topics)| (group.to_string(), error, topics)));
        let partition = &response.groups[0].topics[0].partitions[0];
        assert_eq!((partition.committed_offset, partition.metadata.as_deref()), (5, Some("note")));
    }
}

#[test]
fn topics_are_named_by_id_in_version_10_and_an_unknown_one_is_told_last() {
    let wanted = |name| {
        let topic = OffsetFetchRequestTopics::default().with_name(by_id(&topic(name)));
        topic.with_partition_indexes(vec![1, 0])
    };
    let group =
        |group, topics| OffsetFetchRequestGroup::default().with_group_id(id(group)).with_topics(topics);
    let groups = vec![group("a", Some(vec![wanted("u"), wanted("t")])), group("b", None)];
    let request = OffsetFetchRequest::default().with_groups(groups);
    let gone =
        || OfTopic { topic: "gone".into(), topic_id: Uuid::nil(), partitions: vec![(0, committed(1))] };
    let response: OffsetFetchResponse = ask(&mut stage(), ApiKey::OffsetFetch, 10, &request, |at, asked| {
        if at == 1 {
            let Request::FetchMemberOffsets { groups, .. } = &asked else { panic!("a fetch") };
            let topics = groups[0].0.topics.as_ref().unwrap();
            let asked: Vec<_> = topics.iter().map(|of| (&*of.topic, of.topic_id.as_u128())).collect();
            assert_eq!(asked, [("t", 7)], "an id that is unknown is not asked for");
        }
        let Response::MemberOffsetsFetched(mut groups) = fetched(asked) else { panic!("offsets") };
        groups[0].1.as_mut().unwrap().topics.push(gone());
        Response::MemberOffsetsFetched(groups)
    });
    let told = |at: usize| -> Vec<(u128, Vec<(i64, i16)>)> {
        let partitions = |topic: &OffsetFetchResponseTopics| {
            topic.partitions.iter().map(|p| (p.committed_offset, p.error_code)).collect()
        };
        response.groups[at].topics.iter().map(|t| (t.topic_id.as_u128(), partitions(t))).collect()
    };
    assert_eq!(told(0), [(7, vec![(5, 0), (-1, 0)]), (99, vec![(-1, 100), (-1, 100)])]);
    assert_eq!(told(1), [(7, vec![(5, 0), (-1, 0)])], "a topic without an id cannot be told");
    let refusal = refused(ErrorCode::NotCoordinator);
    let response: OffsetFetchResponse = ask(&mut stage(), ApiKey::OffsetFetch, 10, &request, refusal);
    let told: Vec<_> = response.groups.iter().map(|group| (group.error_code, group.topics.len())).collect();
    assert_eq!(told, [(16, 0), (16, 0)]);
}
