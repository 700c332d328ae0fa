//! What of the settings is secret, told by type: every field is named here, so that a new one does not get out by
//! being forgotten. And the secrets themselves, which are taken out of every text, wherever they got into it.

use crate::{
    approvals::webhook,
    audit,
    settings::{self as all, Settings},
    sink::settings::{HttpSettings, OtlpSettings, SinkSettings, SyslogSettings, TlsSettings},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What stands where something was taken out.
const LEFT_OUT: &str = "[left out]";
/// What is shorter is not looked for: it would be found everywhere, and is no secret that keeps anything.
const SHORTEST: usize = 6;
/// The same for a part of an address's path: ordinary words stand there, too.
const PIECE: usize = 12;

/// The settings as JSON, addresses cut down to scheme, host and port.
pub fn settings(settings: &Settings) -> Value {
    let mut shown = settings.clone();
    addresses(&mut shown, &mut |url| *url = public_part(url).0);
    // They came from text, so they go back.
    serde_json::to_value(&shown).unwrap_or_default()
}

/// Calls `f` with every address of the settings: what may have a user, a password or a token in it. All other fields
/// are named so that a new one is thought about.
fn addresses(settings: &mut Settings, f: &mut dyn FnMut(&mut String)) {
    let Settings {
        paths: _,
        agents: _,
        launch: _,
        control: _,
        audit,
        approvals,
        trust: _,
        break_glass: _,
        daemon: _,
        metrics: all::Metrics { socket: _, address: _ },
        sinks,
        alerts: _,
    } = settings;
    let all::Approvals {
        timeout_seconds: _,
        refusal_seconds: _,
        per_agent: _,
        strikes: _,
        cool_down_seconds: _,
        local_operator: _,
        two_persons: _,
        webhook,
    } = approvals;
    if let Some(webhook::Target { url, secret_file: _ }) = webhook {
        f(url);
    }
    for witness in &mut audit.witnesses {
        f(&mut witness.url);
    }
    for sink in sinks {
        let SinkSettings {
            name: _,
            format: _,
            kinds: _,
            start: _,
            redact: _,
            checkpoints: _,
            batch: _,
            file: _,
            syslog,
            http,
            otlp,
            journald: _,
        } = sink;
        if let Some(SyslogSettings { address, tls: _ }) = syslog {
            f(address);
        }
        if let Some(HttpSettings { url, style: _, token_file: _, tls: _ }) = http {
            f(url);
        }
        if let Some(OtlpSettings { url, encoding: _, token_file: _, tls: _ }) = otlp {
            f(url);
        }
    }
}

/// The files that the settings name and that hold secrets.
fn files(settings: &Settings) -> Vec<PathBuf> {
    let mut out = vec![audit::secret_key(settings)];
    out.extend(settings.approvals.webhook.iter().map(|webhook| webhook.secret_file.clone()));
    let key = |tls: &TlsSettings| {
        let TlsSettings { ca: _, certificate: _, key, name: _ } = tls;
        key.clone()
    };
    out.extend(settings.audit.witnesses.iter().filter_map(|witness| key(&witness.tls)));
    for sink in &settings.sinks {
        if let Some(HttpSettings { token_file, tls, .. }) = &sink.http {
            out.extend([token_file.clone(), key(tls)].into_iter().flatten());
        }
        if let Some(OtlpSettings { token_file, tls, .. }) = &sink.otlp {
            out.extend([token_file.clone(), key(tls)].into_iter().flatten());
        }
        out.extend(sink.syslog.iter().filter_map(|syslog| key(syslog.tls.as_ref()?)));
    }
    out
}

/// An address without what may be secret in it, and the parts that may.
fn public_part(address: &str) -> (String, Vec<String>) {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let password = user.split_once(':').map_or("", |(_, password)| password);
    let path = path.trim_start_matches('/');
    let cut = |text: &str| if text.is_empty() { String::new() } else { LEFT_OUT.to_owned() };
    let slash = if path.is_empty() { "" } else { "/" };
    // Also what stands alone between marks: an error may quote a part.
    let pieces = path.split(['/', '?', '#', '&', '=']).filter(|piece| piece.len() >= PIECE && *piece != path);
    let secret = [user, password, path].into_iter().chain(pieces).filter(|part| !part.is_empty());
    (
        format!("{scheme}{}{host}{slash}{}", if user.is_empty() { "" } else { "[left out]@" }, cut(path)),
        secret.map(str::to_owned).collect(),
    )
}

/// Everything that is known to be secret.
#[derive(Debug, Default)]
pub struct Secrets {
    texts: Vec<String>,
}

impl Secrets {
    /// Those of the settings and of the files that they name, as far as they can be read: what whoever makes the
    /// bundle cannot read does not get into it this way either.
    pub fn of(settings: &Settings) -> Self {
        let mut texts = Vec::new();
        addresses(&mut settings.clone(), &mut |url| texts.extend(public_part(url).1));
        files(settings).iter().for_each(|file| texts.extend(parts(file)));
        texts.retain(|text| text.len() >= SHORTEST);
        // The longest first: a part of it does not make it unknown.
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        Self { texts }
    }

    /// The text without them, and how many places were cleaned.
    pub fn clean(&self, text: &str) -> (String, usize) {
        self.texts.iter().fold((text.to_owned(), 0), |(text, count), secret| {
            match text.matches(secret.as_str()).count() {
                0 => (text, count),
                more => (text.replace(secret.as_str(), LEFT_OUT), count + more),
            }
        })
    }
}

/// A file's text as a whole and line by line: a key in PEM may be quoted in part.
fn parts(file: &Path) -> Vec<String> {
    let Ok(bytes) = fs::read(file) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    std::iter::once(text.trim()).chain(lines).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_down_to_scheme_host_and_port() {
        for (address, shown, secret) in [
            ("https://example.com", "https://example.com", vec![]),
            ("https://example.com:8443/", "https://example.com:8443", vec![]),
            (
                "https://hooks.example.com/T0/B1/xyz",
                "https://hooks.example.com/[left out]",
                vec!["T0/B1/xyz"],
            ),
            ("https://a:hunter2@h/", "https://[left out]@h", vec!["a:hunter2", "hunter2"]),
            ("http://h?token=s3cret", "http://h/[left out]", vec!["?token=s3cret"]),
            ("siem.example.com:6514", "siem.example.com:6514", vec![]),
        ] {
            let secret: Vec<String> = secret.into_iter().map(str::to_owned).collect();
            assert_eq!(public_part(address), (shown.to_owned(), secret), "{address}");
        }
    }
}
