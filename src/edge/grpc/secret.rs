//! The secret that shows that it is the operator's Envoy that calls, where there are no certificates.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use crate::{clock, throttle::Throttle};

/// The least time between two log lines about checks without it.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The metadata that holds it.
static SECRET: HeaderName = HeaderName::from_static("patgate-secret");

/// The secrets of which a call must bring one. If there are none, calls need none.
pub(crate) struct CallSecrets {
    secrets: ArcSwap<Vec<SecretString>>,
    complaints: Throttle,
}

/// The error for a change that would let everyone call who can connect.
#[derive(Debug, thiserror::Error)]
#[error(
    "grpc.secret is empty, so that checks would need no secret; patgate turns the secret off only \
     when it starts"
)]
pub(crate) struct SecretTurnedOff;

impl CallSecrets {
    pub(crate) fn new(secrets: Vec<SecretString>) -> Arc<Self> {
        let secrets = ArcSwap::from_pointee(secrets);
        Arc::new(Self { secrets, complaints: Throttle::default() })
    }

    /// Replaces the secrets, for the calls that arrive from now on.
    ///
    /// # Errors
    ///
    /// If there are none any more: an emptied file must not open the port.
    pub(crate) fn replace(&self, secrets: Vec<SecretString>) -> Result<(), SecretTurnedOff> {
        if secrets.is_empty() && !self.secrets.load().is_empty() {
            return Err(SecretTurnedOff);
        }
        self.secrets.store(Arc::new(secrets));
        Ok(())
    }

    /// Returns whether a call with this metadata brings a secret, and only one. The time that this
    /// takes shows at most the length of a secret.
    pub(crate) fn admit(&self, metadata: &HeaderMap) -> bool {
        let secrets = self.secrets.load();
        if secrets.is_empty() {
            return true;
        }
        let mut brought = metadata.get_all(&SECRET).iter();
        let (Some(brought), None) = (brought.next(), brought.next()) else { return false };
        let equal =
            |secret: &SecretString| secret.expose_secret().as_bytes().ct_eq(brought.as_bytes());
        secrets.iter().fold(Choice::from(0), |any, secret| any | equal(secret)).into()
    }

    /// Logs that a check came without a secret, if that was not logged lately. Its sender may be an
    /// Envoy whose configuration lacks it, or a stranger.
    pub(super) fn complain(&self) {
        if self.complaints.passes(clock::now(), COMPLAIN_EVERY) {
            tracing::warn!(
                "a check came without the secret of grpc.secret, and was answered 503; Envoy sends it \
                 in initial_metadata as patgate-secret"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_of_them_must_come_and_once() {
        let secrets = CallSecrets::new(vec!["first".into(), "second".into()]);
        let admits = |secrets: &CallSecrets, brought: &[&'static str]| {
            let mut metadata = HeaderMap::new();
            for value in brought {
                metadata.append(&SECRET, HeaderValue::from_static(value));
            }
            secrets.admit(&metadata)
        };
        for (brought, admitted) in [
            (&["first"][..], true),
            (&["second"], true),
            (&[], false),
            (&[""], false),
            (&["firs"], false),
            (&["first "], false),
            (&["First"], false),
            (&["first,second"], false),
            (&["first", "second"], false),
            (&["first", "x"], false),
        ] {
            assert_eq!(admits(&secrets, brought), admitted, "{brought:?}");
            assert!(admits(&CallSecrets::new(Vec::new()), brought), "{brought:?}");
        }
        // Every byte counts, also of a secret as long as it may be.
        let long = "s".repeat(256);
        let secrets_of_one = CallSecrets::new(vec![long.clone().into()]);
        for at in 0..long.len() {
            let mut other = long.clone();
            other.replace_range(at..=at, "t");
            let mut metadata = HeaderMap::new();
            metadata.append(&SECRET, HeaderValue::try_from(other).unwrap());
            assert!(!secrets_of_one.admit(&metadata), "{at}");
        }
        secrets.replace(vec!["second".into()]).unwrap();
        assert_eq!(["first", "second"].map(|one| admits(&secrets, &[one])), [false, true]);
        assert!(secrets.replace(Vec::new()).is_err());
        assert_eq!(["first", "second"].map(|one| admits(&secrets, &[one])), [false, true]);
        let none = CallSecrets::new(Vec::new());
        none.replace(Vec::new()).unwrap();
        none.replace(vec!["first".into()]).unwrap();
        assert!(admits(&none, &["first"]) && !admits(&none, &[]));
    }
}
