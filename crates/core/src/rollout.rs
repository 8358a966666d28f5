//! How far decisions are enforced: the mode of a replica, the mode of a domain, and a share of the
//! domain's tokens.

mod share;

pub use self::share::{Share, ShareError};
use crate::vocabulary::vocabulary;

vocabulary! {
    /// The mode of a replica, from its configuration: for which domains decisions are enforced.
    Mode, "mode" {
        Enforce = "enforce",
        PerDomain = "per-domain",
        Shadow = "shadow",
    }
}

vocabulary! {
    /// The mode of a domain, which counts if the mode of the replica is `per-domain`.
    DomainMode, "mode of a domain" {
        Enforce = "enforce",
        Shadow = "shadow",
    }
}

vocabulary! {
    /// What the modes and the share amount to for one request.
    Treatment, "treatment" {
        Enforce = "enforce",
        Shadow = "shadow",
        Ramp = "ramp",
    }
}

/// How far decisions are enforced in a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rollout {
    /// The mode for all tokens of the domain.
    pub mode: DomainMode,
    /// The share of the domain's tokens for which decisions are enforced, if the mode is `enforce`.
    pub share: Share,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { mode: DomainMode::Enforce, share: Share::ALL }
    }
}

impl Rollout {
    /// Returns the treatment of a request for the domain, if the mode of the replica is `per-domain`.
    pub fn treatment(self) -> Treatment {
        match self.mode {
            DomainMode::Shadow => Treatment::Shadow,
            DomainMode::Enforce if self.share == Share::ALL => Treatment::Enforce,
            DomainMode::Enforce => Treatment::Ramp,
        }
    }
}
