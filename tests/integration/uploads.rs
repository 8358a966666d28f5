//! Uploads that are refused, or that do not end: what clients see of the one, and what the other
//! costs Envoy.

mod held;
mod refused;

pub(crate) use self::{held::*, refused::*};
