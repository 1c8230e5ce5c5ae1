//! `tidemill cluster`: the cluster's id and brokers; a broker that is gone for good is forgotten. Commands and lines
//! are those of Kafka's `kafka-cluster`.

use serde_json::json;

use super::connect::AdminOptions;
use super::output::{OutputOptions, print, print_json, table};
use crate::client::{BrokerDescription, ClientError};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill cluster cluster-id --bootstrap-server 127.0.0.1:9092
  tidemill cluster list-endpoints --bootstrap-server 127.0.0.1:9092
  tidemill cluster unregister --bootstrap-server 127.0.0.1:9092 --id 3")]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The id of the cluster.
    ClusterId {
        #[command(flatten)]
        admin: AdminOptions,
        #[command(flatten)]
        output: OutputOptions,
    },
    /// The brokers and where they listen.
    ListEndpoints {
        #[command(flatten)]
        admin: AdminOptions,
        /// With brokers that are registered and do not take part.
        #[arg(long)]
        include_fenced_brokers: bool,
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Make the cluster forget a broker.
    Unregister {
        #[command(flatten)]
        admin: AdminOptions,
        /// The broker's number.
        #[arg(long, short, value_name = "NODE")]
        id: i32,
    },
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    match &options.command {
        Command::ClusterId { admin, output } => {
            let cluster = admin.admin()?.describe_cluster(false)?;
            if output.is_json() {
                return print_json(&json!({"clusterId": cluster.id}));
            }
            print(&format!("Cluster ID: {}\n", cluster.id))
        }
        Command::ListEndpoints { admin, include_fenced_brokers, output } => {
            let cluster = admin.admin()?.describe_cluster(*include_fenced_brokers)?;
            if output.is_json() {
                let brokers: Vec<serde_json::Value> = cluster.brokers.iter().map(document).collect();
                return print_json(&json!(brokers));
            }
            let rows: Vec<Vec<String>> = cluster.brokers.iter().map(row).collect();
            let heading = ["ID", "HOST", "PORT", "RACK", "STATE", "ENDPOINT_TYPE"];
            print(&table(&heading, &[10, 9, 10, 10, 10, 15], &rows))
        }
        Command::Unregister { admin, id } => {
            admin.admin()?.unregister_broker(*id)?;
            print(&format!("Broker {id} is no longer registered.\n"))
        }
    }
}

fn state(broker: &BrokerDescription) -> &'static str {
    if broker.is_fenced == Some(true) { "fenced" } else { "unfenced" }
}

fn row(broker: &BrokerDescription) -> Vec<String> {
    let rack = broker.rack.clone().unwrap_or_else(|| "null".to_owned());
    let (id, port) = (broker.id.to_string(), broker.port.to_string());
    vec![id, broker.host.clone(), port, rack, state(broker).to_owned(), "broker".to_owned()]
}

/// A broker as JSON.
pub(super) fn document(broker: &BrokerDescription) -> serde_json::Value {
    json!({
        "id": broker.id,
        "host": broker.host,
        "port": broker.port,
        "rack": broker.rack,
        "state": state(broker),
        "endpointType": "broker",
    })
}
