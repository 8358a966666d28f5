//! What a client is told that asked for something no rule names: what was understood, what comes
//! nearest, and where its base URL ends.

use super::MessageContext;
use crate::{
    api::Apis,
    legible::shown,
    request::{ApiPath, without_query},
};

/// Of a path, as much as tells which it is.
const MOST_OF_A_PATH: usize = 200;
/// No method is as long.
const MOST_OF_A_METHOD: usize = 16;
/// Where APIs are, some of them.
const MOST_MOUNTS: usize = 3;

pub(super) fn message(context: &MessageContext<'_>) -> String {
    let MessageContext { method, target, .. } = *context;
    let path = without_query(target);
    let asked = format!("{} {}", shown(method, MOST_OF_A_METHOD), shown(path, MOST_OF_A_PATH));
    let mut told = format!("`{asked}` is not served here.");
    let Some(apis) = context.apis else { return told };
    let served =
        ApiPath::of(context.authority, target, apis).filter(|it| it.action(method).is_some());
    match served {
        Some(api_path) if api_path.may_become_websocket(method) => {
            told.push_str(" It may become a WebSocket, and nothing else that `Upgrade` names.");
        }
        Some(_) => {
            told.push_str(" It is without `Upgrade`: no rule lets it become a WebSocket.");
        }
        None => told.push_str(&advice(context, apis, path)),
    }
    told
}

fn advice(context: &MessageContext<'_>, apis: &Apis, path: &str) -> String {
    let named =
        ApiPath::of(context.authority, context.target, apis).and_then(|api_path| api_path.domain());
    let scopes = |reference| context.principal.is_some_and(|principal| principal.names(reference));
    let (domain, stranger) = match named {
        Some(reference) if scopes(&reference) => (Some(reference.to_string()), None),
        other => (None, other),
    };
    let domain = domain.as_deref();
    let nearest = apis.nearest(context.authority, context.method, path, domain.is_some());
    let mut told = String::new();
    if let Some(rule) = &nearest.rule {
        let meant = rule.path(domain);
        told.push_str(&format!(" Did you mean `{} {meant}`?", rule.method));
        // Then only the method is wrong.
        if meant == path {
            return told;
        }
    }
    let in_path = nearest.own.is_some_and(|own| own.names_domain_in_path());
    if let Some(stranger) = stranger.filter(|_| in_path) {
        told.push_str(&format!(" No scope of the access token names a domain `{stranger}`."));
    }
    match (&nearest.rule, nearest.own) {
        (Some(rule), _) => told.push_str(&base(&rule.base(domain), domain)),
        (None, Some(own)) => told.push_str(&base(&own.base_of_all(domain), domain)),
        (None, None) => {
            let mounts = nearest.others.iter().take(MOST_MOUNTS);
            let mounts: Vec<_> = mounts.map(|it| format!("`{}`", it.mounted_at(None))).collect();
            if !mounts.is_empty() {
                told.push_str(&format!(" The paths of APIs begin with {}.", mounts.join(", ")));
            }
        }
    }
    told
}

fn base(base: &str, domain: Option<&str>) -> String {
    match domain {
        Some(_) => format!(" A base URL for this domain ends with `{base}`."),
        None => format!(" A base URL ends with `{base}`."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without their `Upgrade` they are served.
    #[test]
    fn an_upgrade_is_explained_by_what_the_rule_permits() {
        let apis = Apis::embedded().unwrap();
        for (target, expected) in [
            ("/proxy/acme/v1/realtime?model=m", "It may become a WebSocket, and nothing else"),
            ("/proxy/acme/v1/models", "no rule lets it become a WebSocket"),
        ] {
            let context = MessageContext {
                apis: Some(&apis),
                method: "GET",
                target,
                ..MessageContext::default()
            };
            let told = message(&context);
            assert!(told.contains(expected), "{target}: {told}");
        }
    }
}
