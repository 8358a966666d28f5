//! The API of Kubernetes: list, create, apply, patch and delete objects of a few kinds in one namespace.

use std::{collections::BTreeMap, future::Future, time::Duration};

use http::{Request, header::CONTENT_TYPE};
use kube::{
    Client, Config, Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
    },
    core::GroupVersionKind,
};
use patgate_routes::{Kind, MANAGER, Object};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Time limit for one call.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most objects of one answer.
const PAGE: u32 = 500;

/// The API server, and the namespace of the objects.
pub(super) struct Api {
    client: Client,
    namespace: String,
}

/// Why a call failed. The text of an API server may name objects, and holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct ApiError {
    what: String,
    reason: String,
}

/// An object as the API server has it.
pub(super) struct Live {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    version: String,
    pub(super) spec: Value,
}

impl Live {
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

impl From<DynamicObject> for Live {
    fn from(mut object: DynamicObject) -> Self {
        let metadata = object.metadata;
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            version: metadata.resource_version.unwrap_or_default(),
            spec: object.data["spec"].take(),
        }
    }
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version, name, plural) = kind.api();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural)
}

impl Api {
    /// Reads the kubeconfig, or what the pod was given, and connects when it is used.
    ///
    /// # Errors
    ///
    /// If there is neither, or it cannot be read.
    pub(super) async fn connect(namespace: Option<String>) -> Result<Self, ApiError> {
        let failed = |reason: String| ApiError { what: "Kubernetes".to_owned(), reason };
        let config = Config::infer().await.map_err(|error| failed(error.to_string()))?;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| failed(error.to_string()))?;
        Ok(Self { client, namespace })
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn of(&self, kind: Kind) -> kube::Api<DynamicObject> {
        kube::Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    /// Returns what identifies the namespace among those of all clusters.
    pub(super) async fn namespace_uid(&self) -> Result<String, ApiError> {
        let namespaces = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("", "v1", "Namespace"),
            "namespaces",
        );
        let api: kube::Api<DynamicObject> = kube::Api::all_with(self.client.clone(), &namespaces);
        let what = || format!("reading the namespace {}", self.namespace);
        let found = called(what, api.get(&self.namespace)).await?;
        found
            .metadata
            .uid
            .ok_or_else(|| ApiError { what: what(), reason: "it has no uid".to_owned() })
    }

    /// Lists all objects of a kind.
    pub(super) async fn list(&self, kind: Kind) -> Result<Vec<Live>, ApiError> {
        let (_, _, name, _) = kind.api();
        let what = || format!("listing objects of the kind {name} in {}", self.namespace);
        let api = self.of(kind);
        let mut all = Vec::new();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = called(what, api.list(&parameters)).await?;
            all.extend(page.items.into_iter().map(Live::from));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => {
                    parameters = ListParams::default().limit(PAGE).continue_token(&token)
                }
                None => return Ok(all),
            }
        }
    }

    /// Creates an object. Fails if one of its name exists: another replica may have made it meanwhile,
    /// with what the database says now. An apply would overwrite it.
    pub(super) async fn create(&self, object: &Object) -> Result<Live, ApiError> {
        let path = DynamicObject::url_path(&resource(object.kind), Some(&self.namespace));
        // As with apply, a field that the API server does not know is an error.
        let uri = format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict");
        let what = || about("creating", object.kind, object.name());
        let failed = |reason: String| ApiError { what: what(), reason };
        let body =
            serde_json::to_vec(&object.content).map_err(|error| failed(error.to_string()))?;
        let request = Request::post(uri).header(CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| failed(error.to_string()))?;
        called(what, self.client.request::<DynamicObject>(request)).await.map(Live::from)
    }

    /// Applies an object that must be the version that was read. Our fields are taken from other managers,
    /// because it is ours.
    pub(super) async fn apply(&self, object: &Object, found: &Live) -> Result<Live, ApiError> {
        let mut content = object.content.clone();
        content["metadata"]["resourceVersion"] = json!(found.version);
        content["metadata"]["uid"] = json!(found.uid);
        let parameters = PatchParams::apply(MANAGER).validation_strict().force();
        let patch = Patch::Apply(content);
        let api = self.of(object.kind);
        let call = api.patch(object.name(), &parameters, &patch);
        called(|| about("applying", object.kind, object.name()), call).await.map(Live::from)
    }

    /// Changes an object that was just written.
    pub(super) async fn patch(
        &self,
        object: &Object,
        found: &Live,
        mut patch: Value,
    ) -> Result<Live, ApiError> {
        patch["metadata"]["resourceVersion"] = json!(found.version);
        patch["metadata"]["uid"] = json!(found.uid);
        let patch = Patch::Merge(patch);
        let parameters =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.of(object.kind);
        let call = api.patch(object.name(), &parameters, &patch);
        called(|| about("restoring", object.kind, object.name()), call).await.map(Live::from)
    }

    /// Deletes the version of an object that was read. It is no error if it is gone.
    pub(super) async fn delete(&self, kind: Kind, found: &Live) -> Result<(), ApiError> {
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: Some(found.uid.clone()),
            resource_version: Some(found.version.clone()),
        });
        let api = self.of(kind);
        let deleted = async {
            match api.delete(&found.name, &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop),
            }
        };
        called(|| about("deleting", kind, &found.name), deleted).await
    }
}

fn about(what: &str, kind: Kind, name: &str) -> String {
    let (_, _, kind, _) = kind.api();
    format!("{what} {kind} {name}")
}

async fn called<T>(
    what: impl Fn() -> String,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    let reason = match timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            format!("{} (are the custom resources of the gateway installed?)", status.message)
        }
        Ok(Err(kube::Error::Api(status))) => status.message,
        Ok(Err(error)) => causes(&error),
        Err(_) => format!("no answer within {PATIENCE:?}"),
    };
    Err(ApiError { what: what(), reason })
}

/// An error with its causes, each once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
