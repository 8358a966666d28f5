//! What the rules look at: the filter chains, with the filters that ask patgate, the guard, and what
//! each route means for a request that no answer has let through.

mod asked;
mod bodies;
mod excepted;
mod protected;

pub(crate) use asked::connections_are_asked;

use std::collections::BTreeSet;

use crate::{
    Hints,
    authorizer::{self, Authorizers, NEEDS_BODY, waits_for_body},
    guard::{Guard, NAMESPACE},
    headers::{BACKEND, Early, IDENTITY, prefix_of_routes},
    model::{
        Address, Chain, Cluster, Host, Http, HttpFilter, Kind, Listener, Proxy, Route, Target,
    },
    value::Read,
};

pub(crate) struct Context<'p> {
    pub(crate) proxy: &'p Proxy,
    pub(crate) authorizers: Authorizers,
    pub(crate) views: Vec<View<'p>>,
    /// Clusters that only patgate may open.
    pub(crate) protected: BTreeSet<&'p str>,
    /// Clusters that Envoy itself calls.
    pub(crate) services: BTreeSet<&'p str>,
    /// Clusters that lead to the admin interface of this Envoy.
    pub(crate) admin: BTreeSet<&'p str>,
}

/// A filter chain that serves HTTP.
pub(crate) struct View<'p> {
    pub(crate) listener: &'p Listener,
    pub(crate) chain: &'p Chain,
    pub(crate) http: &'p Http,
    /// The filters that ask patgate, in their order.
    pub(crate) askers: Vec<Asker<'p>>,
    /// The guard and its position.
    pub(crate) guard: Option<(usize, Guard)>,
    pub(crate) early: Early,
    /// The prefix of patgate's headers here.
    pub(crate) prefix: String,
    /// The services that are patgate.
    services: Vec<String>,
}

pub(crate) struct Asker<'p> {
    pub(crate) at: usize,
    pub(crate) filter: &'p HttpFilter,
    pub(crate) cluster: Option<&'p Cluster>,
    /// Whether it asks only after another one, with the body.
    pub(crate) second: bool,
}

/// Whether requests on a route are asked about.
pub(crate) enum Asked {
    Yes,
    /// The route can be reached only after patgate has answered.
    Before,
    Never(Unasked),
    /// Some requests are not.
    Partly(Vec<Unasked>),
}

/// Why a request is not asked about, or its refusal has no effect.
pub(crate) enum Unasked {
    NoFilter,
    Disabled(crate::model::Level),
    NotSwitchedOn,
    /// The route asks another service.
    Elsewhere(String),
    Share {
        percent: f64,
        refused: bool,
    },
    Shadow,
    Condition(String),
    /// The rules that say what is asked about.
    Paths(String),
}

/// What becomes of a request about which patgate was not asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It reaches a backend.
    Passes,
    /// The guard refuses it.
    Held,
    /// An exception of the guard may let it through.
    Excepted,
    /// No route leads anywhere without patgate's header.
    DeadEnd,
}

impl<'p> Context<'p> {
    pub(crate) fn new(proxy: &'p Proxy, hints: &Hints) -> Self {
        let authorizers = authorizer::find(proxy, hints);
        let mut views = Vec::new();
        for listener in &proxy.listeners {
            for chain in &listener.chains {
                if let Kind::Http(http) = &chain.kind {
                    views.push(View::new(proxy, listener, chain, http, &authorizers));
                }
            }
        }
        let services = protected::services(proxy);
        let admin = admin(proxy);
        let mut protected = protected::find(proxy, &authorizers, &views, &services);
        // A rule of its own says who may reach it.
        protected.retain(|name| !admin.contains(name));
        Self { proxy, authorizers, views, protected, services, admin }
    }

    /// Whether a cluster leads to the admin interface.
    pub(crate) fn is_admin(&self, name: &str) -> bool {
        self.admin.contains(name)
    }

    /// The filter chains in which a filter asks patgate.
    pub(crate) fn asking(&self) -> impl Iterator<Item = &View<'p>> {
        self.views.iter().filter(|view| !view.askers.is_empty())
    }

    /// Every filter that asks, with its chain.
    pub(crate) fn askers(&self) -> impl Iterator<Item = (&View<'p>, &Asker<'p>)> {
        self.asking().flat_map(|view| view.askers.iter().map(move |asker| (view, asker)))
    }

    /// The clusters of patgate.
    pub(crate) fn patgates(&self) -> impl Iterator<Item = &'p Cluster> {
        self.authorizers.services.keys().filter_map(|name| self.proxy.clusters.get(name))
    }

    pub(crate) fn protected(&self) -> impl Iterator<Item = &'p Cluster> {
        self.protected.iter().filter_map(|name| self.proxy.clusters.get(*name))
    }

    /// Whether nothing but a process of this machine reaches a listener: it is on loopback, and no cluster,
    /// by which another listener could lead to it, does.
    pub(crate) fn is_for_this_machine(&self, listener: &Listener) -> bool {
        let is_led_to = |own: &Address| leading_to(self.proxy, own).next().is_some();
        listener.addresses().all(|own| own.is_local() && !is_led_to(&own))
    }

    /// Whether a cluster leads where only patgate may lead, under this name or another one.
    pub(crate) fn is_protected(&self, name: &str) -> bool {
        if self.protected.contains(name) {
            return true;
        }
        let own = self.proxy.clusters.get(name).map(|cluster| &cluster.addresses);
        let known: BTreeSet<&Address> =
            self.protected().flat_map(|cluster| &cluster.addresses).collect();
        own.is_some_and(|own| {
            own.iter().any(|address| *address != Address::Unknown && known.contains(address))
        })
    }
}

/// The clusters with an endpoint at which the admin interface listens.
fn admin(proxy: &Proxy) -> BTreeSet<&str> {
    let own = Address::read(proxy.bootstrap.at("admin/address"));
    leading_to(proxy, &own).map(|cluster| cluster.name.as_str()).collect()
}

/// The clusters with an endpoint at an address at which this Envoy listens.
fn leading_to<'p>(proxy: &'p Proxy, own: &Address) -> impl Iterator<Item = &'p Cluster> {
    let own = own.clone();
    let is_own = move |address: &Address| match (&own, address) {
        // The system chooses the port 0, so nobody can name it.
        (Address::Socket { port: 0, .. }, _) => false,
        (Address::Socket { host, port }, Address::Socket { host: other, port: other_port }) => {
            port == other_port
                && (host == other || address.is_local() && (own.is_local() || own.is_everywhere()))
        }
        (Address::Unknown, _) => false,
        (own, other) => own == other,
    };
    let clusters = proxy.clusters.values();
    clusters.filter(move |cluster| cluster.addresses.iter().any(&is_own))
}

impl<'p> View<'p> {
    fn new(
        proxy: &'p Proxy,
        listener: &'p Listener,
        chain: &'p Chain,
        http: &'p Http,
        authorizers: &Authorizers,
    ) -> Self {
        let mut askers = Vec::new();
        for (at, filter) in http.filters.iter().enumerate() {
            if filter.kind() != "ExtAuthz" {
                continue;
            }
            let Some(service) = authorizer::service(&filter.config) else { continue };
            if authorizers.services.contains_key(service) {
                let cluster = proxy.clusters.get(service);
                askers.push(Asker { at, filter, cluster, second: false });
            }
        }
        let waits = askers.iter().any(|asker| waits_for_body(&asker.filter.config));
        let several = askers.len() > 1;
        for asker in &mut askers {
            let says = asker.metadata("patgate-step") == Some("second");
            asker.second = waits_for_body(&asker.filter.config) || several && !waits && says;
        }
        let guards = http.filters.iter().enumerate().rev();
        let guards = guards.filter(|(_, filter)| filter.kind() == "RBAC" && !filter.disabled);
        // The last one decides.
        let mut guards = guards.filter_map(|(at, filter)| Some((at, Guard::read(&filter.config)?)));
        let guard = guards.next();
        let early = Early::read(&http.config);
        let prefix = prefix_of_routes(http)
            .or_else(|| early.prefix().map(str::to_owned))
            .unwrap_or_else(|| "x-".to_owned());
        let services = authorizers.services.keys().cloned().collect();
        Self { listener, chain, http, askers, guard, early, prefix, services }
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = (&'p Host, &'p Route)> + use<'p> {
        let http: &'p Http = self.http;
        http.hosts.iter().flat_map(|host| host.routes.iter().map(move |route| (host, route)))
    }

    /// The filters that decide without waiting for another one's answer.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = &Asker<'p>> {
        self.askers.iter().filter(|asker| !asker.second)
    }

    pub(crate) fn second(&self) -> Option<&Asker<'p>> {
        self.askers.iter().find(|asker| asker.second)
    }

    /// The name of the header in which patgate names the backend.
    pub(crate) fn backend_header(&self) -> String {
        format!("{}{BACKEND}", self.prefix)
    }

    /// Whether a name is one of patgate's headers.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        name.strip_prefix(self.prefix.as_str()).is_some_and(|rest| IDENTITY.contains(&rest))
    }

    /// Whether a route matches only requests that have one of patgate's headers or its metadata.
    pub(crate) fn needs_answer(&self, route: &Route) -> bool {
        let headers = route.config.list("match/headers").iter();
        let by_header = headers.clone().any(|matcher| {
            let name = matcher.text("name").unwrap_or_default().to_ascii_lowercase();
            self.is_own(&name)
                && matcher.flag("present_match") != Some(false)
                && !matcher.is_on("invert_match")
                && !matcher.is_on("treat_missing_header_as_empty")
        });
        let metadata = route.config.list("match/dynamic_metadata").iter();
        by_header
            || metadata.clone().any(|matcher| {
                matcher.text("filter") == Some(NAMESPACE) && !matcher.is_on("invert")
            })
    }

    /// Whether a route's choice depends on patgate's headers at all.
    pub(crate) fn looks_at_answer(&self, route: &Route) -> bool {
        let headers = route.config.list("match/headers").iter();
        let names = headers.filter_map(|matcher| matcher.text("name"));
        let mut names = names.map(str::to_ascii_lowercase);
        names.any(|name| self.is_own(&name))
            || matches!(&route.target, Target::Header(name) if self.is_own(name))
            || self.needs_answer(route)
    }

    /// Whether a request reaches a backend on this route without any answer.
    fn opens(&self, route: &Route) -> bool {
        let unreachable = self.needs_answer(route) && self.early.removes(&self.backend_header());
        match &route.target {
            Target::Answer(_) => false,
            Target::Header(name) => !unreachable && !self.early.removes(name),
            Target::Clusters(_) | Target::Other(_) => !unreachable,
        }
    }

    /// Whether the guard stands, is sound, and is not replaced on a route.
    pub(crate) fn guard_holds(&self, host: &Host, route: &Route) -> bool {
        let Some((at, guard)) = &self.guard else { return false };
        if !guard.is_sound() {
            return false;
        }
        let filter = &self.http.filters[*at];
        let settings = route.per_filter(&filter.name, host, &self.http.table_config, None);
        match settings {
            None => !filter.disabled,
            Some(settings) if settings.disabled => false,
            Some(settings) => match settings.config.type_name() {
                "RBACPerRoute" => {
                    Guard::read(settings.config.at("rbac")).is_some_and(|guard| guard.is_sound())
                }
                _ => true,
            },
        }
    }

    /// What becomes of a request on this route about which patgate was not asked.
    pub(crate) fn fate(&self, host: &Host, route: &Route) -> Fate {
        match (self.opens(route), self.guard_holds(host, route)) {
            // It refuses before the router looks for a cluster.
            (_, true) if self.exception(route).is_some() => Fate::Excepted,
            (_, true) => Fate::Held,
            (false, false) => Fate::DeadEnd,
            (true, false) => Fate::Passes,
        }
    }

    /// The worst of all routes.
    pub(crate) fn worst_fate(&self) -> Fate {
        let fates: Vec<_> = self.routes().map(|(host, route)| self.fate(host, route)).collect();
        let has = |fate| fates.contains(&fate);
        if has(Fate::Passes) {
            Fate::Passes
        } else if has(Fate::Held) {
            Fate::Held
        } else if has(Fate::DeadEnd) || fates.is_empty() {
            Fate::DeadEnd
        } else {
            Fate::Excepted
        }
    }

    pub(crate) fn speaks_http2(&self) -> bool {
        !matches!(self.http.config.text("codec_type"), Some("HTTP1" | "HTTP3"))
    }

    /// Whether it passes WebSockets on.
    pub(crate) fn upgrades(&self) -> bool {
        // Of the chain, or of a route, as Envoy Gateway writes them.
        let of_routes = self.routes().map(|(_, route)| route.config.list("route/upgrade_configs"));
        let upgrades = of_routes.chain([self.http.config.list("upgrade_configs")]).flatten();
        let on = upgrades.filter(|upgrade| upgrade.flag("enabled") != Some(false));
        let mut kinds = on.filter_map(|upgrade| upgrade.text("upgrade_type"));
        kinds.any(|kind| !kind.eq_ignore_ascii_case("CONNECT"))
    }
}

impl Asker<'_> {
    /// A value that the metadata of its calls carry.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        let metadata = self.filter.config.list("grpc_service/initial_metadata").iter();
        metadata.filter(|one| one.text("key") == Some(key)).find_map(|one| one.text("value"))
    }

    /// Whether it waits for other metadata than patgate sets.
    pub(crate) fn waits_for_something_else(&self) -> bool {
        let condition = self.filter.config.at("filter_enabled_metadata");
        let right = waits_for_body(&self.filter.config)
            && condition.is_on("value/bool_match")
            && !condition.is_on("invert");
        condition.is_object() && !right
    }

    /// The longest time of one try, in seconds, which Envoy takes from the back-off of its retries.
    pub(crate) fn one_try(&self) -> Option<f64> {
        let policy = self.filter.config.at("grpc_service/retry_policy");
        if !policy.is_object() {
            return None;
        }
        let back_off = policy.at("retry_back_off");
        // Without a back-off, its base is a second.
        let base = back_off.seconds("base_interval").unwrap_or(1.0);
        Some(back_off.seconds("max_interval").unwrap_or(base * 10.0))
    }
}

/// The field of metadata that a second filter must wait for.
pub(crate) const EXPECTED_FIELD: &str = NEEDS_BODY;
