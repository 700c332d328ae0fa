//! How to mend something, in the words of each distribution: pure.

use crate::daemon::probe::Need;

/// Distributions that do the same things in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian, Ubuntu and what is made from them.
    Debian,
    /// Fedora, RHEL and what is made from them.
    Fedora,
    /// SUSE Linux Enterprise and openSUSE.
    Suse,
    /// Arch and what is made from it.
    Arch,
    /// Another one.
    Other,
}

/// The family that os-release(5) names: `ID` first, then `ID_LIKE` in its order.
pub fn family(os_release: &str) -> Family {
    let field = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let names = format!("{} {}", field("ID"), field("ID_LIKE"));
    let known = |name: &str| match name {
        "debian" | "ubuntu" => Some(Family::Debian),
        "fedora" | "rhel" | "centos" | "rocky" | "almalinux" => Some(Family::Fedora),
        "suse" | "sles" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" => Some(Family::Suse),
        "arch" => Some(Family::Arch),
        _ => None,
    };
    names.split_whitespace().find_map(known).unwrap_or(Family::Other)
}

impl Family {
    /// How to mend what a host must have. `lsms` is the list of LSMs that are active now.
    pub(super) fn mend(self, need: Need, lsms: Option<&str>) -> String {
        match need {
            Need::Kernel => self.newer_kernel().to_owned(),
            Need::Cgroups => self.boot_with("systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all"),
            Need::BpfLsm => match lsms {
                Some(now) => self.boot_with(&format!("lsm={}", with_bpf(now))),
                None => "mount securityfs: mount -t securityfs securityfs /sys/kernel/security".to_owned(),
            },
            Need::Lockdown => self.boot_with("lockdown=integrity"),
            Need::Btf => format!(
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y, which the distribution's own has; {}",
                self.newer_kernel()
            ),
            Need::Bpffs => {
                "mount it: systemctl start sys-fs-bpf.mount, or mount -t bpf bpf /sys/fs/bpf".to_owned()
            }
        }
    }

    pub(super) fn newer_kernel(self) -> &'static str {
        match self {
            Self::Debian => "apt install linux-image-amd64 (Ubuntu: linux-generic), then reboot",
            Self::Fedora => {
                "dnf upgrade kernel, then reboot; RHEL 9 and its relatives (5.14) are not supported"
            }
            Self::Suse => "zypper install kernel-default, then reboot",
            Self::Arch => "pacman -Syu linux, then reboot",
            Self::Other => "boot a newer kernel",
        }
    }

    pub(super) fn boot_with(self, argument: &str) -> String {
        match self {
            Self::Debian => format!(
                "add {argument} to GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub and reboot"
            ),
            Self::Fedora => format!("grubby --update-kernel=ALL --args=\"{argument}\", then reboot"),
            Self::Suse => format!(
                "add {argument} to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, then \
                 grub2-mkconfig -o /boot/grub2/grub.cfg and reboot"
            ),
            Self::Arch => format!(
                "add {argument} to GRUB_CMDLINE_LINUX in /etc/default/grub, then grub-mkconfig -o \
                 /boot/grub/grub.cfg (systemd-boot: to options in /boot/loader/entries/*.conf), and reboot"
            ),
            Self::Other => {
                format!("add {argument} to the kernel's command line in the boot loader, and reboot")
            }
        }
    }
}

/// The list with bpf; the kernel adds `capability` by itself.
fn with_bpf(now: &str) -> String {
    let kept = now.trim().split(',').filter(|name| !matches!(*name, "" | "capability" | "bpf"));
    kept.chain(["bpf"]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_known_by_id_and_by_likeness() {
        for (text, wanted) in [
            ("ID=debian\n", Family::Debian),
            ("NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Family::Debian),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Family::Fedora),
            ("ID=opensuse-leap\nID_LIKE='suse opensuse'\n", Family::Suse),
            ("ID=manjaro\nID_LIKE=arch\n", Family::Arch),
            ("ID=other\n", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(family(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_list_of_lsms_keeps_what_is_active() {
        let text = Family::Fedora.mend(Need::BpfLsm, Some("lockdown,capability,yama,selinux\n"));
        assert!(text.contains("--args=\"lsm=lockdown,yama,selinux,bpf\""), "{text}");
    }

    #[test]
    fn every_family_says_something_of_its_own_about_the_boot_loader() {
        let all = [Family::Debian, Family::Fedora, Family::Suse, Family::Arch, Family::Other];
        let said: Vec<String> = all.iter().map(|f| f.mend(Need::Lockdown, None)).collect();
        for (at, text) in said.iter().enumerate() {
            assert!(text.contains("lockdown=integrity") && !said[..at].contains(text), "{text}");
        }
    }
}
