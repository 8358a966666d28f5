//! What a call says about itself, beside the request that it is about.

use super::CheckStep;
use crate::trace_context::TraceContext;

/// The metadata of the call by which a gateway asks. The client's own headers are in the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallMetadata {
    pub(crate) step: CheckStep,
    /// The trace of the call, if it is part of one.
    pub(crate) trace: Option<TraceContext>,
}
