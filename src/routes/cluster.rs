//! Keeps the objects of a gateway in a Kubernetes cluster, by server-side apply.
//!
//! Only objects that carry our label, our instance and our installation are changed or deleted. An object
//! of the same name without them belongs to somebody else: it is reported, and left alone. Each write
//! names the version that was read, or makes what does not exist, so nothing that was changed meanwhile is
//! overwritten unseen.
//!
//! One of several replicas writes: the one that holds a lock in Postgres. If it loses the lock, it may
//! write for a moment beside its successor, but not over what that one has written.

mod api;
mod difference;
mod ownership;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use patgate_routes::{Kind, Object, Plan, Target};
use serde_json::Value;

pub(crate) use self::api::ApiError;
use self::{
    api::{Api, Live},
    difference::correction,
    ownership::owner,
};
use super::{
    Status,
    status::{Foreign, Owner},
};
use crate::{
    clock::{self, Tick},
    installation::Installation,
    postgres::{Duty, Hold, Leadership, Offer, PostgresSettings},
    telemetry::RouteChange,
};

/// How often the objects are compared although the database says the same as before.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How often a replica offers to lead: each offer is a connection.
const OFFER_EVERY: Duration = Duration::from_secs(3);
/// How often the leader looks whether it still leads, also while it writes. The lock is lost after five
/// seconds of silence.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The objects of one instance in one namespace.
pub(crate) struct Cluster {
    api: Api,
    target: Target,
    allow_empty: bool,
    /// Whether the objects of another installation are ours too.
    pub(crate) adopt: bool,
    postgres: PostgresSettings,
    duty: Option<Duty>,
    leadership: Option<(Box<Leadership>, Tick)>,
    offered: Option<Tick>,
    /// What the objects were last compared with, without an error.
    compared: Option<(Plan, Tick)>,
    /// What was written to each object, by its unique id.
    written: HashMap<String, Written>,
}

/// An object as it was after it was written. Until it changes, it is as it should be, also if the API
/// server has filled in what it always does.
struct Written {
    /// Changes whenever the spec does.
    generation: i64,
    /// What was asked for.
    spec: Value,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Why the objects are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server does not answer, or refuses.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Some objects could not be written or deleted; the others were.
    #[error("{first}; {more} more objects could not be written or deleted either")]
    Several {
        /// The first error.
        first: ApiError,
        /// How many there are besides.
        more: usize,
    },
    /// Nothing would be left.
    #[error(
        "no backend is left, so the objects stay as they are; if all routes shall go, run this once with \
         --allow-empty"
    )]
    NothingLeft,
    /// The lock is gone.
    #[error("another replica leads now")]
    LostLead,
    /// The lock belongs to a session.
    #[error(
        "postgres.url leads through a connection pooler in transaction mode, where no replica can hold the \
         lock; point it at Postgres directly, or at a pooler in session mode"
    )]
    Pooled,
}

impl Cluster {
    /// Reads the kubeconfig, or what the pod was given.
    ///
    /// # Errors
    ///
    /// If there is neither.
    pub(crate) async fn connect(
        mut target: Target,
        allow_empty: bool,
        postgres: PostgresSettings,
    ) -> Result<Self, ApiError> {
        let named = Some(target.namespace.clone()).filter(|name| !name.is_empty());
        let api = Api::connect(named).await?;
        target.namespace = api.namespace().to_owned();
        Ok(Self {
            api,
            target,
            allow_empty,
            adopt: false,
            postgres,
            duty: None,
            leadership: None,
            offered: None,
            compared: None,
            written: HashMap::new(),
        })
    }

    /// Returns whether this replica writes. It offers to lead now and then.
    ///
    /// # Errors
    ///
    /// If the API server does not answer, or no replica can lead.
    pub(crate) async fn leads(&mut self, installation: Installation) -> Result<bool, ClusterError> {
        self.target.installation = installation.to_string();
        if self.still_leads().await {
            return Ok(true);
        }
        let now = clock::now();
        if self.offered.is_some_and(|offered| now.since(offered) < OFFER_EVERY) {
            return Ok(false);
        }
        let duty = match &self.duty {
            Some(duty) => duty,
            None => {
                // Names are unique in a cluster only, and several clusters may share a database.
                let namespace = self.api.namespace_uid().await?;
                self.duty.insert(Duty::routes(self.target.instance.as_str(), &namespace))
            }
        };
        self.offered = Some(now);
        match Leadership::take(&self.postgres, installation, duty).await {
            Offer::Leads(leadership) => {
                tracing::info!("this replica keeps the routes");
                self.leadership = Some((leadership, now));
                // Another replica may have written since.
                self.compared = None;
                Ok(true)
            }
            Offer::Declined => Ok(false),
            Offer::Pooled => Err(ClusterError::Pooled),
        }
    }

    async fn still_leads(&mut self) -> bool {
        let Some((leadership, looked)) = &mut self.leadership else { return false };
        if clock::now().since(*looked) < LOOK_EVERY {
            return true;
        }
        if let Hold::Holds = leadership.holds().await {
            *looked = clock::now();
            return true;
        }
        self.leadership = None;
        tracing::info!("this replica no longer keeps the routes");
        false
    }

    /// Brings the objects in step, if the plan or something else may have changed.
    ///
    /// # Errors
    ///
    /// If some could not be read, written or deleted, or nothing would be left.
    pub(crate) async fn keep(&mut self, plan: &Plan, status: &Status) -> Result<(), ClusterError> {
        let now = clock::now();
        let is_recent =
            |(known, at): &(Plan, Tick)| known == plan && now.since(*at) < COMPARE_EVERY;
        if self.compared.as_ref().is_some_and(is_recent) {
            return Ok(());
        }
        self.compared = None;
        let live = self.read().await?;
        let wanted = plan.objects(&self.target);
        status.foreign(self.foreign(&wanted, &live));
        let mut errors = self.write(&wanted, &live, status).await?;
        // An object that cannot be written must not keep the route of another backend alive.
        errors.extend(self.delete(&wanted, &live, status).await?);
        let more = errors.len().saturating_sub(1);
        match errors.into_iter().next() {
            None => self.compared = Some((plan.clone(), now)),
            Some(error) if more == 0 => return Err(error.into()),
            Some(first) => return Err(ClusterError::Several { first, more }),
        }
        Ok(())
    }

    /// Reads all objects of our kinds in the namespace, also those of others.
    async fn read(&self) -> Result<BTreeMap<(u8, String), Live>, ClusterError> {
        let mut all = BTreeMap::new();
        for (at, kind) in (0u8..).zip(self.target.gateway.kinds()) {
            for live in self.api.list(*kind).await? {
                all.insert((at, live.name.clone()), live);
            }
        }
        Ok(all)
    }

    fn key(&self, object: &Object) -> (u8, String) {
        let kinds = (0u8..).zip(self.target.gateway.kinds());
        let at = kinds.into_iter().find(|(_, kind)| **kind == object.kind);
        (at.map_or(u8::MAX, |(at, _)| at), object.name().to_owned())
    }

    fn owner(&self, live: &Live) -> Owner {
        match owner(live, &self.target) {
            Owner::AnotherInstallation if self.adopt => Owner::Us,
            owner => owner,
        }
    }

    /// Returns the objects of others that are in the way, and all of another installation: they may
    /// lead the requests of its backends through the same gateway.
    fn foreign(&self, wanted: &[Object], all: &BTreeMap<(u8, String), Live>) -> Vec<Foreign> {
        let wanted: BTreeSet<_> = wanted.iter().map(|object| self.key(object)).collect();
        let kinds = self.target.gateway.kinds();
        let foreign = all.iter().filter_map(|(key, live)| {
            let kind = *kinds.get(usize::from(key.0))?;
            let owner = self.owner(live);
            let is_told = match owner {
                Owner::Us => false,
                Owner::AnotherInstallation => true,
                Owner::Somebody => wanted.contains(key),
            };
            is_told.then(|| Foreign { kind, name: live.name.clone(), owner })
        });
        foreign.collect()
    }

    async fn write(
        &mut self,
        wanted: &[Object],
        live: &BTreeMap<(u8, String), Live>,
        status: &Status,
    ) -> Result<Vec<ApiError>, ClusterError> {
        let mut errors = Vec::new();
        // Of these, an object is missing to which the next ones refer.
        let mut incomplete = BTreeSet::new();
        for object in wanted {
            if incomplete.contains(object.backend()) {
                continue;
            }
            let found = live.get(&self.key(object));
            if found.is_some_and(|found| self.owner(found) != Owner::Us) {
                incomplete.insert(object.backend());
                continue;
            }
            if found.is_some_and(|found| self.is_settled(object, found)) {
                continue;
            }
            if !self.still_leads().await {
                return Err(ClusterError::LostLead);
            }
            match self.write_one(object, found).await {
                Ok(change) => {
                    status.metrics().changed(change);
                    let (_, _, kind, _) = object.kind.api();
                    tracing::info!(
                        kind,
                        name = object.name(),
                        backend = object.backend(),
                        "{}",
                        crate::telemetry::MetricResult::as_str(change)
                    );
                }
                Err(error) => {
                    errors.push(error);
                    incomplete.insert(object.backend());
                }
            }
        }
        Ok(errors)
    }

    /// Whether an object is as it should be.
    fn is_settled(&self, object: &Object, live: &Live) -> bool {
        let unchanged = self.written.get(&live.uid).is_some_and(|written| {
            written.generation == live.generation
                && written.spec == object.content["spec"]
                && written.labels == live.labels
                && written.annotations == live.annotations
        });
        unchanged || correction(live, &object.content).is_none()
    }

    async fn write_one(
        &mut self,
        object: &Object,
        found: Option<&Live>,
    ) -> Result<RouteChange, ApiError> {
        let wanted = &object.content["spec"];
        let mut after = match found {
            Some(found) => self.api.apply(object, found).await?,
            None => self.api.create(object).await?,
        };
        // What others have added stays when ours is applied, whatever name they gave themselves.
        if let Some(patch) = correction(&after, &object.content) {
            after = self.api.patch(object, &after, patch).await?;
            if correction(&after, &object.content).is_some() {
                let (_, _, kind, _) = object.kind.api();
                let name = object.name();
                tracing::warn!(kind, name, "the API server changes this object when it is written");
            }
        }
        let written = Written {
            generation: after.generation,
            spec: wanted.clone(),
            labels: after.labels.clone(),
            annotations: after.annotations.clone(),
        };
        let before = self.written.insert(after.uid.clone(), written);
        Ok(match (found, before) {
            // An object that this process has written is gone.
            (None, _) if self.was_written(object, &after) => RouteChange::Restored,
            (None, _) => RouteChange::Created,
            (Some(_), Some(before)) if before.spec == *wanted => RouteChange::Restored,
            (Some(_), _) => RouteChange::Changed,
        })
    }

    /// Whether an object with the same spec was written before, under another unique id.
    fn was_written(&self, object: &Object, after: &Live) -> bool {
        let wanted = &object.content["spec"];
        self.written.iter().any(|(uid, written)| *uid != after.uid && written.spec == *wanted)
    }

    async fn delete(
        &mut self,
        wanted: &[Object],
        live: &BTreeMap<(u8, String), Live>,
        status: &Status,
    ) -> Result<Vec<ApiError>, ClusterError> {
        let mut errors = Vec::new();
        let wanted_keys: BTreeSet<_> = wanted.iter().map(|object| self.key(object)).collect();
        let kinds = self.target.gateway.kinds();
        let surplus: Vec<(Kind, &Live)> = live
            .iter()
            .rev()
            .filter(|(key, live)| !wanted_keys.contains(key) && self.owner(live) == Owner::Us)
            .filter_map(|((at, _), live)| Some((*kinds.get(usize::from(*at))?, live)))
            .collect();
        if !surplus.is_empty() && wanted.is_empty() && !self.allow_empty {
            return Err(ClusterError::NothingLeft);
        }
        for (kind, gone) in surplus {
            if !self.still_leads().await {
                return Err(ClusterError::LostLead);
            }
            if let Err(error) = self.api.delete(kind, gone).await {
                errors.push(error);
                continue;
            }
            self.written.remove(&gone.uid);
            status.metrics().changed(RouteChange::Deleted);
            let (_, _, kind, _) = kind.api();
            tracing::info!(kind, name = gone.name, "deleted");
        }
        // Those that others have deleted.
        let existing: BTreeSet<&str> = live.values().map(|live| live.uid.as_str()).collect();
        if self.written.len() > 2 * (existing.len() + wanted.len()) {
            self.written.retain(|uid, _| existing.contains(uid.as_str()));
        }
        Ok(errors)
    }
}
