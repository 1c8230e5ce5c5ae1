//! The command line: arguments in, exit code out. Flags and output of the console tools are Kafka's own.
//!
//! Exit codes: 0 done, 1 failed or wrong arguments (the reason is on standard error), as Kafka's tools have them.

mod calendar;
mod cluster;
mod configs;
mod connect;
mod console_consumer;
mod console_producer;
mod consumer_groups;
mod consumer_perf_test;
mod delete_records;
mod demo_cluster;
mod dump_log;
mod get_offsets;
mod log_dirs;
mod metadata;
mod output;
mod producer_perf_test;
mod producer_properties;
mod properties;
mod scripts;
pub mod start;
pub mod storage;
mod topic_filter;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A Kafka-compatible broker: one io_uring executor per CPU core.
///
/// Without a command it starts a broker on 127.0.0.1:9092 with its data in ./tidemill-data.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "Examples:
  tidemill start
  tidemill start server.properties --override listeners=PLAINTEXT://0.0.0.0:9092 --override num.partitions=12
  echo 'hello' | tidemill console-producer --bootstrap-server 127.0.0.1:9092 --topic greetings
  tidemill console-consumer --bootstrap-server 127.0.0.1:9092 --topic greetings --from-beginning";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a broker.
    Start(StartArguments),
    /// Start a cluster of several nodes on this machine.
    DemoCluster(demo_cluster::Options),
    /// Format the log directories of a node of a cluster.
    Format(storage::FormatOptions),
    /// Format log directories, show whose they are, make ids.
    Storage(storage::Options),
    /// Write lines of standard input to a topic.
    ConsoleProducer(console_producer::Options),
    /// Write the records of a topic to standard output.
    ConsoleConsumer(console_consumer::Options),
    /// Make, list, describe, extend and delete topics.
    Topics(topics::Options),
    /// Show and change configurations of topics, brokers and groups.
    Configs(configs::Options),
    /// List, describe and delete consumer groups; reset and delete their offsets.
    ConsumerGroups(consumer_groups::Options),
    /// Show offsets of partitions by time.
    GetOffsets(get_offsets::Options),
    /// Delete records before given offsets.
    DeleteRecords(delete_records::Options),
    /// Show what lies in the brokers' log directories.
    LogDirs(log_dirs::Options),
    /// Show the cluster's id and brokers, or forget a broker.
    Cluster(cluster::Options),
    /// Show the cluster's registry as a tree: brokers, topics, configurations, consumer groups.
    Metadata(metadata::Options),
    /// Measure a producer.
    ProducerPerfTest(producer_perf_test::Options),
    /// Measure a consumer.
    ConsumerPerfTest(consumer_perf_test::Options),
    /// Show what stands in the files of a partition.
    DumpLog(dump_log::Options),
    /// Write shell scripts under the names of Kafka's own.
    Scripts(scripts::Options),
    /// Write what a shell needs to complete these commands.
    Completion(CompletionArguments),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill start
  tidemill start config/server.properties --override log.dirs=/data/a,/data/b --override shard.count=4
  tidemill start config/server.properties plan.properties

Keys are Kafka's; docs/CONFIG.md lists them.")]
struct StartArguments {
    /// A Kafka server.properties, and files whose values are put over it; the last one counts.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Puts a value over the files'; the last one counts.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill completion bash > /etc/bash_completion.d/tidemill
  tidemill completion zsh > ~/.zfunc/_tidemill")]
struct CompletionArguments {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Runs what the arguments of the process ask for.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version come as errors too, to be written to standard output.
            let failed = error.use_stderr();
            drop(error.print());
            return if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command {
        None => start::run(&[], &[]),
        Some(Command::Start(StartArguments { files, overrides })) => start::run(&files, &overrides),
        Some(Command::DemoCluster(options)) => exit(demo_cluster::run(&options)),
        Some(Command::Format(options)) => exit(storage::format(&options)),
        Some(Command::Storage(options)) => exit(storage::run(&options)),
        Some(Command::ConsoleProducer(options)) => exit(console_producer::run(&options)),
        Some(Command::ConsoleConsumer(options)) => exit(console_consumer::run(&options)),
        Some(Command::Topics(options)) => exit(topics::run(&options)),
        Some(Command::Configs(options)) => exit(configs::run(&options)),
        Some(Command::ConsumerGroups(options)) => exit(consumer_groups::run(&options)),
        Some(Command::GetOffsets(options)) => exit(get_offsets::run(&options)),
        Some(Command::DeleteRecords(options)) => exit(delete_records::run(&options)),
        Some(Command::LogDirs(options)) => exit(log_dirs::run(&options)),
        Some(Command::Cluster(options)) => exit(cluster::run(&options)),
        Some(Command::Metadata(options)) => exit(metadata::run(&options)),
        Some(Command::ProducerPerfTest(options)) => exit(producer_perf_test::run(&options)),
        Some(Command::ConsumerPerfTest(options)) => exit(consumer_perf_test::run(&options)),
        Some(Command::DumpLog(options)) => exit(dump_log::run(&options)),
        Some(Command::Scripts(options)) => exit(scripts::run(&options)),
        Some(Command::Completion(options)) => exit(completion(options.shell)),
    }
}

fn completion(shell: clap_complete::Shell) -> Result<(), crate::client::ClientError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tidemill", &mut text);
    output::print(&String::from_utf8_lossy(&text))
}

fn exit(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemill: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_arguments_start_a_broker_and_overrides_may_repeat() {
        assert!(Arguments::parse_from(["tidemill"]).command.is_none());
        let parsed =
            Arguments::parse_from(["tidemill", "start", "f", "g", "--override", "a=1", "--override", "b=2"]);
        let Some(Command::Start(start)) = parsed.command else { panic!("{parsed:?}") };
        assert_eq!(
            (start.files, start.overrides),
            (vec!["f".into(), "g".into()], vec!["a=1".to_owned(), "b=2".to_owned()])
        );
    }

    #[test]
    fn kafkas_flags_are_taken() {
        let line = "tidemill console-producer --bootstrap-server h:1 --topic t --property parse.key=true \
                    --reader-property key.separator=: --producer-property acks=all --compression-codec --sync";
        assert!(Arguments::try_parse_from(line.split_whitespace()).is_ok());
        let line = "tidemill console-consumer --bootstrap-server h:1 --topic t --partition 0 --offset earliest \
                    --max-messages 3 --timeout-ms 100 --property print.key=true --formatter-property print.value=false";
        assert!(Arguments::try_parse_from(line.split_whitespace()).is_ok());
        let line = "tidemill console-consumer --bootstrap-server h:1 --topic t --offset 3";
        assert!(Arguments::try_parse_from(line.split_whitespace()).is_err());
    }
}
