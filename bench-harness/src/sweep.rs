//! Walks up to three parameters of a workload over lists of values, and shows how the figures follow.
//!
//! Invariant: a point changes nothing but what it names; the broker is started afresh where the parameter is its own,
//! and each point has a new topic.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::broker::{Place, Recipe};
use crate::host;
use crate::markdown;
use crate::report::{Report, Row};
use crate::seat::Seat;
use crate::trial::{Conditions, Measurement};
use crate::workload::{Reach, Workload};

/// One parameter and the values that it takes, as `NAME=V1,V2,…`.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    name: String,
    parameter: Parameter,
    values: Vec<String>,
}

/// What can be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    Shards,
    Partitions,
    RecordBytes,
    Records,
    Connections,
    InFlight,
    Acks,
    /// Where a connection's partition is, seen from the shard that serves it.
    Reach,
    /// A setting of the broker that is Tidemill's own; its name begins so.
    Broker,
    /// A setting of the topic; its name has a dot.
    Topic,
}

/// The names that stand in the help.
pub const PARAMETERS: &str = "shards, partitions, record-bytes, records (of a batch), connections, in-flight, acks, \
                              reach (home, away or any), a setting of the broker such as shard.cpus, or one of the \
                              topic such as flush.messages";

impl FromStr for Axis {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Axis> {
        let (name, values) = text.split_once('=').with_context(|| format!("{text} is not NAME=V1,V2,…"))?;
        let parameter = match name {
            "shards" => Parameter::Shards,
            "partitions" => Parameter::Partitions,
            "record-bytes" => Parameter::RecordBytes,
            "records" | "batch" => Parameter::Records,
            "connections" => Parameter::Connections,
            "in-flight" => Parameter::InFlight,
            "acks" => Parameter::Acks,
            "reach" => Parameter::Reach,
            name if name.starts_with("shard.") => Parameter::Broker,
            name if name.contains('.') => Parameter::Topic,
            _ => bail!("{name} is none of {PARAMETERS}"),
        };
        let values: Vec<String> = values.split(',').map(str::to_owned).collect();
        ensure!(values.iter().all(|value| !value.is_empty()), "{text} has an empty value");
        Ok(Axis { name: name.to_owned(), parameter, values })
    }
}

/// A workload with its parameters set, and the settings of the broker for it.
struct Point {
    parameters: Vec<(String, String)>,
    workload: Workload,
    settings: Vec<String>,
}

fn set(point: &mut Point, axis: &Axis, value: &str) -> Result<()> {
    let number = || value.parse::<usize>().ok().filter(|number| *number > 0);
    let number = || number().with_context(|| format!("{}={value} is not a number above zero", axis.name));
    let workload = &mut point.workload;
    match axis.parameter {
        Parameter::Shards => point.settings.push(format!("shard.count={}", number()?)),
        Parameter::Broker => point.settings.push(format!("{}={value}", axis.name)),
        Parameter::Reach => {
            let reach = match value {
                "any" => Reach::Any,
                "home" => Reach::Home,
                "away" => Reach::Away,
                _ => bail!("reach={value} is not home, away or any"),
            };
            workload.roles_mut().iter_mut().for_each(|role| role.reach = reach);
        }
        Parameter::Topic => workload.topic_settings.push(format!("{}={value}", axis.name)),
        Parameter::Partitions => set_partitions(workload, number()?),
        Parameter::Connections => set_connections(workload, number()?),
        Parameter::RecordBytes | Parameter::Records | Parameter::InFlight | Parameter::Acks => {
            let name = workload.name;
            let missing = || format!("{name} has no writers of the harness, so no {}", axis.name);
            let writing = workload.writing_mut().with_context(missing)?;
            match axis.parameter {
                Parameter::RecordBytes => writing.record_bytes = number()?,
                Parameter::Records => writing.records = number()?,
                Parameter::InFlight => writing.in_flight = number()?,
                _ => {
                    let acks = if value == "all" { Ok(-1) } else { value.parse() };
                    writing.acks = acks.with_context(|| format!("acks={value} is not -1, 0, 1 or all"))?;
                }
            }
        }
    }
    point.parameters.push((axis.name.clone(), value.to_owned()));
    Ok(())
}

/// The topic has so many partitions; writers share them out, other readers read all that they read before in
/// proportion.
fn set_partitions(workload: &mut Workload, partitions: usize) {
    let before = workload.partitions;
    workload.partitions = partitions;
    for role in workload.roles_mut() {
        let all = role.partitions_each == before;
        role.partitions_each = if all { partitions } else { partitions.div_ceil(role.connections).max(1) };
        let each = role.partitions_each;
        if let crate::workload::Work::Write(writing) = &mut role.work {
            writing.partitions_per_request = writing.partitions_per_request.min(each);
        }
    }
}

/// So many writers, or readers where nobody writes; where each had partitions of its own, the topic grows with them.
fn set_connections(workload: &mut Workload, connections: usize) {
    let apart = workload.writers_are_apart();
    let drives: Vec<bool> = workload.roles().iter().map(|role| workload.drives(role)).collect();
    let before = workload.partitions;
    let mut partitions = before;
    for (role, drives) in workload.roles_mut().iter_mut().zip(&drives) {
        if *drives {
            let own = apart && role.connections * role.partitions_each <= before;
            role.connections = connections;
            if own {
                partitions = connections * role.partitions_each;
            }
        }
    }
    workload.partitions = partitions;
    for (role, drives) in workload.roles_mut().iter_mut().zip(drives) {
        if !drives && role.partitions_each == before {
            role.partitions_each = partitions;
        }
    }
}

/// Every combination, the first parameter slowest.
fn points(workload: &Workload, axes: &[Axis]) -> Result<Vec<Point>> {
    let start = Point { parameters: Vec::new(), workload: workload.clone(), settings: Vec::new() };
    let mut points = vec![start];
    for axis in axes {
        let mut next = Vec::new();
        for point in &points {
            for value in &axis.values {
                let mut more = Point {
                    parameters: point.parameters.clone(),
                    workload: point.workload.clone(),
                    settings: point.settings.clone(),
                };
                set(&mut more, axis, value)?;
                next.push(more);
            }
        }
        points = next;
    }
    for point in &mut points {
        point.workload.check()?;
        point.settings.extend(workload.broker_settings.iter().cloned());
    }
    Ok(points)
}

impl Plan {
    /// A walk over what is named, or else over what the workload brings.
    pub fn new(workload: Workload, axes: &[Axis], recipe: Recipe, turns: usize) -> Result<Plan> {
        let own = || workload.walk.iter().map(|axis| axis.parse()).collect::<Result<Vec<Axis>>>();
        let axes = if axes.is_empty() { own()? } else { axes.to_vec() };
        ensure!(!axes.is_empty(), "{} brings no parameter to walk: give one, {PARAMETERS}", workload.name);
        Ok(Plan { workload, axes, recipe, turns })
    }
}

/// What is walked.
pub struct Plan {
    /// The workload.
    pub workload: Workload,
    /// One parameter, two or three.
    pub axes: Vec<Axis>,
    /// The broker.
    pub recipe: Recipe,
    /// How often all points are run, one after another.
    pub turns: usize,
}

/// Runs every point, and prints each as it ends. Each point is a row of the result.
pub fn run(plan: &Plan, conditions: &Conditions, place: &Place) -> Result<Report> {
    ensure!(matches!(plan.axes.len(), 1..=3), "a sweep has one to three parameters");
    let of_shards = |parameter| matches!(parameter, Parameter::Shards | Parameter::Reach | Parameter::Broker);
    let shards = plan.axes.iter().any(|axis| of_shards(axis.parameter));
    let is_tidemill = matches!(plan.recipe, Recipe::Tidemill { .. });
    ensure!(!shards || is_tidemill, "only Tidemill has shards");
    let points = points(&plan.workload, &plan.axes)?;
    let settings = conditions.settings(plan.turns, 0);
    let mut report =
        Report::new(place, settings, std::slice::from_ref(&plan.workload), &[plan.recipe.name()]);
    report.workloads =
        points.iter().map(|point| Row::point(&plan.workload, point.parameters.clone())).collect();
    let mut seat = Seat::new(plan.recipe.clone());
    for turn in 0..plan.turns {
        for (point, row) in points.iter().zip(&report.workloads) {
            ensure!(!host::interrupted(), "interrupted");
            ensure!(seat.suits(&point.workload), "the floor cannot run {}", point.workload.name);
            if conditions.rest.is_some() {
                // What it takes at rest is not to be what the last point has left.
                seat.leave();
            }
            seat.settle(&point.settings, place)?;
            let run = seat.run(&point.workload, conditions, place)?;
            eprintln!("turn {}, {}", turn + 1, row.title);
            println!("{}", markdown::run_lines(&run));
            report.runs.push(Measurement { workload: row.name.clone(), ..run });
        }
    }
    report.contenders = vec![seat.known];
    Ok(report)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::workload::Work;

    fn of(name: &str, axes: &[&str]) -> Vec<Point> {
        let axes: Vec<Axis> = axes.iter().map(|axis| axis.parse().unwrap()).collect();
        points(&Workload::named(name).unwrap(), &axes).unwrap()
    }

    #[test]
    fn two_lists_give_every_pair_with_the_first_slowest() {
        let points = of("produce-small", &["shards=1,2", "partitions=4,64,2"]);
        let workload = Workload::named("produce-small").unwrap();
        let named = |point: &Point| Row::point(&workload, point.parameters.clone()).title;
        let names: Vec<String> = points.iter().map(named).collect();
        assert_eq!(names.len(), 6);
        assert_eq!(
            names[..4],
            [
                "shards=1 partitions=4",
                "shards=1 partitions=64",
                "shards=1 partitions=2",
                "shards=2 partitions=4"
            ]
        );
        assert_eq!(points[3].settings, ["shard.count=2"]);
    }

    #[test]
    fn every_partition_is_written_whatever_their_number() {
        for (name, count) in
            [("produce-small", 64), ("produce-small", 2), ("produce-32-partitions", 7), ("tail", 8)]
        {
            let workload = &of(name, &[&format!("partitions={count}")])[0].workload;
            for role in workload.roles() {
                let mut reached: Vec<usize> = (0..role.connections)
                    .flat_map(|connection| role.partitions_of(connection, workload.partitions))
                    .collect();
                reached.sort_unstable();
                reached.dedup();
                assert_eq!(reached.len(), count, "{name}");
            }
        }
    }

    #[test]
    fn more_connections_keep_partitions_of_their_own_and_a_tail_reader_reads_all() {
        let workload = &of("tail", &["connections=16"])[0].workload;
        assert_eq!(workload.partitions, 16);
        assert!(workload.writers_are_apart());
        assert_eq!((workload.roles()[0].connections, workload.roles()[1].connections), (16, 1));
        assert_eq!(workload.roles()[1].partitions_each, 16);
        let shared = &of("produce-1000-connections", &["connections=100"])[0].workload;
        assert_eq!((shared.roles()[0].connections, shared.partitions), (100, 64));
        let few = &of("produce-1000-connections", &["connections=10"])[0].workload;
        assert_eq!(
            (few.roles()[0].connections, few.partitions),
            (10, 64),
            "it was shared, so the topic stays"
        );
    }

    #[test]
    fn requests_and_topics_take_their_values() {
        let point = &of("produce-small", &["acks=all", "flush.messages=1"])[0];
        assert_eq!(point.workload.topic_settings[0], "flush.messages=1");
        let Work::Write(writing) = &point.workload.roles()[0].work else { panic!("it writes") };
        assert_eq!(writing.acks, -1);
        let point = &of("produce-small", &["shards=2", "shard.cpus=0", "reach=away"])[0];
        assert_eq!(point.settings, ["shard.count=2", "shard.cpus=0"]);
        assert_eq!(point.workload.roles()[0].reach, Reach::Away);
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for text in ["shards", "speed=1", "records=", "records=1,,2"] {
            assert!(text.parse::<Axis>().is_err(), "{text}");
        }
        let refused = |name: &str, axis: &str| {
            points(&Workload::named(name).unwrap(), &[axis.parse().unwrap()]).is_err()
        };
        assert!(refused("produce-small", "reach=near") && refused("produce-everywhere", "reach=away"));
        assert!(refused("produce-small", "records=0") && refused("produce-small", "acks=2"));
        assert!(refused("fetch-1mb", "acks=1"));
        assert!(refused("tail", "partitions=2"), "four writers on two partitions");
    }
}
