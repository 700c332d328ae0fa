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
        next += 1;
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
