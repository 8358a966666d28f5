//! The messages between Envoy and patgate: the only code that knows protobuf.

pub mod codec;
pub(crate) mod proto;
pub(crate) mod response;
