//! Where requests come in. An edge decodes a check, hands it to the driver in `check.rs`, and encodes
//! what the driver decided.

pub(crate) mod grpc;
