//! The closed vocabulary: operations, and the entity types on which they act.
//!
//! The database (`patgate.entity_operations`), the API tables and the CLI use the same words. Words
//! are matched exactly; a word outside the vocabulary is an error where it is written and grants
//! nothing where it is read.

use std::fmt;

use crate::vocabulary::vocabulary;

vocabulary! {
    /// The operation of a request, such as `llm_chat_completions`.
    Operation, "operation" {
        Read = "read",
        Update = "update",
        Delete = "delete",
        Enable = "enable",
        Disable = "disable",
        ManageRole = "manage_role",
        AddRoleUsers = "add_role_users",
        RemoveRoleUsers = "remove_role_users",
        ViewRoleUsers = "view_role_users",
        LlmCreate = "llm_create",
        LlmUpdate = "llm_update",
        LlmRead = "llm_read",
        LlmDelete = "llm_delete",
        LlmChatCompletions = "llm_chat_completions",
        LlmCompletions = "llm_completions",
        LlmEmbeddings = "llm_embeddings",
        LlmTranscription = "llm_transcription",
        LlmTranslation = "llm_translation",
        LlmUtility = "llm_utility",
        LlmPooling = "llm_pooling",
        LlmClassification = "llm_classification",
        LlmScoring = "llm_scoring",
        LlmRerank = "llm_rerank",
        AuditLogRead = "audit_log_read",
        AuditLogExport = "audit_log_export",
        Create = "create",
        Execute = "execute",
    }
}

vocabulary! {
    /// The type of entity on which a request acts, such as `models`.
    EntityType, "entity type" {
        Domains = "domains",
        Models = "models",
        Datasets = "datasets",
        Services = "services",
        Deployments = "deployments",
        Reports = "reports",
        Workbooks = "workbooks",
        Scim = "scim",
        Users = "users",
    }
}

impl EntityType {
    /// Returns the operations that are valid on this type.
    ///
    /// A domain contains everything, so a scope on a domain may have every operation.
    pub fn operations(self) -> OperationSet {
        use Operation as O;
        let own: &[O] = match self {
            Self::Domains => O::ALL,
            Self::Models => &[
                O::LlmCreate,
                O::LlmUpdate,
                O::LlmRead,
                O::LlmDelete,
                O::LlmChatCompletions,
                O::LlmCompletions,
                O::LlmEmbeddings,
                O::LlmTranscription,
                O::LlmTranslation,
                O::LlmUtility,
                O::LlmPooling,
                O::LlmClassification,
                O::LlmScoring,
                O::LlmRerank,
            ],
            Self::Services | Self::Deployments => {
                &[O::Read, O::Create, O::Update, O::Delete, O::Enable, O::Disable, O::Execute]
            }
            Self::Users => &[O::Read, O::Create, O::Update, O::Delete, O::Enable, O::Disable],
            Self::Datasets | Self::Scim => &[O::Read, O::Create, O::Update, O::Delete],
            Self::Reports | Self::Workbooks => {
                &[O::Read, O::Create, O::Update, O::Delete, O::Execute]
            }
        };
        own.iter().copied().collect()
    }
}

/// A set of operations in one machine word.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OperationSet(u64);

const _: () = assert!(Operation::ALL.len() <= u64::BITS as usize);

impl OperationSet {
    /// Returns whether the set has `operation`.
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u64) != 0
    }

    /// Returns the operations that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the operations that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns whether some operation is in both sets.
    pub const fn intersects(self, other: Self) -> bool {
        self.intersection(other).0 != 0
    }

    /// Returns the members, in the order of the vocabulary.
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.iter().copied().filter(move |operation| self.contains(*operation))
    }
}

impl FromIterator<Operation> for OperationSet {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Self(operations.into_iter().fold(0, |set, operation| set | 1 << operation as u64))
    }
}

impl fmt::Debug for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        for word in ["", "READ", "read ", "*", "llm", "llm_chat", "any"] {
            assert!(word.parse::<Operation>().is_err(), "{word:?}");
        }
        for operation in Operation::ALL {
            assert_eq!(operation.as_str().parse::<Operation>().unwrap(), *operation);
        }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        for operation in Operation::ALL {
            let set: OperationSet = [*operation].into_iter().collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), [*operation]);
        }
        assert!(!EntityType::Models.operations().contains(Operation::Read));
        assert_eq!(EntityType::Domains.operations().iter().count(), Operation::ALL.len());
    }
    #[test]
    fn the_document_lists_them() {
        let document = include_str!("../../../docs/apis.md");
        let section =
            document.split("\n## ").find(|text| text.starts_with("Operations\n")).unwrap();
        let words = |cell: &str| -> Vec<String> {
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let rows: Vec<_> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once(" | "))
            .map(|(entities, operations)| (words(&format!("`{entities}")), words(operations)))
            .collect();
        let mut others: Vec<_> = rows.iter().flat_map(|(_, operations)| operations).collect();
        others.sort();
        others.dedup();
        assert_eq!(others.len(), Operation::ALL.len());
        for entity in EntityType::ALL.iter().filter(|entity| **entity != EntityType::Domains) {
            let row = rows.iter().find(|(entities, _)| entities.contains(&entity.to_string()));
            let listed = row.unwrap().1.iter().map(|word| word.parse().unwrap());
            assert_eq!(listed.collect::<OperationSet>(), entity.operations(), "{entity}");
        }
    }
}
