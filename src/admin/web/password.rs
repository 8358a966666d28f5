//! Passwords of local accounts, and what proves one to the database.
//!
//! The process computes argon2id with a salt from the database, and sends the result, the *answer*.
//! The database stores the SHA-256 of the answer. So a stolen database has no answer, and guessing a
//! password costs an argon2id each time; and the database decides itself whether an answer is right.

use std::{fmt, io, num::NonZeroUsize, str::FromStr, sync::Arc};

use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};
use zeroize::Zeroizing;

use crate::{clock, process::low_priority, telemetry::SelfServiceMetrics};

/// 19 MiB, two passes, one lane: the first choice of OWASP. All accounts have the same, so that an
/// unknown address costs what a known one does.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const LEN: usize = 32;

const FEWEST: usize = 12;
const MOST: usize = 256;

/// A password that a user has chosen or entered.
#[derive(Clone)]
pub struct Password(SecretString);

/// A text that cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password has {FEWEST} to {MOST} characters")]
pub struct InvalidPassword;

impl FromStr for Password {
    type Err = InvalidPassword;

    fn from_str(text: &str) -> Result<Self, InvalidPassword> {
        let fits = (FEWEST..=MOST).contains(&text.chars().count());
        fits.then(|| Self(text.into())).ok_or(InvalidPassword)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Computes answers, a bounded number at a time: each takes 19 MiB and a few tens of milliseconds of
/// a processor.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    metrics: SelfServiceMetrics,
}

/// Proves a password to the database.
pub(super) struct Answer(Zeroizing<[u8; LEN]>);

impl Answer {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// What an attempt promises to answer, before it learns whether that is right.
    pub(super) fn commitment(&self) -> Vec<u8> {
        Sha256::digest(self.0.as_ref()).to_vec()
    }
}

/// An answer that could not be computed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PasswordError {
    #[error("argon2: {0}")]
    Argon2(argon2::Error),
    #[error("no thread to compute a password: {0}")]
    NoThread(io::Error),
    #[error("the thread that computes a password ended: {0}")]
    Thread(#[from] JoinError),
}

impl Passwords {
    /// Computes up to `at_once` at a time; further ones wait.
    pub fn new(at_once: NonZeroUsize) -> Self {
        let turns = Arc::new(Semaphore::new(at_once.get()));
        Self { turns, metrics: SelfServiceMetrics::default() }
    }

    pub(super) fn measure(&mut self, metrics: &SelfServiceMetrics) {
        self.metrics = metrics.clone();
    }

    /// # Errors
    ///
    /// If the salt is too short, or the thread ended.
    pub(super) async fn answer(
        &self,
        password: &Password,
        salt: Vec<u8>,
    ) -> Result<Answer, PasswordError> {
        // The semaphore is never closed, so there is always a turn in the end.
        let came = clock::now();
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        self.metrics.password_waited(clock::now().since(came));
        let password = password.clone();
        spawn_blocking(move || {
            let answer = low_priority::run(|| answer(&password, &salt));
            drop(turn);
            answer
        })
        .await?
        .map_err(PasswordError::NoThread)?
        .map_err(PasswordError::Argon2)
    }
}

fn answer(password: &Password, salt: &[u8]) -> Result<Answer, argon2::Error> {
    let parameters = Params::new(MEMORY_KIB, PASSES, LANES, Some(LEN))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
    let mut answer = Zeroizing::new([0; LEN]);
    argon2.hash_password_into(password.0.expose_secret().as_bytes(), salt, answer.as_mut())?;
    Ok(Answer(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_depends_on_password_and_salt_alone() {
        let password = |text: &str| text.parse::<Password>().unwrap();
        let of = |text: &str, salt: &[u8]| answer(&password(text), salt).unwrap().bytes();
        let one = of("correct horse battery", b"0123456789abcdef");
        assert_eq!(one, of("correct horse battery", b"0123456789abcdef"));
        assert_ne!(one, of("correct horse batterz", b"0123456789abcdef"));
        assert_ne!(one, of("correct horse battery", b"0123456789abcdeg"));
        assert_eq!(one.len(), LEN);
        assert!(answer(&password("correct horse battery"), b"short").is_err());
    }

    /// If the parameters or the library change, no stored password is right any more. Computed with the
    /// reference implementation, by `argon2.low_level.hash_secret_raw(…, time_cost=2,
    /// memory_cost=19456, parallelism=1, hash_len=32, type=Type.ID, version=19)` of argon2-cffi 25.1.0.
    #[test]
    fn an_answer_is_that_of_the_reference_implementation() {
        for (password, expected) in [
            (
                "correct horse battery",
                "ebd23ba828c34ec430850a85be94098aa108d25190bf10bce1f5c4d0ab7171ae",
            ),
            ("zwölf Zeichn", "332fbf01404e5985d969630954c0f78f60923c2aa05bac88840b956057116a30"),
        ] {
            let answer = answer(&password.parse().unwrap(), b"0123456789abcdef").unwrap();
            let hex: String = answer.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{password}");
        }
    }

    #[test]
    fn a_password_has_a_length_and_is_not_shown() {
        for text in ["", "eleven char", &"x".repeat(257)] {
            assert_eq!(text.parse::<Password>().unwrap_err(), InvalidPassword);
        }
        for text in ["twelve chars", "zwölf Zeichn", &"ü".repeat(256)] {
            assert_eq!(format!("{:?}", text.parse::<Password>().unwrap()), "Password(..)");
        }
    }
}
