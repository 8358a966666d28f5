//! Which installation of patgate something belongs to.
//!
//! Several may share a Postgres cluster, a Redis, a key ring and an address. Whatever passes through
//! these names its installation, and what another one wrote is not used: a token that production
//! revoked stays revoked, whatever staging, made from a dump of production, knows about it.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identity of an installation. A standby has that of its primary, before and after it is
/// promoted; a database restored from a dump has another one, because its oid or its cluster is
/// another; a cluster that was copied file by file has the same until `patgate installation renew`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Installation {
    /// The system identifier of the Postgres cluster.
    pub(crate) system: i64,
    /// The oid of the database in the cluster.
    pub(crate) database: u32,
    /// The random id in the table `patgate.installation`.
    pub(crate) id: Uuid,
}

/// The error for a text that does not name an installation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `<system identifier>/<oid of the database>/<installation id>`")]
pub struct InstallationError;

impl Installation {
    /// Returns the random id of the installation.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the Postgres channel on which commands announce changes.
    pub fn channel(&self) -> String {
        format!("patgate_changes_{}", self.id.simple())
    }

    /// Returns the bytes that a seal covers.
    pub(crate) fn to_bytes(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..8].copy_from_slice(&self.system.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.database.to_be_bytes());
        bytes[12..].copy_from_slice(self.id.as_bytes());
        bytes
    }
}

/// Writes the form of `patgate.identity()`. Its alphabet has no quote.
impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, database, id } = self;
        write!(f, "{system}/{database}/{id}")
    }
}

impl FromStr for Installation {
    type Err = InstallationError;

    fn from_str(text: &str) -> Result<Self, InstallationError> {
        let mut parts = text.split('/');
        let (Some(system), Some(database), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InstallationError);
        };
        let number = |_: ParseIntError| InstallationError;
        Ok(Self {
            system: system.parse().map_err(number)?,
            database: database.parse().map_err(number)?,
            id: id.parse().map_err(|_| InstallationError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::OURS;

    #[test]
    fn each_part_tells_installations_apart_everywhere() {
        let others = [
            Installation { system: 8, ..OURS },
            Installation { database: 16_385, ..OURS },
            Installation { id: Uuid::from_u128(2), ..OURS },
        ];
        let all: Vec<Installation> = [OURS].into_iter().chain(others).collect();
        let texts: HashSet<String> = all.iter().map(ToString::to_string).collect();
        let prefixes: HashSet<String> = all.iter().map(Installation::redis_prefix).collect();
        let bytes: HashSet<[u8; 28]> = all.iter().map(|one| one.to_bytes()).collect();
        assert_eq!([texts.len(), prefixes.len(), bytes.len()], [4, 4, 4]);
    }

    #[test]
    fn text_and_back() {
        let text = "7/16384/00000000-0000-0000-0000-000000000001";
        assert_eq!(OURS.to_string(), text);
        assert_eq!(text.parse(), Ok(OURS));
        for text in ["", "7", "7/16384", "7/16384/x", "x/1/00000000-0000-0000-0000-000000000001"] {
            assert_eq!(text.parse::<Installation>(), Err(InstallationError), "{text}");
        }
    }
}
