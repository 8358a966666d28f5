use uuid::Uuid;

use super::*;
use crate::{
    backend::{BackendName, ReservedNames},
    clock::Moment,
    credential::{Credential, CredentialScheme, OpenedCredential, Sealed},
    domain::{DomainId, Slug},
    operation::{Operation, OperationSet},
    principal::UserId,
    token::{TokenDigest, TokenId},
};

const ID: TokenId = TokenId(Uuid::from_u128(7));

/// Address and credential come from one backend. A backend that does not exist has no substitute.
#[test]
fn a_backend_that_the_table_names_is_the_whole_answer() {
    let domain = DomainId(Uuid::from_u128(1));
    let slug: Slug = "acme".parse().unwrap();
    let mut grants =
        DomainGrants::new(domain, slug.clone(), OperationSet::from_iter([Operation::Read]));
    grants.add_scope(EntityType::Scim, "*", Operation::Read);
    let owner = UserId(Uuid::from_u128(8));
    let digest = TokenDigest::from_bytes([0; 32]);
    let principal =
        Principal::new(ID, digest, Moment(0)..Moment(1), false, owner, true, vec![grants]);
    let key = |text: &str| Credential::new(CredentialScheme::Bearer, text).unwrap();
    let sealed = || Sealed { key_id: "k".into(), bytes: [1].into() };
    let opened = |name: &str, text: &str| {
        let backend = Backend::new(name.into(), Some(sealed()));
        backend.open_credential(|_, _| OpenedCredential::presumed(Some(key(text))));
        backend
    };
    let domain = Domain::new(domain, slug, true, "of-domain".into(), crate::domain::Models::All);
    let domain = domain.with_credentials(vec![("of-domain".into(), sealed())]);
    domain.open_credentials(|_, _| OpenedCredential::presumed(Some(key("domain"))));
    let domain = Arc::new(domain);
    let reserved = ReservedNames::with(["kept".to_owned()]);
    let decide = |upstream: Option<&BackendName>, own: Option<&Backend>, operation| {
        let rule = MatchedRule {
            domain: "acme".into(),
            operation,
            entity_type: EntityType::Scim,
            entity: Entity::None,
            upstream,
            answer: None,
        };
        let when = ModelReading::WhenNeeded;
        match authorize(&principal, &rule, Some(&domain), own, when, &reserved) {
            Ok(AuthorizationProgress::Authorized(Authorized::Permit(permit))) => {
                Ok((permit.upstream().to_owned(), permit.credential().cloned()))
            }
            Ok(other) => panic!("{other:?}"),
            Err(denial) => Err(denial.refusal),
        }
    };
    let name = "own".parse().unwrap();
    let read = Operation::Read;
    let of_domain = Ok(("of-domain".to_owned(), Some(key("domain"))));
    let own = opened("own", "own");
    assert_eq!(decide(None, None, read), of_domain);
    // A backend that the rule does not name changes nothing.
    assert_eq!(decide(None, Some(&own), read), of_domain);
    assert_eq!(decide(Some(&name), Some(&own), read), Ok(("own".to_owned(), Some(key("own")))));
    let bare = Backend::new("own".into(), None);
    assert_eq!(decide(Some(&name), Some(&bare), read), Ok(("own".to_owned(), None)));
    let closed = Backend::new("own".into(), Some(sealed()));
    for none in [None, Some(&closed), Some(&opened("another", "another"))] {
        assert_eq!(decide(Some(&name), none, read), Err(Refusal::Unavailable), "{none:?}");
        // A client without the permission learns nothing about the backend.
        let refused = Err(Refusal::PermissionDenied);
        assert_eq!(decide(Some(&name), none, Operation::Delete), refused);
    } // The gateway has a cluster of its own under that name, and a backend of that name exists.
    for reserved in ["kept", "patgate", "otlp"] {
        let (name, own) = (reserved.parse().unwrap(), opened(reserved, "own"));
        assert_eq!(decide(Some(&name), Some(&own), read), Err(Refusal::Unavailable), "{reserved}");
    }
}
