//! Lists for every listener, chain, host and route whether patgate is asked, with which body, and what
//! may leave unasked, and why.

use serde::Serialize;
use serde_json::Value;

use crate::{
    guard::permission,
    matcher::in_words,
    model::{Host, Kind, Route, Target},
    rules::{matches_all, reads_metrics},
    value::{Read, entries},
    view::{Asked, Context, Fate, Unasked, View, connections_are_asked},
};

/// What happens to the requests of one route, or to those of none.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The listener, with its address.
    pub listener: String,
    /// The filter chain, and which connections it takes.
    pub chain: String,
    /// The hosts.
    pub host: String,
    /// The route's name.
    pub route: String,
    /// Which requests match.
    pub matches: String,
    /// Where they go.
    pub leads_to: String,
    /// Whether patgate is asked.
    pub asked: String,
    /// Which bodies it is shown.
    pub body: String,
    /// What becomes of requests about which it is not asked.
    pub unasked: String,
}

pub(crate) fn list(context: &Context<'_>) -> Vec<Line> {
    let mut lines = Vec::new();
    for listener in &context.proxy.listeners {
        for chain in &listener.chains {
            let tls = chain.config.at("transport_socket/typed_config").type_name();
            let how = if tls.is_empty() { "plaintext" } else { "TLS" };
            let blank = || Line {
                listener: format!("{} ({}, {how})", listener.name, listener.address),
                chain: format!(
                    "{}{}",
                    chain.name,
                    of_connections(chain.config.at("filter_chain_match"))
                ),
                host: "*".to_owned(),
                route: "-".to_owned(),
                matches: "every connection".to_owned(),
                leads_to: "-".to_owned(),
                asked: "no".to_owned(),
                body: "-".to_owned(),
                unasked: "-".to_owned(),
            };
            match &chain.kind {
                Kind::Tcp(clusters)
                    if connections_are_asked(&chain.config, &context.authorizers) =>
                {
                    lines.push(Line {
                        leads_to: clusters.join(", "),
                        asked: "yes, and refused: a connection has no token".to_owned(),
                        unasked: "nothing".to_owned(),
                        ..blank()
                    });
                }
                Kind::Tcp(clusters) => lines.push(Line {
                    leads_to: clusters.join(", "),
                    unasked: "everything: connections are passed on as they are".to_owned(),
                    ..blank()
                }),
                Kind::Other(kind) => lines.push(Line {
                    leads_to: kind.clone(),
                    unasked: "cannot be judged".to_owned(),
                    ..blank()
                }),
                Kind::Http(http) => {
                    let view = context.views.iter().find(|view| std::ptr::eq(view.http, &**http));
                    if let Some(view) = view {
                        of_view(context, view, &blank, &mut lines);
                    }
                }
            }
        }
    }
    lines
}

fn of_connections(matched: &Value) -> String {
    let parts = entries(matched).map(|(field, value)| format!("{field} {value}"));
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() { String::new() } else { format!(" [{}]", parts.join(", ")) }
}

fn of_view(
    context: &Context<'_>,
    view: &View<'_>,
    blank: &dyn Fn() -> Line,
    lines: &mut Vec<Line>,
) {
    before_asking(view, blank, lines);
    for host in &view.http.hosts {
        for route in &host.routes {
            let line = of_route(view, host, route, blank());
            lines.push(if reads_metrics(context, route) {
                Line { unasked: "reads Envoy's metrics only".to_owned(), ..line }
            } else {
                line
            });
        }
        if !host.routes.iter().any(matches_all) {
            lines.push(Line {
                host: host.domains.join(", "),
                matches: "no route of this host".to_owned(),
                leads_to: "Envoy answers 404".to_owned(),
                unasked: "reaches nothing".to_owned(),
                ..blank()
            });
        }
    }
    if !view.http.hosts.iter().any(|host| host.domains.iter().any(|domain| domain == "*")) {
        lines.push(Line {
            host: "any other".to_owned(),
            matches: "every request".to_owned(),
            leads_to: "Envoy answers 404".to_owned(),
            unasked: "reaches nothing".to_owned(),
            ..blank()
        });
    }
    let Some((_, guard)) = view.guard.as_ref().filter(|_| !view.askers.is_empty()) else { return };
    for exception in &guard.exceptions {
        lines.push(Line {
            matches: format!("exception of the guard, {}", exception.in_words()),
            leads_to: "as routed".to_owned(),
            asked: "as routed".to_owned(),
            unasked: "the guard lets it through unasked".to_owned(),
            ..blank()
        });
    }
}

/// What filters before ext_authz answer themselves.
fn before_asking(view: &View<'_>, blank: &dyn Fn() -> Line, lines: &mut Vec<Line>) {
    let Some(first) = view.firsts().map(|asker| asker.at).min() else { return };
    for filter in &view.http.filters[..first] {
        let (matches, answer) = match filter.kind() {
            "HealthCheck" => {
                let headers = filter.config.list("headers").iter().map(header);
                (headers.collect::<Vec<_>>().join(" and "), "200 or 503")
            }
            "Cors" => ("preflights of listed origins".to_owned(), "the preflight"),
            "RBAC" if filter.config.text("rules/action") == Some("DENY") => {
                let policies = entries(filter.config.at("rules/policies"));
                let rules = policies.flat_map(|(_, policy)| policy.list("permissions"));
                (rules.map(permission).collect::<Vec<_>>().join(" or "), "403")
            }
            _ => continue,
        };
        lines.push(Line {
            route: format!("filter {}", filter.name),
            matches,
            leads_to: format!("Envoy answers {answer}"),
            unasked: "reaches nothing".to_owned(),
            ..blank()
        });
    }
}

fn of_route(view: &View<'_>, host: &Host, route: &Route, blank: Line) -> Line {
    let ways = match &route.target {
        Target::Clusters(clusters) if clusters.len() > 1 => {
            let ways = clusters.iter();
            ways.map(|(_, config)| view.asked(host, route, Some(config))).collect()
        }
        _ => vec![view.asked(host, route, None)],
    };
    // The worst of the weighted clusters.
    let worst = ways.iter().find(|asked| matches!(asked, Asked::Never(_)));
    let worst = worst.or_else(|| ways.iter().find(|asked| matches!(asked, Asked::Partly(_))));
    let asked = worst.or(ways.first());
    let answers = matches!(route.target, Target::Answer(_));
    let open = asked.is_some_and(|asked| matches!(asked, Asked::Never(_) | Asked::Partly(_)));
    let unasked = if !open {
        "nothing".to_owned()
    } else if answers {
        "reaches nothing".to_owned()
    } else {
        match view.fate(host, route) {
            Fate::Passes if view.askers.is_empty() && !answers => "everything passes".to_owned(),
            Fate::Passes => "passes to the backend".to_owned(),
            Fate::Held => "the guard refuses it".to_owned(),
            Fate::Excepted => "an exception of the guard lets it through".to_owned(),
            Fate::DeadEnd => "503: no cluster without patgate's header".to_owned(),
        }
    };
    Line {
        host: host.domains.join(", "),
        route: route.name.clone(),
        matches: matched(route),
        leads_to: match &route.target {
            Target::Clusters(clusters) => {
                clusters.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
            }
            Target::Header(name) => format!("the cluster in {name}"),
            Target::Answer(what) | Target::Other(what) => what.clone(),
        },
        asked: asked.map_or_else(|| "no".to_owned(), |asked| in_words_of(asked, view)),
        body: body(view, host, route),
        unasked,
        ..blank
    }
}

fn in_words_of(asked: &Asked, view: &View<'_>) -> String {
    match asked {
        Asked::Yes if view.second().is_some() => "yes, twice if the body decides".to_owned(),
        Asked::Yes => "yes".to_owned(),
        Asked::Before => "yes, before this route is chosen".to_owned(),
        Asked::Never(reason) => format!("no: {}", reason_of(reason)),
        Asked::Partly(reasons) => {
            let reasons: Vec<_> = reasons.iter().map(reason_of).collect();
            format!("partly: {}", reasons.join("; "))
        }
    }
}

fn reason_of(reason: &Unasked) -> String {
    match reason {
        Unasked::NoFilter => "no filter of this chain asks".to_owned(),
        Unasked::Disabled(level) => format!("disabled on {level}"),
        Unasked::NotSwitchedOn => "nothing switches the filter on here".to_owned(),
        Unasked::Elsewhere(service) => format!("{service} is asked instead"),
        Unasked::Share { percent, refused: false } => format!("{percent} % of the requests"),
        Unasked::Share { percent, .. } => format!("{percent} %, the others are refused"),
        Unasked::Shadow => "decisions are only recorded".to_owned(),
        Unasked::Condition(what) => format!("if the metadata of {what} say so"),
        Unasked::Paths(rules) => format!("only for {rules}"),
    }
}

fn body(view: &View<'_>, host: &Host, route: &Route) -> String {
    let shown = view.askers.iter().filter_map(|asker| {
        let shown = view.shown(asker, host, route)?;
        let most = shown.number("max_request_bytes").unwrap_or_default();
        let most = if asker.second { most.min(view.buffer(host, route)) } else { most };
        Some((asker.second, most))
    });
    match shown.max_by_key(|(_, most)| *most) {
        Some((true, most)) => format!("if it decides, up to {}", size(most)),
        Some((false, most)) => format!("up to {}", size(most)),
        None => "none".to_owned(),
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{bytes} bytes")
    }
}

fn matched(route: &Route) -> String {
    let config = route.config.at("match");
    let path = [
        ("prefix", "path begins with"),
        ("path", "path ="),
        ("path_separated_prefix", "path below"),
    ]
    .iter()
    .find_map(|(field, word)| Some(format!("{word} {}", config.text(field)?)));
    let path = path.or_else(|| Some(format!("path ~ {}", config.text("safe_regex/regex")?)));
    let path = path.or_else(|| config.has("connect_matcher").then(|| "CONNECT".to_owned()));
    let path = path.unwrap_or_else(|| "path of a pattern".to_owned());
    let headers = config.list("headers").iter().map(header);
    let more = ["query_parameters", "cookies", "grpc", "runtime_fraction", "dynamic_metadata"];
    let more = more
        .iter()
        .filter(|field| config.has(field))
        .map(|field| format!("{field} {}", config.at(field)));
    Some(path).into_iter().chain(headers).chain(more).collect::<Vec<_>>().join(" and ")
}

fn header(matcher: &Value) -> String {
    let name = matcher.text("name").unwrap_or_default();
    let not = if matcher.is_on("invert_match") { "not " } else { "" };
    match matcher.flag("present_match") {
        Some(true) => return format!("{not}{name} is there"),
        Some(false) => return format!("{not}{name} is missing"),
        None => {}
    }
    for (field, word) in [("exact_match", "="), ("prefix_match", "begins with")] {
        if let Some(text) = matcher.text(field) {
            return format!("{not}{name} {word} {text}");
        }
    }
    format!("{not}{name} {}", in_words(matcher.at("string_match")))
}
