//! What the measured process may do, once: as a policy of ours, and for others to translate.

use std::fmt::Write as _;

/// Where everything happens: a tmpfs of its own.
pub const ROOT: &str = "/bench";
/// The directory that may be used; `/bench/deny` may not.
pub const ALLOWED: &str = "/bench/allow";
/// A program of three instructions.
pub const TINY: &str = "/bench/bin/tiny";
/// A unix socket that somebody outside listens on.
pub const SOCKET: &str = "/bench/outside.sock";
/// This program.
pub const SELF: &str = "/usr/lib/enforcer-tests/bench-ops";
/// Where a connection is let through, where it is not, and where datagrams go.
pub const TCP_PORT: u16 = 7001;
/// See [`TCP_PORT`].
pub const REFUSED_PORT: u16 = 7002;
/// See [`TCP_PORT`].
pub const UDP_PORT: u16 = 7003;

/// Directories to read from, beside which everything else is refused.
pub const READ: [&str; 3] = ["/usr/lib", "/etc/ld.so.cache", "/dev/null"];

/// Rules on files, programs and addresses in the smallest policy.
const FEW: usize = 10;

/// How sessions are launched: without layers, so that the figures are those of the programs alone.
pub const LAUNCH: &str = "launch: { by: [uid:root], seccomp: none, landlock: none }";

/// Directories for rules that only make their number larger.
pub fn fill(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| format!("/bench/fill/group-{}/item-{}", i / 100, i % 100))
}

/// The smallest policy with ten rules more, none of which anything that is measured meets: files, programs, sockets and
/// addresses that wait for a person.
pub fn holding() -> String {
    let files = (0..4)
        .map(|i| format!("  - {{ hold: [read, write, create], paths: [\"{ALLOWED}/held-{i}/**\"] }}\n"));
    let networks = (0..4).map(|i| format!("  - {{ hold: [connect], to: [\"10.9.{i}.0/24:443/tcp\"] }}\n"));
    policy(FEW)
        .replace(
            "exec:\n",
            &format!("{}exec:\n  - {{ hold: [\"/bench/bin/held\"] }}\n", files.collect::<String>()),
        )
        .replace("unix:\n", "unix:\n  - { hold: [\"/bench/held.sock\"] }\n")
        + &networks.collect::<String>()
}

/// A policy with `count` rules, most with one path or address: ten that matter, then nine further
/// directories for each further network.
pub fn policy(count: usize) -> String {
    let mut text = format!(
        "apiVersion: enforcer/v1
kind: AgentPolicy
metadata: {{ id: bench-{count}, version: 1, owner: bench@example.com, purpose: Benchmark }}
{LAUNCH}
trust: supervised
files:
  - {{ allow: [read, list, load], paths: [\"{}/**\", \"{}\"] }}
  - {{ allow: [read, write], paths: [\"{}\"] }}
  - {{ allow: [read, list, write, create, delete, rename], paths: [\"{ALLOWED}/**\"] }}
  - {{ deny: [read, write], paths: [\"**/.env\"] }}
",
        READ[0], READ[1], READ[2]
    );
    let more = count.saturating_sub(FEW);
    let networks = more / 10;
    for directory in fill(more - networks) {
        let _ = writeln!(text, "  - {{ allow: [read, list], paths: [\"{directory}/**\"] }}");
    }
    let _ = write!(
        text,
        "exec:
  - {{ allow: [\"{SELF}\"] }}
  - {{ allow: [\"{TINY}\"] }}
unix:
  - {{ allow: [\"{SOCKET}\"] }}
network:
  - {{ allow: [connect], to: [\"127.0.0.1:{TCP_PORT}/tcp\"] }}
  - {{ allow: [connect], to: [\"127.0.0.1:{UDP_PORT}/udp\"] }}
  - {{ allow: [bind], to: [\"127.0.0.1:{TCP_PORT}/tcp\", \"127.0.0.1:{UDP_PORT}/udp\", \"0.0.0.0:0/udp\"] }}
"
    );
    for i in 0..networks {
        let _ =
            writeln!(text, "  - {{ allow: [connect], to: [\"10.{}.{}.0/24:443/tcp\"] }}", i / 256, i % 256);
    }
    text
}
