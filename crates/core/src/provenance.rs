//! What an answer rests on: which tier knew it, and how old that knowledge is.

use std::time::Duration;

/// Who answered, from the nearest to the farthest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nobody was asked, or could answer.
    #[default]
    None,
    /// This process.
    Memory,
    /// What another replica has put there.
    Redis,
    /// The truth.
    Postgres,
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Provenance {
    /// The farthest that answered.
    pub tier: Tier,
    /// How long before it was used the oldest part was last known to be true.
    pub age: Duration,
}

impl Provenance {
    /// Takes up what else it rests on.
    pub fn add(&mut self, other: Self) {
        *self = Self { tier: self.tier.max(other.tier), age: self.age.max(other.age) };
    }
}

impl Tier {
    /// The word for it in logs and metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}
