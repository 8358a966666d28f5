//! Bodies: reads the long ones, and decides which ones to ask the gateway for.

use super::Checker;
use crate::{
    body::{Body, BodyForm, MAX_SHOWN, ModelName, ResourceNeed},
    clock::{self, Tick},
    decide::AwaitsBody,
    refusal::{Denial, NoModel, Refusal},
    request::{self, RequestParts},
    token::TokenId,
};

impl Checker {
    /// Reads the model of a long body. Meanwhile, the memory for its decoded bytes counts towards
    /// that of long bodies. It does so until the caller drops the second result: this runs on a
    /// thread of low priority, and dropping takes a lock.
    pub(super) fn read_long<'a, H>(
        &self,
        token: TokenId,
        parts: &RequestParts<'a, H>,
        form: BodyForm,
        body: Body<'a>,
        until: Tick,
    ) -> (Result<Box<ModelName>, NoModel>, impl Send)
    where
        H: Fn(&str) -> Option<&'a str> + Sync,
    {
        let mut counted = None;
        let mut held = None;
        let read = request::model(parts.target, body, form, &mut |ask| match ask {
            ResourceNeed::Time if clock::now() < until => Ok(()),
            ResourceNeed::Time => Err(NoModel::NotInTime),
            ResourceNeed::Memory(bytes) => {
                let id = parts.in_progress();
                let now = clock::now();
                let share = self.awaited.decoded(token, id, bytes as u64, now);
                counted = Some(share.ok_or(NoModel::TooMuchAtOnce)?);
                let bytes = u32::try_from(bytes).map_err(|_| NoModel::NotInTime)?;
                let room = self.long_bodies.room().try_acquire_many(bytes);
                held = Some(room.map_err(|_| NoModel::NotInTime)?);
                Ok(())
            }
        });
        (read.map(Box::new), (counted, held))
    }

    /// Admits the body that a first step needs, unless the body could not help, or too many are
    /// awaited for the token already.
    pub(super) fn ask_for_body<'a, H>(
        &self,
        awaits: AwaitsBody,
        parts: &RequestParts<'a, H>,
        now: Tick,
    ) -> Result<AwaitsBody, Denial>
    where
        H: Fn(&str) -> Option<&'a str> + Sync,
    {
        if self.denials.is_spent(awaits.token(), now) {
            return Err(awaits.refused(Refusal::RateLimited));
        }
        parts.may_name_a_model(awaits.form()).map_err(|why| awaits.refused(why.into()))?;
        let bytes = parts.length().unwrap_or(MAX_SHOWN);
        // The gateway would collect as much as it can show, and then refuse the request.
        if bytes > MAX_SHOWN {
            return Err(awaits.refused(NoModel::Cut.into()));
        }
        if self.awaited.admit(awaits.token(), parts.in_progress(), bytes, now) {
            Ok(awaits)
        } else {
            Err(awaits.refused(Refusal::TooManyBodies))
        }
    }
}
