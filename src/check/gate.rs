//! The gate to the stores. It is closed until the checks of the start have passed.
//!
//! A store may be away when patgate starts, and may lead to another database, or to an old schema,
//! when it is back. So nothing is read from a store that has not been checked. This holds because
//! there is nothing to read it with: the tiers exist only inside of [`Stores`], which the start makes
//! once it knows the installation, and a check gets them only from an open gate.

use std::sync::{Arc, OnceLock};

use super::last_use::LastUses;
use crate::{
    clock::Clock,
    resolve::{Resolver, Unavailable},
};

/// What a check needs of the stores. It is made only for stores whose checks have passed.
pub(crate) struct Stores {
    pub(crate) resolver: Resolver,
    pub(crate) clock: Arc<Clock>,
    pub(crate) last_uses: LastUses,
}

/// The gate. It opens once, and stays open. Clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct StoreGate(Arc<OnceLock<Stores>>);

impl StoreGate {
    /// Opens the gate. If it is open already, nothing changes.
    pub(crate) fn open(&self, stores: Stores) {
        let _ = self.0.set(stores);
    }

    /// Returns the stores. While the gate is closed, nothing can be determined.
    pub(crate) fn stores(&self) -> Result<&Stores, Unavailable> {
        self.0.get().ok_or(Unavailable)
    }
}
