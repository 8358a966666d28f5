//! Envoy's behaviour, as far as patgate's safety depends on it: tested against a real Envoy and an
//! authorization server that answers as each test says. A release of Envoy that behaves differently
//! fails these tests, and so does a shipped configuration that has lost a setting.

mod answers;
mod bodies;
mod gate;
mod headers;
mod heads;
mod limits;
mod misleading;
mod requests;
mod routing;

pub(crate) use self::{
    answers::*, bodies::*, headers::*, heads::*, limits::*, misleading::*, requests::*, routing::*,
};
