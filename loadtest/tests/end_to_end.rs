//! Runs `swarm` against `floor`, both as processes, at tiny sizes. Counts are asserted, never times.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A floor on a free port, ended with the test.
struct Floor {
    process: Child,
    address: SocketAddr,
}

impl Floor {
    fn start(extra: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_floor"))
            .args(["--port", "0"])
            .args(extra)
            .stdout(Stdio::piped())
            .spawn()
            .expect("floor starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("floor speaks");
        let address = line.split(' ').nth(2).expect("the line names the address").parse().expect("it is an address");
        Self { process, address }
    }

    /// Runs a scenario against this floor and returns its JSON result.
    fn swarm(&self, scheme: &str, arguments: &[&str]) -> Value {
        let json = self.file(&format!("{}.json", arguments.join("_").replace('/', "_")));
        let output = Command::new(env!("CARGO_BIN_EXE_swarm"))
            .args(arguments)
            .args(["--url", &format!("{scheme}://{}/", self.address)])
            .args(["--pid", &self.process.id().to_string()])
            .args(["--duration-secs", "0.3", "--warmup-secs", "0.1", "--secret", "s"])
            .arg("--json")
            .arg(&json)
            .output()
            .expect("swarm starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        let text = std::fs::read_to_string(&json).expect("swarm wrote the result");
        serde_json::from_str::<Value>(&text).expect("the result is JSON")["values"].clone()
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", self.process.id()))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn counted(result: &Value) -> f64 {
    result["counted"].as_f64().expect("every result counts")
}

#[test]
fn a_flood_arrives_at_every_window() {
    let floor = Floor::start(&[]);
    for window in ["1", "8"] {
        let result = floor.swarm("ws", &["fanout", "--subscribers", "20", "--senders", "2", "--window", window]);
        assert!(counted(&result) >= 21.0, "{result}");
        assert!(result["latency_p50"].as_f64().is_some_and(|p50| p50 > 0.0));
        assert!(result["cpu_per_delivery"].as_f64().is_some());
    }
}

#[test]
fn nothing_is_lost_at_a_fixed_rate() {
    let floor = Floor::start(&[]);
    let paced = floor.swarm("ws", &["fanout", "--subscribers", "10", "--rate", "100"]);
    assert_eq!(paced["lost"], 0.0, "{paced}");
    for arguments in [&["mix", "--users", "13"][..], &["mix", "--users", "13", "--shuffle", "--tick-us", "0"]] {
        let mix = floor.swarm("ws", arguments);
        assert_eq!(mix["lost"], 0.0, "{mix}");
        assert!(counted(&mix) > 0.0);
    }
}

#[test]
fn round_trips_come_back_over_websocket_and_bare_tcp() {
    let floor = Floor::start(&[]);
    assert!(counted(&floor.swarm("ws", &["echo", "--connections", "5"])) >= 5.0);
    let bare = Floor::start(&["--tcp-echo"]);
    assert!(counted(&bare.swarm("tcp", &["tcp-echo", "--connections", "5"])) >= 5.0);
}

#[test]
fn every_connection_of_a_storm_joins_and_idles() {
    let floor = Floor::start(&[]);
    let storm = floor.swarm("ws", &["joinstorm", "--connections", "200"]);
    assert_eq!(counted(&storm), 200.0);
    let idle = floor.swarm("ws", &["idle", "--connections", "50"]);
    assert!(idle["rss_per_connection"].as_f64().is_some(), "{idle}");
}

#[test]
fn stopped_readers_do_not_stop_the_others() {
    let floor = Floor::start(&[]);
    let result = floor.swarm("ws", &["slow", "--subscribers", "20", "--stopped-percent", "10", "--window", "4"]);
    assert!(counted(&result) >= 17.0, "{result}");
    assert!(result["healthy_share"].as_f64().is_some_and(|share| share > 0.0));
}

#[test]
fn the_suite_compares_targets_and_writes_both_reports() {
    let floor = Floor::start(&[]);
    let bare = Floor::start(&["--tcp-echo"]);
    let (json, html) = (floor.file("suite.json"), floor.file("suite.html"));
    let output = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(["all", "--rounds", "2", "--only", "P2,P3,P6", "--subscribers", "10", "--joins", "20"])
        .args(["--duration-secs", "0.2", "--warmup-secs", "0"])
        .args(["--target", &format!("one=ws://{}/,pid={}", floor.address, floor.process.id())])
        .args(["--target", &format!("two=ws://{}/,skip=P6", floor.address)])
        .args(["--target", &format!("tcp=tcp://{}", bare.address)])
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .expect("swarm starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let sections = report["sections"].as_array().unwrap();
    let targets = |index: usize| sections[index]["results"].as_array().unwrap().len();
    assert_eq!(sections.len(), 4, "P2, P3 twice, P6");
    assert_eq!((targets(0), targets(1), targets(3)), (2, 3, 1));
    assert_eq!(sections[1]["baseline"], "tcp");
    assert_eq!(sections[0]["results"][1]["rounds"].as_array().unwrap().len(), 2);
    assert!(std::fs::read_to_string(html).unwrap().contains("<svg"));
}

#[test]
fn the_floor_survives_peers_that_leave_halfway() {
    let floor = Floor::start(&[]);
    for rubbish in [&b"GET / HTTP/1.1\r\n"[..], b"\r\n\r\n\xff\xff", b"GET / HTTP/1.1\r\nSec-WebSocket-Key: a\r\n\r\n\x81"] {
        let mut peer = TcpStream::connect(floor.address).unwrap();
        peer.write_all(rubbish).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).ok();
    }
    assert_eq!(counted(&floor.swarm("ws", &["joinstorm", "--connections", "3"])), 3.0);
}

#[test]
fn mistakes_are_explained() {
    let told = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_swarm")).args(arguments).output().expect("swarm starts");
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(told(&["echo", "--url", "wss://127.0.0.1/"]).contains("ws://"));
    assert!(told(&["echo", "--url", "ws://127.0.0.1:1/"]).contains("cannot connect"));
    assert!(told(&["idle", "--url", "ws://127.0.0.1:1/"]).contains("--pid"));
    assert!(told(&["all", "--target", "a=ws://127.0.0.1:1/", "--only", "P99"]).contains("P10"));
}
