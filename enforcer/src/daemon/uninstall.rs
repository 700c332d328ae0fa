//! The one way to end enforcement: `enforcer daemon --uninstall`. What is pinned goes, and the audit log says
//! who asked for it, before it happens and after.

use super::{enforcement::StartError, only_daemon, open_audit, probe, sweep};
use crate::{
    audit::{Recorder, Sink as _},
    cli::exit::{Exit, Failure},
    control::peer::unified,
    event::{json::SCHEMA, text::rfc3339},
    launch::cgroup,
    settings::{Settings, is_below},
};
use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long the announcement may take to get under a signed checkpoint.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the pinned tables which cgroups are sessions.
pub type Sessions = fn(&Path) -> Result<Vec<u64>, StartError>;

/// What is known before anything is done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The user who asks.
    pub uid: u32,
    /// The cgroup that the question comes from; `None` where that cannot be told.
    pub cgroup: Option<String>,
    /// The roots.
    pub roots: Vec<String>,
    /// Cgroups in which agents live, or why that cannot be told.
    pub alive: Result<Vec<PathBuf>, String>,
    /// Something is pinned.
    pub pinned: bool,
    /// What the pins lie on is bpffs.
    pub bpffs: bool,
}

/// Ends enforcement, and says in which words to report it.
pub fn run(settings: &Settings, because: Option<&str>, sessions: Sessions) -> Result<String, Failure> {
    let pins = &settings.paths.pins;
    // Refused as early as possible: these two need nothing of the host.
    let mut facts = Facts {
        uid: nix::unistd::geteuid().as_raw(),
        cgroup: fs::read_to_string("/proc/self/cgroup").ok().and_then(|t| unified(&t).map(str::to_owned)),
        roots: settings.agents.roots.iter().map(|root| root.path.clone()).collect(),
        alive: Ok(Vec::new()),
        pinned: pins.exists(),
        bpffs: nix::sys::statfs::statfs(pins).is_ok_and(|fs| fs.filesystem_type().0 == probe::BPFFS),
    };
    let nothing = !judge(&facts)?;
    if nothing {
        return Ok(format!("nothing is enforced: there is no {}", pins.display()));
    }
    let _only = only_daemon(settings).map_err(|e| match e.exit {
        Exit::Internal => Failure::new(Exit::Busy, e.message, "systemctl stop enforcer, then try again"),
        _ => e,
    })?;
    facts.alive = living(settings, sessions);
    judge(&facts)?;
    let mut log = open_audit(settings)?;
    let by = asker(&facts);
    announce(&mut log, json!({"by": by, "because": because, "pins": pins}))?;
    let links = remove(pins).map_err(|e| {
        let message = format!("enforcement has not ended: cannot remove {}: {e}", pins.display());
        say(&mut log, "enforcement-not-ended", json!({"problem": e.to_string()}));
        Failure::new(Exit::CannotWrite, message, "remove that directory as root, outside every agent")
    })?;
    say(&mut log, "enforcement-ended", json!({"by": by, "because": because, "links": links}));
    Ok(format!("NOT ENFORCING: {links} programs were detached; agents that are started now are not confined"))
}

/// Whether there is something to end, or why it must not end now.
pub fn judge(facts: &Facts) -> Result<bool, Failure> {
    let refuse = |exit, message: String, remedy: &str| Err(Failure::new(exit, message, remedy));
    let from_outside = "run this as root outside every agent";
    if facts.uid != 0 {
        let message = format!("only root ends enforcement, not user {}", facts.uid);
        return refuse(Exit::Permission, message, from_outside);
    }
    let Some(cgroup) = &facts.cgroup else {
        return refuse(Exit::Permission, "cannot tell the cgroup of this process".to_owned(), "mount /proc");
    };
    if facts.roots.iter().any(|root| is_below(cgroup, root)) {
        let message = format!("an agent cannot end enforcement (this process lives in {cgroup})");
        return refuse(Exit::Permission, message, from_outside);
    }
    if !facts.pinned {
        return Ok(false);
    }
    if !facts.bpffs {
        let message = "paths.pins is not in a BPF file system: nothing there is the daemon's".to_owned();
        return refuse(Exit::BadSettings, message, "name the daemon's own settings file with --settings");
    }
    match &facts.alive {
        Ok(alive) if alive.is_empty() => Ok(true),
        Ok(alive) => {
            let named: Vec<String> = alive.iter().map(|path| path.display().to_string()).collect();
            let message = format!("agents are running in {}; they would go on unconfined", named.join(" "));
            refuse(
                Exit::Busy,
                message,
                "end them first: systemctl stop agents.slice, and for what is left echo 1 > /sys/fs/cgroup/agents.slice/cgroup.kill",
            )
        }
        Err(why) => refuse(
            Exit::Busy,
            format!("cannot tell whether agents are running: {why}"),
            "start the daemon of the version that made the pins, end the agents, then try again",
        ),
    }
}

/// Exclusive roots in which somebody lives, and sessions below shared ones.
fn living(settings: &Settings, sessions: Sessions) -> Result<Vec<PathBuf>, String> {
    let mut alive = Vec::new();
    for root in &settings.agents.roots {
        let path = sweep::directory(&settings.paths.cgroups, &root.path);
        if !path.exists() {
            continue;
        }
        if root.shared {
            let known = sessions(&settings.paths.pins).map_err(|e| e.to_string())?;
            alive.extend(
                cgroup::populated_among(&path, &known).map_err(|e| format!("{}: {e}", path.display()))?,
            );
        } else if cgroup::populated(&path).map_err(|e| format!("{}: {e}", path.display()))? {
            alive.push(path);
        }
    }
    Ok(alive)
}

/// Who asks: the user of the login, where there was one, and the program that this one was started by.
fn asker(facts: &Facts) -> Value {
    let read = |path: String| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let parent = nix::unistd::getppid();
    json!({
        "uid": facts.uid,
        "login_uid": read("/proc/self/loginuid".to_owned()).and_then(|text| text.parse::<u32>().ok()),
        "pid": std::process::id(),
        "parent": read(format!("/proc/{parent}/comm")),
        "cgroup": facts.cgroup,
    })
}

/// The announcement is under a signed checkpoint, on the disk, before anything goes.
fn announce(log: &mut Recorder, fields: Value) -> Result<(), Failure> {
    say(log, "enforcement-ends", fields);
    let failed = |why: String| {
        Failure::new(
            Exit::CannotWrite,
            format!("enforcement goes on, because its end cannot be recorded: {why}"),
            "make room for the audit log, or make it writable for root",
        )
    };
    log.flush().and_then(|()| log.sync()).map_err(|e| failed(e.to_string()))?;
    let until = Instant::now() + PATIENCE;
    while log.committed() < log.taken() {
        if Instant::now() > until {
            return Err(failed(format!("no checkpoint within {} s", PATIENCE.as_secs())));
        }
        log.flush().map_err(|e| failed(e.to_string()))?;
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn say(log: &mut Recorder, kind: &str, mut fields: Value) {
    fields["schema"] = SCHEMA.into();
    fields["time"] = rfc3339(super::core::now()).into();
    fields["kind"] = kind.into();
    log.append(&fields);
}

/// Removes what the daemon pins, the links first; returns how many links there were. Anything else that lies
/// there stays, and then this fails.
fn remove(pins: &Path) -> io::Result<usize> {
    let mut links = 0;
    for entry in fs::read_dir(pins)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"links-")) {
            links += count(&path)?;
            fs::remove_dir_all(&path)?;
        }
    }
    match fs::remove_dir_all(pins.join("maps")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::remove_dir(pins)?;
    Ok(links)
}

/// Files in a directory and below it.
fn count(directory: &Path) -> io::Result<usize> {
    fs::read_dir(directory)?.try_fold(0, |found, entry| {
        let entry = entry?;
        Ok(found + if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            uid: 0,
            cgroup: Some("/system.slice/ssh.service".to_owned()),
            roots: vec!["/agents.slice".to_owned()],
            alive: Ok(Vec::new()),
            pinned: true,
            bpffs: true,
        }
    }

    fn refusal(facts: &Facts) -> (Exit, String) {
        let failure = judge(facts).expect_err("must be refused");
        assert!(!failure.remedy.is_empty());
        (failure.exit, failure.message)
    }

    #[test]
    fn root_outside_every_agent_ends_it_once_no_agent_is_left() {
        assert_eq!(judge(&facts()), Ok(true));
        assert_eq!(judge(&Facts { pinned: false, ..facts() }), Ok(false));
    }

    #[test]
    fn agents_and_other_users_cannot_even_where_nothing_is_pinned() {
        for pinned in [true, false] {
            let inside = Facts { cgroup: Some("/agents.slice/session-1".to_owned()), pinned, ..facts() };
            assert_eq!(refusal(&inside).0, Exit::Permission);
            assert_eq!(refusal(&Facts { uid: 1000, pinned, ..facts() }).0, Exit::Permission);
            assert_eq!(refusal(&Facts { cgroup: None, pinned, ..facts() }).0, Exit::Permission);
        }
    }

    #[test]
    fn living_agents_are_named_and_what_cannot_be_told_refuses() {
        let alive = Ok(vec![PathBuf::from("/sys/fs/cgroup/agents.slice")]);
        let (exit, message) = refusal(&Facts { alive, ..facts() });
        assert!(exit == Exit::Busy && message.contains("agents.slice"), "{message}");
        assert_eq!(refusal(&Facts { alive: Err("why".to_owned()), ..facts() }).0, Exit::Busy);
    }

    #[test]
    fn a_directory_that_is_not_in_bpffs_is_never_removed() {
        assert_eq!(refusal(&Facts { bpffs: false, ..facts() }).0, Exit::BadSettings);
    }

    #[test]
    fn only_what_the_daemon_pins_is_removed() {
        let dir = tempfile::tempdir().expect("dir");
        let pins = dir.path().join("enforcer");
        for name in ["links-3/file_open", "links-4/file_open", "links-4/task_alloc", "maps/GATE"] {
            let path = pins.join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, "").expect("write");
        }
        assert_eq!(remove(&pins).expect("removed"), 3);
        assert!(!pins.exists());
        fs::create_dir_all(pins.join("somebody-else")).expect("mkdir");
        assert!(remove(&pins).is_err() && pins.join("somebody-else").exists());
    }
}
