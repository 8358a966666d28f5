//! Reads a secret that stands alone in a file, such as the password of a store.

use std::path::Path;

use zeroize::Zeroizing;

use super::trusted::{self, ReadError};

/// The longest secret: more than any store accepts as a password, or a cloud issues as a token.
const MAX_LENGTH: usize = 8192;

/// Why a file holds no secret that can be used. It shows nothing of the content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("expected a secret, found an empty file")]
    Empty,
    #[error("expected a secret in one line, found several lines or control characters")]
    SeveralLines,
    #[error("expected a secret of at most {MAX_LENGTH} bytes")]
    TooLong,
}

/// Returns the secret, without the line break at its end.
///
/// # Errors
///
/// If the file cannot be read or trusted, or holds anything but one line.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let (text, _mode) = trusted::read(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err(SecretFileError::Empty),
        line if line.len() > MAX_LENGTH => Err(SecretFileError::TooLong),
        line if line.contains(char::is_control) => Err(SecretFileError::SeveralLines),
        line => Ok(Zeroizing::new(line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let content = |text: &[u8]| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            read(&file)
        };
        for (text, secret) in [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), (" a b \r\n", " a b ")]
        {
            assert_eq!(**content(text.as_bytes()).unwrap(), *secret);
        }
        let long = "x".repeat(MAX_LENGTH + 1);
        for bad in ["", "\n", "\r\n", "s3cret\n\n", "s3cret\nother\n", "s3\0cret", &long] {
            let refused = content(bad.as_bytes()).unwrap_err().to_string();
            assert!(refused.starts_with("expected a secret") && !refused.contains("s3"), "{bad:?}");
        }
        assert!(matches!(content(b"\xff\xfe"), Err(SecretFileError::Read(ReadError::Io(_)))));
        fs::write(&file, "s3cret").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(read(&file), Err(SecretFileError::Read(ReadError::Untrusted(_)))));
        assert!(matches!(
            read(&dir.path().join("none")),
            Err(SecretFileError::Read(ReadError::Io(_)))
        ));
    }
}
