//! The replicas of one partition, each on a broker and over a directory of its own.
//!
//! A command that begins with `@2` or `@1,2` is for those brokers, and its outcome says whose it is; others are for
//! broker 1. `tick` is for all of them. Two commands are for the cluster:
//!
//! | command | what it does |
//! |---|---|
//! | `pull ID [be=1] [lost\|late\|unwritten]` | a follower fetches once and settles; or the answer does not come yet |
//! | `late ID` | the late answer comes |
//! | `state of ID…` | one line for each: watermark, log start, log end, leader epochs |

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill::effect::{FileOp, Stem};
use tidemill::partition::{Answer, Effect, FetchPosition, FetchedPart, Op, Read, Reader};

use crate::shown;
use crate::stage::{Stage, Words};

/// The brokers of a story.
#[derive(Default)]
pub struct Cluster {
    brokers: BTreeMap<i32, Stage>,
    late: Option<(FetchPosition, FetchedPart)>,
    mono_ms: u64,
}

impl Cluster {
    /// Carries out a command and shows what came of it.
    pub fn command(&mut self, command: &str) -> Vec<String> {
        let words = Words::new(command);
        if let Some(rest) = command.strip_prefix('@') {
            let (whom, command) = rest.split_once(' ').expect("a command follows the brokers");
            let ids: Vec<i32> = whom.split(',').map(|id| id.parse().unwrap()).collect();
            return ids.iter().flat_map(|id| by(*id, self.broker(*id).command(command))).collect();
        }
        if command.starts_with("pull ") {
            return self.pull(words.word(0).parse().unwrap(), &words);
        }
        if command.starts_with("late ") {
            let (position, part) = self.late.clone().expect("an answer is late");
            return self.arrive(words.word(0).parse().unwrap(), &position, part, &words);
        }
        if command.starts_with("state of ") {
            let ids = words.words.iter().skip(1).map(|id| id.parse().unwrap());
            return ids.map(|id| self.line(id)).collect();
        }
        if command.starts_with("tick ") {
            self.mono_ms += words.word(0).parse::<u64>().unwrap();
            let several = self.brokers.len() > 1;
            let each = self.brokers.iter_mut().map(|(id, stage)| (*id, stage.command(command)));
            return each.flat_map(|(id, lines)| if several { by(id, lines) } else { lines }).collect();
        }
        self.broker(1).command(command)
    }

    fn broker(&mut self, id: i32) -> &mut Stage {
        let mono_ms = self.mono_ms;
        self.brokers.entry(id).or_insert_with(|| Stage::on(id, mono_ms))
    }

    /// Where a replica is, in one line.
    fn line(&mut self, id: i32) -> String {
        let partition = self.broker(id).partition.as_ref().expect("it was created");
        let log = partition.log();
        let epochs: Vec<String> = log
            .epochs()
            .entries()
            .iter()
            .map(|entry| format!("{}@{}", entry.epoch, entry.start_offset))
            .collect();
        let (start, end) = (log.log_start_offset(), log.log_end());
        format!(
            "{id}| watermark {}, log {start} to {end}, epochs {}",
            partition.high_watermark(),
            epochs.join(" ")
        )
    }

    fn pull(&mut self, id: i32, words: &Words) -> Vec<String> {
        let position = self.broker(id).partition.as_ref().and_then(|partition| partition.fetch_position());
        let Some(position) = position else { return vec![format!("{id}| wants nothing")] };
        let mut lines = vec![format!("{id}| wants {}", shown::position(Some(position)))];
        let read = wanted(id, &position, words.number("be", 1));
        let leader = position.leader;
        let (answer, others) = served(self.broker(leader), read);
        lines.push(format!("{leader}| {}", shown::answer(&answer)));
        lines.extend(by(leader, others));
        if words.words.contains(&"lost") {
            return lines;
        }
        let part = fetched(self.broker(leader), &answer);
        if words.words.contains(&"late") {
            self.late = Some((position, part));
            return lines;
        }
        lines.extend(self.arrive(id, &position, part, words));
        lines
    }

    /// The answer comes to the follower.
    fn arrive(&mut self, id: i32, position: &FetchPosition, part: FetchedPart, words: &Words) -> Vec<String> {
        let follower = self.broker(id);
        let (mut effects, now) = (Vec::new(), follower.now());
        follower.partition.as_mut().unwrap().fetched(now, position, part, &mut effects);
        let quiet =
            |effect: &Effect| matches!(effect, Effect::File(..) | Effect::EndTurn | Effect::Following);
        let all: Vec<bool> = effects.iter().map(|effect| !quiet(effect)).collect();
        let shown =
            follower.take(effects).into_iter().zip(all).filter(|(_, worth)| *worth).map(|(line, _)| line);
        let mut lines = by(id, shown.collect());
        if !words.words.contains(&"unwritten") {
            lines.extend(by(id, follower.settle()));
        }
        lines
    }
}

fn by(id: i32, lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| format!("{id}| {line}")).collect()
}

fn wanted(id: i32, position: &FetchPosition, epoch: i64) -> Op {
    let FetchPosition { leader_epoch, fetch_offset, last_fetched_epoch, log_start_offset, .. } = *position;
    let reader = Reader::Replica { id, epoch, log_start_offset, last_fetched_epoch };
    Op::Read(Read { current_leader_epoch: leader_epoch, ..Read::new(reader, fetch_offset, 1_000_000) })
}

/// The leader's answer, and what else came of it. Reads of its files are carried out at once.
fn served(leader: &mut Stage, op: Op) -> (Answer, Vec<String>) {
    let to = leader.reply_to("pull");
    let (mut effects, now) = (Vec::new(), leader.now());
    leader.partition.as_mut().expect("the leader was created").call(now, to, op, &mut effects);
    let mut others = Vec::new();
    loop {
        let mine = |effect: &Effect| matches!(effect, Effect::Reply(whom, _) if *whom == to);
        let answer = effects.iter().position(mine).map(|at| effects.remove(at));
        let quiet = |effect: &Effect| matches!(effect, Effect::File(..) | Effect::EndTurn);
        let worth: Vec<bool> = effects.iter().map(|effect| !quiet(effect)).collect();
        others.extend(
            leader.take(effects).into_iter().zip(worth).filter(|(_, worth)| *worth).map(|(line, _)| line),
        );
        if let Some(Effect::Reply(_, answer)) = answer {
            return (answer, others);
        }
        let read = leader.in_flight.iter().position(|(_, op)| matches!(op, FileOp::Read { .. }));
        let (ticket, op) = leader.in_flight.remove(read.expect("an answer waits for a read"));
        let result = leader.execute(&op);
        effects = leader.completed(ticket, result);
    }
}

/// The answer as it comes to the follower.
fn fetched(leader: &Stage, answer: &Answer) -> FetchedPart {
    let nothing = FetchedPart {
        error: None,
        high_watermark: -1,
        log_start_offset: -1,
        diverging: None,
        records: Bytes::new(),
    };
    match answer {
        Answer::Read(found) => FetchedPart {
            high_watermark: found.high_watermark,
            log_start_offset: found.log_start_offset,
            diverging: found.diverging,
            records: found.span.map_or(Bytes::new(), |span| {
                let file = leader.directory.file(Stem::Log(span.segment_base_offset)).unwrap();
                Bytes::copy_from_slice(&file[span.position as usize..(span.position + span.length) as usize])
            }),
            ..nothing
        },
        Answer::Failed { error, log_start_offset } => {
            FetchedPart { error: Some(*error), log_start_offset: *log_start_offset, ..nothing }
        }
        other => panic!("no answer to a fetch: {other:?}"),
    }
}
