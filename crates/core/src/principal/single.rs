//! Scopes on single entities, of which a token may have thousands.

use crate::operation::{EntityType, Operation, OperationSet};

/// An entity, and the operations that the token's scopes grant on it.
pub(crate) type ScopeEntry = (EntityType, Box<str>, OperationSet);

/// The scopes of a token on single entities. They are behind one pointer, because most tokens have
/// none. Only the list is serialized.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<ScopeEntry>", into = "Vec<ScopeEntry>")]
pub(super) struct SingleScopes(Option<Box<ScopeList>>);

#[derive(Clone, Debug, Default, PartialEq)]
struct ScopeList {
    /// The entries, sorted by type and entity.
    entries: Vec<ScopeEntry>,
    /// The operations that are granted on some entity of each type, so that a check does not read all
    /// entries.
    some: [OperationSet; EntityType::ALL.len()],
}

impl SingleScopes {
    pub(super) fn add(&mut self, on: EntityType, entity: &str, operations: OperationSet) {
        let at = self.find(on, entity);
        let ScopeList { entries, some } = &mut **self.0.get_or_insert_default();
        match at {
            Ok(at) => entries[at].2 = entries[at].2.union(operations),
            Err(at) => entries.insert(at, (on, entity.into(), operations)),
        }
        some[on as usize] = some[on as usize].union(operations);
    }

    /// Returns whether scopes grant `operation` on exactly this entity.
    pub(super) fn give(&self, operation: Operation, on: EntityType, entity: &str) -> bool {
        self.find(on, entity).is_ok_and(|at| self.entries()[at].2.contains(operation))
    }

    /// Returns whether scopes grant the operation on some entity of the type.
    pub(super) fn give_on_some(&self, operation: Operation, on: EntityType) -> bool {
        self.on_some(on).contains(operation)
    }

    /// Returns what scopes grant on some entity of the type.
    pub(super) fn on_some(&self, on: EntityType) -> OperationSet {
        self.0.as_ref().map_or_else(OperationSet::default, |inner| inner.some[on as usize])
    }

    /// Returns the entries of one type.
    pub(super) fn entries_of(&self, on: EntityType) -> &[ScopeEntry] {
        let entries = self.entries();
        let from = entries.partition_point(|(of, ..)| *of < on);
        let rest = entries.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|(of, ..)| *of == on)).unwrap_or_default()
    }

    pub(super) fn entries(&self) -> &[ScopeEntry] {
        self.0.as_ref().map_or(&[], |inner| &inner.entries)
    }

    pub(super) fn shrink_to_fit(&mut self) {
        if let Some(inner) = &mut self.0 {
            inner.entries.shrink_to_fit();
        }
    }

    /// Returns the bytes that are occupied in addition to the pointer.
    pub(super) fn size(&self) -> usize {
        let names = self.entries().iter().map(|(_, entity, _)| entity.len());
        let names = names.sum::<usize>() + size_of_val(self.entries());
        self.0.as_ref().map_or(0, |inner| size_of_val(&**inner) + names)
    }

    fn find(&self, on: EntityType, entity: &str) -> Result<usize, usize> {
        self.entries().binary_search_by(|(of, id, _)| (*of, &**id).cmp(&(on, entity)))
    }
}

impl From<Vec<ScopeEntry>> for SingleScopes {
    fn from(entries: Vec<ScopeEntry>) -> Self {
        let mut some = <[OperationSet; EntityType::ALL.len()]>::default();
        for (on, _, operations) in &entries {
            some[*on as usize] = some[*on as usize].union(*operations);
        }
        Self((!entries.is_empty()).then(|| Box::new(ScopeList { entries, some })))
    }
}

impl From<SingleScopes> for Vec<ScopeEntry> {
    fn from(scopes: SingleScopes) -> Self {
        scopes.0.map_or_else(Self::new, |inner| inner.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_entity_gives_survives_storing_and_costs_the_others_nothing() {
        use {
            EntityType::{Datasets, Models},
            Operation::{LlmDelete, LlmRead, Read},
        };
        let mut scopes = SingleScopes::default();
        assert_eq!(scopes.size(), 0);
        for (on, entity, operation) in
            [(Models, "b", LlmRead), (Datasets, "a", Read), (Models, "a", LlmDelete)]
        {
            scopes.add(on, entity, [operation].into_iter().collect());
        }
        let stored = postcard::to_stdvec(&scopes).unwrap();
        let entries: Vec<ScopeEntry> = scopes.clone().into();
        assert_eq!(stored, postcard::to_stdvec(&entries).unwrap(), "not the list alone");
        let read: SingleScopes = postcard::from_bytes(&stored).unwrap();
        assert_eq!(read, scopes);
        for (operation, on, given) in [
            (LlmRead, Models, true),
            (LlmDelete, Models, true),
            (Read, Models, false),
            (Read, Datasets, true),
            (LlmRead, Datasets, false),
        ] {
            assert_eq!(read.give_on_some(operation, on), given, "{operation:?} on {on:?}");
        }
        assert!(read.give(LlmRead, Models, "b") && !read.give(LlmRead, Models, "a"));
    }
}
