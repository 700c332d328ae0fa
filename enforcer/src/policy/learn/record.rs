//! One line of the audit log, as far as something can be learned from it.

use super::{Object, Source, address};
use crate::{
    event::text::{escape, is_plain},
    policy::{TCP, UDP},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use core::net::IpAddr;
use enforcer_common::{
    access::{self, file, net},
    address::Address,
};
use serde_json::Value;

/// What a line is.
pub(super) enum Reading {
    /// No JSON object.
    Unreadable,
    /// Nothing about a session.
    Other,
    /// Records of an agent that the log does not have.
    Lost { agent: String, records: u64 },
    /// Something about a session.
    Of { agent: String, source: Source, what: What },
}

/// What a record says about a session.
pub(super) enum What {
    /// It exists.
    Nothing,
    /// Something was refused, so the session was not in audit mode.
    Enforced,
    /// Something would have been refused that no draft may allow.
    Unlearnable { what: String, why: &'static str },
    /// Something would have been refused for want of a rule.
    Wanted { object: Object, operations: u16 },
}

pub(super) fn read(log: &str, line: u64, text: &str) -> Reading {
    if text.trim().is_empty() {
        return Reading::Other;
    }
    let Ok(record @ Value::Object(_)) = serde_json::from_str::<Value>(text) else {
        return Reading::Unreadable;
    };
    let word = |key: &str| record[key].as_str().map(str::to_owned);
    let Some(agent) = word("agent") else { return Reading::Other };
    if record["kind"] == "lost" {
        let count = |key: &str| record[key].as_u64().unwrap_or(0);
        return Reading::Lost { agent, records: count("decisions") };
    }
    let Some(session) = word("session") else { return Reading::Other };
    let source = Source {
        log: log.to_owned(),
        line,
        time: shown(&record["time"]),
        session,
        exe: shown(&record["exe"]),
    };
    Reading::Of { agent, source, what: what(&record) }
}

/// Text that an agent may have chosen, fit to be shown. The log escapes it too; who knows what wrote it.
fn shown(value: &Value) -> String {
    let text = value.as_str().unwrap_or("?");
    if text.chars().all(is_plain) { text.to_owned() } else { escape(text.as_bytes()) }
}

fn what(record: &Value) -> What {
    if record["kind"] != "decision" || record["verdict"] == "allow" {
        return What::Nothing;
    }
    let flags: Vec<&str> =
        record["flags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let operation = shown(&record["operation"]);
    let object = record["object"]["path"].as_str().or(record["object"]["address"].as_str());
    let about = match object {
        Some(_) => format!("{operation} {}", shown(&Value::from(object))),
        None => operation,
    };
    let unlearnable = |why| What::Unlearnable { what: about.clone(), why };
    // The floor is enforced in audit mode, too, so its records need no flag.
    match record["reason"].as_str() {
        Some("floor") => return unlearnable("the floor: no rule can allow it"),
        _ if !flags.contains(&"would") => return What::Enforced,
        Some("rule") => {}
        Some("held") => return unlearnable("a rule leaves it to a person"),
        Some("gains-rights" | "moves-rules") => return unlearnable("a move would have changed rights"),
        _ => return unlearnable("it was not for want of a rule"),
    }
    if record["rule"] != "no rule" {
        return unlearnable("a rule denies it on purpose");
    }
    if ["object-cut", "foreign", "stray", "launching"].iter().any(|flag| flags.contains(flag)) {
        return unlearnable("the record does not name the object as a rule would");
    }
    match wanted(record) {
        Some((object, operations)) => What::Wanted { object, operations },
        None => unlearnable("the record does not name the object as a rule would"),
    }
}

fn wanted(record: &Value) -> Option<(Object, u16)> {
    let object = &record["object"];
    let names: Vec<&str> = record["access"].as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    let bits = |known: &[(u16, &'static str)]| {
        names
            .iter()
            .try_fold(0, |bits, name| Some(bits | access::named(known, name)?))
            .filter(|bits| *bits != 0)
    };
    if let Some(text) = object["address"].as_str() {
        let address_of = match text.parse().ok()? {
            IpAddr::V4(v4) => Address::v4_local(v4.octets()),
            IpAddr::V6(v6) => Address::v6_local(v6.octets()),
        };
        let protocol = match object["protocol"].as_str()? {
            "tcp" => TCP,
            "udp" => UDP,
            _ => return None,
        };
        let port = u16::try_from(object["port"].as_u64()?).ok()?;
        return Some((address(&address_of, port, protocol), bits(&net::NAMES)?));
    }
    let path = match object["path_b64"].as_str() {
        Some(text) => BASE64_STANDARD.decode(text).ok()?,
        None => object["path"].as_str()?.as_bytes().to_vec(),
    };
    let rest = path.strip_prefix(b"/")?;
    let bad = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if !rest.is_empty() && rest.split(|byte| *byte == b'/').any(bad) {
        return None;
    }
    Some((Object::Path(rest.to_vec()), bits(&file::NAMES)?))
}
