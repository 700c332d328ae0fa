//! Gathers the items of a bundle; changes nothing. What cannot be had is said, not skipped.

use super::{
    bundle::Bundle,
    redact::{self, Secrets},
};
use crate::{
    control::{
        client::Client,
        message::{Reply, Request},
    },
    daemon::policies::is_policy,
    doctor,
    event::text::{escape, hex},
    policy,
    settings::Settings,
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Lines of the journal that are looked at.
const LINES: &str = "1000";
/// What is asked of systemd about each unit. Not its environment, which can have anything in it.
const PROPERTIES: &str = "Id,LoadState,UnitFileState,ActiveState,SubState,Result,NRestarts,ExecMainStatus,\
                          StateChangeTimestamp,FragmentPath,DropInPaths,StatusText,MemoryCurrent,TasksCurrent";
const UNITS: [&str; 3] = ["agents.slice", "enforcer-failed.service", "enforcer.service"];
/// What of the kernel's configuration decides whether it can enforce.
const CONFIG: [&str; 14] = [
    "CONFIG_BPF",
    "CONFIG_BPF_EVENTS",
    "CONFIG_BPF_JIT",
    "CONFIG_BPF_LSM",
    "CONFIG_BPF_SYSCALL",
    "CONFIG_CGROUPS",
    "CONFIG_CGROUP_BPF",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_FPROBE",
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_LSM",
    "CONFIG_PREEMPT_DYNAMIC",
    "CONFIG_SECURITY",
    "CONFIG_SECURITY_PATH",
];

/// What is to be gathered.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// The policies' texts too.
    pub policies: bool,
}

/// Gathers everything. Without settings that can be read: what the defaults say is looked at, and what is wrong is
/// not quoted, since the quotation could be a secret.
pub fn gather(settings: Option<&Settings>, what: Gather) -> (Bundle, Secrets) {
    let (defaults, mut bundle) = (Settings::default(), Bundle::default());
    let known = settings.unwrap_or(&defaults);
    let unusable = "the settings file cannot be used; what is wrong there is not quoted here, since that could be a \
                    secret: `enforcer doctor` says it on the host";
    bundle.put("settings.json", settings.map(|s| json_text(&redact::settings(s))).ok_or(unusable.to_owned()));
    bundle.put("version.json", Ok(json_text(&version())));
    let report = doctor::judge(&doctor::gather(settings.cloned().ok_or(unusable.to_owned())));
    bundle.put("doctor.json", Ok(json_text(&report)));
    for (name, request) in [
        ("status.json", Request::Status),
        ("agents.json", Request::Agents),
        ("metrics.txt", Request::Metrics),
    ] {
        bundle.put(name, ask(&known.paths.socket, &request));
    }
    policies(&known.paths.policies, what.policies, &mut bundle);
    bundle.put("units.txt", run("systemctl", &["show", "--property", PROPERTIES], &UNITS));
    let words =
        ["--unit=enforcer.service", "--lines", LINES, "--no-pager", "--output=json", "--all", "--boot"];
    bundle.put("journal.txt", run("journalctl", &words, &[]).map(|text| journal(&text)));
    bundle.put("kernel.txt", Ok(kernel()));
    bundle.put("state.txt", listing(&known.paths.state));
    for what in [
        "records of the audit log: they have paths and arguments (enforcer audit export makes a signed extract)",
        "keys, tokens and secrets: neither the files nor, where they can be read, their text anywhere else",
        "users, passwords, paths and queries of addresses in the settings",
        "lines of the journal below warnings: some name what agents asked for",
        "environments and command lines of processes",
    ] {
        bundle.leave_out(what);
    }
    if !what.policies {
        bundle.leave_out("the policies' texts (--no-policies)");
    }
    (bundle, Secrets::of(known))
}

fn json_text<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn version() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"), "abi": enforcer_common::ABI_VERSION,
        "kernel_side": cfg!(feature = "kernel"),
    })
}

fn ask(socket: &Path, request: &Request) -> Result<String, String> {
    let reply = Client::connect(socket).and_then(|mut client| client.ask(request)).map_err(|e| e.message)?;
    Ok(match reply {
        Reply::Metrics { text } => text,
        Reply::Status(status) => json_text(&status),
        Reply::Agents { agents } => json_text(&agents),
        _ => return Err("the daemon answers something else".to_owned()),
    })
}

/// Each policy's digest and, where that is wanted, its text.
fn policies(directory: &Path, texts: bool, bundle: &mut Bundle) {
    let listed = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths =
            fs::read_dir(directory)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| is_policy(path));
        paths.sort();
        Ok(paths)
    };
    let paths = match listed() {
        Ok(paths) => paths,
        Err(e) => return bundle.put("policies.json", Err(format!("{}: {e}", directory.display()))),
    };
    let mut index = Vec::new();
    for path in paths {
        let name = escape(path.file_name().unwrap_or_default().as_bytes());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => {
                index.push(json!({"file": name, "error": e.to_string()}));
                continue;
            }
        };
        let sha256 = hex(&Sha256::digest(&text));
        index.push(match policy::parse(&name, &text) {
            Ok(policy) => json!({
                "file": name, "sha256": sha256, "id": policy.id(), "version": policy.version(),
                "digest": hex(&policy.digest()),
            }),
            // The error would quote the text.
            Err(_) => json!({"file": name, "sha256": sha256, "error": "it is not valid"}),
        });
        if texts {
            bundle.put(&format!("policies/{}", name.replace('/', "_")), Ok(text));
        }
    }
    bundle.put("policies.json", Ok(json_text(&index)));
}

fn run(program: &str, words: &[&str], more: &[&str]) -> Result<String, String> {
    let out = Command::new(program)
        .args(words)
        .args(more)
        .stdin(Stdio::null())
        .env("SYSTEMD_PAGER", "")
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// What systemd says about the unit, and the daemon's warnings and errors; how many other lines there were. The
/// input is what `journalctl --output=json` prints.
fn journal(text: &str) -> String {
    let (mut out, mut others) = (String::new(), 0);
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_default();
        let field = |name: &str| entry[name].as_str().unwrap_or_default();
        let message = field("MESSAGE");
        let loud = ["WARN", "ERROR"].iter().any(|level| message.trim_start().starts_with(level));
        if loud || field("_PID") == "1" {
            out += &format!("{} {}\n", field("__REALTIME_TIMESTAMP"), escape(message.as_bytes()));
        } else {
            others += 1;
        }
    }
    out + &format!("{others} other lines are left out\n")
}

fn kernel() -> String {
    let name = nix::sys::utsname::uname();
    let of = |f: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        name.as_ref().map(|name| f(name).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let (release, build) = (of(|n| n.release()), of(|n| n.version()));
    let mut out = format!("release: {release}\nversion: {build}\nmachine: {}\n", of(|n| n.machine()));
    for (name, path) in [
        ("active LSMs", "/sys/kernel/security/lsm"),
        ("lockdown", "/sys/kernel/security/lockdown"),
        ("net.core.bpf_jit_enable", "/proc/sys/net/core/bpf_jit_enable"),
        ("net.core.bpf_jit_harden", "/proc/sys/net/core/bpf_jit_harden"),
        ("kernel.unprivileged_bpf_disabled", "/proc/sys/kernel/unprivileged_bpf_disabled"),
        ("kernel.tainted", "/proc/sys/kernel/tainted"),
    ] {
        let text = fs::read_to_string(path).unwrap_or_else(|e| format!("? ({e})"));
        out += &format!("{name}: {}\n", text.trim());
    }
    // Of the command line only what these two say: anything else may stand there as well.
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    for word in command_line.split_whitespace() {
        if word.starts_with("lsm=") || word.starts_with("security=") {
            out += &format!("command line: {word}\n");
        }
    }
    let path = format!("/boot/config-{release}");
    match fs::read_to_string(&path) {
        Ok(text) => text.lines().filter(|line| is_wanted(line)).for_each(|line| out += &format!("{line}\n")),
        Err(e) => out += &format!("{path}: {e}\n"),
    }
    let os = fs::read_to_string("/etc/os-release").unwrap_or_else(|e| format!("/etc/os-release: {e}\n"));
    out + "\n" + &os
}

fn is_wanted(line: &str) -> bool {
    let line = line.trim_start_matches("# ");
    let name = line.split(['=', ' ']).next().unwrap_or_default();
    CONFIG.contains(&name)
}

/// Names, modes and sizes below a directory: never what is in the files.
fn listing(directory: &Path) -> Result<String, String> {
    let mut out = String::new();
    let mut waiting = vec![directory.to_owned()];
    let mut lines = Vec::new();
    while let Some(next) = waiting.pop() {
        let entries = fs::read_dir(&next).map_err(|e| format!("{}: {e}", next.display()))?;
        for entry in entries.flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            let path = escape(entry.path().as_os_str().as_bytes());
            lines.push(format!("{path}  {:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), meta.size()));
            // The log's own tree has thousands of files.
            let is_log = next.ends_with("audit") && entry.file_name().as_bytes().starts_with(b"log");
            if meta.is_dir() && !is_log {
                waiting.push(entry.path());
            }
        }
    }
    lines.sort();
    lines.iter().for_each(|line| out += &format!("{line}\n"));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_journal_warnings_errors_and_systemd_stay() {
        let line = |pid: &str, message: &str| {
            json!({"_PID": pid, "MESSAGE": message, "__REALTIME_TIMESTAMP": "7"}).to_string() + "\n"
        };
        let text = [
            line("9", " INFO asks to read /srv/private"),
            line("9", " WARN a connection was refused \u{1b}[2J"),
            line("9", "ERROR no"),
            line("1", "Started enforcer.service"),
            "nonsense\n".to_owned(),
        ];
        assert_eq!(
            journal(&text.concat()),
            "7  WARN a connection was refused \\x1b[2J\n7 ERROR no\n7 Started enforcer.service\n\
             2 other lines are left out\n"
        );
    }

    #[test]
    fn of_the_configuration_only_what_matters_stays() {
        assert!(is_wanted("CONFIG_BPF_LSM=y") && is_wanted("# CONFIG_SECURITY_PATH is not set"));
        assert!(!is_wanted("CONFIG_BPF_LSM_X=y") && !is_wanted("CONFIG_LOCALVERSION=\"x\""));
    }

    #[test]
    fn a_host_without_daemon_and_settings_still_gives_a_bundle_that_says_what_is_missing() {
        let dir = tempfile::tempdir().expect("dir");
        let mut settings = Settings::default();
        settings.paths.socket = dir.path().join("none.sock");
        settings.paths.state = dir.path().join("state");
        settings.paths.policies = dir.path().join("policies.d");
        fs::create_dir(&settings.paths.policies).expect("dir");
        fs::write(settings.paths.policies.join("a.yaml"), "kind: [planted-in-a-policy").expect("write");
        for (texts, has) in [(true, true), (false, false)] {
            let (bundle, secrets) = gather(Some(&settings), Gather { policies: texts });
            let files = bundle.files(&secrets);
            let list = &files[0].1;
            assert!(list.contains("- status.json: the daemon is not running"), "{list}");
            assert!(list.contains("- state.txt: "), "{list}");
            assert_eq!(files.iter().any(|(_, text)| text.contains("planted-in-a-policy")), has);
            assert_eq!(list.contains("--no-policies"), !has);
        }
        let (bundle, secrets) = gather(None, Gather { policies: false });
        assert!(bundle.files(&secrets)[0].1.contains("settings.json: the settings file cannot be used"));
    }
}
