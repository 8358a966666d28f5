//! The texts of the service's warnings, for the operator who runs a command.

use super::output::complain;
use crate::admin::Warning;

pub(super) fn show_warnings(warnings: &[Warning]) {
    for warning in warnings {
        complain(&format!("warning: {}", words(warning)));
    }
}

fn words(warning: &Warning) -> String {
    match warning {
        Warning::CopiesNotDeleted { error, max_staleness } => format!(
            "{error}; the change is committed, but cached copies may be used for up to \
             max_staleness ({})",
            humantime::format_duration(*max_staleness)
        ),
        Warning::ScopeNotPermitted { scope, owner } => format!(
            "scope {scope} grants nothing until a role of {owner} permits {}",
            scope.operation
        ),
        Warning::SignsNewTokens { key } => format!(
            "key {key} is the current key of the key ring: new tokens are signed with it. If it was \
             stolen, add another key and promote it first (`patgate keyring add`, `patgate keyring \
             promote NEW_KEY`)"
        ),
        Warning::NoScopes => "without a scope, this token can do nothing".to_owned(),
        Warning::SeesNoModel { domain } => format!(
            "domain {domain} lists no model any more, so it sees none; `patgate domain update \
             {domain} --all-models` lets it see all"
        ),
    }
}
