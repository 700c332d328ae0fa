//! The environment of a session: a short list, never what the caller or the daemon happen to have.

use super::identity::Identity;
use crate::{
    control::message::{Bytes, ExecRequest},
    settings::Launch,
};

/// Variables whose meaning is the daemon's.
const OURS: &[u8] = b"ENFORCER_";

/// The variables that `request` leads to, or what is wrong with the ones that it names.
pub fn environment(
    request: &ExecRequest,
    settings: &Launch,
    identity: &Identity,
    session: &str,
) -> Result<Vec<(Bytes, Bytes)>, String> {
    let lang = request.lang.as_deref().filter(|v| is_word(v)).unwrap_or(&settings.lang);
    let mut all: Vec<(Bytes, Bytes)> = vec![
        ("PATH".into(), settings.path.as_str().into()),
        ("HOME".into(), Bytes(identity.home.clone())),
        ("USER".into(), identity.name.as_str().into()),
        ("LOGNAME".into(), identity.name.as_str().into()),
        ("LANG".into(), lang.into()),
    ];
    if request.terminal {
        let term = request.term.as_deref().filter(|v| is_word(v)).unwrap_or("dumb");
        all.push(("TERM".into(), term.into()));
    }
    for (name, value) in &request.environment {
        check(&name.0, &value.0)?;
        all.retain(|(known, _)| known != name);
        all.push((name.clone(), value.clone()));
    }
    all.push(("ENFORCER_AGENT".into(), request.agent.as_str().into()));
    all.push(("ENFORCER_SESSION".into(), session.into()));
    Ok(all)
}

/// A value that no program can take for anything but a word.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+@".contains(&b))
}

fn check(name: &[u8], value: &[u8]) -> Result<(), String> {
    let shown = crate::event::text::escape(name);
    if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
        return Err(format!("{shown:?} cannot be an environment variable"));
    }
    if name.starts_with(OURS) {
        return Err(format!("variables that begin with ENFORCER_ cannot be set ({shown})"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ExecRequest {
        ExecRequest {
            agent: "bot".to_owned(),
            command: vec!["true".into()],
            environment: vec![],
            directory: None,
            task: None,
            detach: false,
            terminal: false,
            term: None,
            lang: None,
        }
    }

    fn built(request: &ExecRequest) -> Result<Vec<String>, String> {
        let identity =
            Identity { uid: 5, gid: 5, groups: vec![], name: "u".to_owned(), home: b"/h".to_vec() };
        let all = environment(request, &Launch::default(), &identity, "0123")?;
        let text = |bytes: &Bytes| String::from_utf8_lossy(&bytes.0).into_owned();
        Ok(all.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect())
    }

    #[test]
    fn a_session_gets_a_short_list_and_nothing_of_the_callers() {
        assert_eq!(
            built(&request()).expect("valid"),
            [
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "HOME=/h",
                "USER=u",
                "LOGNAME=u",
                "LANG=C.UTF-8",
                "ENFORCER_AGENT=bot",
                "ENFORCER_SESSION=0123"
            ]
        );
    }

    #[test]
    fn a_terminal_and_a_language_pass_only_as_plain_words() {
        let mut wanted = request();
        (wanted.terminal, wanted.term) = (true, Some("xterm-256color".to_owned()));
        wanted.lang = Some("de_DE.UTF-8".to_owned());
        let all = built(&wanted).expect("valid");
        assert!(all.contains(&"TERM=xterm-256color".to_owned()));
        assert!(all.contains(&"LANG=de_DE.UTF-8".to_owned()));
        (wanted.term, wanted.lang) = (Some("\x1b[2J".to_owned()), Some("a/../b".to_owned()));
        let all = built(&wanted).expect("valid");
        assert!(all.contains(&"TERM=dumb".to_owned()) && all.contains(&"LANG=C.UTF-8".to_owned()));
    }

    #[test]
    fn named_variables_replace_the_usual_ones() {
        let mut wanted = request();
        wanted.environment = vec![("HOME".into(), "/work".into()), ("A".into(), "=b".into())];
        let all = built(&wanted).expect("valid");
        assert_eq!(all.iter().filter(|v| v.starts_with("HOME=")).count(), 1);
        assert!(all.contains(&"HOME=/work".to_owned()) && all.contains(&"A==b".to_owned()));
    }

    #[test]
    fn variables_that_cannot_be_or_are_the_daemons_are_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0"), ("ENFORCER_AGENT", "x")] {
            let mut wanted = request();
            wanted.environment = vec![(name.into(), value.into())];
            assert!(built(&wanted).is_err(), "{name:?}");
        }
    }
}
