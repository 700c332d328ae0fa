//! Devices that give power, and what descriptors can be asked for beside reading and writing.

use super::{floor::almighty, scale::used, tree};
use crate::{
    cases,
    command::wait_for,
    fail,
    harness::{Outcome, Test, exists},
    promise::{self as check, Attempt, Denial},
    terminal::Pty,
};
use std::{fs, io::Read as _};

cases!(devices:
    devices_take_more_than_a_path,
    files_are_asked_harmless_things_only,
    sockets_are_asked_harmless_things_only,
    terminals_are_told_harmless_things_only,
    terminals_of_others_are_refused,
    a_terminal_that_is_closed_is_forgotten,
    no_lease_makes_others_wait,
    no_option_puts_another_driver_behind_a_socket,
);

/// The memory of a device on the guest's PCI bus, as a file.
fn device_memory() -> Outcome<String> {
    for device in fs::read_dir("/sys/bus/pci/devices")?.flatten() {
        let device = fs::canonicalize(device.path())?;
        for number in 0..6 {
            let path = device.join(format!("resource{number}"));
            // Memory can only be mapped; ports can be read.
            let read = fs::File::open(&path).and_then(|mut file| file.read(&mut [0]));
            if read.is_err_and(|error| error.raw_os_error() == Some(libc::EIO)) {
                return Ok(path.display().to_string());
            }
        }
    }
    fail!("no device has memory")
}

/// A disk of the guest.
fn disk() -> Outcome<&'static str> {
    const DISKS: [&str; 4] = ["/dev/vda", "/dev/sda", "/dev/ram0", "/dev/loop0"];
    match DISKS.into_iter().find(|disk| exists(disk)) {
        Some(disk) => Ok(disk),
        None => fail!("the guest has none of {DISKS:?}"),
    }
}

fn devices_take_more_than_a_path(t: &mut Test) -> Outcome {
    tree(t)?;
    let open =
        |act: &str, device: &str| Attempt::new(format!("{act} {device}"), Denial::floor("open").on(device));
    let memory = device_memory()?;
    let attempts = [
        open("read", &memory).fails_outside("EIO"),
        open("read", disk()?),
        open("write-open", disk()?),
        open("write-open", "/dev/console"),
        open("write-open", "/dev/kmsg"),
    ];
    check::control(&attempts)?;
    let twins = ["read /dev/zero", "read /dev/urandom", "read-write /dev/null", "pty"].map(str::to_owned);
    check::refused(t, &almighty(t)?, &twins, &attempts)?;
    let policy = t.policy().line("system: [devices]");
    let agent = t.agent(
        policy.allow("read, write", &format!("/dev/{{{},console}}", disk()?.trim_start_matches("/dev/"))),
    )?;
    let rest = [Attempt::new("write-open /dev/kmsg", Denial::no_rule("open").on("/dev/kmsg"))];
    let named = [format!("read {}", disk()?), "write-open /dev/console".to_owned()];
    check::refused(t, &agent, &named, &rest)
}

fn files_are_asked_harmless_things_only(t: &mut Test) -> Outcome {
    tree(t)?;
    let (file, directory) = (t.at("open/f1"), t.at("open"));
    let on = |path: &str, command: &str| {
        Attempt::new(format!("ioctl {path} {command}"), Denial::floor("ioctl")).fails_outside("ENOTTY")
    };
    let attempts = [
        // No file system has this one: it stands for those that some have.
        on(&file, "12345678"),
        on(&directory, "12345678"),
        // Swapping with the boot loader's inode, freezing, trimming, shutting down: not tried outside.
        on(&file, "6611").not_outside(),
        on(&directory, "c0045877").not_outside(),
        on(&directory, "c0185879").not_outside(),
        on(&directory, "8004587d").not_outside(),
        // A subvolume, on another file system than this one.
        on(&directory, "5000940f"),
    ];
    check::control(&attempts)?;
    // Flags, version, the block size, where the bytes lie, and what every program asks.
    let twins = [
        format!("ioctl {file} 80086601"),
        format!("ioctl {file} 80087601"),
        format!("ioctl {file} 2"),
        format!("ioctl {file} 541b"),
        format!("ioctl {directory} 80086601"),
    ];
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &attempts)
}

fn sockets_are_asked_harmless_things_only(t: &mut Test) -> Outcome {
    tree(t)?;
    let on = |command: &str| Attempt::new(format!("socket-ioctl {command}"), Denial::floor("ioctl"));
    let attempts = [
        // A driver's own, and two that make the kernel load modules (bridges, virtual networks).
        on("89f0").not_outside(),
        on("8940").not_outside(),
        on("8982").not_outside(),
        on("89ff").not_outside(),
    ];
    let twins =
        ["8912", "8913", "8915", "8933", "541b", "5411"].map(|command| format!("socket-ioctl {command}"));
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &attempts)
}

fn terminals_are_told_harmless_things_only(t: &mut Test) -> Outcome {
    tree(t)?;
    let on = |command: &str| Attempt::new(format!("pty-ioctl {command}"), Denial::floor("ioctl"));
    let attempts = [
        // Typing, another driver, keeping others out.
        on("5412"),
        on("5423"),
        on("540c"),
        // Virtual consoles and their keyboards, which this terminal is none of.
        on("5603").fails_outside("ENOTTY"),
        on("4b33").fails_outside("ENOTTY"),
        on("541c").fails_outside("ENOTTY"),
    ];
    check::control(&attempts)?;
    let twins = ["5401", "5413", "5414", "5411"].map(|command| format!("pty-ioctl {command}"));
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &attempts)
}

/// Rules name every terminal, since programs open their own by its name.
fn terminals_of_others_are_refused(t: &mut Test) -> Outcome {
    tree(t)?;
    // One that controls somebody, and one that controls nobody.
    let (busy, free) = (Pty::new()?, Pty::new()?);
    let mut user = busy.control()?;
    let attempts: Vec<Attempt> = [&busy.name, &free.name]
        .into_iter()
        .flat_map(|name| ["write-open", "append"].map(|act| (act, name)))
        .map(|(act, name)| Attempt::new(format!("{act} {name}"), Denial::floor("open").on(name)))
        .collect();
    let twins = ["pty", "pty-by-name", "pty-controlling"].map(str::to_owned);
    check::control(&attempts)?;
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &attempts)?;
    user.kill()?;
    user.wait()?;
    Ok(())
}

/// Or the table of those that there are would be full one day, and nobody could make one.
fn a_terminal_that_is_closed_is_forgotten(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = almighty(t)?;
    let (before, end) = (used("objects")?, t.at("end"));
    let mut live = agent.start(&[format!("ptys-until {end}"), "pty".to_owned()])?;
    let is = |count: u64| {
        wait_for(&format!("{count} objects"), 120, || (used("objects").ok()? == count).then_some(()))
    };
    is(before + 3)?;
    t.file("end")?;
    live.expect(&["ok", "ok"])?;
    is(before)?;
    Ok(())
}

fn no_lease_makes_others_wait(t: &mut Test) -> Outcome {
    tree(t)?;
    let file = t.at("open/f1");
    let mut attempts = vec![Attempt::new(format!("lease {file}"), Denial::floor("lease"))];
    for target in [file.clone(), t.at("open")] {
        let act = format!("delegate {target}");
        let errno = crate::harness::outside(&act)?;
        let attempt = Attempt::new(act, Denial::floor("lease"));
        // Older kernels do not know the command, and are not asked.
        attempts.push(if errno == "EINVAL" { attempt.fails_outside("EINVAL") } else { attempt });
    }
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &[format!("read {file}")], &attempts)?;
    let granted = t.policy().allow("read", &file).line("capabilities: [lease]");
    check::refused(t, &t.agent(granted)?, &[format!("lease {file}")], &[])
}

fn no_option_puts_another_driver_behind_a_socket(t: &mut Test) -> Outcome {
    tree(t)?;
    // TCP_ULP, UDP_ENCAP (as text: the value is not looked at).
    let attempts = [
        Attempt::new("socket-option 6 31 tls", Denial::floor("socket-option")).not_outside(),
        Attempt::new("socket-option 17 100 1111", Denial::floor("socket-option")).not_outside(),
    ];
    // TCP_NODELAY, UDP_CORK
    let twins = ["socket-option 6 1 1111".to_owned(), "socket-option 17 1 1111".to_owned()];
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &attempts)
}
