//! What approving would allow, in words.

use super::{
    canonical::stamp,
    request::{Request, Shown, What},
    shape::{COUNTED, Shape},
};
use crate::event::text::escape;

/// The operation as a verb phrase, with its object.
pub fn act(what: &What) -> String {
    let object = what.object.as_str();
    let target = what.target.as_ref().map_or("another name", |target| target.as_str());
    match what.operation.as_str() {
        "open" => format!("open {object} to {}", rights(&what.access)),
        "create" => format!("create the file {object}"),
        "mkdir" => format!("make the directory {object}"),
        "symlink" => format!("make the symbolic link {object}"),
        "link" => format!("give {object} the further name {target}"),
        "unlink" => format!("delete the file {object}"),
        "rmdir" => format!("delete the directory {object}"),
        "rename" => format!("rename {object} to {target}"),
        "truncate" => format!("cut the contents of {object}"),
        "chmod" | "chown" | "setattr" | "xattr" => {
            format!("change mode, owner, times or attributes of {object}")
        }
        "exec" => format!("run the program {object}"),
        "exec-arguments" => format!("run the program {object} as {}", command(&what.arguments)),
        "map" => format!("load {object} as code"),
        "connect" | "unix-connect" => format!("connect to {object}"),
        "send" | "unix-send" => format!("send to {object}"),
        "bind" => format!("bind to {object}"),
        "listen" => format!("listen on {object}"),
        other => format!("do `{}` to {object}", escape(other.as_bytes())),
    }
}

/// Each argument in quotation marks: a space in one is no end of it.
fn command(arguments: &[Shown]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|one| format!("“{}”", one.as_str())).collect();
    if quoted.is_empty() { "a command without a word".to_owned() } else { quoted.join(" ") }
}

fn rights(access: &[String]) -> String {
    let words: Vec<String> = access.iter().map(|right| escape(right.as_bytes())).collect();
    if words.is_empty() { "use it".to_owned() } else { words.join(" and ") }
}

/// What approving in a certain shape would allow, and what not.
pub fn allows(request: &Request, shape: Shape) -> String {
    let minutes = COUNTED / 60;
    let often = match shape {
        Shape::Once => format!("one time, within {minutes} minutes"),
        Shape::Times(n) => format!("{n} times, within {minutes} minutes"),
        Shape::Until(at) => format!("as often as it likes until {}", stamp(at)),
        Shape::Session => "as often as it likes while this session lasts".to_owned(),
    };
    if request.what.operation == "exec-arguments" {
        return format!(
            "Process {} of session {} of agent {} may {}, this time. Whoever runs it again is asked about again.",
            request.who.process,
            escape(request.who.session.as_bytes()),
            escape(request.who.agent.as_bytes()),
            act(&request.what),
        );
    }
    format!(
        "Every process of session {} of agent {} may {}, {often}. Another object, another operation and another \
         session are asked about again; so is this one if the object is replaced.",
        escape(request.who.session.as_bytes()),
        escape(request.who.agent.as_bytes()),
        act(&request.what),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::request::tests::request;

    #[test]
    fn an_approval_says_who_what_and_how_often() {
        let words = allows(&request(|_| ()), Shape::Once);
        assert!(
            words.contains("agent billing-bot may delete the file /workspace/ledger/2026.csv, one time"),
            "{words}"
        );
        let until = allows(&request(|_| ()), Shape::Until(1_800_000_000));
        assert!(until.contains("as often as it likes until 2027-01-15T08:00:00Z"), "{until}");
    }

    #[test]
    fn every_operation_that_can_be_held_has_words() {
        for (_, name) in enforcer_common::event::operation::ALL.iter().filter(|(number, _)| *number < 40) {
            let what = What {
                operation: (*name).to_owned(),
                object: Shown::of(b"/a\n"),
                target: Some(Shown::of(b"/b")),
                access: vec!["read".to_owned()],
                ..What::default()
            };
            let words = act(&what);
            let known = *name == "socket" || !words.contains('`');
            assert!(known && words.contains("/a\\n"), "{name}: {words}");
        }
    }
}
