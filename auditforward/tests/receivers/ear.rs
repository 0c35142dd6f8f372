//! A syslog receiver of a few lines, on plain TCP: for what no real one can be made to do.
//!
//! Owns: counting octets as RFC 5425 says, joining parts.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A receiver, and what it heard.
pub(crate) struct Ear {
    pub(crate) port: u16,
    /// While it is set, connections are dropped unread.
    pub(crate) broken: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Ear {
    /// One that reads.
    pub(crate) fn listening() -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let broken = Arc::new(AtomicBool::new(false));
        let (hears, breaks) = (Arc::clone(&heard), Arc::clone(&broken));
        let port = listen(move |mut stream| {
            if breaks.load(Ordering::Relaxed) {
                // With something unread behind it, so that it is a break and no end.
                stream.read_exact(&mut [0; 1]).unwrap();
                return;
            }
            let mut bytes = Vec::new();
            if stream.read_to_end(&mut bytes).is_ok() {
                hears.lock().unwrap().extend(messages(&bytes));
            }
        });
        Self { port, broken, heard }
    }

    /// One that takes connections and never reads.
    pub(crate) fn deaf() -> Self {
        let port = listen(|stream| {
            thread::sleep(Duration::from_secs(600));
            drop(stream);
        });
        Self { port, broken: Arc::default(), heard: Arc::default() }
    }

    /// The messages as they came.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// What they say.
    pub(crate) fn heard(&self) -> Vec<Value> {
        joined(self.messages().iter().map(|message| message.splitn(8, ' ').nth(7).unwrap().to_owned()))
    }
}

fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

/// `LENGTH SP MESSAGE`, one after the other.
fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        messages.push(String::from_utf8(bytes[blank + 1..blank + 1 + length].to_vec()).unwrap());
        bytes = &bytes[blank + 1 + length..];
    }
    messages
}

/// The objects in bodies of messages; parts of one are joined. Parts may come twice, in any order.
pub(crate) fn joined(bodies: impl Iterator<Item = String>) -> Vec<Value> {
    let mut whole = Vec::new();
    let mut parts: BTreeMap<u64, BTreeMap<u64, String>> = BTreeMap::new();
    for body in bodies {
        let value: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body:?}"));
        let Some(text) = value["text"].as_str() else {
            whole.push(value);
            continue;
        };
        let sequence = value["sequence"].as_u64().unwrap();
        let known = parts.entry(sequence).or_default();
        known.insert(value["part"].as_u64().unwrap(), text.to_owned());
        if u64::try_from(known.len()).unwrap() == value["parts"].as_u64().unwrap() {
            let text: String = parts.remove(&sequence).unwrap().into_values().collect();
            whole.push(serde_json::from_str(&text).unwrap());
        }
    }
    whole
}
