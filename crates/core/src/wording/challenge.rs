//! The `WWW-Authenticate` header of a refusal.

use crate::{
    api::{ApiStyle, InsufficientStatus, TokenScheme},
    refusal::{Denial, NoModelKind, Refusal},
};

/// Returns one challenge per scheme (RFC 9110, section 11.6.1). RFC 6750, section 3: no error parameter
/// when no credential was sent; only `Bearer` defines any.
pub(crate) fn challenge(denial: &Denial, api_style: ApiStyle, message: &str) -> Option<String> {
    let error = match (denial.refusal, denial.operation) {
        (Refusal::NoModel(why), _) if why.kind() != NoModelKind::Permission => return None,
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
            match api_style.insufficient {
                InsufficientStatus::Forbidden => return None,
                InsufficientStatus::Unauthorized => r#", error="insufficient_scope""#.to_owned(),
            }
        }
        (
            Refusal::NotAToken(_)
            | Refusal::InvalidToken
            | Refusal::TokenNotYetIssued
            | Refusal::TokenExpired
            | Refusal::TokenRevoked
            | Refusal::OwnerDisabled,
            _,
        ) => format!(r#", error="invalid_token", error_description="{message}""#),
    };
    let challenges = api_style.sources.schemes().map(|scheme| match scheme {
        TokenScheme::Bearer => format!(r#"Bearer realm="patgate"{error}"#),
        TokenScheme::ApiKey => r#"Api-Key realm="patgate""#.to_owned(),
    });
    Some(challenges.collect::<Vec<_>>().join(", "))
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::TokenSource,
        operation::Operation,
        refusal::{MalformedPart, NoModel},
        wording::{ErrorStatus, MessageContext, message},
    };

    #[test]
    fn a_401_has_a_challenge_for_each_scheme() {
        let bearer = ApiStyle::default();
        let both = ApiStyle { sources: bearer.sources.with(TokenSource::ApiKeyScheme), ..bearer };
        let hub = ApiStyle { insufficient: InsufficientStatus::Unauthorized, ..bearer };
        let denied = Refusal::PermissionDenied;
        let read = Denial { operation: Some(Operation::Read), ..denied.into() };
        for (api_style, denial, status, expected) in [
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
            (hub, Refusal::BadRequest(MalformedPart::Path).into(), 400, None),
        ] {
            let challenge =
                challenge(&denial, api_style, &message(&denial, &MessageContext::default()));
            let got = ErrorStatus::of(denial.refusal, api_style).code();
            assert_eq!((got, challenge.as_deref()), (status, expected), "{denial:?}");
        }
    }
}
