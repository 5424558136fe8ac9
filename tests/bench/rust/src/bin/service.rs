//! A service on tokio with two worker threads: clients send requests in JSON over unix sockets, the
//! service keeps documents, changes them and answers. Blocks are made by one thread and freed by
//! another whenever a task moves.
//!
//! ```text
//! service CLIENTS REQUESTS
//! ```

use std::collections::HashMap;
use std::env;
use std::sync::{Arc, Mutex};

use byssal_bench_rust::checksum;
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

type Store = Arc<Mutex<HashMap<String, Arc<Value>>>>;

/// What the service answers.
fn answer(store: &Store, request: &Value) -> Value {
    let key = request["key"].as_str().expect("a key").to_owned();
    let mut documents = store.lock().expect("nobody panics");
    match request["do"].as_str() {
        Some("put") => {
            let old = documents.insert(key, Arc::new(request["document"].clone()));
            json!({ "replaced": old.is_some() })
        }
        Some("tag") => {
            let Some(document) = documents.get_mut(&key) else {
                return json!({ "tagged": false });
            };
            // Who reads the old one keeps it.
            let document = Arc::make_mut(document);
            let tags = document["tags"].as_array_mut().expect("tags");
            tags.push(request["tag"].clone());
            json!({ "tagged": true, "tags": tags.len() })
        }
        _ => {
            let document = documents.get(&key).cloned();
            drop(documents);
            json!({ "document": document.as_deref() })
        }
    }
}

/// Answers all requests of a connection.
async fn serve(socket: UnixStream, store: Store) {
    let (input, mut output) = socket.into_split();
    let mut lines = BufReader::new(input).lines();
    while let Some(line) = lines.next_line().await.expect("readable") {
        let request: Value = serde_json::from_str(&line).expect("JSON");
        let mut text = answer(&store, &request).to_string();
        text.push('\n');
        output.write_all(text.as_bytes()).await.expect("writable");
    }
}

/// Request number `n` of a client.
fn request(client: usize, n: usize) -> Value {
    let key = format!("client {client} document {}", n * 7 % 200);
    match n % 4 {
        0 => {
            let fields =
                (0..3 + n % 9).map(|i| (format!("field {i}"), json!("x".repeat(n * i % 90))));
            let fields: serde_json::Map<String, Value> = fields.collect();
            json!({ "do": "put", "key": key, "document": { "fields": fields, "tags": [] } })
        }
        1 => json!({ "do": "tag", "key": key, "tag": format!("tag {n}") }),
        _ => json!({ "do": "get", "key": key }),
    }
}

/// Sends requests, sixteen at a time; the checksum of the answers.
async fn ask(socket: UnixStream, client: usize, requests: usize) -> u64 {
    let (input, mut output) = socket.into_split();
    let mut lines = BufReader::new(input).lines();
    let mut sum = 0xcbf2_9ce4_8422_2325;
    for first in (0..requests).step_by(16) {
        let batch = first..(first + 16).min(requests);
        for n in batch.clone() {
            let text = request(client, n).to_string() + "\n";
            output.write_all(text.as_bytes()).await.expect("writable");
        }
        for _ in batch {
            let line = lines
                .next_line()
                .await
                .expect("readable")
                .expect("an answer");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            sum = checksum(sum, answer.to_string().as_bytes());
        }
    }
    sum
}

fn main() {
    let mut words = env::args()
        .skip(1)
        .map(|word| word.parse::<usize>().expect("a number"));
    let clients = words.next().expect("a number of clients");
    let requests = words.next().expect("a number of requests");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()
        .expect("a runtime");
    let store = Store::default();
    let sum = runtime.block_on(async {
        let mut asking = Vec::new();
        for client in 0..clients {
            let (here, there) = UnixStream::pair().expect("a pair of sockets");
            tokio::spawn(serve(there, store.clone()));
            asking.push(tokio::spawn(ask(here, client, requests)));
        }
        let mut sum = 0u64;
        for client in asking {
            sum = sum.wrapping_add(client.await.expect("no client panics"));
        }
        sum
    });
    let documents = store.lock().expect("nobody panics").len();
    println!("{documents} documents, checksum {sum:016x}");
    println!("ops={}", clients * requests);
}
