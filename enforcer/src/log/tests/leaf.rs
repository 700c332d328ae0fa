//! Leaves lose nothing, and fit.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn place() -> Place {
    Place { host: "h".to_owned(), boot: "b".to_owned() }
}

fn salts() -> impl FnMut() -> Salt {
    let mut next = 0u8;
    move || {
        next = next.wrapping_add(1);
        [next; 16]
    }
}

fn sealed(record: &Value, seq: u64) -> Sealed {
    seal(record.as_object().expect("object"), &place(), seq, &mut salts())
}

fn with_own(record: &Value, seq: u64) -> Value {
    let mut whole = record.clone();
    let own = json!({"host": "h", "boot": "b", "leaf": 1, "seq": seq});
    whole.as_object_mut().expect("object").extend(own.as_object().expect("object").clone());
    whole
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn paths_and_arguments_are_sealed_and_the_rest_is_readable() {
    let record =
        json!({"kind": "decision", "exe": "/usr/bin/cat", "object": {"path": "/a/.env", "inode": 7}});
    let sealed = sealed(&record, 3);
    let leaf = text(&sealed.leaf);
    assert!(leaf.starts_with(r#"{"boot":"b","exe":{"sealed":""#), "{leaf}");
    assert!(leaf.contains(r#""kind":"decision","leaf":1,"object":{"inode":7,"path":{"sealed":"#), "{leaf}");
    assert!(!leaf.contains("/usr/bin/cat") && !leaf.contains(".env"));
    assert!(text(&sealed.clear).contains(r#"","/a/.env"]"#));
    let opened = open(&sealed.leaf, &sealed.clear, 3).expect("opens");
    assert_eq!((Value::Object(opened.record), opened.withheld), (with_own(&record, 3), 0));
    assert_eq!(open(&sealed.leaf, b"", 3).expect("opens").withheld, 2);
}

#[test]
fn an_argument_vector_of_128_kib_fits() {
    let argv: Vec<String> = (0..32).map(|_| "x".repeat(4096)).collect();
    let record = json!({"kind": "launched", "command": argv});
    let sealed = sealed(&record, 0);
    assert!(sealed.leaf.len() < 300 && sealed.clear.len() > 128 << 10);
    let opened = open(&sealed.leaf, &sealed.clear, 0).expect("opens");
    assert_eq!(Value::Object(opened.record), with_own(&record, 0));
}

#[test]
fn a_record_with_too_many_fields_is_sealed_as_a_whole() {
    let fields: Map<String, Value> =
        (0..2000).map(|n| (format!("field{n:04}"), json!("x".repeat(60)))).collect();
    let record = Value::Object(fields);
    let sealed = sealed(&record, 9);
    assert!(sealed.leaf.len() < 300, "{}", sealed.leaf.len());
    let opened = open(&sealed.leaf, &sealed.clear, 9).expect("opens");
    assert_eq!(Value::Object(opened.record), with_own(&record, 9));
    assert_eq!(open(&sealed.leaf, b"", 9).expect("opens").withheld, 1);
}

#[test]
fn another_value_salt_place_or_index_is_found() {
    let record = json!({"exe": "/bin/a", "object": {"path": "/b"}});
    let sealed = sealed(&record, 1);
    let clear = text(&sealed.clear);
    for (from, to) in [("/bin/a", "/bin/b"), ("AQEB", "AQEC"), ("/object/path", "/exe"), ("/exe", "/x")] {
        let other = clear.replacen(from, to, 1);
        assert_ne!(other, clear);
        assert!(open(&sealed.leaf, other.as_bytes(), 1).is_err(), "{other}");
    }
    let spaced = clear.replacen(':', ": ", 1);
    assert_eq!(open(&sealed.leaf, spaced.as_bytes(), 1), Err(LeafError::ClearMalformed));
    assert_eq!(open(&sealed.leaf, &sealed.clear, 2), Err(LeafError::Sequence("1".to_owned())));
    assert_eq!(open(b"{}", b"", 0), Err(LeafError::Version(String::new())));
    assert_eq!(open(b"{\"leaf\": 1}", b"", 0), Err(LeafError::NotCanonical));
}

proptest! {
    #[test]
    fn nothing_is_lost_whatever_an_agent_calls_things(
        exe: String, path in proptest::collection::vec(any::<u8>(), 0..5000), inode: u64, seq: u64
    ) {
        let record = json!({
            "kind": "decision", "exe": exe, "zone": null,
            "object": {
                "path": crate::event::text::escape(&path), "path_b64": BASE64_STANDARD.encode(&path), "inode": inode,
            },
        });
        let sealed = sealed(&record, seq);
        prop_assert!(sealed.leaf.len() <= LONGEST);
        prop_assert!(!sealed.leaf.contains(&b'\n') && !sealed.clear.contains(&b'\n'));
        let opened = open(&sealed.leaf, &sealed.clear, seq).expect("opens");
        prop_assert_eq!(Value::Object(opened.record), with_own(&record, seq));
    }

    #[test]
    fn no_bytes_make_it_panic(leaf: Vec<u8>, clear: Vec<u8>) {
        let _ = open(&leaf, &clear, 0);
        let _ = open(br#"{"leaf":1,"seq":0}"#, &clear, 0);
    }
}

/// A record of the kernel as the log takes it.
fn shown(event: &crate::event::decode::Event<'_>) -> crate::event::flat::Flat {
    use crate::event::{decode::Event, flat::Flat, json};
    struct Nobody;
    impl json::Context for Nobody {
        fn agent(&self, _: u32) -> Option<String> {
            Some("bot".to_owned())
        }
        fn policy(&self, _: u32) -> Option<json::PolicyNote> {
            None
        }
        fn break_glass(&self, _: u32, _: u64) -> Option<String> {
            Some("\"lifted\"".to_owned())
        }
        fn rules(&self, _: &Event<'_>) -> Option<Vec<json::RuleNote>> {
            let because = Some("a \"reason\"\n".repeat(120));
            Some(vec![json::RuleNote { text: "deny \\ **".to_owned(), because }])
        }
    }
    let mut flat = Flat::default();
    json::write(event, None, 0, &Nobody, &mut flat);
    flat
}

/// Records of the kernel as they come, some of them long.
fn flats() -> Vec<crate::event::flat::Flat> {
    use crate::event::{decode::Event, decode::tests::record};
    use enforcer_common::{
        calls::{ARGUMENTS, Detail, STOPPED},
        event::kind,
    };
    use zerocopy::IntoBytes;
    let long = [b"/".as_slice(), &b"d/".repeat(1_500), b"\xff"].concat();
    let objects: [&[u8]; 4] = [b"/w/x", b"/w/{\"sealed\":\"x\"}\n", b"", &long];
    let exes: [&[u8]; 3] = [b"/usr/bin/cat", b"\x1b[2J", b""];
    let decisions = objects.iter().flat_map(|object| exes.map(|exe| (*object, exe))).map(|(object, exe)| {
        record(object, exe, |h| {
            h.above[0] = enforcer_common::event::Above { tgid: 7, reserved: 0, started: 8 };
            h.comm[..3].copy_from_slice(b"a\"b");
            h.session = [1, 2];
        })
    });
    let calls = [b"/secret".as_slice(), b"\xff\n", b""].into_iter().map(|text| {
        let detail = Detail { arguments: [1; ARGUMENTS], result: -1, bits: 64, then: STOPPED };
        record(&[detail.as_bytes(), text].concat(), b"/bin/x", |h| {
            (h.kind, h.argument, h.verdict, h.reason, h.operation) = (kind::SYSTEM_CALL, 319, 0, 0, 0);
            (h.object_len, h.target_len) = (0, (size_of::<Detail>() + text.len()) as u16);
        })
    });
    let mut out = Vec::new();
    for bytes in decisions.chain(calls) {
        out.push(shown(&Event::try_from(&bytes[..]).expect("a record")));
    }
    out
}

/// The leaf of a record of the kernel and its text, in a room that has served others before.
fn both(flat: &crate::event::flat::Flat, seq: u64, salts: &mut dyn FnMut() -> Salt) -> (Sealed, Disclosed) {
    let mut room = Room { leaf: vec![b'x'; 9], clear: vec![b'y'; 9], shown: vec![b'z'; 9], kind: 3..5 };
    seal_flat(flat, &place(), seq, true, salts, &mut room);
    let text = String::from_utf8(room.shown).expect("text");
    let kind = text[room.kind.clone()].to_owned();
    (Sealed { leaf: room.leaf, clear: room.clear }, Disclosed { text, kind })
}

#[test]
fn records_of_the_kernel_are_sealed_the_same_with_and_without_a_tree_of_values() {
    for (seq, flat) in (0u64..).zip(flats()) {
        let salts = || {
            let mut n = 0;
            move || {
                n += 1;
                [n; 16]
            }
        };
        let (sealed, _) = both(&flat, seq, &mut salts());
        assert_eq!(sealed, seal(&flat.to_map(), &place(), seq, &mut salts()));
        let mut room = Room::default();
        seal_flat(&flat, &place(), seq, false, &mut salts(), &mut room);
        assert_eq!((room.leaf, room.clear, room.shown), (sealed.leaf, sealed.clear, vec![]));
    }
}

#[test]
fn both_names_of_a_rename_are_sealed() {
    use crate::event::{decode::Event, decode::tests::record};
    let names = [b"/w/secret".as_slice(), b"/w/other-secret\n"];
    let bytes = record(&names.concat(), b"/bin/mv", |h| {
        (h.object_len, h.target_len) = (names[0].len() as u16, names[1].len() as u16);
    });
    let flat = shown(&Event::try_from(&bytes[..]).expect("a record"));
    let (sealed, _) = both(&flat, 1, &mut || [9; 16]);
    let [leaf, clear] = [&sealed.leaf, &sealed.clear].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(!leaf.contains("secret"), "{leaf}");
    for place in ["/object/path", "/target", "/target_b64"] {
        assert!(clear.contains(&format!(r#""{place}":"#)), "{place}: {clear}");
    }
}

#[test]
fn the_text_of_a_system_call_is_sealed() {
    let with_text = flats().into_iter().find(|flat| flat.get("call").is_some()).expect("a call");
    let (sealed, _) = both(&with_text, 1, &mut || [9; 16]);
    let [leaf, clear] = [&sealed.leaf, &sealed.clear].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(!leaf.contains("secret") && leaf.contains(r#""name":"memfd_create""#), "{leaf}");
    assert!(clear.contains(r#""/call/text":"#) && clear.contains("/secret"), "{clear}");
    assert_eq!(open(&sealed.leaf, b"", 1).expect("opens").withheld, 3);
}

#[test]
fn what_is_disclosed_as_text_is_what_is_opened() {
    for (seq, flat) in (0u64..).zip(flats()) {
        let (sealed, shown) = both(&flat, seq, &mut || [9; 16]);
        assert_eq!(shown.text[shown.place_of_kind()], shown.kind);
        assert_eq!(Some(&shown), disclose(&sealed.leaf, &sealed.clear, seq).as_ref());
        assert_eq!(shown, show(&flat.to_map(), &place(), seq));
        for clear in [&sealed.clear[..], b""] {
            let opened = open(&sealed.leaf, clear, seq).expect("opens").record;
            let disclosed = disclose(&sealed.leaf, clear, seq).expect("at a glance");
            let opened_kind = opened["kind"].as_str().unwrap_or_default().to_owned();
            assert_eq!(serde_json::from_str::<Map<String, Value>>(&disclosed.text).expect("JSON"), opened);
            assert_eq!(opened_kind, disclosed.kind);
        }
        assert_eq!(disclose(&sealed.leaf, &sealed.clear, seq + 1), None);
        // Whatever is changed in the clear part is no longer what the leaf commits to.
        for at in 0..sealed.clear.len().min(400) {
            let mut clear = sealed.clear.clone();
            clear[at] ^= 1;
            assert_eq!(disclose(&sealed.leaf, &clear, seq), None, "byte {at}");
        }
    }
}
