//! The message for a request that no rule names: the method and path as patgate has read them, the
//! nearest rule, and where the base URL of the domain ends.

use super::MessageContext;
use crate::{
    api::Apis,
    legible::shown,
    request::{ApiPath, without_query},
};

/// The most characters of a path that are shown: enough to recognize it.
const MOST_OF_A_PATH: usize = 200;
/// The most characters of a method that are shown. Every method of HTTP is shorter.
const MOST_OF_A_METHOD: usize = 16;
/// The most mounts of APIs that are listed.
const MOST_MOUNTS: usize = 3;

pub(super) fn message(context: &MessageContext<'_>) -> String {
    let MessageContext { method, target, .. } = *context;
    let path = without_query(target);
    let asked = format!("{} {}", shown(method, MOST_OF_A_METHOD), shown(path, MOST_OF_A_PATH));
    let mut text = format!("`{asked}` is not served here.");
    let Some(apis) = context.apis else { return text };
    let served =
        ApiPath::of(context.authority, target, apis).filter(|it| it.rule(method).is_some());
    match served {
        Some(api_path) if api_path.may_become_websocket(method) => {
            text.push_str(" It may become a WebSocket, and nothing else that `Upgrade` names.");
        }
        Some(_) => {
            text.push_str(" It is without `Upgrade`: no rule lets it become a WebSocket.");
        }
        None => text.push_str(&advice(context, apis, path)),
    }
    text
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
    let mut text = String::new();
    if let Some(rule) = &nearest.rule {
        let meant = rule.path(domain);
        text.push_str(&format!(" Did you mean `{} {meant}`?", rule.method));
        // Then only the method is wrong.
        if meant == path {
            return text;
        }
    }
    let in_path = nearest.own.is_some_and(|own| own.names_domain_in_path());
    if let Some(stranger) = stranger.filter(|_| in_path) {
        text.push_str(&format!(" No scope of the access token names a domain `{stranger}`."));
    }
    match (&nearest.rule, nearest.own) {
        (Some(rule), _) => text.push_str(&base(&rule.base(domain), domain)),
        (None, Some(own)) => text.push_str(&base(&own.base_of_all(domain), domain)),
        (None, None) => {
            let mounts = nearest.others.iter().take(MOST_MOUNTS);
            let mounts: Vec<_> = mounts.map(|it| format!("`{}`", it.mounted_at(None))).collect();
            if !mounts.is_empty() {
                text.push_str(&format!(" The paths of APIs begin with {}.", mounts.join(", ")));
            }
        }
    }
    text
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
            let text = message(&context);
            assert!(text.contains(expected), "{target}: {text}");
        }
    }
}
