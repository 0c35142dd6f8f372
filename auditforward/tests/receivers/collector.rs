//! Collectors of OpenTelemetry logs: one from PyPI that reads them with the official messages, and one of a few lines that
//! answers what no well-behaved one can be made to answer.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::town::{Town, assert_all, free_port, odd_pause, once_each, python, until};

const PROBE: &str = "import ddapm_test_agent.agent, opentelemetry.proto.collector.logs.v1.logs_service_pb2";

fn receiver(port: u16, more: &str) -> String {
    format!("[[otlp]]\nname = \"otel\"\nurl = \"http://127.0.0.1:{port}/v1/logs\"\n{more}\n")
}

/// The records in requests, as the items they are.
fn items(requests: &[Value]) -> Vec<Value> {
    let mut items = Vec::new();
    for request in requests {
        let resource = &request["resourceLogs"][0];
        let named = resource["resource"]["attributes"].to_string();
        assert!(named.contains("service.name") && named.contains("chartgate/"), "{named}");
        for record in resource["scopeLogs"][0]["logRecords"].as_array().unwrap() {
            let item: Value = serde_json::from_str(record["body"]["stringValue"].as_str().unwrap()).unwrap();
            let sequence = &record["attributes"][0]["value"]["intValue"];
            assert_eq!(*sequence, item["sequence"].to_string());
            items.push(item);
        }
    }
    items
}

/// The agent; killed with this value.
struct Agent {
    process: Child,
}

impl Agent {
    fn start(packages: &str, folder: &Path, port: u16) -> Self {
        let mut command = Command::new("python3");
        let code = "from ddapm_test_agent.agent import main; main()";
        command.args(["-c", code, &format!("--otlp-http-port={port}")]);
        command.args([format!("--port={}", free_port()), format!("--otlp-grpc-port={}", free_port())]);
        if !packages.is_empty() {
            command.env("PYTHONPATH", packages);
        }
        let process =
            command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { process }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _over = self.process.kill();
        let _over = self.process.wait();
    }
}

#[test]
fn everything_arrives_at_a_collector_whoever_is_killed() {
    let town = Town::new();
    let Some(packages) = python("collector", PROBE) else { return };
    let port = free_port();
    town.configure(&receiver(port, ""));
    // It is down at first: what it takes it holds in memory, so it cannot be killed later.
    let mut agent = None;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..60 {
                town.write(15, 2);
                thread::sleep(Duration::from_millis(200));
            }
        });
        for number in 0..10 {
            let forwarder = town.forward();
            thread::sleep(odd_pause(number + 40));
            if number == 1 {
                agent = Some(Agent::start(&packages, town.folder.path(), port));
                let answers = || TcpStream::connect(("127.0.0.1", port)).ok();
                assert!(until(Duration::from_secs(60), answers).is_some(), "the collector does not answer");
            }
            drop(forwarder);
        }
    });
    let _forwarder = town.forward();
    town.settle("otel");
    let requests = Command::new("curl")
        .args(["-s", "--max-time", "60", &format!("http://127.0.0.1:{port}/test/session/logs")])
        .output()
        .unwrap();
    let requests: Vec<Value> = serde_json::from_slice(&requests.stdout).unwrap();
    let (arrived, again) = once_each(items(&requests).into_iter());
    eprintln!(
        "collector: {} items in {} requests, {again} came more than once",
        arrived.len(),
        requests.len()
    );
    assert_all(&arrived, &town.expected(true));
    drop(agent);
}

/// When, the head, and the body of a request.
type Asked = (Instant, String, Vec<u8>);

/// What a collector of a few lines answers, one request after the other; the last answer is for all that follow.
struct Script {
    port: u16,
    /// How many requests have come, answered or not.
    asked: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    fn new(answer: impl Fn(usize, &Value) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (heard, counted) = (Arc::clone(&requests), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while stream.read_line(&mut head).unwrap() > 2 {}
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                let mut body = vec![0; length.unwrap().trim().parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                let value = serde_json::from_slice(&body).unwrap();
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let came = Instant::now();
                let text = answer(number, &value);
                heard.lock().unwrap().push((came, head, body));
                // Whoever asked may be gone.
                let _gone = stream.get_mut().write_all(text.as_bytes());
            }
        });
        Self { port, asked, requests }
    }

    fn bodies(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(_, _, body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_collector_may_ask_for_time_and_gets_it() {
    let town = Town::new();
    town.write(5, 1);
    fs::write(town.path("token"), "Bearer of-the-tests\n").unwrap();
    let script = Script::new(|number, _| match number {
        0 => response("429 Too Many Requests", "retry-after: 3\r\n", ""),
        1 => response("503 Service Unavailable", "retry-after: 2\r\n", "<html>"),
        _ => response("200 OK", "", "{}"),
    });
    town.configure(&receiver(script.port, "authorization_file = \"token\""));
    let _forwarder = town.forward();
    town.settle("otel");
    let requests = script.requests.lock().unwrap();
    let times: Vec<Instant> = requests.iter().map(|(time, ..)| *time).collect();
    assert!(times[1] - times[0] >= Duration::from_secs(3) && times[2] - times[1] >= Duration::from_secs(2));
    assert!(
        requests
            .iter()
            .all(|(_, head, _)| head.to_lowercase().contains("authorization: bearer of-the-tests"))
    );
    drop(requests);
    let (arrived, again) = once_each(items(&script.bodies()).into_iter());
    assert_all(&arrived, &town.expected(true));
    assert_eq!(again, 2 * arrived.len(), "each request had all of it");
}

/// It has the request and not yet answered: whoever ends then, it comes again, and can be told.
#[test]
fn killed_between_the_request_and_its_answer() {
    let town = Town::new();
    town.write(20, 1);
    let script = Script::new(|number, _| {
        if number < 3 {
            thread::sleep(Duration::from_secs(2));
        }
        response("200 OK", "", "{}")
    });
    town.configure(&receiver(script.port, ""));
    for count in 1..=3 {
        let forwarder = town.forward();
        // The script notes a request before it answers.
        let asked =
            until(Duration::from_secs(20), || (script.asked.load(Ordering::Relaxed) >= count).then_some(()));
        assert!(asked.is_some());
        drop(forwarder);
        assert_eq!(town.status("otel")["next"], 0);
    }
    let _forwarder = town.forward();
    town.settle("otel");
    let (arrived, again) = once_each(items(&script.bodies()).into_iter());
    assert_all(&arrived, &town.expected(true));
    assert_eq!(again, 3 * arrived.len());
}

/// A collector that finds one item malformed gets all others, once each; that one is counted and told.
#[test]
fn one_item_that_is_refused_costs_no_other() {
    let town = Town::new();
    town.write(20, 1);
    let holds = |request: &Value, sequence: u64| {
        items(std::slice::from_ref(request)).iter().any(|item| item["sequence"] == sequence)
    };
    let script = Script::new(move |_, request| {
        if holds(request, 13) {
            response("400 Bad Request", "", "")
        } else if holds(request, 20) {
            response("200 OK", "", r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}"#)
        } else {
            response("200 OK", "", "")
        }
    });
    town.configure(&receiver(script.port, ""));
    let _forwarder = town.forward();
    town.settle("otel");
    assert_eq!(town.status("otel")["rejected"], 2);
    let taken: Vec<Value> = script.bodies().into_iter().filter(|request| !holds(request, 13)).collect();
    let (arrived, again) = once_each(items(&taken).into_iter());
    assert_eq!(again, 0);
    let mut expected = town.expected(true);
    expected.remove(&13);
    assert_all(&arrived, &expected);
}

/// The second opinion on the encoding: the official messages read our JSON, strictly, and say the same.
#[test]
fn the_official_messages_read_what_is_sent() {
    let town = Town::new();
    let Some(packages) = python("collector", PROBE) else { return };
    town.write(20, 2);
    let script = Script::new(|_, _| response("200 OK", "", "{}"));
    town.configure(&receiver(script.port, "without_patients = true"));
    let _forwarder = town.forward();
    town.settle("otel");
    let program = "import sys, json
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
for line in sys.stdin:
    read = Parse(line, ExportLogsServiceRequest())
    for record in read.resource_logs[0].scope_logs[0].log_records:
        sequence = {pair.key: pair.value for pair in record.attributes}['chartgate.sequence'].int_value
        print(json.dumps([sequence, record.severity_number, record.time_unix_nano > 10**18, record.body.string_value]))
";
    let mut command = Command::new("python3");
    command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
    if !packages.is_empty() {
        command.env("PYTHONPATH", packages);
    }
    let mut child = command.spawn().unwrap();
    let mut questions = child.stdin.take().unwrap();
    script.bodies().iter().for_each(|body| writeln!(questions, "{body}").unwrap());
    drop(questions);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let arrived = rows.iter().map(|row| {
        let item: Value = serde_json::from_str(row[3].as_str().unwrap()).unwrap();
        assert_eq!((&row[0], &row[2]), (&item["sequence"], &Value::Bool(true)));
        assert_eq!(row[1], if item["kind"] == "refusal" { 13 } else { 9 });
        item
    });
    let (arrived, _) = once_each(arrived);
    assert_all(&arrived, &town.expected(false));
}
