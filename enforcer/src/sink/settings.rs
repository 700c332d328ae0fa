//! `[[sinks]]` in the settings file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// More would be a mistake.
const MOST: usize = 16;

/// One sink: a name, what it gets, and exactly one of the targets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    /// Names the cursor, the status and the records about it.
    pub name: String,
    /// How records are written.
    #[serde(default)]
    pub format: Format,
    /// Only records of these kinds, `["alert"]` for example; all without it.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Where a sink without a cursor begins.
    #[serde(default)]
    pub start: Start,
    /// Withhold paths, arguments and whatever else is sealed.
    #[serde(default)]
    pub redact: bool,
    /// Whether checkpoints are delivered too. By default they are, unless only some kinds are.
    pub checkpoints: Option<bool>,
    /// Records in one delivery, at most.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// A file of JSON lines.
    pub file: Option<FileSettings>,
    /// Syslog over TCP or TLS.
    pub syslog: Option<SyslogSettings>,
    /// HTTP POST.
    pub http: Option<HttpSettings>,
    /// OpenTelemetry logs over HTTP.
    pub otlp: Option<OtlpSettings>,
    /// The journal.
    pub journald: Option<JournaldSettings>,
}

fn default_batch() -> usize {
    500
}

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// As `docs/records.md` has them.
    #[default]
    Native,
    /// Open Cybersecurity Schema Framework, 1.8.
    Ocsf,
}

/// Where a sink without a cursor begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the oldest record.
    #[default]
    Beginning,
    /// With what comes after the sink was set up.
    Now,
}

/// A file of JSON lines.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The file.
    pub path: PathBuf,
    /// Size in megabytes after which the next file is begun.
    #[serde(default = "default_megabytes")]
    pub rotate_megabytes: u64,
    /// Earlier files that are kept, as `path.1` (the youngest) and so on.
    #[serde(default = "default_keep")]
    pub rotate_keep: u32,
}

fn default_megabytes() -> u64 {
    100
}

fn default_keep() -> u32 {
    5
}

/// Syslog over TCP or TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogSettings {
    /// `host:port`.
    pub address: String,
    /// TLS; without it the records go in clear.
    pub tls: Option<TlsSettings>,
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// Certificates (PEM) of the authorities that may vouch for the receiver; the host's without it.
    pub ca: Option<PathBuf>,
    /// Our certificate chain (PEM), where the receiver asks for one.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM), readable for root only.
    pub key: Option<PathBuf>,
    /// The name that the receiver's certificate must have; that of the address without it. Syslog only.
    pub name: Option<String>,
}

/// HTTP POST.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Where to.
    pub url: String,
    /// How a request looks.
    #[serde(default)]
    pub style: HttpStyle,
    /// A file with the token, readable for root only.
    pub token_file: Option<PathBuf>,
    /// For `https`.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// How an HTTP request looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HttpStyle {
    /// An array of records; `Authorization: Bearer`.
    #[default]
    Json,
    /// Splunk's HTTP event collector; `Authorization: Splunk`.
    Splunk,
}

/// OpenTelemetry logs over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpSettings {
    /// Where to; usually ends in `/v1/logs`.
    pub url: String,
    /// How requests are encoded.
    #[serde(default)]
    pub encoding: OtlpEncoding,
    /// A file with a bearer token, readable for root only.
    pub token_file: Option<PathBuf>,
    /// For `https`.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// How OpenTelemetry requests are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OtlpEncoding {
    /// Protocol buffers, which every receiver reads.
    #[default]
    Protobuf,
    /// JSON, for those who want to read it on the way.
    Json,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournaldSettings {
    /// Its socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
}

fn default_socket() -> PathBuf {
    "/run/systemd/journal/socket".into()
}

/// Where a sink delivers to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A file.
    File(FileSettings),
    /// Syslog.
    Syslog(SyslogSettings),
    /// HTTP.
    Http(HttpSettings),
    /// OpenTelemetry.
    Otlp(OtlpSettings),
    /// The journal.
    Journald(JournaldSettings),
}

impl Target {
    /// Its key in the settings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Syslog(_) => "syslog",
            Self::Http(_) => "http",
            Self::Otlp(_) => "otlp",
            Self::Journald(_) => "journald",
        }
    }

    fn problem(&self) -> Option<String> {
        match self {
            Self::File(file) => absolute("file.path", &file.path).or_else(|| {
                (!(1..=1_000_000).contains(&file.rotate_megabytes))
                    .then(|| "file.rotate_megabytes must be 1 to 1000000".to_owned())
                    .or_else(|| {
                        (file.rotate_keep > 1000).then(|| "file.rotate_keep is above 1000".to_owned())
                    })
            }),
            Self::Syslog(syslog) => {
                let (host, port) = syslog.address.rsplit_once(':').unwrap_or_default();
                if host.is_empty() || port.parse::<u16>().is_err() {
                    return Some(format!("syslog.address: {:?} is not host:port", syslog.address));
                }
                syslog.tls.as_ref().and_then(|tls| tls.problem("syslog.tls"))
            }
            Self::Http(HttpSettings { url, token_file, tls, .. }) => {
                web("http", url, token_file.as_deref(), tls)
            }
            Self::Otlp(OtlpSettings { url, token_file, tls, .. }) => {
                web("otlp", url, token_file.as_deref(), tls)
            }
            Self::Journald(journald) => absolute("journald.socket", &journald.socket),
        }
    }
}

impl TlsSettings {
    fn problem(&self, key: &str) -> Option<String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Some(format!("{key}: certificate and key belong together; set both or neither"));
        }
        let files = [("ca", &self.ca), ("certificate", &self.certificate), ("key", &self.key)];
        files.iter().find_map(|(name, path)| absolute(&format!("{key}.{name}"), path.as_deref()?))
    }
}

impl SinkSettings {
    /// The one target.
    pub fn target(&self) -> Result<Target, String> {
        let Self { file, syslog, http, otlp, journald, .. } = self.clone();
        let mut all: Vec<Target> = [
            file.map(Target::File),
            syslog.map(Target::Syslog),
            http.map(Target::Http),
            otlp.map(Target::Otlp),
            journald.map(Target::Journald),
        ]
        .into_iter()
        .flatten()
        .collect();
        match (all.pop(), all.len()) {
            (Some(target), 0) => Ok(target),
            (_, others) => Err(format!(
                "has {} targets; give it one of file, syslog, http, otlp and journald",
                if others == 0 { "no".to_owned() } else { (others + 1).to_string() }
            )),
        }
    }

    /// Whether it gets checkpoints.
    pub fn wants_checkpoints(&self) -> bool {
        self.checkpoints.unwrap_or(self.kinds.is_empty())
    }

    fn problem(&self) -> Option<String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.bytes().all(plain) {
            return Some("name: use 1 to 32 small letters, digits and hyphens".to_owned());
        }
        if !(1..=10_000).contains(&self.batch) {
            return Some("batch must be 1 to 10000".to_owned());
        }
        match self.target() {
            Ok(target) => target.problem(),
            Err(problem) => Some(problem),
        }
    }
}

/// What is wrong with where a witness is.
pub fn witness_problem(url: &str, tls: &TlsSettings) -> Option<String> {
    web("audit.witnesses", url, None, tls)
}

/// What is wrong with the sinks of a settings file.
pub fn problem(sinks: &[SinkSettings]) -> Option<String> {
    if sinks.len() > MOST {
        return Some(format!("{} of them, but at most {MOST} are possible", sinks.len()));
    }
    sinks.iter().enumerate().find_map(|(at, sink)| {
        let double = sinks[..at].iter().any(|other| other.name == sink.name);
        let problem = double.then(|| "another sink has this name; cursors go by it".to_owned());
        problem.or_else(|| sink.problem()).map(|problem| format!("{:?}: {problem}", sink.name))
    })
}

fn web(key: &str, url: &str, token: Option<&Path>, tls: &TlsSettings) -> Option<String> {
    let secure = url.starts_with("https://");
    if !secure && !url.starts_with("http://") || url.contains(char::is_whitespace) {
        return Some(format!("{key}.url: {url:?} is not an http:// or https:// address"));
    }
    let host = url.split("://").nth(1).unwrap_or_default();
    let local = ["127.0.0.1", "[::1]", "localhost"].iter().any(|name| {
        host.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    if token.is_some() && !secure && !local {
        return Some(format!("{key}.token_file: a token must not go in clear; use https://"));
    }
    let token = token.and_then(|path| absolute(&format!("{key}.token_file"), path));
    token.or_else(|| tls.problem(&format!("{key}.tls")))
}

fn absolute(key: &str, path: &Path) -> Option<String> {
    let good = path.is_absolute() && !path.components().any(|c| c == std::path::Component::ParentDir);
    (!good).then(|| format!("{key}: {path:?} is not an absolute path without `..`"))
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    fn refused(text: &str) -> String {
        Settings::parse("enforcer.toml", text).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_sink_of_each_target_is_read() {
        let text = r#"
            [[sinks]]
            name = "file"
            file = { path = "/var/log/enforcer/events.jsonl", rotate_megabytes = 10, rotate_keep = 3 }
            [[sinks]]
            name = "siem"
            format = "ocsf"
            syslog = { address = "siem.example.com:6514", tls = { ca = "/etc/ssl/siem.pem" } }
            [[sinks]]
            name = "hook"
            kinds = ["alert"]
            http = { url = "https://example.com/x", token_file = "/etc/enforcer/token" }
            [[sinks]]
            name = "otel"
            otlp = { url = "http://127.0.0.1:4318/v1/logs" }
            [[sinks]]
            name = "journal"
            journald = {}
        "#;
        let settings = Settings::parse("x", text).expect("valid");
        let targets: Vec<_> = settings.sinks.iter().map(|s| s.target().expect("one").name()).collect();
        assert_eq!(targets, ["file", "syslog", "http", "otlp", "journald"]);
        assert!(settings.sinks[0].wants_checkpoints() && !settings.sinks[2].wants_checkpoints());
    }

    #[test]
    fn every_error_names_the_sink_the_key_and_the_remedy() {
        for (text, parts) in [
            ("name='a'", ["sinks: \"a\"", "one of file, syslog"]),
            ("name='a'\nfile={path='/x'}\njournald={}", ["\"a\"", "2 targets"]),
            ("name='A b'\njournald={}", ["\"A b\": name", "small letters"]),
            ("name='a'\nfile={path='x'}", ["file.path", "absolute"]),
            ("name='a'\nsyslog={address='host'}", ["syslog.address", "host:port"]),
            ("name='a'\nsyslog={address='h:1',tls={key='/k'}}", ["syslog.tls", "belong together"]),
            ("name='a'\nhttp={url='ftp://x'}", ["http.url", "http://"]),
            ("name='a'\nhttp={url='http://x/',token_file='/t'}", ["http.token_file", "use https://"]),
            (
                "name='a'\notlp={url='http://localhost.evil/',token_file='/t'}",
                ["otlp.token_file", "in clear"],
            ),
            ("name='a'\njournald={}\n[[sinks]]\nname='a'\njournald={}", ["\"a\"", "another sink"]),
            ("name='a'\njournald={}\nbatch=0", ["batch", "1 to 10000"]),
            ("name='a'\nfile={path='/x',mode=1}", ["line 3", "mode"]),
        ] {
            let message = refused(&format!("[[sinks]]\n{text}"));
            assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        }
    }
}
