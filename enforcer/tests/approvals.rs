//! Approvals from the command line to the kernel side in memory, with signatures of the real ssh-keygen.

#[path = "support/fake.rs"]
mod fake;
#[path = "support/terminal.rs"]
mod terminal;

use enforcer::{daemon, settings::Settings};
use enforcer_common::{
    access::file,
    event::{Header, VERSION, kind, operation, reason},
    hold::{GRANTED, Hold, REFUSED, WAITING, Waiter, WaiterKey, Word},
    map::Session,
    verdict::Verdict,
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use zerocopy::{FromZeros, IntoBytes};

const PROGRAM: &str = env!("CARGO_BIN_EXE_enforcer");
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    dir: PathBuf,
}

/// A daemon whose kernel side has one agent with three requests that wait: tests share it, each has its own.
fn world() -> Option<&'static World> {
    static WORLD: std::sync::OnceLock<Option<World>> = std::sync::OnceLock::new();
    let world = WORLD.get_or_init(start).as_ref();
    if world.is_none() {
        eprintln!("SKIPPED: needs root, and ssh-keygen of openssh-client");
    }
    world
}

fn keygen(arguments: &[&str]) -> Option<Output> {
    Command::new("ssh-keygen").args(arguments).stdin(Stdio::null()).output().ok()
}

fn start() -> Option<World> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("approvals");
    // Of an earlier run, if there was one.
    let _ = fs::remove_dir_all(&dir);
    for sub in ["policies.d", "approvers.d", "state", "cgroups/agents.slice/one", "cgroups/agents.slice/two"]
    {
        fs::create_dir_all(dir.join(sub)).expect("dir");
        fs::set_permissions(dir.join(sub), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let kinds = [
        ("alice", "ed25519"),
        ("bob", "ecdsa"),
        ("mallory", "ed25519"),
        ("carol", "ed25519"),
        ("erin", "ecdsa"),
        ("frank", "ed25519"),
    ];
    for (name, kind) in kinds {
        let key = dir.join(name).display().to_string();
        let made = keygen(&["-q", "-t", kind, "-N", "", "-C", name, "-f", &key])?;
        assert!(made.status.success(), "{made:?}");
        let public = fs::read_to_string(dir.join(format!("{name}.pub"))).expect("key");
        let scope = match name {
            "erin" => "trust = true",
            "frank" => "tiers = ['high']",
            _ => "tiers = ['low', 'medium']",
        };
        let text = format!(
            "name = '{name}'\nperson = '{name}'\nkeys = ['{}']\n[[scopes]]\nagents = ['*']\n{scope}\n",
            public.trim()
        );
        if name != "mallory" && name != "carol" {
            fs::write(dir.join(format!("approvers.d/{name}.toml")), text).expect("write");
        }
    }
    fs::write(
        dir.join("policies.d/bot.yaml"),
        "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
         metadata: { id: bot, version: 1, owner: a@example.com, purpose: Test }\ntrust: trusted\n\
         files:\n  - { hold: [delete], tier: medium, paths: [\"/w/**\"], because: \"kept\" }\n",
    )
    .expect("write");
    let text = format!(
        "[paths]\npolicies = '{0}/policies.d'\napprovers = '{0}/approvers.d'\nstate = '{0}/state'\n\
         socket = '{0}/control.sock'\npins = '{0}/pins'\ncgroups = '{0}/cgroups'\n\
         [approvals]\nlocal_operator = false\n",
        dir.display()
    );
    fs::write(dir.join("enforcer.toml"), &text).expect("write");
    let program = dir.join("program");
    // The kernel side in memory refuses nothing, so the canary must be told to sing.
    fs::write(&program, format!("#!/bin/sh\n[ \"$1\" = canary ] && exit 0\nexec {PROGRAM} \"$@\"\n"))
        .expect("write");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let settings = Settings::parse("test", &text).expect("settings");
    let out = dir.join("kernel.json");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let fake = fake::Fake::default();
        held(&fake);
        let local = tokio::task::LocalSet::new();
        let watched = fake.clone();
        local.spawn_local(async move {
            loop {
                tell(&watched, &out);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let result = local.block_on(&runtime, daemon::run_with(settings, program, Box::new(fake)));
        eprintln!("the daemon ended: {result:?}");
    });
    let world = World { dir };
    wait_until("the daemon knows what waits", || {
        world.dir.join("control.sock").exists() && world.list().len() == OBJECTS.len()
    });
    Some(world)
}

/// What waits: one for each test.
const OBJECTS: [&str; 5] = ["/w/watched", "/w/signed", "/w/submitted", "/w/denied", "/w/refused\x1b[2J"];

fn id(object: &str) -> [u64; 2] {
    let at = OBJECTS.iter().position(|known| *known == object).expect("an object");
    [0xabc0_0000_0000_0000 + at as u64, 1]
}

/// The session, its holds, its waiters and the records about them, as the kernel side makes them.
fn held(fake: &fake::Fake) {
    let mut told = fake.0.borrow_mut();
    let mut session = Session::new_zeroed();
    (session.version, session.agent, session.generation, session.id) = (1, 0, 77, [5, 6]);
    // A directory below the root stands for its cgroup: the sweep leaves the session alone.
    let agents = Path::new(env!("CARGO_TARGET_TMPDIR")).join("approvals/cgroups/agents.slice/one");
    session.cgroup = std::os::unix::fs::MetadataExt::ino(&fs::metadata(agents).expect("cgroup"));
    told.sessions.insert(900, session);
    // And one of the agent that has a policy.
    let other = Path::new(env!("CARGO_TARGET_TMPDIR")).join("approvals/cgroups/agents.slice/two");
    let mut bots = session;
    (bots.agent, bots.generation, bots.id) = (1, 78, [5, 7]);
    bots.cgroup = std::os::unix::fs::MetadataExt::ino(&fs::metadata(other).expect("cgroup"));
    told.sessions.insert(901, bots);
    told.agents.insert(daemon::enforcement::AgentSlot(1), ("bot".to_owned(), 0));
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("time");
    let now = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    let own = std::process::id();
    for object in OBJECTS {
        let mut hold = Hold::new_zeroed();
        let id = id(object);
        (hold.word, hold.deadline, hold.since) = (Word::new(id, WAITING, 0).0, now + 600_000_000_000, now);
        (hold.session, hold.slot) = (session.id, 900);
        told.holds.insert(id, hold);
        told.waiters.push((
            WaiterKey { pid: own, tgid: own, started: started() },
            Waiter { id, since: now, woken: 0 },
        ));
        let mut header = Header::new_zeroed();
        (header.version, header.kind, header.verdict) = (VERSION, kind::HELD, Verdict::Hold as u16);
        (header.reason, header.operation, header.access) =
            (reason::HELD, operation::UNLINK, u32::from(file::DELETE));
        (header.session, header.time, header.hold) = (session.id, now, id);
        (header.pid, header.tgid, header.started) = (own, own, started());
        (header.agent, header.policy) = (0, 0);
        header.object_len = object.len() as u16;
        header.length = (size_of::<Header>() + object.len()) as u32;
        told.records.push([header.as_bytes(), object.as_bytes()].concat());
    }
}

fn started() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("stat");
    let fields = stat.rsplit_once(')').expect("name").1;
    fields.split_ascii_whitespace().nth(19).and_then(|field| field.parse::<u64>().ok()).expect("start")
        * 10_000_000
}

/// Writes what the kernel side was told, for the tests' threads.
fn tell(fake: &fake::Fake, out: &Path) {
    let told = fake.0.borrow();
    let holds: serde_json::Map<String, Value> = told
        .holds
        .iter()
        .map(|(id, hold)| {
            let word = Word(hold.word);
            (format!("{:016x}{:016x}", id[0], id[1]), serde_json::json!([word.state(), word.uses()]))
        })
        .collect();
    let level = told.sessions.get(&901).map_or(0, |session| session.tiers.level);
    let mut holds = holds;
    holds.insert("level".to_owned(), level.into());
    let fresh = out.with_extension("new");
    fs::write(&fresh, Value::from(holds).to_string()).expect("write");
    fs::rename(fresh, out).expect("rename");
}

/// Other tests' decisions read the approvers' files at any time.
fn replace(file: &Path, text: &str) {
    let fresh = file.with_extension("new");
    fs::write(&fresh, text).expect("write");
    fs::rename(fresh, file).expect("rename");
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl World {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("--settings").arg(self.dir.join("enforcer.toml")).args(arguments);
        command.stdin(Stdio::null()).output().expect("run")
    }

    fn list(&self) -> Vec<Value> {
        let output = self.run(&["--output", "json", "approvals", "list", "--all"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        answer["requests"].as_array().cloned().unwrap_or_default()
    }

    /// The records so far. Those of other tests are being written: the last line may be half there.
    fn records(&self) -> Vec<Value> {
        let log = fs::read(self.dir.join("state/audit/events.jsonl")).expect("log");
        let whole = log.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        whole.map(|line| serde_json::from_slice(line).expect("json")).collect()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// What the kernel side keeps of a hold: its state and its uses.
    fn kernel(&self, object: &str) -> (u64, u64) {
        let text = fs::read_to_string(self.dir.join("kernel.json")).expect("kernel");
        let all: Value = serde_json::from_str(&text).expect("json");
        let entry = &all[hold(object)];
        (entry[0].as_u64().expect("state"), entry[1].as_u64().expect("uses"))
    }

    fn becomes(&self, object: &str, state: u8, uses: u64) {
        wait_until("the kernel side is told", || self.kernel(object) == (u64::from(state), uses));
    }
}

fn hold(object: &str) -> String {
    let [high, low] = id(object);
    format!("{high:016x}{low:016x}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {}", text(&output.stderr)))
}

#[test]
fn an_approver_signs_with_a_key_and_the_kernel_is_told_after_the_record() {
    let Some(world) = world() else { return };
    let (object, key) = ("/w/signed", world.path("bob"));
    let show = world.run(&["approvals", "show", &hold(object)]);
    assert!(text(&show.stdout).contains("delete the file /w/signed"), "{}", text(&show.stdout));
    let approve = world.run(&[
        "approvals",
        "approve",
        &hold(object),
        "--key",
        &key,
        "--as",
        "bob",
        "--reason",
        "ticket 9",
    ]);
    assert_eq!(code(&approve), 14, "tier high, since the rule cannot be told: {}", text(&approve.stderr));
    assert!(
        text(&approve.stderr).contains("bob may not decide about tier high"),
        "{}",
        text(&approve.stderr)
    );
    // The scopes are read anew each time.
    let file = world.dir.join("approvers.d/bob.toml");
    let wider = fs::read_to_string(&file).expect("read").replace("'medium'", "'medium', 'high'");
    replace(&file, &wider);
    let often =
        world.run(&["approvals", "approve", &hold(object), "--key", &key, "--as", "bob", "--times", "2"]);
    assert!(
        code(&often) == 14 && text(&often.stderr).contains("too much for tier high"),
        "{}",
        text(&often.stderr)
    );
    let approve = world.run(&[
        "approvals",
        "approve",
        &hold(object),
        "--key",
        &key,
        "--as",
        "bob",
        "--reason",
        "ticket 9",
    ]);
    assert_eq!(code(&approve), 0, "{}", text(&approve.stderr));
    world.becomes(object, GRANTED, 1);
    let records = world.records();
    let decided =
        records.iter().find(|r| r["kind"] == "approval-decided" && r["requests"][0]["hold"] == hold(object));
    let decided = decided.expect("recorded");
    assert_eq!((&decided["by"]["name"], &decided["reason"]), (&"bob".into(), &"ticket 9".into()));
    assert!(decided["signature"].as_str().expect("signature").starts_with("-----BEGIN SSH SIGNATURE-----"));
    let again = world.run(&["approvals", "approve", &hold(object), "--key", &key, "--as", "bob"]);
    assert!(code(&again) == 14 && text(&again.stderr).contains("decided already"), "{}", text(&again.stderr));
}

#[test]
fn a_signature_may_come_from_anywhere_and_is_for_one_statement() {
    let Some(world) = world() else { return };
    let object = "/w/submitted";
    let file = world.dir.join("approvers.d/alice.toml");
    let wider = fs::read_to_string(&file).expect("read").replace("'medium'", "'medium', 'high'");
    replace(&file, &wider);
    let statement = world.run(&["approvals", "show", &hold(object), "--request", "--as", "alice"]);
    assert_eq!(code(&statement), 0, "{}", text(&statement.stderr));
    let path = world.path("statement");
    fs::write(&path, &statement.stdout).expect("write");
    for (key, namespace, words) in [
        ("mallory", "enforcer-approval", "no approver has the key"),
        ("bob", "enforcer-approval", "names the approver \"alice\", but \"bob\" has signed"),
        ("alice", "git", "namespace"),
    ] {
        let _ = fs::remove_file(format!("{path}.sig"));
        let signed =
            keygen(&["-q", "-Y", "sign", "-n", namespace, "-f", &world.path(key), &path]).expect("keygen");
        assert!(signed.status.success(), "{signed:?}");
        let submit = world.run(&["approvals", "submit", &path]);
        assert!(
            code(&submit) == 14 && text(&submit.stderr).contains(words),
            "{key}: {}",
            text(&submit.stderr)
        );
    }
    let _ = fs::remove_file(format!("{path}.sig"));
    assert!(
        keygen(&["-q", "-Y", "sign", "-n", "enforcer-approval", "-f", &world.path("alice"), &path]).is_some()
    );
    let other = world.path("other");
    fs::write(&other, text(&statement.stdout).replace("reason: ", "reason: x")).expect("write");
    let changed = world.run(&["approvals", "submit", &other, &format!("{path}.sig")]);
    assert!(
        code(&changed) == 14 && text(&changed.stderr).contains("does not fit"),
        "{}",
        text(&changed.stderr)
    );
    assert_eq!(world.kernel(object).0, u64::from(WAITING));
    let submit = world.run(&["approvals", "submit", &path]);
    assert_eq!(code(&submit), 0, "{}", text(&submit.stderr));
    world.becomes(object, GRANTED, 1);
    let replay = world.run(&["approvals", "submit", &path]);
    assert_eq!(code(&replay), 14, "{}", text(&replay.stdout));
}

#[test]
fn a_denial_is_signed_too_and_root_alone_decides_nothing_here() {
    let Some(world) = world() else { return };
    let object = "/w/denied";
    let root = world.run(&["approvals", "approve", &hold(object)]);
    assert!(
        code(&root) == 14 && text(&root.stderr).contains("do not let a local operator"),
        "{}",
        text(&root.stderr)
    );
    assert_eq!(world.kernel(object).0, u64::from(WAITING));
    let file = world.dir.join("approvers.d/carol.toml");
    let public = fs::read_to_string(world.path("carol.pub")).expect("key");
    let scope = "[[scopes]]\nagents = ['*']\ntiers = ['high']\n";
    fs::write(&file, format!("name = 'carol'\nperson = 'Carol'\nkeys = ['{}']\n{scope}", public.trim()))
        .expect("write");
    // One that others can write does not count.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("chmod");
    let deny = ["approvals", "deny", &hold(object), "--key", &world.path("carol"), "--as", "carol"];
    let refused = world.run(&deny);
    assert!(
        code(&refused) == 14 && text(&refused.stderr).contains("no approver has"),
        "{}",
        text(&refused.stderr)
    );
    assert!(text(&world.run(&["approvals", "list"]).stdout).contains("carol.toml: others can write it"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
    let denied = world.run(&deny);
    assert_eq!(code(&denied), 0, "{}", text(&denied.stderr));
    world.becomes(object, REFUSED, 0);
    fs::remove_file(file).expect("remove");
}

#[test]
fn somebody_looks_at_the_screen_and_presses_keys() {
    let Some(world) = world() else { return };
    let (settings, key) = (world.path("enforcer.toml"), world.path("frank"));
    let words = ["--settings", &settings, "approvals", "watch", "--key", &key, "--as", "frank"];
    let mut terminal = terminal::Terminal::start(PROGRAM, &words);
    wait_until("the first request is shown", || terminal.drawn().contains("/w/watched"));
    // What an agent named is on the screen, and moves nothing there.
    wait_until("all are shown", || terminal.drawn().contains("\\x1b[2J"));
    // Any other key than a clear yes takes the question back.
    terminal.press('a');
    wait_until("it asks again", || terminal.drawn().contains("Approve"));
    terminal.press('n');
    terminal.press('d');
    wait_until("it asks about something else", || terminal.drawn().contains("Deny"));
    terminal.press('n');
    assert_eq!(world.kernel("/w/watched").0, u64::from(WAITING));
    terminal.press('a');
    terminal.press('y');
    world.becomes("/w/watched", GRANTED, 1);
    wait_until("it says so", || terminal.drawn().contains("approved"));
    terminal.press('q');
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn what_an_agent_named_is_escaped_wherever_it_is_shown() {
    let Some(world) = world() else { return };
    let object = "/w/refused\x1b[2J";
    for arguments in [&["approvals", "list"][..], &["approvals", "show", &hold(object)]] {
        let output = world.run(arguments);
        assert!(text(&output.stdout).contains("/w/refused\\x1b[2J"), "{}", text(&output.stdout));
        assert!(!output.stdout.contains(&0x1b));
    }
    assert_eq!(code(&world.run(&["approvals", "show", "nothing"])), 64);
    assert_ne!(world.kernel(object).0, u64::from(REFUSED));
}

#[test]
fn trust_is_stated_with_a_key_whose_scope_says_so_and_counts_once() {
    let Some(world) = world() else { return };
    let shown = || text(&world.run(&["trust", "show", "bot"]).stdout);
    let level = || {
        let text = fs::read_to_string(world.dir.join("kernel.json")).expect("kernel");
        serde_json::from_str::<Value>(&text).expect("json")["level"].as_u64().expect("level")
    };
    assert!(shown().contains("bot  probation (at most trusted)"), "{}", shown());
    let set = |level: &str, who: &str| {
        let key = world.path(who);
        world.run(&["trust", "set", "bot", level, "--reason", "ticket 9", "--key", &key, "--as", who])
    };
    for (level, who, words) in [
        ("supervised", "bob", "bob may not change the trust of agent bot"),
        ("supervised", "mallory", "no approver has the key"),
        ("autonomous", "erin", "more than the policy of bot lets it have"),
    ] {
        let refused = set(level, who);
        assert!(code(&refused) == 14 && text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
    }
    let root = world.run(&["trust", "set", "bot", "supervised", "--reason", "x"]);
    assert!(text(&root.stderr).contains("do not let a local operator"), "{}", text(&root.stderr));
    assert!(shown().contains("nothing was stated"), "{}", shown());
    wait_until("the session has its first level", || level() == 1);

    let request = ["trust", "set", "bot", "trusted", "--reason", "ticket 9", "--request", "--as", "erin"];
    let statement = world.run(&request);
    let path = world.path("trust-statement");
    fs::write(&path, &statement.stdout).expect("write");
    // A signature for a decision is none for trust.
    for (namespace, expected) in [("enforcer-approval", 14), ("enforcer-trust", 0), ("enforcer-trust", 14)] {
        let _ = fs::remove_file(format!("{path}.sig"));
        keygen(&["-q", "-Y", "sign", "-n", namespace, "-f", &world.path("erin"), &path]).expect("keygen");
        let submit = world.run(&["trust", "submit", &path]);
        assert_eq!(code(&submit), expected, "{namespace}: {}", text(&submit.stderr));
    }
    assert!(shown().contains("bot  trusted\n") && shown().contains("because: ticket 9"), "{}", shown());
    wait_until("the session has the level", || level() == 3);
    let explained = world.run(&["policy", "explain", "bot", "delete", "/w/x"]);
    assert!(
        text(&explained.stdout).contains("trusted is the ceiling and in force"),
        "{}",
        text(&explained.stdout)
    );
    let lowered = set("probation", "erin");
    assert_eq!(code(&lowered), 0, "{}", text(&lowered.stderr));
    wait_until("the session has the lower level", || level() == 1);
    let changes: Vec<Value> =
        world.records().into_iter().filter(|record| record["kind"] == "trust-changed").collect();
    let levels: Vec<&Value> = changes.iter().map(|record| &record["in_force"]).collect();
    assert_eq!(levels, ["trusted", "probation"], "{changes:?}");
    assert_eq!((&changes[0]["by"]["name"], &changes[0]["because"]), (&"erin".into(), &"ticket 9".into()));
}
