//! A row of the report: what denials have in common, and how many there are.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use uuid::Uuid;

use super::GroupBy;

/// What denials must have in common to be counted together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group {
    /// The owner of the token, if one was verified.
    pub(super) user: Option<Uuid>,
    pub(super) token: Option<Uuid>,
    pub(super) domain: Option<String>,
    pub(super) code: String,
    pub(super) request: Requested,
}

/// What was asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Requested {
    Operation(String),
    /// No rule names it.
    Path {
        method: String,
        path: String,
    },
    /// No rule names these, and the log does not keep their paths apart.
    FurtherPaths,
    /// The log does not say.
    Unknown,
}

/// Denials of one group.
#[derive(Clone, Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    /// The id of one of the requests; empty if the log only counts these denials.
    pub(super) example: String,
}

/// What the database calls the ids of a log.
#[derive(Default)]
pub(super) struct Names {
    /// Addresses.
    pub(super) owners: HashMap<Uuid, String>,
    pub(super) tokens: HashMap<Uuid, String>,
}

/// Denials that the log has, and that were not enforced.
#[derive(Serialize)]
pub(super) struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<Uuid>,
    /// The owner's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pat_id: Option<Uuid>,
    /// The token's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    pub(super) domain: String,
    pub(super) code: String,
    pub(super) operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) paths_left_out: bool,
    pub(super) count: u64,
    /// The number of different owners, in rows of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owners: Option<usize>,
    /// The number of different verified tokens, in rows of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<usize>,
    /// The id of one of the requests.
    pub(super) example: String,
}

#[derive(Default)]
struct Sum {
    tally: Tally,
    owners: HashSet<Uuid>,
    tokens: HashSet<Uuid>,
}

impl Tally {
    pub(super) fn add(&mut self, count: u64, example: &str) {
        self.count += count;
        if !example.is_empty() {
            example.clone_into(&mut self.example);
        }
    }
}

impl GroupBy {
    /// Returns the group of a row; `None` if the table has no such row.
    fn group(self, group: &Group) -> Option<Group> {
        let mut group = group.clone();
        match self {
            Self::Request => (group.user, group.token) = (None, None),
            Self::Owner => group.token = None,
            Self::Token => {}
        }
        (self == Self::Request || group.user.is_some()).then_some(group)
    }

    /// Returns the rows of a table: the owner with the most denials first, and of each owner the most
    /// frequent first.
    pub(super) fn rows<'t>(
        self,
        tallies: impl Iterator<Item = (Group, &'t Tally)>,
        names: &Names,
    ) -> Vec<Row> {
        let mut sums: HashMap<Group, Sum> = HashMap::new();
        let mut of_owner: HashMap<Option<Uuid>, u64> = HashMap::new();
        for (group, tally) in tallies {
            let Some(row) = self.group(&group) else { continue };
            *of_owner.entry(row.user).or_default() += tally.count;
            let sum = sums.entry(row).or_default();
            sum.tally.add(tally.count, &tally.example);
            sum.owners.extend(group.user);
            sum.tokens.extend(group.token);
        }
        let mut sums: Vec<(Group, Sum)> = sums.into_iter().collect();
        sums.sort_unstable_by(|(a, of_a), (b, of_b)| {
            of_owner[&b.user]
                .cmp(&of_owner[&a.user])
                .then_with(|| a.user.cmp(&b.user))
                .then_with(|| of_b.tally.count.cmp(&of_a.tally.count))
                .then_with(|| a.cmp(b))
        });
        sums.into_iter().map(|(group, sum)| self.row(group, sum, names)).collect()
    }

    fn row(self, group: Group, sum: Sum, names: &Names) -> Row {
        let Group { user, token, domain, code, request } = group;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let paths_left_out = request == Requested::FurtherPaths;
        let (operation, asked) = match request {
            Requested::Operation(operation) => (Some(operation), None),
            Requested::Path { method, path } => (None, Some((method, path))),
            Requested::FurtherPaths | Requested::Unknown => (None, None),
        };
        let (method, path) = asked.unzip();
        let Tally { count, example } = sum.tally;
        Row {
            user_id: user,
            owner: user.and_then(|user| names.owners.get(&user).cloned()),
            pat_id: token,
            token: token.and_then(|token| names.tokens.get(&token).cloned()),
            domain: or_dash(domain),
            code,
            operation: or_dash(operation),
            method,
            path,
            paths_left_out,
            count,
            owners: (self == Self::Request).then_some(sum.owners.len()),
            tokens: (self != Self::Token).then_some(sum.tokens.len()),
            example: or_dash(Some(example).filter(|example| !example.is_empty())),
        }
    }
}
