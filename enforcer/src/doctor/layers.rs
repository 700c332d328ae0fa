//! The layers that `enforcer exec` puts around sessions: whether this host has what the settings ask for. Pure.

use super::{
    judge::{Finding, Level, finding},
    remedy::Family,
};
use crate::launch::layers::host::Host;

/// What is known about layers.
#[derive(Clone, Debug, Default)]
pub struct LayerFacts {
    /// What a seccomp filter can answer (`/proc/sys/kernel/seccomp/actions_avail`), `None` where there are no filters.
    pub seccomp: Option<String>,
    /// The settings ask for a filter.
    pub seccomp_wanted: bool,
    /// Landlock, and the order in which the kernel asks its LSMs.
    pub host: Host,
    /// The settings ask for a ruleset.
    pub landlock_wanted: bool,
}

/// One finding for each layer that depends on the host. Nothing here changes whether agents are confined.
pub(super) fn judge(facts: &LayerFacts, family: Family) -> Vec<Finding> {
    vec![seccomp(facts, family), landlock(facts, family)]
}

fn seccomp(facts: &LayerFacts, family: Family) -> Finding {
    let answers = facts.seccomp.as_deref().unwrap_or_default();
    match (answers.split_whitespace().any(|action| action == "errno"), facts.seccomp_wanted) {
        (true, _) => finding("seccomp", Level::Good, "filters can refuse calls", ""),
        (false, false) => finding("seccomp", Level::Good, "not asked for", ""),
        (false, true) => finding(
            "seccomp",
            Level::Problem,
            "this kernel has no filters, so enforcer exec starts no session",
            format!(
                "use a kernel with CONFIG_SECCOMP_FILTER=y, which the distribution's own has ({}); or set \
                 launch.seccomp = \"none\"",
                family.newer_kernel()
            ),
        ),
    }
}

fn landlock(facts: &LayerFacts, family: Family) -> Finding {
    let note = |says: &str, remedy: String| finding("landlock", Level::Note, says, remedy);
    let lsms = &facts.host.lsms;
    let place = |name: &str| lsms.iter().position(|one| one == name);
    match (facts.host.landlock, place("bpf"), place("landlock")) {
        _ if !facts.landlock_wanted => finding("landlock", Level::Good, "not asked for", ""),
        (Some(2..), Some(bpf), Some(landlock)) if bpf < landlock => {
            finding("landlock", Level::Good, "there, and asked after bpf", "")
        }
        (Some(2..), Some(_), Some(_)) => note(
            "asked before bpf, where its refusals leave no record: sessions get a ruleset only if their policy demands it",
            family.boot_with(&format!("lsm={}", with_bpf_first(lsms))),
        ),
        (Some(2..), ..) => note(
            "there; in which order the kernel asks it and bpf cannot be told",
            "mount securityfs: mount -t securityfs securityfs /sys/kernel/security".to_owned(),
        ),
        (Some(_), ..) => note(
            "its version 1 cannot let files be renamed, so it is not used",
            family.newer_kernel().to_owned(),
        ),
        (None, ..) => {
            let list =
                lsms.iter().map(String::as_str).filter(|name| *name != "capability").chain(["landlock"]);
            note(
                "not among the active LSMs: sessions get no ruleset",
                family.boot_with(&format!("lsm={}", list.collect::<Vec<_>>().join(","))),
            )
        }
    }
}

/// The list with bpf moved before landlock; the kernel adds `capability` by itself.
fn with_bpf_first(lsms: &[String]) -> String {
    let kept = lsms.iter().map(String::as_str).filter(|name| !matches!(*name, "bpf" | "capability"));
    let moved = kept.flat_map(|name| if name == "landlock" { vec!["bpf", name] } else { vec![name] });
    moved.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(lsms: &str, landlock: Option<u32>) -> LayerFacts {
        LayerFacts {
            seccomp: Some("kill_process errno allow".to_owned()),
            seccomp_wanted: true,
            host: Host { landlock, lsms: lsms.split(',').map(str::to_owned).collect() },
            landlock_wanted: true,
        }
    }

    #[test]
    fn landlock_before_bpf_is_a_note_that_says_how_to_turn_them_round() {
        let found = judge(&facts("capability,landlock,lockdown,yama,apparmor,bpf", Some(4)), Family::Debian);
        assert_eq!((found[0].level, found[1].level), (Level::Good, Level::Note));
        assert!(found[1].remedy.contains("lsm=bpf,landlock,lockdown,yama,apparmor "), "{found:?}");
        assert!(found[1].remedy.contains("update-grub"), "{found:?}");
        let found = judge(&facts("capability,lockdown,bpf,landlock", Some(4)), Family::Debian);
        assert_eq!(found[1].level, Level::Good);
    }

    #[test]
    fn what_a_host_lacks_has_a_remedy_of_the_distribution() {
        for (facts, wanted) in [
            (facts("capability,yama,bpf", None), "lsm=yama,bpf,landlock"),
            (facts("capability,yama,bpf,landlock", Some(1)), "dnf upgrade kernel"),
            (facts("", Some(3)), "securityfs"),
        ] {
            let found = judge(&facts, Family::Fedora);
            assert!(found[1].level == Level::Note && found[1].remedy.contains(wanted), "{found:?}");
        }
        let without = LayerFacts { seccomp: None, ..facts("bpf,landlock", Some(4)) };
        let found = judge(&without, Family::Suse);
        assert!(found[0].level == Level::Problem && found[0].remedy.contains("zypper"), "{found:?}");
    }

    #[test]
    fn what_nobody_asks_for_is_not_missing() {
        let found = judge(&LayerFacts::default(), Family::Debian);
        assert!(found.iter().all(|one| one.level == Level::Good), "{found:?}");
    }
}
