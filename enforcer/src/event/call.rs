//! What a record says of a system call.

use super::{
    decode::Event,
    flat::{Flat, array, optional, string, value},
    text::{escape, plain},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use enforcer_common::calls::{Detail, KILLED, STOPPED, UNDECIDED, find};
use zerocopy::FromBytes;

/// Puts the call's name or number, its arguments, its text, what it returned and what became of the caller.
pub(super) fn put(out: &mut Flat, event: &Event<'_>) {
    let number = event.header.argument;
    let known = find(number);
    let Ok((detail, text)) = Detail::read_from_prefix(event.target) else {
        out.put_object("call", |call| call.put("number", |out| value(out, &number)));
        return;
    };
    let shown = &detail.arguments[..known.map_or(detail.arguments.len(), |call| call.arguments)];
    out.put_object("call", |call| {
        call.put("arguments", |out| {
            array(out, shown.iter(), |out, argument| string(out, &format!("{argument:#x}")));
        });
        call.put("bits", |out| value(out, &detail.bits));
        call.put("name", |out| optional(out, known.map(|call| call.name)));
        call.put("number", |out| value(out, &number));
        call.put("result", |out| match detail.result {
            UNDECIDED => out.extend(b"null"),
            result => value(out, &result),
        });
        if !text.is_empty() {
            match plain(text) {
                Some(text) => call.put("text", |out| string(out, text)),
                None => {
                    call.put("text", |out| string(out, &escape(text)));
                    call.put("text_b64", |out| string(out, &BASE64_STANDARD.encode(text)));
                }
            }
        }
        call.put("then", |out| match detail.then {
            STOPPED => string(out, "stopped"),
            KILLED => string(out, "killed"),
            _ => out.extend(b"null"),
        });
    });
}

#[cfg(test)]
mod tests {
    use super::super::{
        context::{Context, PolicyNote, RuleNote},
        decode::{Event, tests::record},
        json,
    };
    use enforcer_common::{
        calls::{Detail, KILLED, UNDECIDED},
        event::kind,
    };
    use serde_json::{Value, json};
    use zerocopy::IntoBytes;

    struct Nothing;
    impl Context for Nothing {
        fn agent(&self, _: u32) -> Option<String> {
            None
        }
        fn policy(&self, _: u32) -> Option<PolicyNote> {
            None
        }
        fn break_glass(&self, _: u32, _: u64) -> Option<String> {
            None
        }
        fn rules(&self, _: &Event<'_>) -> Option<Vec<RuleNote>> {
            None
        }
    }

    fn shown(number: u32, result: i64, then: u32, text: &[u8]) -> Value {
        let detail = Detail { arguments: [1, 2, 0xff, 4, 5, 6], result, bits: 64, then };
        let bytes = [detail.as_bytes(), text].concat();
        let length = bytes.len() as u16;
        let bytes = record(&bytes, b"/bin/x", |h| {
            (h.kind, h.argument, h.object_len, h.target_len) = (kind::SYSTEM_CALL, number, 0, length);
            (h.verdict, h.reason, h.operation, h.error) = (0, 0, 0, -libc::EPERM);
        });
        json::event(&Event::try_from(&bytes[..]).expect("a record"), 0, &Nothing)
    }

    #[test]
    fn a_call_has_its_name_and_as_many_arguments_as_it_takes() {
        let value = shown(319, -1, 0, b"a\n");
        assert_eq!((&value["kind"], &value["error"]), (&json!("system-call"), &json!("EPERM")));
        assert!(value["verdict"].is_null() && value["operation"].is_null() && value["target"].is_null());
        assert_eq!(
            value["call"],
            json!({
                "name": "memfd_create", "number": 319, "arguments": ["0x1", "0x2"], "bits": 64, "result": -1,
                "text": "a\\n", "text_b64": "YQo=", "then": null,
            })
        );
    }

    #[test]
    fn what_is_not_known_of_a_call_is_null() {
        let call = &shown(1, UNDECIDED, KILLED, b"")["call"];
        assert_eq!(
            (&call["name"], &call["number"], &call["result"]),
            (&Value::Null, &json!(1), &Value::Null)
        );
        assert_eq!((call["arguments"].as_array().map(Vec::len), &call["then"]), (Some(6), &json!("killed")));
        assert!(call["text"].is_null());
    }
}
