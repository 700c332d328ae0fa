# Run by mmdebstrap on the tree of a guest ($1), before it is packed.
set -eu
root=$1

# What no guest reads.
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/*
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/* "$root"/var/log/*

# People for the tests: one who runs agents, one who may approve what they ask for.
chroot "$root" groupadd --gid 1100 agent-operators
chroot "$root" useradd --uid 1000 --create-home --shell /bin/bash agent
# Debian has a group `operator` already.
chroot "$root" useradd --uid 1001 --gid operator --create-home --shell /bin/bash --groups agent-operators operator
chroot "$root" passwd --quiet --delete root

echo guest > "$root/etc/hostname"
printf '127.0.0.1 localhost guest\n::1 localhost guest\n' > "$root/etc/hosts"
rm -f "$root/etc/resolv.conf" "$root/etc/machine-id"
# Fixed, so that systemd does not treat each boot as the first one.
echo 5ea5e5a1e0a14d1f8d0c1f6e7a5e0001 > "$root/etc/machine-id"
mkdir -p "$root/share" "$root/usr/lib/modules" "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' > "$root/etc/systemd/journald.conf.d/guest.conf"

# Without udev nothing announces these; and each of the rest costs a boot time that no test needs.
for unit in dev-ttyS0.device serial-getty@ttyS0.service getty.target getty-static.service console-getty.service \
    apparmor.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer systemd-logind.service systemd-user-sessions.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-random-seed.service \
    systemd-networkd.service systemd-resolved.service systemd-timesyncd.service systemd-hwdb-update.service \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
    systemd-ask-password-wall.path systemd-ask-password-console.path systemd-machine-id-commit.service \
    systemd-firstboot.service systemd-repart.service ldconfig.service systemd-journal-catalog-update.service \
    systemd-update-done.service systemd-journal-flush.service systemd-remount-fs.service \
    modprobe@configfs.service modprobe@efi_pstore.service modprobe@fuse.service sys-kernel-config.mount \
    sys-fs-fuse-connections.mount dev-hugepages.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
