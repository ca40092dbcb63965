//! `ringcast tenant` against a server that answers from a script and records what it was asked.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread::JoinHandle,
};

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: TenantFlags,
}

/// Answers one request per entry of `script`; returns the request lines with their bodies.
fn server(script: Vec<(u16, &'static str)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let thread = std::thread::spawn(move || {
        let answers = script.into_iter().map(|(status, body)| {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = String::new();
            let mut block = [0; 4096];
            let complete = |text: &str| {
                let (head, body) = text.split_once("\r\n\r\n")?;
                let (_, rest) = head.split_once("content-length: ")?;
                let length: usize = rest.split("\r\n").next()?.parse().ok()?;
                (body.len() >= length).then_some(())
            };
            while complete(&request).is_none() {
                let count = stream.read(&mut block).expect("more of the request");
                request.push_str(std::str::from_utf8(&block[..count]).expect("text"));
            }
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}").expect("the client reads");
            let line = request.split(" HTTP/1.1").next().expect("a request line");
            let (_, body) = request.split_once("\r\n\r\n").expect("a body");
            format!("{line} {body}")
        });
        answers.collect()
    });
    (url, thread)
}

fn command(arguments: &[&str], url: &str) -> Result<String, String> {
    let line = [&["tenant"], arguments, &["--url", url, "--api-secret", "s"]].concat();
    run(&Line::parse_from(line).flags, &|_| None)
}

#[test]
fn list_is_a_table() {
    let data = r#"{"data":[{"external_id":"shop","name":"The Shop","max_concurrent_users":5,
                   "private_only":true},{"external_id":"a","name":"a"}]}"#;
    let (url, requests) = server(vec![(200, data)]);
    let text = command(&["list"], &url).expect("listed");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("EXTERNAL ID  NAME      USERS"), "{text}");
    assert!(lines[1].starts_with("a            a         -"), "{text}");
    assert!(lines[2].starts_with("shop         The Shop  5"), "{text}");
    assert_eq!(requests.join().expect("done"), ["GET /api/tenants "]);
}

#[test]
fn create_looks_first_and_generates_a_secret() {
    let script = vec![(404, ""), (201, r#"{"data":{"external_id":"a/b"}}"#)];
    let (url, requests) = server(script);
    let text = command(&["create", "a/b", "--set", "max_concurrent_users=5"], &url);
    let text = text.expect("created");
    let requests = requests.join().expect("done");
    assert_eq!(requests[0], "GET /api/tenants/a%2Fb ");
    let body = requests[1].strip_prefix("POST /api/tenants ").expect("a POST");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["tenant"]["external_id"], "a/b");
    assert_eq!(body["tenant"]["max_concurrent_users"], 5);
    assert_eq!(body["tenant"]["extensions"], json!([]));
    let secret = body["tenant"]["jwt_secret"].as_str().expect("a secret");
    assert_eq!(secret.len(), 2 * SECRET_BYTES);
    assert!(text.contains(secret));
}

#[test]
fn create_refuses_an_existing_tenant() {
    let (url, requests) = server(vec![(200, r#"{"data":{}}"#)]);
    let message = command(&["create", "a"], &url).expect_err("exists");
    assert!(message.contains("exists"), "{message}");
    assert_eq!(requests.join().expect("done").len(), 1);
}

#[test]
fn update_sends_only_what_was_set() {
    let script = vec![(200, r#"{"data":{}}"#), (200, r#"{"data":{"external_id":"a"}}"#)];
    let (url, requests) = server(script);
    command(&["update", "a", "--set", "suspend=true"], &url).expect("updated");
    let requests = requests.join().expect("done");
    assert_eq!(requests[1], r#"PATCH /api/tenants/a {"tenant":{"suspend":true}}"#);
}

#[test]
fn refusals_are_explained() {
    let one = |status, body, arguments: &[&str]| {
        let (url, requests) = server(vec![(status, body)]);
        let message = command(arguments, &url).expect_err("refused");
        requests.join().expect("done");
        message
    };
    assert!(one(403, "", &["list"]).contains("API_JWT_SECRET"));
    assert_eq!(one(404, "", &["show", "x"]), "there is no tenant x");
    assert!(one(404, "", &["reload", "x"]).contains("no such tenant"));
    assert!(one(500, r#"{"message":"boom"}"#, &["list"]).contains("500: boom"));
}

#[test]
fn validation_errors_are_shown() {
    let errors = r#"{"errors":{"max_joins_per_second":["is invalid"]}}"#;
    let (url, requests) = server(vec![(404, ""), (422, errors)]);
    let message = command(&["create", "a"], &url).expect_err("refused");
    assert!(message.contains("max_joins_per_second"), "{message}");
    requests.join().expect("done");
}
