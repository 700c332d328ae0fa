//! A receiver that reads with OpenTelemetry's own definitions.

use crate::world::{World, record, wait_until};
use enforcer::audit::Sink;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp_receiver.py");

#[test]
fn an_otlp_receiver_that_fails_at_random_gets_every_record_in_order() {
    deliver("protobuf");
}

#[test]
fn the_same_in_json() {
    deliver("json");
}

fn deliver(encoding: &str) {
    let Some(python) = std::env::var_os("ENFORCER_TEST_PYTHON") else {
        eprintln!("SKIPPED: ENFORCER_TEST_PYTHON is not set; `cargo xtask test` sets it");
        return;
    };
    let world = World::new("");
    let out = world.dir.path().join("received");
    let mut receiver = Command::new(python)
        .args([SCRIPT, &out.display().to_string(), "30"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut port = String::new();
    BufReader::new(receiver.stdout.take().expect("piped")).read_line(&mut port).expect("port");
    let url = format!("http://127.0.0.1:{}/v1/logs", port.trim());
    world.set(&format!("[[sinks]]\nname='otel'\nbatch=50\notlp={{url='{url}',encoding='{encoding}'}}"));
    let mut recorder = world.recorder();
    (0..400).for_each(|n| recorder.append(&record(n)));
    recorder.flush().expect("flush");
    let seqs = || -> Vec<u64> {
        let text = fs::read_to_string(&out).unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter_map(|record| record["seq"].as_u64()).collect()
    };
    let size = wait_until(|| {
        let came = world.has_come(&seqs()).map_err(|error| format!("{error}; {:?}", recorder.sinks()))?;
        (came >= 401).then_some(came).ok_or_else(|| format!("only {came} records"))
    });
    drop(recorder);
    receiver.kill().and_then(|()| receiver.wait()).expect("kill");
    world.check(&seqs(), size);
}
