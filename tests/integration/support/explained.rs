//! `patgate check` about the requests of a table: whether it explains what the service answers.

use std::{
    num::NonZero,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use envoy_types::pb::{
    envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse},
    google::protobuf::value::Kind,
};
use serde_json::Value;

use super::{
    Replica,
    cli::{Cli, CommandOutput},
};

/// A request, in the form of the command's arguments, and the service's answer to it.
pub(crate) struct Question {
    name: String,
    words: Vec<String>,
    stdin: String,
    /// The answer when enforcing.
    live: LiveAnswer,
    /// The answer of a replica that the command also asks.
    heard: Option<LiveAnswer>,
}

/// The parts of an answer that a client sees.
#[derive(Clone)]
struct LiveAnswer {
    status: u16,
    code: String,
    message: Option<String>,
    model: Option<String>,
}

impl LiveAnswer {
    fn of(answer: &CheckResponse) -> Self {
        let metadata = &answer.dynamic_metadata.as_ref().unwrap().fields;
        let fact = |name: &str| match metadata.get(name)?.kind.clone()? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        };
        let (status, message) = match answer.http_response.as_ref().unwrap() {
            HttpResponse::OkResponse(_) => (200, None),
            HttpResponse::DeniedResponse(denied) => {
                let body: Value = serde_json::from_str(&denied.body).unwrap();
                let places = ["/error/message", "/message", "/detail", "/error"];
                let message = places.iter().find_map(|at| body.pointer(at)?.as_str());
                (denied.status.as_ref().unwrap().code, message.map(str::to_owned))
            }
            HttpResponse::ErrorResponse(_) => panic!("an error response"),
        };
        let code = fact("code").unwrap();
        let model = fact("model");
        Self { status: status.try_into().unwrap(), code, message, model }
    }
}

impl Question {
    /// With this `Authorization`, or none. Envoy joins several values.
    pub(crate) fn new(
        name: &str,
        [host, method, path]: [&str; 3],
        authorization: Option<&str>,
        answer: &CheckResponse,
    ) -> Self {
        let words = ["check", "--output=json"].map(str::to_owned).into_iter();
        let request = [("host", host), ("method", method), ("path", path)];
        let request = request.map(|(option, value)| format!("--{option}={value}"));
        let who = match authorization {
            Some(_) => "--authorization-file=-",
            None => "--no-credential",
        };
        Self {
            name: name.to_owned(),
            words: words.chain(request).chain([who.to_owned()]).collect(),
            stdin: authorization.unwrap_or_default().to_owned(),
            live: LiveAnswer::of(answer),
            heard: None,
        }
    }

    pub(crate) fn with(mut self, word: String) -> Self {
        self.words.push(word);
        self
    }

    pub(crate) fn body(self, file: &Path) -> Self {
        self.with(format!("--body={}", file.display()))
    }

    /// Also asks the replica itself, which must agree.
    pub(crate) fn of(self, replica: &Replica) -> Self {
        let heard = self.live.clone();
        self.heard(replica, heard)
    }

    /// Also asks a replica that may not enforce its verdict, and answers accordingly. It must agree
    /// on the verdict.
    pub(crate) fn of_another(self, replica: &Replica, answer: &CheckResponse) -> Self {
        self.heard(replica, LiveAnswer::of(answer))
    }

    fn heard(mut self, replica: &Replica, heard: LiveAnswer) -> Self {
        self.heard = Some(heard);
        self.with(format!("--server={}", replica.grpc))
    }

    /// The same, by the id of the token only.
    pub(crate) fn by_id(self, id: &str) -> Self {
        let words = self.words.into_iter().filter(|word| !word.starts_with("--authorization"));
        let words = words.chain([format!("--pat-id={id}")]).collect();
        Self { words, stdin: String::new(), ..self }
    }

    pub(crate) fn code(&self) -> &str {
        &self.live.code
    }

    /// Returns the difference, if there is one.
    fn judge(&self, ran: &CommandOutput) -> Option<String> {
        let LiveAnswer { status, code, message, model } = &self.live;
        let told: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let steps = told["steps"].as_array().cloned().unwrap_or_default();
        let failed = steps.iter().filter(|step| step["passed"] == false).count();
        let text = |of: &Value| of.as_str().map(str::to_owned);
        let replica = &told["replica"];
        let heard = self.heard.as_ref().map_or(replica.is_null(), |heard| {
            replica["agrees"] == true
                && replica["status"] == heard.status
                && replica["code"] == *heard.code
                && text(&replica["message"]) == heard.message
        });
        let right = told["status"] == *status
            && told["code"] == **code
            && text(&told["message"]) == *message
            && text(&told["model"]) == *model
            && heard
            && (ran.code == 0) == (*status == 200)
            && matches!(ran.code, 0 | 3 | 4)
            && failed == usize::from(*status != 200)
            && steps.last().is_some_and(|step| step["step"] != "decision");
        (!right).then(|| format!("{}: expected {status} {code} {message:?}, {ran:?}", self.name))
    }
}

/// Asks all of them, a few at a time, and panics with the answers that differ from the service's.
pub(crate) fn ask(cli: &Cli<'_>, questions: &[Question]) {
    let next = AtomicUsize::new(0);
    let few = thread::available_parallelism().map_or(1, NonZero::get);
    let some = || {
        let mut wrong = Vec::new();
        while let Some(question) = questions.get(next.fetch_add(1, Relaxed)) {
            let words: Vec<_> = question.words.iter().map(String::as_str).collect();
            wrong.extend(question.judge(&cli.feed_words(&words, &question.stdin)));
        }
        wrong
    };
    let wrong: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..few.min(4)).map(|_| scope.spawn(some)).collect();
        asking.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    println!("{} questions to `patgate check`", questions.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), questions.len(), wrong.join("\n"));
}
