//! What the exceptions of the guard let through.

use super::View;
use crate::{
    exception::Exception,
    model::{Host, Route, Target},
    view::Asked,
};

impl View<'_> {
    /// The exceptions of the guard, if it stands.
    pub(crate) fn exceptions(&self) -> impl Iterator<Item = &Exception> {
        self.guard.iter().flat_map(|(_, guard)| &guard.exceptions)
    }

    /// An exception that may let a request on this route through.
    pub(crate) fn exception(&self, route: &Route) -> Option<&Exception> {
        self.exceptions().find(|exception| self.applies(exception, route))
    }

    /// Whether an exception is for the paths of a route and for its cluster.
    pub(crate) fn applies(&self, exception: &Exception, route: &Route) -> bool {
        let to = match (&route.target, exception.clusters()) {
            (Target::Clusters(clusters), Some(names)) => {
                clusters.iter().any(|(name, _)| names.contains(&name.as_str()))
            }
            (Target::Answer(_), Some(_)) => false,
            _ => true,
        };
        to && exception.may_take(route)
    }

    /// Whether nothing asks about requests on a route.
    pub(crate) fn is_off(&self, host: &Host, route: &Route) -> bool {
        matches!(self.asked(host, route, None), Asked::Never(_))
    }

    /// Whether a cluster is for an exception of the guard, and patgate cannot name it: no route is
    /// chosen by its header, or the guard refuses what patgate lets through to this cluster.
    pub(crate) fn sets_apart(&self, cluster: &str) -> bool {
        let header = self.backend_header();
        let mut routes = self.routes();
        let by_header = routes.any(|(_, route)| matches!(route.target, Target::Header(_)));
        self.guard.as_ref().is_some_and(|(_, guard)| {
            guard.is_sound()
                && guard.excepts(cluster)
                && (!by_header || guard.keeps_apart(&header, cluster))
        })
    }
}
