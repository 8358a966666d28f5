//! How far patgate is enforced: the mode of a replica, the mode of a domain, and a share of tokens.

mod share;

pub use self::share::{Share, ShareError};
use crate::vocabulary::vocabulary;

vocabulary! {
    /// Whose denials are enforced, by the configuration of a replica.
    Mode, "mode" {
        Enforce = "enforce",
        PerDomain = "per-domain",
        Shadow = "shadow",
    }
}

vocabulary! {
    /// A domain's own setting, which counts if the configuration says `per-domain`.
    DomainMode, "mode of a domain" {
        Enforce = "enforce",
        Shadow = "shadow",
    }
}

vocabulary! {
    /// What applied to one request.
    Treatment, "treatment" {
        Enforce = "enforce",
        Shadow = "shadow",
        Ramp = "ramp",
    }
}

/// How far patgate is enforced in a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rollout {
    /// For all of its tokens.
    pub mode: DomainMode,
    /// The share of its tokens that it is enforced for, if the mode is to enforce.
    pub share: Share,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { mode: DomainMode::Enforce, share: Share::ALL }
    }
}

impl Rollout {
    /// The treatment of a request for the domain.
    pub fn treatment(self) -> Treatment {
        match self.mode {
            DomainMode::Shadow => Treatment::Shadow,
            DomainMode::Enforce if self.share == Share::ALL => Treatment::Enforce,
            DomainMode::Enforce => Treatment::Ramp,
        }
    }
}
