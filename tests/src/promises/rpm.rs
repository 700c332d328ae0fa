//! The .rpm, by rpm itself, on a host that has nothing of the Enforcer. It comes after the Debian package's purge.

use super::package::{PINS, shell, state, works};
use crate::{
    agent::{PROBE, ROOT},
    cases, ensure,
    harness::{Outcome, Test, exists},
    promises::units::enforcing,
};
use std::fs;

cases!(rpm:
    it_installs_what_rpm_can_verify_and_enforces_once_started,
    reinstalling_it_over_a_session_changes_nothing_for_it,
    erasing_it_ends_enforcement_and_leaves_only_policies_and_the_log,
);

const RPM: &str = "/usr/lib/enforcer-tests/enforcer.rpm";

fn it_installs_what_rpm_can_verify_and_enforces_once_started(_: &mut Test) -> Outcome {
    ensure!(!exists("/usr/bin/enforcer") && !exists(PINS), "something is installed already");
    // This host's systemd came by dpkg, of which rpm knows nothing.
    works(&format!("rpm --install --nodeps {RPM}"))?;
    let verified = works("rpm --verify --nodeps enforcer")?;
    ensure!(verified.out.trim().is_empty(), "{verified}");
    works("getent group enforcer && systemctl cat enforcer.service >/dev/null")?;
    // Whether a new service runs is what the host's presets say, and its administrator.
    ensure!(!exists(PINS), "it enforces although nobody has started it");
    works("systemctl start enforcer.service")?;
    enforcing()?;
    works("enforcer doctor")?;
    let policy = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
                  metadata: { id: first, version: 1, owner: t, purpose: t }\n\
                  launch: { by: [uid:root], run_as: root }\ninclude: [base@1]\n\
                  exec:\n  - { allow: [/usr/bin/cat, /usr/bin/sleep] }\n";
    fs::write("/tmp/first.yaml", policy)?;
    works("enforcer policy apply /tmp/first.yaml")?;
    works("cat /etc/shadow")?;
    is_refused()
}

fn is_refused() -> Outcome {
    let ran = shell("enforcer exec first -- cat /etc/shadow")?;
    ensure!(ran.code == Some(1) && ran.err.contains("Operation not permitted"), "{ran}");
    works("enforcer exec first -- cat /etc/hostname").map(drop)
}

fn reinstalling_it_over_a_session_changes_nothing_for_it(_: &mut Test) -> Outcome {
    works("enforcer exec first --detach -- sleep 1000")?;
    let generation = || -> Outcome<u64> { Ok(state()?.1["generation"].as_u64().unwrap_or_default()) };
    let before = generation()?;
    works(&format!("rpm --reinstall --nodeps {RPM}"))?;
    enforcing()?;
    ensure!(generation()? == before, "generation {before}, then {}", generation()?);
    works(&format!("grep -q 'populated 1' {ROOT}/cgroup.events"))?;
    is_refused()
}

fn erasing_it_ends_enforcement_and_leaves_only_policies_and_the_log(_: &mut Test) -> Outcome {
    let erased = works("rpm --erase --nodeps enforcer")?;
    let said = format!("{}{}", erased.out, erased.err);
    ensure!(said.contains("NOT ENFORCING") && !exists(PINS) && !exists("/usr/bin/enforcer"), "{erased}");
    let log = fs::read_to_string("/var/lib/enforcer/audit/events.jsonl")?;
    ensure!(log.contains("enforcement-ended") && log.contains("package removed"), "{log}");
    works(&format!("mkdir -p {ROOT}/free && echo $$ > {ROOT}/free/cgroup.procs && {PROBE} fork"))?;
    let left = works(
        "find / -xdev \\( -path '*enforcer-tests*' -o -path '*enforcer-guest*' -o -path '/var/log/*' \
         -o -path '/var/cache/*' -o -path '/proc/*' -o -path /etc/enforcer -o -path /var/lib/enforcer \\) \
         -prune -o -iname '*enforcer*' -print",
    )?;
    ensure!(left.out.trim().is_empty(), "left: {}", left.out);
    Ok(())
}
