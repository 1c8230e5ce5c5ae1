//! Looks at every group at the end of a run, when nothing fails any more: its offsets, and that nobody is in it.

use bytes::Bytes;
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Action, Client, Link, Stage};
use crate::member::{fetched, offset_fetch};

#[derive(Debug)]
enum Ask {
    Find,
    List,
    Describe,
    Fetch,
}

/// The auditor of groups.
#[derive(Debug)]
pub struct GroupAuditor {
    link: Link<Ask>,
    /// Groups and partitions that members committed for; what is left of them.
    keys: Option<Vec<(String, i32)>>,
    listed: bool,
    described: bool,
    /// Where there are several brokers: the group at whose coordinator it is, or on its way there.
    at: Option<String>,
    not_before_us: u64,
    done: bool,
}

impl GroupAuditor {
    /// An auditor that has seen nothing.
    pub fn new() -> Self {
        let link = Link::new("group auditor".into());
        Self { link, keys: None, listed: false, described: false, at: None, not_before_us: 0, done: false }
    }

    fn step(&mut self, stage: &mut Stage) {
        let keys = self.keys.get_or_insert_with(|| stage.history.commits.keys());
        let Some((group, partition)) = keys.last().cloned() else {
            self.done = true;
            return;
        };
        if !self.link.is_up(stage) || self.link.in_flight() > 0 || stage.now_us < self.not_before_us {
            return;
        }
        if stage.linked && self.at.as_ref() != Some(&group) {
            let key = StrBytes::from_string(group);
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![key]);
            return self.link.send(&request, 4, Some(Ask::Find), stage);
        }
        if !self.listed {
            return self.link.send(&ListGroupsRequest::default(), 4, Some(Ask::List), stage);
        }
        if !self.described {
            let id = GroupId(StrBytes::from_string(group));
            let request = DescribeGroupsRequest::default().with_groups(vec![id]);
            return self.link.send(&request, 5, Some(Ask::Describe), stage);
        }
        let request = offset_fetch(&group, &stage.names[0], vec![partition], 8);
        self.link.send(&request, 8, Some(Ask::Fetch), stage);
    }

    /// A JoinGroup whose connection was lost may have made a member that goes when its session ends.
    fn look_later(&mut self, stage: &mut Stage) {
        if !self.listed || !self.described {
            self.not_before_us = stage.now_us + 50_000;
        }
    }

    fn answered(&mut self, error: i16, stage: &mut Stage) -> bool {
        // The coordinator is loading, or its log directory is offline until the next start.
        if stage.is_passing_of_group(error) {
            self.at = None;
            self.not_before_us = stage.now_us + 50_000;
            return false;
        }
        assert_eq!(error, 0, "the last look at groups");
        true
    }
}

impl Client for GroupAuditor {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            let Some((group, partition)) = self.keys.as_ref().and_then(|keys| keys.last()).cloned() else {
                return;
            };
            let floor = stage.history.commits.floor(&group, partition);
            match response.ask {
                Ask::Find => {
                    let answer = response.decode::<FindCoordinatorRequest>();
                    let one = &answer.coordinators[0];
                    if self.answered(one.error_code, stage) {
                        (self.at, self.listed, self.described) = (Some(group), false, false);
                        if self.link.at() != Some(one.node_id.0) {
                            drop(self.link.go_to(Some(one.node_id.0), stage));
                        }
                    }
                }
                Ask::List => {
                    let answer = response.decode::<ListGroupsRequest>();
                    if self.answered(answer.error_code, stage) {
                        let listed = answer.groups.iter().find(|listed| listed.group_id.as_str() == group);
                        if listed.is_none() {
                            // Nobody says that the coordinator has moved: a broker lists what it has.
                            self.at = None;
                        }
                        let state = listed.map(|listed| listed.group_state.as_str());
                        self.listed = floor.is_none() || state == Some("Empty");
                        self.look_later(stage);
                    }
                }
                Ask::Describe => {
                    let answer = response.decode::<DescribeGroupsRequest>();
                    let described = &answer.groups[0];
                    if self.answered(described.error_code, stage) {
                        self.described = described.members.is_empty();
                        self.look_later(stage);
                    }
                }
                Ask::Fetch => {
                    let answer = response.decode::<OffsetFetchRequest>();
                    match fetched(&answer, 8) {
                        Ok(found) => {
                            stage.history.commits.found(&group, partition, floor, found[0].1);
                            self.keys.as_mut().and_then(Vec::pop);
                        }
                        Err(error) => drop(self.answered(error, stage)),
                    }
                }
            }
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        self.at = None;
        drop(self.link.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + 10_000));
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
