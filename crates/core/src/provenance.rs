//! Where the knowledge behind a decision comes from, and how old it is.

use std::time::Duration;

/// The tier that answered a lookup, from the nearest to the farthest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// No tier was asked, or none could answer.
    #[default]
    None,
    /// The memory of this process.
    Memory,
    /// Redis, where this replica or another one had written the entry.
    Redis,
    /// Postgres, which holds the truth.
    Postgres,
}

/// The origin of the knowledge behind a decision, for answers, metrics and logs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Provenance {
    /// The farthest tier that answered one of the lookups.
    pub tier: Tier,
    /// The age of the oldest part: the time from when it was last known to be true until it was used.
    pub age: Duration,
}

impl Provenance {
    /// Adds the origin of one more lookup: the farther tier and the greater age count.
    pub fn add(&mut self, other: Self) {
        *self = Self { tier: self.tier.max(other.tier), age: self.age.max(other.age) };
    }
}

impl Tier {
    /// Returns the word for the tier in logs and metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}
