//! The oldest records go where the settings limit the log, by a signed record, and what is left can be verified.

use super::{
    small_state::{STATE, SmallState, enforcer, signed},
    tree,
};
use crate::{
    cases,
    command::wait_for,
    ensure,
    events::{self, Mark},
    fail,
    harness::{Outcome, Test, exists},
};
use serde_json::Value;
use std::fs;

cases!(retention:
    the_oldest_records_go_by_a_signed_record_and_the_rest_verifies,
);

/// The least that `audit.max_bytes` can be.
const LEAST: u64 = 1 << 20;

fn the_oldest_records_go_by_a_signed_record_and_the_rest_verifies(t: &mut Test) -> Outcome {
    tree(t)?;
    let small = SmallState::with("64m", &[("max_bytes", &LEAST.to_string())])?;
    let agent = t.agent(t.policy())?;
    let log = format!("{STATE}/audit/log/0001");
    let kept = wait_for("a checkpoint", 120, || fs::read(format!("{log}/checkpoint")).ok())?;
    let checkpoint = t.at("checkpoint");
    fs::write(&checkpoint, kept)?;
    ensure!(!exists(&format!("{log}/truncation")), "something was removed before there was much");

    // Each is a record of its own, of more than a kilobyte with its clear text.
    let session = agent.probe(&[format!("flood {} 2000 2000", t.at("shut"))])?;
    ensure!(session.lines == ["ok"], "{:?}", session.lines);
    let gone = signed("truncated")?;
    let to = gone["to"].as_u64().unwrap_or_default();
    ensure!(gone["because"] == "bytes" && gone["max_bytes"] == LEAST, "{gone}");
    ensure!(gone["seq"].as_u64() > Some(to), "{gone}");
    // The signed log may be without the first such record already; the live copy has them all.
    let said = events::since(Mark::START)?.into_iter().filter(|record| record["kind"] == "truncated");
    let mut last = 0;
    for one in said {
        let to = one["to"].as_u64().unwrap_or_default();
        ensure!(one["from"] == last && to > last && to.is_multiple_of(256), "from {last}: {one}");
        last = to;
    }
    ensure!(last >= to, "{gone} is not among what the live copy says, which ends with {last}");
    wait_for("the file that names the record", 120, || {
        let file: Value = serde_json::from_slice(&fs::read(format!("{log}/truncation")).ok()?).ok()?;
        // More may have gone while the first part did.
        file["to"].as_u64().filter(|last| *last >= to)
    })?;
    wait_for("the oldest bundle to go", 120, || {
        (!exists(&format!("{log}/tile/entries/000")) && !exists(&format!("{log}/clear/000"))).then_some(())
    })?;
    // The hashes stay, so a checkpoint from before any of it holds.
    let verify = ["audit", "verify", "--checkpoint", &checkpoint];
    let whole =
        wait_for("a log that verifies", 120, || enforcer(&verify).ok().filter(|ran| ran.code == Some(0)));
    let Ok(whole) = whole else { fail!("{}", enforcer(&verify)?) };
    ensure!(
        whole.out.contains("removed by retention") && whole.out.contains("complete from record"),
        "{whole}"
    );
    // More may go while this looks.
    let prove = ["audit", "prove", "--index", "0"];
    let proof = wait_for("a proof", 120, || enforcer(&prove).ok().filter(|ran| ran.code == Some(0)));
    let Ok(proof) = proof else { fail!("{}", enforcer(&prove)?) };
    ensure!(proof.out.contains("index 0"), "{proof}");
    drop(agent);
    small.end()
}
