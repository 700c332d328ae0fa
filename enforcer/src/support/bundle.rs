//! The archive: items in the order of their names, cleaned, with a list of what is in it and what is not.

use super::redact::Secrets;
use crate::event::text::hex;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// The list's name in the archive.
const CONTENTS: &str = "contents.txt";
/// The directory that everything is in.
const TOP: &str = "enforcer-support";

/// One file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Its text.
    Text(String),
    /// Why there is none.
    Missing(String),
}

/// What goes into the archive.
#[derive(Debug, Default)]
pub struct Bundle {
    items: BTreeMap<String, Item>,
    left_out: Vec<String>,
}

impl Bundle {
    /// Adds a file, or why it is missing.
    pub fn put(&mut self, name: &str, item: Result<String, String>) {
        let item = item.map_or_else(Item::Missing, Item::Text);
        self.items.insert(name.to_owned(), item);
    }

    /// Says that something is left out on purpose.
    pub fn leave_out(&mut self, what: &str) {
        self.left_out.push(what.to_owned());
    }

    /// The files with their texts, cleaned: the list first, then by name.
    pub fn files(&self, secrets: &Secrets) -> Vec<(String, String)> {
        let mut list = String::from("What is in this archive, each file with its size and SHA-256:\n\n");
        let (mut files, mut missing) = (Vec::new(), String::new());
        for (name, item) in &self.items {
            match item {
                Item::Text(text) => {
                    let (text, count) = secrets.clean(text);
                    let digest = hex(&Sha256::digest(&text));
                    let cleaned =
                        if count == 0 { String::new() } else { format!("  {count} secrets taken out") };
                    list += &format!("{digest}  {:>9}  {name}{cleaned}\n", text.len());
                    files.push((name.clone(), text));
                }
                Item::Missing(why) => {
                    let (why, _) = secrets.clean(why);
                    missing += &format!("- {name}: {}\n", why.trim().replace('\n', " "));
                }
            }
        }
        if !missing.is_empty() {
            list += &format!("\nWhat could not be had:\n\n{missing}");
        }
        list += "\nWhat is left out on purpose:\n\n";
        self.left_out.iter().for_each(|what| list += &format!("- {what}\n"));
        files.insert(0, (CONTENTS.to_owned(), list));
        files
    }

    /// Writes the archive. Times and owners in it are zero: the same texts make the same bytes.
    pub fn write(&self, secrets: &Secrets, out: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(out);
        for (name, text) in self.files(secrets) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, format!("{TOP}/{name}"), text.as_bytes())?;
        }
        archive.into_inner()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use std::io::Read;

    fn bundle() -> Bundle {
        let mut bundle = Bundle::default();
        bundle.put("z.txt", Ok("last\n".to_owned()));
        bundle.put("a.txt", Ok("first\n".to_owned()));
        bundle.put("m.txt", Err("no daemon\nanswers".to_owned()));
        bundle.leave_out("keys");
        bundle
    }

    #[test]
    fn the_same_facts_make_the_same_archive_in_one_order() {
        let pack = || {
            let mut bytes = Vec::new();
            bundle().write(&Secrets::default(), &mut bytes).expect("packed");
            bytes
        };
        let bytes = pack();
        assert_eq!(bytes, pack());
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            assert_eq!((entry.header().mtime().expect("time"), entry.header().uid().expect("uid")), (0, 0));
            names.push((entry.path().expect("path").display().to_string(), text));
        }
        let [(list, contents), (a, _), (z, _)] = &names[..] else { panic!("{names:?}") };
        assert_eq!([list, a, z], ["contents.txt", "a.txt", "z.txt"].map(|n| format!("{TOP}/{n}")).each_ref());
        assert!(contents.contains("m.txt: no daemon answers") && contents.contains("- keys\n"), "{contents}");
    }

    /// A settings file with a secret wherever one can be, and the secrets.
    fn planted(dir: &std::path::Path) -> (Settings, Vec<String>) {
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("write");
            path.display().to_string()
        };
        let text = format!(
            r#"
            [audit]
            key = "{}"
            [approvals]
            webhook = {{ url = "https://u:planted-webhook-pw@chat.example.com/planted-webhook-path", secret_file = "{}" }}
            [[sinks]]
            name = "http"
            http = {{ url = "https://planted-http-user@h.example.com/x?t=planted-http-query", token_file = "{}", tls = {{ certificate = "/c", key = "{}" }} }}
            [[sinks]]
            name = "otlp"
            otlp = {{ url = "https://o.example.com/planted-otlp-path#planted-otlp-part", token_file = "{}", tls = {{ certificate = "/c", key = "{}" }} }}
            [[sinks]]
            name = "syslog"
            syslog = {{ address = "planted-syslog-user@s.example.com:6514", tls = {{ certificate = "/c", key = "{}" }} }}
            "#,
            file("audit", "planted-audit-key\n"),
            file("webhook", "planted-webhook-secret\n"),
            file("http-token", "planted-http-token\n"),
            file(
                "http-key",
                "-----BEGIN PRIVATE KEY-----\nplanted-http-tls-key\n-----END PRIVATE KEY-----\n"
            ),
            file("otlp-token", " planted-otlp-token "),
            file("otlp-key", "planted-otlp-tls-key"),
            file("syslog-key", "planted-syslog-tls-key"),
        );
        let secrets = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).map(str::to_owned);
        let mut secrets: Vec<String> = secrets.filter(|word| word.starts_with("planted-")).collect();
        for name in ["audit", "webhook", "http-token", "http-key", "otlp-token", "otlp-key", "syslog-key"] {
            let text = std::fs::read_to_string(dir.join(name)).expect("read");
            secrets.extend(text.split_whitespace().filter(|w| w.starts_with("planted-")).map(str::to_owned));
        }
        assert_eq!(secrets.len(), 14, "{secrets:?}");
        (Settings::parse("enforcer.toml", &text).expect("valid"), secrets)
    }

    #[test]
    fn no_secret_that_a_setting_can_carry_gets_into_the_archive() {
        let dir = tempfile::tempdir().expect("dir");
        let (settings, planted) = planted(dir.path());
        let shown = super::super::settings(&settings).to_string();
        for secret in &planted {
            assert!(!shown.contains(secret.as_str()), "{secret} in {shown}");
        }
        assert!(shown.contains("https://h.example.com") || shown.contains("@h.example.com"), "{shown}");
        // Neither where an error, a metric or a line of the journal quotes one.
        let mut bundle = Bundle::default();
        bundle.put("settings.json", Ok(shown));
        bundle.put("journal.txt", Ok(planted.join(" and ")));
        bundle.put("status.json", Err(planted.join(", ")));
        let mut bytes = Vec::new();
        bundle.write(&Secrets::of(&settings), &mut bytes).expect("packed");
        let text = String::from_utf8_lossy(&bytes);
        for secret in &planted {
            assert!(!text.contains(secret.as_str()), "{secret}");
        }
        assert!(text.contains("secrets taken out"));
    }
}
