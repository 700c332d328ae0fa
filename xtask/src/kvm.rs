//! Whether KVM works here. /dev/kvm can exist and still not run a stock kernel, so the answer comes from booting one.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{cache, guest::write_initramfs, kernels::KernelImage, progress, rootfs::Rootfs};

const PATIENCE: Duration = Duration::from_secs(8);

/// The answer, asked once per boot of this machine.
pub(crate) fn works(kernel: &KernelImage, rootfs: &Rootfs) -> Result<bool> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read this boot's id")?;
    let path = cache::dir()?.join("kvm-probe");
    let known = fs::read_to_string(&path).unwrap_or_default();
    if let Some((id, answer)) = known.split_once(' ')
        && id == boot.trim()
    {
        return Ok(answer == "works");
    }
    progress::note("probing KVM by booting a kernel on it (once per boot of this machine)");
    let answer = probe(kernel, rootfs)?;
    progress::note(if answer {
        "KVM works, guests use it"
    } else {
        "KVM does not work here, guests are emulated"
    });
    let text = format!("{} {}", boot.trim(), if answer { "works" } else { "fails" });
    cache::write_atomic(&path, text.as_bytes())?;
    Ok(answer)
}

fn probe(kernel: &KernelImage, rootfs: &Rootfs) -> Result<bool> {
    let work = cache::scratch("kvm")?;
    let initramfs = work.path().join("initramfs");
    let console = work.path().join("console");
    write_initramfs(&initramfs, kernel, rootfs)?;
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-m", "512M"])
        .args(["-accel", "kvm", "-cpu", "host", "-append", "console=ttyS0 panic=-1 quiet guest.probe"])
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .arg("-initrd")
        .arg(&initramfs)
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let deadline = Instant::now() + PATIENCE;
    while matches!(qemu.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let _ = qemu.kill();
    let _ = qemu.wait();
    Ok(fs::read_to_string(&console).unwrap_or_default().contains("guest-probe-ok"))
}
