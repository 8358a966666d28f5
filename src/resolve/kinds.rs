//! The kinds of values that are looked up: principals by token id, domains by reference, and
//! backends that tables name.

use std::{cell::RefCell, fmt::Display, hash::Hash};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    backend::{Backend, BackendName, ReservedNames},
    credential::{OpenedCredential, Sealed},
    domain::{Domain, DomainRef},
    freshness::Dependency,
    keyring::{KeyBasis, LiveRing},
    principal::{Principal, UserId},
    token::TokenId,
};

/// A kind of values, with the facts that the tiers need.
pub(crate) trait LookupKind: 'static {
    type Key: Clone + Display + Eq + Hash + Send + Sync + 'static;
    type Value: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The name in metrics and Redis keys.
    const NAME: &'static str;

    /// The table in Postgres that holds the values.
    const TABLE: &'static str;

    /// The bytes that a value occupies in memory.
    fn size(value: &Self::Value) -> usize;

    /// Visits all dependencies of a result under `key`: a change to any of them may have made the
    /// result wrong.
    fn visit_dependencies(
        key: &Self::Key,
        value: Option<&Self::Value>,
        visit: &mut dyn FnMut(Dependency),
    );

    /// Whether values have owners, whose lookups wait in one lane.
    const OWNED: bool = false;

    /// Returns the owner of a value, if values of this kind have owners.
    fn owner(_value: &Self::Value) -> Option<UserId> {
        None
    }

    /// Prepares a result for use, once, from whichever tier it came. Returns a fact that an
    /// operator must know; the caller logs and counts it.
    fn prepare(
        _key: &Self::Key,
        _value: Option<&Self::Value>,
        _ring: &LiveRing,
        _reserved: &ReservedNames,
    ) -> Vec<Defect> {
        Vec::new()
    }

    /// Returns what that rests on which `prepare` has opened.
    fn bases(_value: &Self::Value) -> Vec<KeyBasis> {
        Vec::new()
    }
}

/// A result that makes patgate answer requests with 503.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The credential of a backend cannot be opened by the key ring.
    UnopenedCredential {
        /// The backend's name.
        backend: Box<str>,
        /// The id of the key that sealed it.
        key_id: Box<str>,
    },
    /// The tables of APIs name a backend that does not exist.
    UnknownBackend {
        /// The name that the tables give.
        backend: Box<str>,
    },
    /// A backend has a name that none may have.
    ReservedName {
        /// The name.
        backend: Box<str>,
    },
}

/// Principals, looked up by token id.
pub(crate) enum Principals {}

/// Domains, looked up by id or slug.
pub(crate) enum Domains {}

/// Looked up by name. Each backend has its own entry, so the entry does not depend on the tables
/// that were in use when it was read, nor on the replica that read it.
pub(crate) enum Backends {}

impl LookupKind for Principals {
    type Key = TokenId;
    type Value = Principal;
    const NAME: &'static str = "principal";
    const TABLE: &'static str = "patgate.pats";
    const OWNED: bool = true;

    fn owner(value: &Principal) -> Option<UserId> {
        Some(value.owner)
    }

    fn size(value: &Principal) -> usize {
        value.size()
    }

    fn visit_dependencies(
        key: &TokenId,
        value: Option<&Principal>,
        visit: &mut dyn FnMut(Dependency),
    ) {
        visit(Dependency::Token(*key));
        let Some(principal) = value else { return };
        visit(Dependency::User(principal.owner));
        for domain in principal.domains() {
            visit(Dependency::Domain(domain));
            visit(Dependency::Membership(principal.owner, domain));
        }
    }
}

impl LookupKind for Domains {
    type Key = DomainRef;
    type Value = Domain;
    const NAME: &'static str = "domain";
    const TABLE: &'static str = "patgate.domains";

    fn size(value: &Domain) -> usize {
        value.size()
    }

    fn visit_dependencies(
        key: &DomainRef,
        value: Option<&Domain>,
        visit: &mut dyn FnMut(Dependency),
    ) {
        match key {
            DomainRef::Id(id) => visit(Dependency::Domain(*id)),
            DomainRef::Slug(slug) => visit(Dependency::Slug(slug.clone())),
        }
        if let Some(domain) = value {
            visit(Dependency::Domain(domain.id));
            domain.backends().for_each(|backend| visit(Dependency::Backend(backend.into())));
        }
    }

    fn bases(domain: &Domain) -> Vec<KeyBasis> {
        domain.bases()
    }

    fn prepare(
        _: &DomainRef,
        domain: Option<&Domain>,
        ring: &LiveRing,
        reserved: &ReservedNames,
    ) -> Vec<Defect> {
        let defects = RefCell::default();
        if let Some(domain) = domain {
            domain.open_credentials(|backend, sealed| open(ring, backend, sealed, &defects));
            let bad = domain.backends().filter(|name| reserved.holds(name));
            defects.borrow_mut().extend(bad.map(reserved_name));
        }
        defects.into_inner()
    }
}

impl LookupKind for Backends {
    type Key = BackendName;
    type Value = Backend;
    const NAME: &'static str = "backend";
    const TABLE: &'static str = "patgate.backends";

    fn size(value: &Backend) -> usize {
        size_of::<Backend>() + value.heap_size()
    }

    fn visit_dependencies(
        key: &BackendName,
        _: Option<&Backend>,
        visit: &mut dyn FnMut(Dependency),
    ) {
        visit(Dependency::Backend(key.as_str().into()));
    }

    fn bases(backend: &Backend) -> Vec<KeyBasis> {
        backend.basis().into_iter().collect()
    }

    fn prepare(
        key: &BackendName,
        backend: Option<&Backend>,
        ring: &LiveRing,
        reserved: &ReservedNames,
    ) -> Vec<Defect> {
        let defects = RefCell::new(Vec::new());
        if reserved.holds(key.as_str()) {
            defects.borrow_mut().push(reserved_name(key.as_str()));
        }
        match backend {
            Some(backend) => {
                backend.open_credential(|name, sealed| open(ring, name, sealed, &defects));
            }
            None => {
                let backend = key.as_str().into();
                defects.borrow_mut().push(Defect::UnknownBackend { backend });
            }
        }
        defects.into_inner()
    }
}

fn reserved_name(backend: &str) -> Defect {
    Defect::ReservedName { backend: backend.into() }
}

/// Opens a backend's credential, and reports one that cannot be opened.
fn open(
    ring: &LiveRing,
    backend: &str,
    sealed: &Sealed,
    defects: &RefCell<Vec<Defect>>,
) -> OpenedCredential {
    let opened = sealed.open_live(ring, backend);
    if opened.credential().is_none() {
        let backend = backend.into();
        let key_id = sealed.key_id.clone();
        defects.borrow_mut().push(Defect::UnopenedCredential { backend, key_id });
    }
    opened
}
