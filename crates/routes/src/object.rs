//! What all objects in Kubernetes have.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{Backend, Target, names::object_name};

/// The field manager of server-side apply, and the value of [`MANAGED_BY`].
pub const MANAGER: &str = "patgate-sync";
/// The label that says which program an object belongs to.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that says which instance of that program.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// The annotation with the name of the backend, for people. A label could not hold every name.
pub const ANNOTATION: &str = "patgate/backend";
/// The annotation that says from which database an object comes. Two of them may write into the same
/// namespace, and neither removes what the other one wrote.
pub const INSTALLATION: &str = "patgate/installation";

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the kinds")]
pub enum Kind {
    Backend,
    BackendTrafficPolicy,
    HttpRoute,
    ServiceEntry,
    DestinationRule,
    VirtualService,
}

impl Kind {
    /// Group and version, kind, and the name of the resource in the API.
    pub const fn api(self) -> (&'static str, &'static str, &'static str, &'static str) {
        const ENVOY: &str = "gateway.envoyproxy.io";
        const GATEWAY: &str = "gateway.networking.k8s.io";
        const ISTIO: &str = "networking.istio.io";
        match self {
            Self::Backend => (ENVOY, "v1alpha1", "Backend", "backends"),
            Self::BackendTrafficPolicy => {
                (ENVOY, "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies")
            }
            Self::HttpRoute => (GATEWAY, "v1", "HTTPRoute", "httproutes"),
            Self::ServiceEntry => (ISTIO, "v1", "ServiceEntry", "serviceentries"),
            Self::DestinationRule => (ISTIO, "v1", "DestinationRule", "destinationrules"),
            Self::VirtualService => (ISTIO, "v1", "VirtualService", "virtualservices"),
        }
    }

    /// Objects are made in this order and deleted in the reverse: a route never leads to what is not
    /// there, and a route is never without its limits.
    pub(crate) const fn order(self) -> u8 {
        match self {
            Self::Backend | Self::ServiceEntry => 0,
            Self::BackendTrafficPolicy | Self::DestinationRule => 1,
            Self::HttpRoute | Self::VirtualService => 2,
        }
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// The whole object: `apiVersion`, `kind`, `metadata` and `spec`.
    pub content: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Content<'t, S> {
    api_version: String,
    kind: &'static str,
    metadata: Metadata<'t>,
    spec: S,
}

#[derive(Serialize)]
struct Metadata<'t> {
    name: String,
    namespace: &'t str,
    labels: BTreeMap<&'static str, &'t str>,
    annotations: BTreeMap<&'static str, &'t str>,
}

impl Object {
    pub(crate) fn new(
        kind: Kind,
        backend: &Backend,
        target: &Target,
        spec: impl Serialize,
    ) -> Option<Self> {
        let (group, version, name, _) = kind.api();
        let content = Content {
            api_version: format!("{group}/{version}"),
            kind: name,
            metadata: Metadata {
                name: object_name(&target.instance, &backend.name),
                namespace: &target.namespace,
                labels: [
                    (MANAGED_BY, MANAGER),
                    (INSTANCE, target.instance.as_str()),
                    ("app.kubernetes.io/part-of", "patgate"),
                ]
                .into(),
                annotations: [
                    (ANNOTATION, backend.name.as_str()),
                    (INSTALLATION, target.installation.as_str()),
                ]
                .into(),
            },
            spec,
        };
        // Only maps with other keys than texts fail, and there are none.
        Some(Self { kind, content: serde_json::to_value(content).ok()? })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.content["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Returns the name of the backend that it is for.
    pub fn backend(&self) -> &str {
        self.content["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default()
    }
}
