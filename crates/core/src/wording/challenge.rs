//! The `WWW-Authenticate` header of a refusal.

use crate::{
    api::{Insufficient, Manner, Scheme},
    refusal::{Denial, Fault, Refusal},
};

/// Returns one challenge per scheme (RFC 9110, section 11.6.1). RFC 6750, section 3: no error parameter
/// when no credential was sent; only `Bearer` defines any.
pub fn challenge(denial: &Denial, manner: Manner, message: &str) -> Option<String> {
    let error = match (denial.refusal, denial.operation) {
        (Refusal::NoModel(why), _) if why.fault() != Fault::Permission => return None,
        (
            Refusal::BadRequest(_)
            | Refusal::NotFound
            | Refusal::RateLimited
            | Refusal::TooManyBodies
            | Refusal::Unavailable,
            _,
        ) => return None,
        (Refusal::MissingCredential, _) => String::new(),
        (
            Refusal::PermissionDenied | Refusal::OtherEntity(_) | Refusal::NoModel(_),
            Some(operation),
        ) => {
            format!(r#", error="insufficient_scope", scope="{operation}""#)
        }
        // A 401 must come with a challenge; a 403 need not.
        (Refusal::PermissionDenied | Refusal::OtherEntity(_) | Refusal::NoModel(_), None) => {
            match manner.insufficient {
                Insufficient::Forbidden => return None,
                Insufficient::Unauthorized => r#", error="insufficient_scope""#.to_owned(),
            }
        }
        _ => format!(r#", error="invalid_token", error_description="{message}""#),
    };
    let challenges = manner.sources.schemes().map(|scheme| match scheme {
        Scheme::Bearer => format!(r#"Bearer realm="patgate"{error}"#),
        Scheme::ApiKey => r#"Api-Key realm="patgate""#.to_owned(),
    });
    Some(challenges.collect::<Vec<_>>().join(", "))
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::CredentialSource,
        operation::Operation,
        refusal::{Malformed, NoModel},
        wording::{ErrorStatus, Facts, message},
    };

    #[test]
    fn a_401_has_a_challenge_for_each_scheme() {
        let bearer = Manner::default();
        let both =
            Manner { sources: bearer.sources.with(CredentialSource::ApiKeyScheme), ..bearer };
        let hub = Manner { insufficient: Insufficient::Unauthorized, ..bearer };
        let denied = Refusal::PermissionDenied;
        let read = Denial { operation: Some(Operation::Read), ..denied.into() };
        for (manner, denial, status, expected) in [
            (bearer, Refusal::MissingCredential.into(), 401, Some(r#"Bearer realm="patgate""#)),
            (
                both,
                Refusal::MissingCredential.into(),
                401,
                Some(r#"Bearer realm="patgate", Api-Key realm="patgate""#),
            ),
            (
                both,
                Refusal::TokenRevoked.into(),
                401,
                Some(
                    r#"Bearer realm="patgate", error="invalid_token", error_description="The access token was revoked. Create a new one.", Api-Key realm="patgate""#,
                ),
            ),
            (
                hub,
                read,
                401,
                Some(r#"Bearer realm="patgate", error="insufficient_scope", scope="read""#),
            ),
            (
                hub,
                denied.into(),
                401,
                Some(r#"Bearer realm="patgate", error="insufficient_scope""#),
            ),
            (bearer, denied.into(), 403, None),
            (hub, Refusal::NotFound.into(), 404, None),
            (hub, Refusal::from(NoModel::Absent).into(), 400, None),
            (hub, Refusal::from(NoModel::Cut).into(), 413, None),
            (hub, Refusal::from(NoModel::Encoded).into(), 415, None),
            (
                hub,
                Refusal::from(NoModel::Elsewhere).into(),
                401,
                Some(r#"Bearer realm="patgate", error="insufficient_scope""#),
            ),
            (hub, Refusal::RateLimited.into(), 429, None),
            (hub, Refusal::TooManyBodies.into(), 429, None),
            (hub, Refusal::Unavailable.into(), 503, None),
            (hub, Refusal::BadRequest(Malformed::Path).into(), 400, None),
        ] {
            let challenge = challenge(&denial, manner, &message(&denial, &Facts::default()));
            let got = ErrorStatus::of(denial.refusal, manner).code();
            assert_eq!((got, challenge.as_deref()), (status, expected), "{denial:?}");
        }
    }
}
