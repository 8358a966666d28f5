//! Clients that ask which services there are.

use prost::Message as _;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use super::{
    super::tonic_services::{MAX_REFLECTIONS, REFLECTING},
    *,
};

const PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

fn question(about: MessageRequest) -> Bytes {
    let host = String::new();
    let message = ServerReflectionRequest { host, message_request: Some(about) }.encode_to_vec();
    [&frame::head(message.len())[..], &message].concat().into()
}

fn services() -> Bytes {
    question(MessageRequest::ListServices(String::new()))
}

/// Returns the next answer of the call.
async fn next(body: &mut h2::RecvStream) -> MessageResponse {
    let mut frame = BytesMut::new();
    loop {
        frame.extend_from_slice(&body.data().await.unwrap().unwrap());
        if let Some((head, message)) = frame.split_at_checked(HEAD)
            && *head == frame::head(message.len())
        {
            let response = ServerReflectionResponse::decode(message).unwrap();
            return response.message_response.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_services_and_their_messages_are_described() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let (answer, mut stream) = client.call(PATH).await;
    stream.send_data(services(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let MessageResponse::ListServicesResponse(list) = next(&mut body).await else { panic!() };
    let mut names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
    names.sort_unstable();
    let expected = [frame::SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
    assert_eq!(names, expected);
    for symbol in names {
        let about = MessageRequest::FileContainingSymbol(symbol.to_owned());
        stream.send_data(question(about), false).unwrap();
        let MessageResponse::FileDescriptorResponse(file) = next(&mut body).await else { panic!() };
        let file = prost_types::FileDescriptorProto::decode(&*file.file_descriptor_proto[0]);
        let file = file.unwrap();
        let service = format!("{}.{}", file.package(), file.service[0].name());
        assert_eq!(service, symbol);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(body.data().await.is_none());
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_ends_in_time_whatever_the_client_does() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    // One client sends nothing, one reads nothing, and one stops after an answer.
    let (silent, _silent) = client.call(PATH).await;
    let (unread, mut asks) = client.call(PATH).await;
    for _ in 0..100 {
        asks.send_data(services(), false).unwrap();
    }
    let (heard, mut stream) = client.call(PATH).await;
    stream.send_data(services(), false).unwrap();
    let mut heard = heard.await.unwrap().into_body();
    next(&mut heard).await;
    assert!(tasks() > before);
    sleep(REFLECTING + Duration::from_secs(1)).await;
    let ended = |error: h2::Error| assert_eq!(error.reason(), Some(Reason::CANCEL));
    ended(heard.data().await.unwrap().unwrap_err());
    for answer in [silent, unread] {
        let mut body = answer.await.unwrap().into_body();
        let last = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                last => break last,
            }
        };
        ended(last.unwrap().unwrap_err());
    }
    assert_eq!(tasks(), before, "nothing goes on");
    assert_eq!(client.check(&message(100)).await, 401);
}

#[tokio::test(start_paused = true)]
async fn conversations_are_few_on_all_connections_together() {
    let mut client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..2 {
        for _ in 0..MAX_REFLECTIONS / 2 + 1 {
            let (answer, mut stream) = client.call(PATH).await;
            stream.send_data(services(), false).unwrap();
            let answer = answer.await.unwrap();
            refused += usize::from(answer.headers().get("grpc-status").is_some_and(|it| it == "8"));
            held.push((answer, stream));
        }
        client.calls = Client::calls(&client.grpc, FOREVER).await.0;
    }
    assert_eq!(refused, 2);
    // Neither checks nor questions about health are delayed.
    assert_eq!(client.check(&message(100)).await, 401);
    let (answer, mut stream) = client.call("/grpc.health.v1.Health/Check").await;
    stream.send_data(Bytes::from_static(&[0; HEAD]), true).unwrap();
    assert!(answer.await.unwrap().headers().get("grpc-status").is_none());
}
