//! Requests on which everything is decided except the model that their body names.

use super::{Authorized, Permitted, denied};
use crate::{
    body::BodyForm,
    operation::Operation,
    principal::{Principal, UserId},
    refusal::{Denial, NoModel, Refusal},
    token::TokenId,
};

/// A request that is permitted so far, and whose model must be read from its body. It is no permit,
/// and becomes one only with the name of a model. Only `decide::authorize` makes one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeedsModel<'p, 's> {
    permitted: Permitted<'p, 's>,
    form: BodyForm,
}

impl<'p, 's> NeedsModel<'p, 's> {
    pub(super) fn new(permitted: Permitted<'p, 's>, form: BodyForm) -> Self {
        Self { permitted, form }
    }
}

impl<'p> NeedsModel<'p, '_> {
    /// Returns the owner of the token that the client sent.
    pub fn owner(&self) -> UserId {
        self.permitted.principal.owner
    }

    /// Returns how the body names the model.
    pub fn form(&self) -> BodyForm {
        self.form
    }

    /// Authorizes the request with the model that was read from its body. The caller keeps the
    /// name, so that the body is not read again for a log.
    ///
    /// # Errors
    ///
    /// Returns the errors of `decide::authorize`, or `NoModel` if no model was read.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub fn with(self, model: Result<&str, NoModel>) -> Result<Authorized<'p>, Denial> {
        match model {
            Ok(model) => self.permitted.authorize(Some(model)),
            Err(why) => Err(self.refused(why.into())),
        }
    }

    /// Ends the first of two steps: the gateway is asked for the body.
    pub fn await_body(&self) -> AwaitsBody {
        let Permitted { principal, rule, .. } = self.permitted;
        let Principal { token, owner, .. } = *principal;
        AwaitsBody { token, owner, operation: rule.operation, form: self.form }
    }

    /// Refuses the request for a reason other than its model.
    pub fn refused(&self, refusal: Refusal) -> Denial {
        let Permitted { principal, rule, .. } = self.permitted;
        Denial { refusal, ..denied(principal, Some(rule)) }
    }
}

/// A request that ends the first of two steps, because its model must be read from its body. It can
/// become only the question for the body, or a denial. Only [`NeedsModel::await_body`] makes one.
#[derive(Debug, PartialEq)]
pub struct AwaitsBody {
    token: TokenId,
    owner: UserId,
    operation: Operation,
    form: BodyForm,
}

impl AwaitsBody {
    /// Returns the token that the client sent.
    pub fn token(&self) -> TokenId {
        self.token
    }

    /// Returns how the body names the model.
    pub fn form(&self) -> BodyForm {
        self.form
    }

    /// Denies the same request after all.
    pub fn refused(&self, refusal: Refusal) -> Denial {
        let subject = Some((self.token, self.owner));
        Denial { refusal, subject, operation: Some(self.operation) }
    }
}
