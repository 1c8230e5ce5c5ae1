//! What every tool that talks to a cluster is told: which brokers to ask, as what client, and how patiently.

use std::path::PathBuf;
use std::time::Duration;

use super::properties::Properties;
use crate::client::{Admin, ClientError, Cluster, ConnectionConfig, parse_bootstrap};

/// Flags of the tools that administer.
#[derive(Debug, clap::Args)]
pub(super) struct AdminOptions {
    /// The brokers to ask first.
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "TIDEMILL_BOOTSTRAP_SERVER",
        visible_alias = "bootstrap-controller"
    )]
    bootstrap_server: String,
    /// A properties file: client.id, request.timeout.ms, default.api.timeout.ms.
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
}

impl AdminOptions {
    /// An admin of the cluster; nothing is connected yet.
    pub fn admin(&self) -> Result<Admin, ClientError> {
        let mut given = Properties::read(self.command_config.as_deref(), &[])?;
        let timeout_ms = given.number("request.timeout.ms")?.unwrap_or(30_000);
        let patience_ms = given.number("default.api.timeout.ms")?.unwrap_or(60_000);
        let client_id = given.text("client.id").unwrap_or_else(|| "admin".to_owned());
        given.warn_of_the_rest();
        let timeout = Duration::from_millis(timeout_ms);
        let response_timeout = timeout + Duration::from_secs(10);
        let config = ConnectionConfig { client_id, response_timeout, ..ConnectionConfig::default() };
        let cluster = Cluster::new(parse_bootstrap(&self.bootstrap_server)?, config)
            .with_patience(Duration::from_millis(patience_ms));
        Ok(Admin::new(cluster, timeout))
    }
}
