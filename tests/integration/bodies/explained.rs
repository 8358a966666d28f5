//! `patgate check` with bodies: given as files, or by the model that they would name.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::json;

use super::{
    answer, limited, listed,
    table::{Case, SHOWN, cases},
};
use crate::support::{
    Replica, Suite, World,
    cli::Cli,
    explained::{self, Question},
};

/// The folder for the bodies of a world.
fn folder(world: &World<'_>) -> PathBuf {
    let folder = world.suite.dir.path().join(format!("{}.bodies", world.database));
    fs::create_dir(&folder).unwrap();
    folder
}

async fn question(replica: &Replica, bearer: &str, case: &Case, file: PathBuf) -> Question {
    let shown = &case.body[..case.body.len().min(SHOWN)];
    fs::write(&file, shown).unwrap();
    let live = answer(replica, bearer, case).await;
    let request = ["gateway", "POST", case.path];
    let mut question = Question::new(&case.name, request, Some(bearer), &live).body(&file);
    let value = |of: &str| case.headers.iter().find(|(name, _)| *name == of).map(|(_, it)| it);
    let media_type = value("content-type").map_or("", String::as_str);
    question = question.with(format!("--content-type={media_type}"));
    if let Some(encoding) = value("content-encoding") {
        question = question.with(format!("--content-encoding={encoding}"));
    }
    for (so, option) in [(shown.len() < case.body.len(), "--partial"), (case.chunked, "--chunked")]
    {
        if so {
            question = question.with(option.to_owned());
        }
    }
    question.of(replica)
}

/// The command says about each body of the table what the service says, in the same words.
pub(crate) async fn each_is_explained_as_it_is_read(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = limited(&world).await;
    let folder = folder(&world);
    let mut questions = Vec::new();
    for (index, case) in cases().iter().enumerate() {
        let file = folder.join(index.to_string());
        questions.push(question(&replica, &token.bearer(), case, file).await);
    }
    assert!(questions.len() >= 170, "the table has shrunk to {} cases", questions.len());
    explained::ask(&Cli::of(&world), &questions);
}

/// The same holds for each model that a domain lists or does not list, given by its body and by its
/// name.
pub(crate) async fn each_listed_model_is_explained(suite: Arc<Suite>) {
    let world = suite.world().await;
    let listed = listed(&world).await;
    let replica = world.serve(&[]).await;
    let folder = folder(&world);
    let mut questions = Vec::new();
    for (index, (bearer, model, _)) in listed.iter().enumerate() {
        let path = "/proxy/picky/v1/chat/completions";
        let body = json!({ "messages": [], "model": model }).to_string();
        let case = Case::of_model(model, path, &body);
        let by_body = question(&replica, bearer, &case, folder.join(index.to_string())).await;
        let live = answer(&replica, bearer, &case).await;
        let by_name = Question::new(model, ["gateway", "POST", path], Some(bearer), &live);
        questions.extend([by_body, by_name.with(format!("--model={model}")).of(&replica)]);
    }
    explained::ask(&Cli::of(&world), &questions);
}
