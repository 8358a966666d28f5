//! What a token resolves to: its owner, its lifetime, and what it may do in each domain.

mod single;

use std::{fmt, ops::Range};

use uuid::Uuid;

pub(crate) use self::single::ScopeEntry;
use self::single::SingleScopes;
use crate::{
    clock::Moment,
    domain::{DomainId, DomainRef, Slug},
    operation::{EntityType, Operation, OperationSet},
    token::{TokenDigest, TokenId},
};

/// The id of a user, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UserId(pub Uuid);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A token with its owner, as they were when they were read from Postgres.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Principal {
    /// The id of the token.
    pub token: TokenId,
    /// The digest with which a client proves possession of the token.
    pub digest: TokenDigest,
    /// The moment at which the token was issued.
    pub issued_at: Moment,
    /// The first moment at which the token is no longer valid.
    pub expires_at: Moment,
    /// Whether the token was revoked.
    pub revoked: bool,
    /// The owner of the token.
    pub owner: UserId,
    /// Whether the owner is enabled. A disabled owner may do nothing.
    pub owner_enabled: bool,
    /// One entry per domain that a scope of the token names, in the order of their ids.
    grants: Vec<DomainGrants>,
    /// The positions of the grants in the order of their slugs, if there is more than one.
    by_slug: Vec<u32>,
}

impl Principal {
    /// Makes a principal. `grants` has at most one entry per domain, in any order. `life` is from the
    /// moment at which the token was issued to the one at which it expires.
    pub fn new(
        token: TokenId,
        digest: TokenDigest,
        life: Range<Moment>,
        revoked: bool,
        owner: UserId,
        owner_enabled: bool,
        mut grants: Vec<DomainGrants>,
    ) -> Self {
        // There may be hundreds of thousands of them in memory.
        grants.iter_mut().for_each(|grant| grant.one.shrink_to_fit());
        grants.shrink_to_fit();
        grants.sort_unstable_by_key(|grant| grant.domain);
        let several = if grants.len() > 1 { grants.len() } else { 0 };
        let mut by_slug: Vec<u32> = (0..).take(several).collect();
        by_slug.sort_unstable_by_key(|at| &grants[*at as usize].slug);
        let Range { start: issued_at, end: expires_at } = life;
        Self {
            token,
            digest,
            issued_at,
            expires_at,
            revoked,
            owner,
            owner_enabled,
            grants,
            by_slug,
        }
    }

    /// Returns what the token's scopes and its owner's roles permit in a domain; `None` if no scope names
    /// the domain.
    pub fn grants_in(&self, domain: DomainId) -> Option<&DomainGrants> {
        let at = self.grants.binary_search_by_key(&domain, |grant| grant.domain).ok()?;
        Some(&self.grants[at])
    }

    /// Returns whether some scope names the domain that `reference` names.
    pub fn names(&self, reference: &DomainRef) -> bool {
        match reference {
            DomainRef::Id(id) => self.grants_in(*id).is_some(),
            DomainRef::Slug(slug) => {
                if let [only] = self.grants.as_slice() {
                    return only.slug == *slug;
                }
                let named = |at: &u32| self.grants.get(*at as usize).map(|grant| &grant.slug);
                self.by_slug.binary_search_by_key(&Some(slug), named).is_ok()
            }
        }
    }

    /// Returns the domains that the token's scopes name.
    pub fn domains(&self) -> impl Iterator<Item = DomainId> {
        self.grants.iter().map(|grant| grant.domain)
    }

    /// Returns what the token may do in each domain.
    pub fn grants(&self) -> impl Iterator<Item = &DomainGrants> {
        self.grants.iter()
    }

    /// Returns the bytes that the principal occupies, for the limit of the memory tier.
    pub fn size(&self) -> usize {
        let slugs = size_of_val(self.by_slug.as_slice());
        size_of::<Self>() + slugs + self.grants.iter().map(DomainGrants::size).sum::<usize>()
    }
}

/// What one token may do in one domain: an operation needs a role of the owner and a scope.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DomainGrants {
    domain: DomainId,
    slug: Slug,
    /// The operations of all roles of the owner in the domain; every operation for a platform admin.
    permitted: OperationSet,
    /// The operations that scopes grant on every entity of a type, by type.
    every: [OperationSet; EntityType::ALL.len()],
    one: SingleScopes,
}

impl DomainGrants {
    /// Makes the grants for a domain, with the operations that the owner's roles permit there and no
    /// scope yet.
    pub fn new(domain: DomainId, slug: Slug, permitted: OperationSet) -> Self {
        Self { domain, slug, permitted, every: Default::default(), one: Default::default() }
    }

    /// Adds a scope. A scope that makes no sense grants nothing: an operation that the entity type does
    /// not have, an empty entity, or a domain other than this one.
    pub fn add_scope(&mut self, entity_type: EntityType, entity: &str, operation: Operation) {
        if entity.is_empty() || !entity_type.operations().contains(operation) {
            return;
        }
        let operations = OperationSet::from_iter([operation]);
        let whole_domain =
            entity_type == EntityType::Domains && entity == self.domain.to_string().as_str();
        if entity == "*" || whole_domain {
            let every = &mut self.every[entity_type as usize];
            *every = every.union(operations);
        } else if entity_type != EntityType::Domains {
            self.one.add(entity_type, entity, operations);
        }
    }

    /// Returns the name of the domain in paths, as it was when the grants were read.
    pub fn slug(&self) -> &Slug {
        &self.slug
    }

    /// Returns every operation that the owner's roles permit.
    pub fn permitted(&self) -> OperationSet {
        self.permitted
    }

    /// Returns what scopes grant: the type, the entity (`None` for every entity of the type), and the
    /// operations.
    pub fn scopes(&self) -> impl Iterator<Item = (EntityType, Option<&str>, OperationSet)> {
        let every = EntityType::ALL.iter().map(|on| (*on, None, self.every[*on as usize]));
        let one =
            self.one.entries().iter().map(|(on, id, operations)| (*on, Some(&**id), *operations));
        every.chain(one).filter(|(.., operations)| operations.iter().next().is_some())
    }

    /// Returns whether the owner's roles permit the operation.
    pub fn permits(&self, operation: Operation) -> bool {
        self.permitted.contains(operation)
    }

    /// Returns whether a scope grants the operation on the whole domain, on every entity of the type, or
    /// on exactly this entity. Without an entity, only the first two count.
    pub fn scoped(&self, operation: Operation, on: EntityType, entity: Option<&str>) -> bool {
        self.on_every(on).contains(operation)
            || entity.is_some_and(|entity| self.one.give(operation, on, entity))
    }

    /// Returns whether some scope grants the operation on a single entity of the type.
    pub fn scoped_to_some(&self, operation: Operation, on: EntityType) -> bool {
        self.one.give_on_some(operation, on)
    }

    /// Returns what scopes grant on every entity of a type.
    pub(crate) fn on_every(&self, of: EntityType) -> OperationSet {
        self.every[EntityType::Domains as usize].union(self.every[of as usize])
    }

    /// Returns what scopes grant on some single entity of a type.
    pub(crate) fn on_some(&self, of: EntityType) -> OperationSet {
        self.one.on_some(of)
    }

    /// Returns the entities of a type that scopes name, in the order of their ids, with the operations on
    /// each.
    pub(crate) fn one_by_one(&self, of: EntityType) -> &[ScopeEntry] {
        self.one.entries_of(of)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.slug.as_str().len() + self.one.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: DomainId = DomainId(Uuid::from_u128(1));

    fn grants(scopes: &[(EntityType, &str, Operation)]) -> DomainGrants {
        let all = Operation::ALL.iter().copied().collect();
        let mut grants = DomainGrants::new(DOMAIN, "acme".parse().unwrap(), all);
        for (entity_type, entity, operation) in scopes {
            grants.add_scope(*entity_type, entity, *operation);
        }
        grants
    }

    #[test]
    fn a_domain_is_named_by_id_and_by_slug() {
        let grants = |id, slug: &str| {
            DomainGrants::new(
                DomainId(Uuid::from_u128(id)),
                slug.parse().unwrap(),
                Default::default(),
            )
        };
        let names = [(3, "ab"), (1, "zz"), (2, "mm"), (9, "aa")];
        let principal = Principal::new(
            TokenId(Uuid::nil()),
            TokenDigest::from_bytes([0; 32]),
            Moment(0)..Moment(1),
            false,
            UserId(Uuid::nil()),
            true,
            names.map(|(id, slug)| grants(id, slug)).to_vec(),
        );
        for (id, slug) in names {
            assert!(principal.names(&DomainRef::Id(DomainId(Uuid::from_u128(id)))), "{id}");
            assert!(principal.names(&DomainRef::Slug(slug.parse().unwrap())), "{slug}");
        }
        assert!(!principal.names(&DomainRef::Id(DomainId(Uuid::from_u128(4)))));
        for slug in ["a0", "ac", "n0", "zzz"] {
            assert!(!principal.names(&DomainRef::Slug(slug.parse().unwrap())), "{slug}");
        }
    }

    #[test]
    fn a_scope_on_one_entity_covers_that_entity_alone() {
        use {EntityType::Models, Operation::LlmRead};
        let grants = grants(&[(Models, "m/1", LlmRead), (Models, "a", LlmRead)]);
        assert!(grants.scoped(LlmRead, Models, Some("m/1")));
        assert!(grants.scoped(LlmRead, Models, Some("a")));
        for entity in [None, Some(""), Some("*"), Some("m"), Some("m/1 "), Some("M/1")] {
            assert!(!grants.scoped(LlmRead, Models, entity), "{entity:?}");
        }
        assert!(!grants.scoped(Operation::LlmDelete, Models, Some("m/1")));
        assert!(!grants.scoped(LlmRead, EntityType::Datasets, Some("m/1")));
    }

    #[test]
    fn a_scope_on_the_domain_covers_what_it_holds() {
        use {
            EntityType::{Domains, Models},
            Operation::LlmRead,
        };
        for entity in ["*", &DOMAIN.to_string()] {
            let grants = grants(&[(Domains, entity, LlmRead)]);
            assert!(grants.scoped(LlmRead, Models, None));
            assert!(grants.scoped(LlmRead, Models, Some("m")));
            assert!(!grants.scoped(Operation::LlmDelete, Models, None));
        }
        let other = DomainId(Uuid::from_u128(2)).to_string();
        assert!(!grants(&[(Domains, &other, LlmRead)]).scoped(LlmRead, Models, None));
    }

    #[test]
    fn nonsense_grants_nothing() {
        let nonsense = [
            (EntityType::Models, "", Operation::LlmRead),
            (EntityType::Models, "*", Operation::Read),
            (EntityType::Domains, "", Operation::Read),
        ];
        let grants = grants(&nonsense);
        for operation in Operation::ALL {
            for entity_type in EntityType::ALL {
                for entity in [None, Some(""), Some("*")] {
                    assert!(!grants.scoped(*operation, *entity_type, entity));
                }
            }
        }
    }
}
