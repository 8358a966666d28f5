//! What Envoy and patgate say to each other: the only code that knows protobuf.

pub mod codec;
pub(crate) mod proto;
pub(crate) mod response;
