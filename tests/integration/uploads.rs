//! Uploads that are refused, or that do not end: what clients see of the first, and what the second
//! costs Envoy.

mod held;
mod refused;

pub(crate) use self::{held::*, refused::*};
