//! Secrets of the operator: what Envoy sends by `grpc.secret`, and the keys of certificates. All that
//! tests make are remembered, for the search for leaks.

use std::{
    mem,
    sync::{LazyLock, Mutex},
};

use rcgen::KeyPair;
use uuid::Uuid;

/// The length of the part by which the search recognizes a key.
pub(crate) const KEY_PART: usize = 24;

/// A secret that is to be replaced, the one that replaces it, and one that was never in force.
pub(crate) static OLD: LazyLock<String> = LazyLock::new(secret);
pub(crate) static NEW: LazyLock<String> = LazyLock::new(secret);
pub(crate) static WRONG: LazyLock<String> = LazyLock::new(secret);

static MADE: Mutex<Made> = Mutex::new(Made { calls: Vec::new(), keys: Vec::new() });

/// What tests have made.
pub(crate) struct Made {
    /// The values of `grpc.secret`.
    pub(crate) calls: Vec<String>,
    /// Of each private key, a part of its PEM, and a part in hexadecimal.
    pub(crate) keys: Vec<[String; 2]>,
}

/// Makes a value for `grpc.secret`.
pub(crate) fn secret() -> String {
    let random = || Uuid::new_v4().simple().to_string();
    let secret = [random(), random()].concat();
    MADE.lock().unwrap().calls.push(secret.clone());
    secret
}

/// Makes a key for a certificate.
///
/// It is of P-256: the bytes 36 to 68 of its PKCS #8 are secret, and each line of PEM has 48 bytes. The
/// search recognizes letters and digits only, so keys are made until that part of the second line has
/// no other character.
pub(crate) fn key_pair() -> KeyPair {
    loop {
        let key = KeyPair::generate().unwrap();
        let pem = key.serialize_pem();
        let part = pem.lines().nth(2).map(|line| &line[..KEY_PART]).unwrap();
        if part.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let bytes = &key.serialize_der()[36..36 + KEY_PART / 2];
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            MADE.lock().unwrap().keys.push([part.to_owned(), hex]);
            return key;
        }
    }
}

/// Takes all that were made.
pub(crate) fn take() -> Made {
    mem::replace(&mut *MADE.lock().unwrap(), Made { calls: Vec::new(), keys: Vec::new() })
}
