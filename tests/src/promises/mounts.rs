//! Names while outsiders change what they stand for.

use super::tree;
use crate::{
    agent::Live,
    cases, ensure, events,
    harness::{Outcome, Test},
    promise::{self as check, Attempt, Denial},
};
use std::{ffi::CString, fs, io, os::fd::AsRawFd};

cases!(mounts:
    a_bind_mount_is_judged_by_its_own_name,
    a_mount_over_a_directory_changes_nothing_about_its_name,
    what_was_remembered_about_a_directory_does_not_survive_its_renaming,
    a_file_moved_by_an_outsider_is_judged_by_its_new_name,
    another_spelling_that_a_file_system_takes_is_no_way_around_a_rule,
);

/// A mount that goes with this value.
pub(super) struct Mounted(CString);

impl Mounted {
    pub(super) fn new(from: &str, onto: &str, kind: &str, flags: libc::c_ulong) -> io::Result<Self> {
        Self::with(from, onto, kind, flags, "")
    }

    fn with(from: &str, onto: &str, kind: &str, flags: libc::c_ulong, options: &str) -> io::Result<Self> {
        let text = |text: &str| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let (from, onto, kind, options) = (text(from)?, text(onto)?, text(kind)?, text(options)?);
        // SAFETY: four texts that outlive the call.
        let done = unsafe {
            libc::mount(from.as_ptr(), onto.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
        };
        if done == 0 { Ok(Self(onto)) } else { Err(io::Error::last_os_error()) }
    }

    pub(super) fn bind(from: &str, onto: &str) -> io::Result<Self> {
        Self::new(from, onto, "none", libc::MS_BIND)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: a text that outlives the call.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

pub(super) fn read(path: &str) -> Attempt {
    Attempt::new(format!("read {path}"), Denial::no_rule("open").on(path).asking("read"))
}

fn a_bind_mount_is_judged_by_its_own_name(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    tree(t)?;
    let agent = t.agent(t.policy().allow("read", &format!("{open}/**")))?;
    let attempts = [read(&format!("{shut}/e1/x")), read(&format!("{shut}/d2/x"))];
    {
        let _mounted = Mounted::bind(&format!("{open}/d1"), &format!("{shut}/e1"))?;
        check::control(&attempts)?;
        check::refused(t, &agent, &[format!("read {open}/d1/x")], &attempts)?;
        // Again, now that the kernel programs may have remembered the directory under either name.
        check::refused(t, &agent, &[format!("read {open}/d1/x")], &attempts)?;
    }
    let gone = [read(&format!("{shut}/d2/x"))];
    check::refused(t, &agent, &[format!("read {open}/d1/x")], &gone)
}

fn a_mount_over_a_directory_changes_nothing_about_its_name(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    tree(t)?;
    let agent = t.agent(t.policy().allow("read, create, write", &format!("{open}/**")))?;
    let _over_open = Mounted::new("none", &format!("{open}/d1"), "tmpfs", 0)?;
    let _over_shut = Mounted::new("none", &format!("{shut}/d1"), "tmpfs", 0)?;
    fs::write(format!("{shut}/d1/y"), "y")?;
    let create = format!("{shut}/d1/new");
    let attempts = [
        read(&format!("{shut}/d1/y")),
        Attempt::new(format!("create {create}"), Denial::no_rule("create").on(&create).asking("create")),
    ];
    check::control(&attempts)?;
    fs::remove_file(&create)?;
    check::refused(t, &agent, &[format!("create {open}/d1/new"), format!("read {open}/d1/new")], &attempts)
}

/// A session that has read a file below `open/d1` and waits.
fn warm(t: &Test, acts: &[String]) -> Outcome<(crate::agent::Agent, Live)> {
    let open = t.at("open");
    tree(t)?;
    let agent = t.agent(t.policy().allow("read", &format!("{open}/**")))?;
    let mut all = vec![format!("chdir {open}/d1"), format!("read {open}/d1/x"), "read x".to_owned()];
    all.push(format!("wait-for {}", t.at("go")));
    all.extend(acts.iter().cloned());
    let mut live = agent.start(&all)?;
    live.expect(&["ok", "ok", "ok"])?;
    Ok((agent, live))
}

fn what_was_remembered_about_a_directory_does_not_survive_its_renaming(t: &mut Test) -> Outcome {
    let (shut, marker) = (t.at("shut"), t.at("marker"));
    let acts = ["read x".to_owned(), "read ../n1/x".to_owned(), format!("read {marker}")];
    let (agent, mut live) = warm(t, &acts)?;
    fs::rename(t.at("open/d1"), t.at("shut/n1"))?;
    t.file("go")?;
    live.expect(&["ok", "EPERM", "EPERM", "EPERM"])?;
    let records = events::acts_until_marker(live.mark, &live.id, &marker, 2)?;
    ensure!(records.len() == 2, "{} records instead of 2", records.len());
    let denial = Denial::no_rule("open").on(&format!("{shut}/n1/x")).asking("read");
    let faults: Vec<String> = records.iter().flat_map(|record| denial.faults(record, &agent)).collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    live.finish()?;
    Ok(())
}

fn a_file_moved_by_an_outsider_is_judged_by_its_new_name(t: &mut Test) -> Outcome {
    let acts = [format!("read {}", t.at("shut/f1")), format!("read {}", t.at("open/d1/moved"))];
    let (_agent, mut live) = warm(t, &acts)?;
    fs::rename(t.at("shut/f2"), t.at("open/d1/moved"))?;
    fs::rename(t.at("open/f1"), t.at("shut/f1"))?;
    t.file("go")?;
    live.expect(&["ok", "EPERM", "ok"])?;
    live.finish()?;
    Ok(())
}

/// Where capitals do not matter, a rule about names says nothing of the other spellings, so what it tells apart is refused
/// under every one of them; where rules say the same of all names, they go on.
fn another_spelling_that_a_file_system_takes_is_no_way_around_a_rule(t: &mut Test) -> Outcome {
    tree(t)?;
    let (all, some) = (t.dir("open/all")?, t.dir("open/some")?);
    t.newer_than(6, 12)?;
    let folding = |onto: &str| -> io::Result<Mounted> {
        let mounted = Mounted::with("none", onto, "tmpfs", 0, "casefold")?;
        fold(onto)?;
        for name in ["Secret/key", "Plain/key"] {
            let path = format!("{onto}/{name}");
            fs::create_dir_all(path.trim_end_matches("/key"))?;
            fs::write(path, "key\n")?;
        }
        Ok(mounted)
    };
    let _mounted = (folding(&all)?, folding(&some)?);
    let policy = t.policy().allow("all", &format!("{}/**", t.at("open")));
    let agent = t.agent(policy.deny("read", &format!("{some}/Secret/**")))?;
    let attempts = ["Secret/key", "SECRET/key", "secret/KEY", "Plain/key"].map(|name| {
        Attempt::new(format!("read {some}/{name}"), Denial::because("open", "unknown-object").asking("read"))
    });
    check::control(&attempts)?;
    let twins = ["Secret/key", "SECRET/key", "Plain/KEY"].map(|name| format!("read {all}/{name}"));
    check::refused(t, &agent, &twins, &attempts)?;
    // And again: nothing of it was remembered.
    check::refused(t, &agent, &twins, &attempts)
}

/// `chattr +F`.
fn fold(directory: &str) -> io::Result<()> {
    const SETFLAGS: libc::c_ulong = 0x4008_6602;
    let folds: libc::c_long = 0x4000_0000;
    let directory = fs::File::open(directory)?;
    // SAFETY: the kernel reads one number, which outlives the call.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), SETFLAGS, &raw const folds) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
