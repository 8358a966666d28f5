//! Probes what `patgate admin` needs.

use super::Finding;
use crate::{admin::web::check_login, config::Config, installation::Installation, postgres};

const POSTGRES: &str = "web.postgres.url";
const KEY_RING: &str = "keyring_file";

/// Returns the finding about the login, and the installation that it leads to.
pub(super) async fn probe(config: &Config) -> (Finding, Option<Installation>) {
    let mut connection = match postgres::connect_one(&config.postgres).await {
        Ok(connection) => connection,
        Err(error) => return (Finding::failed(POSTGRES, error), None),
    };
    let checked = check_login(&mut connection, config.postgres.query_timeout).await;
    // It has served its purpose.
    let _ = connection.close().await;
    match checked {
        Ok(installation) => {
            (Finding::ok(POSTGRES, format!("installation {installation}")), Some(installation))
        }
        Err(error) => (Finding::failed(POSTGRES, error), None),
    }
}

/// The login may not read which keys have signed the live tokens.
pub(super) fn key_ring(config: &Config) -> Finding {
    match config.key_ring() {
        Ok(ring) => {
            let key = ring.current().id.as_str();
            Finding::ok(KEY_RING, format!("new tokens are signed with key {key}"))
        }
        Err(error) => Finding::failed(KEY_RING, error),
    }
}
