//! Any bytes as a record from a ring: an event or a malformed one, and either is one line of JSON.
#![no_main]

use enforcer::event::{
    decode::Event,
    json::{self, Context, PolicyNote, RuleNote},
};
use enforcer_common::event::kind;
use libfuzzer_sys::fuzz_target;

struct Nobody;

impl Context for Nobody {
    fn break_glass(&self, _: u32, _: u64) -> Option<String> {
        None
    }

    fn agent(&self, slot: u32) -> Option<String> {
        slot.is_multiple_of(2).then(|| format!("agent-{slot}"))
    }
    fn policy(&self, id: u32) -> Option<PolicyNote> {
        id.is_multiple_of(2).then(|| PolicyNote { id: "p".to_owned(), version: 1, digest: "00".repeat(32) })
    }
    fn rules(&self, event: &Event<'_>) -> Option<Vec<RuleNote>> {
        let text = String::from_utf8_lossy(event.object).into_owned();
        (event.header.policy != 1).then(|| vec![RuleNote { because: Some(text.clone()), text }])
    }
}

fuzz_target!(|data: &[u8]| {
    // As is, and with a header that says what is there: random lengths hardly ever do.
    let mut fitted = data.to_vec();
    if let Some(length) = fitted.get_mut(4..8) {
        length.copy_from_slice(&(data.len() as u32).to_le_bytes());
        fitted[..2].copy_from_slice(&enforcer_common::event::VERSION.to_le_bytes());
    }
    // What only records of system calls have is read out of the second name.
    let mut call = fitted.clone();
    if let Some(bytes) = call.get_mut(2..4) {
        bytes.copy_from_slice(&kind::SYSTEM_CALL.to_le_bytes());
    }
    for bytes in [data, &fitted, &call] {
        let value = match Event::try_from(bytes) {
            Ok(event) => json::event(&event, 0, &Nobody),
            Err(malformed) => {
                assert_eq!(malformed.raw, bytes);
                json::malformed(&malformed, 0)
            }
        };
        let line = value.to_string();
        assert!(!line.contains(['\n', '\u{1b}', '\u{202e}']), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).expect("JSON"), value);
    }
});
