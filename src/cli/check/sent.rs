//! The credential and the body that the request carries.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::{
    UsageError,
    token::{TokenIdParser, plain_from_standard_input},
};
use crate::{
    api::{ApiStyle, TokenScheme},
    body::BodyForm,
    config::Config,
    keyring::{self, KeyRing},
    token::{Prefixes, TokenId, Tokens},
};

/// Bytes that are read of a file: more than Envoy can be configured to accept in headers, and more
/// than a replica reads.
const MAX_INPUT: u64 = 8 * 1024 * 1024;

/// The caller. Unless one of these is given, a token is read from standard input.
#[derive(clap::Args)]
#[group(id = "who", multiple = false)]
pub(super) struct CallerArguments {
    /// Treats this token as if it had been sent, without its secret; reads no token from standard
    /// input
    #[arg(long, value_name = "TOKEN_ID", value_parser = TokenIdParser)]
    pub(super) pat_id: Option<Uuid>,
    /// Sends the content of this file as `Authorization`: scheme and token, as a client would; `-` is
    /// standard input
    #[arg(long, value_name = "FILE")]
    authorization_file: Option<PathBuf>,
    /// Sends no `Authorization`
    #[arg(long)]
    no_credential: bool,
}

/// The body. Unless one of these is given, patgate sees no body.
#[derive(clap::Args)]
pub(super) struct BodyArguments {
    /// The model that the body would name, in the form of its API
    #[arg(long, conflicts_with = "body")]
    model: Option<String>,
    /// The file that holds the body; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The `Content-Type` of the body, by default `application/json`; empty for none
    #[arg(long, value_name = "TYPE", requires = "body", conflicts_with = "model")]
    content_type: Option<String>,
    /// The `Content-Encoding` of the body
    #[arg(long, value_name = "ENCODING", requires = "body", conflicts_with = "model")]
    content_encoding: Option<String>,
    /// The body is the beginning of a longer one, which Envoy cut at `max_request_bytes`
    #[arg(long, requires = "body", conflicts_with = "model")]
    partial: bool,
    /// The body is sent in chunks, without a `Content-Length`
    #[arg(long, requires = "body", conflicts_with = "model")]
    chunked: bool,
}

/// What the request carries besides method, host and path.
#[derive(Default)]
pub(super) struct SentRequest {
    /// Headers by their lower-case names, each once.
    pub(super) headers: Vec<(&'static str, Zeroizing<String>)>,
    pub(super) body: Vec<u8>,
}

impl SentRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| *of == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.push((name, Zeroizing::new(value.into())));
    }
}

impl CallerArguments {
    /// Whether the question can be answered without the key ring of the service.
    pub(super) fn needs_no_keys(&self) -> bool {
        self.pat_id.is_some() || self.no_credential
    }

    /// Whether the credential is on standard input.
    pub(super) fn on_standard_input(&self) -> bool {
        match &self.authorization_file {
            Some(file) => is_standard_input(file),
            None => !self.needs_no_keys(),
        }
    }

    /// Adds the credential, and returns what verifies it. For a token's id, both are made with a
    /// random key, and the key ring of the service is not read.
    pub(super) fn send(
        &self,
        sent: &mut SentRequest,
        config: &Config,
        api_style: ApiStyle,
    ) -> anyhow::Result<Tokens> {
        let tokens = if self.needs_no_keys() {
            let ring = KeyRing::parse(&keyring::new_line(&"check".parse()?)?)?;
            Tokens::new(Prefixes::default(), ring)
        } else {
            Tokens::new(config.token_prefixes.clone(), config.key_ring()?)
        };
        let scheme = api_style.sources.schemes().next().unwrap_or(TokenScheme::Bearer);
        let value = match self {
            Self { no_credential: true, .. } => return Ok(tokens),
            Self { pat_id: Some(id), .. } => {
                format!("{scheme} {}", tokens.mint(TokenId(*id))?.plain.expose())
            }
            Self { authorization_file: Some(file), .. } => value(file)?,
            _ => {
                let plain = plain_from_standard_input()?;
                if plain.is_empty() {
                    let why = "expected a token on standard input, or --authorization-file, \
                               --no-credential or --pat-id";
                    return Err(UsageError(why.to_owned()).into());
                }
                format!("{scheme} {}", plain.as_str())
            }
        };
        sent.set("authorization", value);
        Ok(tokens)
    }
}

/// Reads the value of a header: one line, without its line ending.
fn value(file: &Path) -> anyhow::Result<String> {
    let text = String::from_utf8(read(file)?);
    let mut text = text.map_err(|_| UsageError(format!("{}: not UTF-8", file.display())))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

impl BodyArguments {
    pub(super) fn on_standard_input(&self) -> bool {
        self.body.as_deref().is_some_and(is_standard_input)
    }

    /// Whether the arguments describe a body.
    pub(super) fn given(&self) -> bool {
        self.model.is_some() || self.body.is_some()
    }

    /// Adds the body as Envoy sends it to patgate. `form` is how the call names its model; `None` if
    /// its body does not name it.
    pub(super) fn send(
        &self,
        sent: &mut SentRequest,
        form: Option<BodyForm>,
    ) -> anyhow::Result<()> {
        let media_type = match (&self.body, &self.model) {
            (Some(file), _) => {
                sent.body = read(file)?;
                self.content_type.as_deref().unwrap_or("application/json")
            }
            (None, Some(model)) => {
                let Some((media_type, body)) = form.and_then(|form| form.naming(model)) else {
                    return Ok(());
                };
                sent.body = body;
                media_type
            }
            (None, None) => return Ok(()),
        };
        if !media_type.is_empty() {
            sent.set("content-type", media_type);
        }
        if let Some(encoding) = &self.content_encoding {
            sent.set("content-encoding", encoding);
        }
        // Envoy sets this header to say whether it sends the whole body; without a body, it does not.
        if !sent.body.is_empty() {
            sent.set("x-envoy-auth-partial-body", self.partial.to_string());
        }
        // The length of the whole body is not known if it was cut.
        if !self.partial && !self.chunked {
            sent.set("content-length", sent.body.len().to_string());
        }
        Ok(())
    }
}

fn is_standard_input(file: &Path) -> bool {
    file == Path::new("-")
}

/// Reads a whole file.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let from_standard_input = is_standard_input(file);
    let name =
        if from_standard_input { "standard input".to_owned() } else { file.display().to_string() };
    let all = |from: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        from.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = if from_standard_input {
        all(&mut io::stdin().lock())
    } else {
        File::open(file).and_then(|mut file| all(&mut file))
    };
    let bytes = bytes.with_context(|| name.clone())?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(UsageError(format!("{name}: more than {MAX_INPUT} bytes")).into());
    }
    Ok(bytes)
}
