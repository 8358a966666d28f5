//! The report, and its forms for people, programs and CI.

mod sarif;
mod text;

pub use self::text::reported;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    exception::Exception,
    headers::Rules,
    model::{Address, Form, Kind, Maker, Target, Unjudged},
    releases,
    routes::Line,
    rules::{Finding, Place, Severity},
    view::{Context, connections_are_asked},
};

/// What was found in the configuration of one Envoy.
#[derive(Serialize)]
pub struct Report {
    /// What has made the configuration.
    pub maker: Maker,
    /// How it was given.
    pub form: Form,
    /// The version of Envoy, if the configuration names it.
    pub envoy: Option<String>,
    /// The services that were taken for patgate, and why.
    pub authorizers: Vec<Authorizer>,
    /// The guards.
    pub guards: Vec<GuardLine>,
    /// What is unsafe, wrong or slow, the worst first.
    pub findings: Vec<Finding>,
    /// What could not be judged.
    pub unjudged: Vec<Unjudged>,
    /// What happens on every route.
    pub routes: Vec<Line>,
}

/// A service that was taken for patgate.
#[derive(Serialize)]
pub struct Authorizer {
    /// The name of its cluster.
    pub cluster: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// What shows that it is patgate.
    pub signs: Vec<&'static str>,
}

/// A guard.
#[derive(Serialize)]
pub struct GuardLine {
    /// Where it stands.
    pub place: Place,
    /// Whether it lets nothing through without patgate's word, except its exceptions.
    pub sound: bool,
    /// What it lets through without the word: the policy, and the condition.
    pub exceptions: Vec<String>,
}

impl Report {
    pub(crate) fn new(context: &Context<'_>, findings: Vec<Finding>, routes: Vec<Line>) -> Self {
        let proxy = context.proxy;
        let mut unjudged = proxy.unjudged.clone();
        let authorizers = context.authorizers.services.iter().map(|(name, signs)| {
            let cluster = proxy.clusters.get(name);
            let addresses = cluster.map_or(&[][..], |cluster| &cluster.addresses);
            // One that does not exist is a finding.
            let missing = cluster.is_none() && proxy.whole_clusters;
            if addresses.is_empty() && !missing {
                unjudged.push(Unjudged {
                    place: format!("cluster {name}"),
                    reason: "its addresses are not here, so nothing is said of its connections: read \
                             config_dump?include_eds"
                        .to_owned(),
                });
            }
            if let Some(cluster) = cluster
                && cluster.discovery() == "STRICT_DNS"
                && let [Address::Socket { host, .. }] = cluster.addresses.as_slice()
                && !cluster.addresses[0].is_local()
            {
                unjudged.push(Unjudged {
                    place: format!("cluster {name}"),
                    reason: format!(
                        "whether the name {host} has the address of each replica, as that of a headless \
                         Service, or one for all: then one replica gets all checks of this Envoy"
                    ),
                });
            }
            let addresses = addresses.iter().map(ToString::to_string).collect();
            Authorizer { cluster: name.clone(), addresses, signs: signs.clone() }
        });
        let authorizers = authorizers.collect();
        unjudged.extend(elsewhere(context));
        let envoy = proxy.version.map(|[major, minor, patch]| format!("{major}.{minor}.{patch}"));
        if envoy.is_none() {
            unjudged.push(Unjudged {
                place: "the release of Envoy".to_owned(),
                reason: format!(
                    "this configuration does not name it, a dump does; the table of releases is of {}",
                    releases::AS_OF
                ),
            });
        }
        unjudged.sort();
        unjudged.dedup();
        let guards = guards(context);
        Self {
            guards,
            maker: proxy.maker,
            form: proxy.form,
            envoy,
            authorizers,
            findings,
            unjudged,
            routes,
        }
    }

    /// The worst severity of all findings.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// The text of the consequence of a finding, with what limits it here.
    #[must_use]
    pub fn consequence(finding: &Finding) -> String {
        match finding.note {
            Some(note) => format!("{note} Otherwise: {}", finding.rule.consequence),
            None => finding.rule.consequence.to_owned(),
        }
    }

    /// The setting that fixes a finding, in the terms of what has made the configuration.
    #[must_use]
    pub fn fix(&self, finding: &Finding) -> &'static str {
        finding.rule.fix.with(self.maker)
    }

    /// Returns SARIF 2.1.0, for the code scanning of a CI. `file` is where the configuration was read
    /// from.
    #[must_use]
    pub fn sarif(&self, file: &str, version: &str) -> serde_json::Value {
        sarif::write(self, file, version)
    }
}

fn guards(context: &Context<'_>) -> Vec<GuardLine> {
    let guarded = context.asking().filter_map(|view| {
        let (at, guard) = view.guard.as_ref()?;
        let name = &view.http.filters[*at].name;
        Some(GuardLine {
            place: Place::filter(view, name),
            sound: guard.is_sound(),
            exceptions: guard.exceptions.iter().map(Exception::in_words).collect(),
        })
    });
    guarded.collect()
}

/// Routes and connections of which the configuration does not say where they lead.
fn elsewhere(context: &Context<'_>) -> Vec<Unjudged> {
    let mut unjudged = Vec::new();
    for (view, asker) in context.askers() {
        let early = view.early.unread.iter().map(String::as_str);
        for expression in Rules::unread(&asker.filter.config).into_iter().chain(early) {
            unjudged.push(Unjudged {
                place: format!("listener {}, chain {}", view.listener.name, view.chain.name),
                reason: format!(
                    "this program cannot read the expression {expression}, and takes it for one that \
                     matches nothing"
                ),
            });
        }
    }
    for view in &context.views {
        for (host, route) in view.routes() {
            if let Target::Other(what) = &route.target {
                unjudged.push(Unjudged {
                    place: format!(
                        "listener {}, chain {}, host {}, route {}",
                        view.listener.name, view.chain.name, host.name, route.name
                    ),
                    reason: format!("it leads to {what}"),
                });
            }
        }
    }
    for listener in &context.proxy.listeners {
        for chain in &listener.chains {
            let Kind::Tcp(clusters) = &chain.kind else { continue };
            if connections_are_asked(&chain.config, &context.authorizers) {
                continue;
            }
            let open = clusters.iter().filter_map(|name| context.proxy.clusters.get(name));
            for cluster in open.filter(|cluster| cluster.discovery() == "ORIGINAL_DST") {
                unjudged.push(Unjudged {
                    place: format!("listener {}, chain {}", listener.name, chain.name),
                    reason: format!(
                        "connections go through {} to where the client meant them to go, which may be \
                         the port of a protected backend",
                        cluster.name
                    ),
                });
            }
        }
    }
    unjudged
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Finding", 7)?;
        fields.serialize_field("rule", self.rule.id)?;
        fields.serialize_field("severity", &self.severity)?;
        fields.serialize_field("title", self.rule.title)?;
        fields.serialize_field("found", &self.found)?;
        fields.serialize_field::<[Place]>("places", &self.places)?;
        fields.serialize_field("consequence", &Report::consequence(self))?;
        fields.serialize_field("fix", &self.rule.fix)?;
        fields.end()
    }
}

impl Serialize for crate::rules::Fix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Fix", 3)?;
        fields.serialize_field("envoy", self.envoy)?;
        fields.serialize_field("envoy-gateway", self.with(Maker::EnvoyGateway))?;
        fields.serialize_field("istio", self.with(Maker::Istio))?;
        fields.end()
    }
}
