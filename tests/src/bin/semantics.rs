//! Compares the running kernel with the reference on random policies, trees and acts. Runs in a guest,
//! as root outside any agent, with the daemon up; starts itself as the agent (`worker`).

use enforcer::policy::{self, ValidPolicy};
use enforcer_tests::semantics::{
    acts::{Act, random_act},
    generate::{self, Tree},
    moves::{self, Shuffler},
    random::Random,
};
use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

const AGENT: &str = "semantics";
const POLICY: &str = "/etc/enforcer/policies.d/semantics.yaml";
const DRAFT: &str = "/etc/enforcer/policies.d/semantics.draft";
/// Steps per policy: a batch of acts that leave the tree alone, or one that changes it.
const STEPS: usize = 100;
/// Directories per policy that get another name between acts below them.
const MOVES: usize = 40;
/// Acts in a batch.
const BATCH: usize = 64;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "worker") {
        return worker();
    }
    let full = arguments.iter().any(|a| a == "--full");
    // A hundred thousand acts on the reference kernel, a quarter of that on the others.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rounds = match (full, release.starts_with("6.12.")) {
        (true, _) => 120,
        (false, true) => 28,
        (false, false) => 8,
    };
    let seed = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(20_261_122);
    let compared = nobody_is_asked().and_then(|()| compare(rounds, seed));
    let _ = fs::remove_file(POLICY);
    match compared {
        Ok((acts, wrong)) => {
            println!("{acts} acts compared with seed {seed}, {wrong} wrong");
            println!(
                "test the_kernel_says_what_the_reference_says ... {}",
                if wrong == 0 { "ok" } else { "FAILED" }
            );
            println!("{} passed, {} failed, 0 skipped", u8::from(wrong == 0), u8::from(wrong != 0));
            ExitCode::from(u8::from(wrong != 0))
        }
        Err(e) => {
            println!(
                "semantics: {e}\ntest the_kernel_says_what_the_reference_says ... FAILED\n0 passed, 1 failed, 0 skipped"
            );
            ExitCode::FAILURE
        }
    }
}

fn compare(rounds: usize, seed: u64) -> Result<(usize, usize)> {
    let me = std::env::current_exe()?.canonicalize()?;
    let me = me.to_str().ok_or("this program's path is not text")?;
    let (mut acts, mut wrong, mut allowed) = (0, 0, 0);
    for round in 0..rounds {
        let mut random = Random::new(seed.wrapping_add(round as u64));
        let root = format!("/srv/semantics/{round}");
        let tree = generate::tree(&mut random, 120);
        let _ = fs::remove_dir_all(&root);
        for directory in &tree.directories {
            fs::create_dir_all(format!("{root}{directory}"))?;
        }
        for file in &tree.files {
            fs::write(format!("{root}{file}"), b"")?;
        }
        let rules = *random.of(&[3, 10, 30, 60]);
        let text = generate::policy(&mut random, AGENT, round + 1, &root, me, rules);
        let valid = policy::parse(POLICY, &text).map_err(|e| e.render(false))?;
        publish(&text, &valid)?;
        let image = policy::compile(&valid).map_err(|e| e.to_string())?;
        let tiers = policy::trust_tiers(valid.trust_in_force(None));
        let mut worker = Worker::start(me)?;
        let mut try_all = |batch: &[Act]| -> Result<()> {
            let found = worker.perform(batch)?;
            for (act, found) in batch.iter().zip(found) {
                let expected = act.expected(&valid, &image, &tiers);
                acts += 1;
                allowed += usize::from(expected);
                if found != if expected { "ok" } else { "EPERM" } {
                    wrong += 1;
                    println!(
                        "WRONG: {act:?}: the kernel said {found}, the reference allows: {expected}\n{text}"
                    );
                }
                if found == "ok" || act.may_leave_something() {
                    act.mend()?;
                }
            }
            Ok(())
        };
        for _ in 0..STEPS {
            try_all(&choose(&mut random, &root, &tree))?;
        }
        // Names that were remembered a moment ago are others now, while files and directories elsewhere move as well.
        let shuffler = (round % 2 == 1).then(|| Shuffler::start(&root)).transpose()?;
        for _ in 0..MOVES {
            let Some(there) = moves::random(&mut random, &root, &tree) else { break };
            try_all(&there.before())?;
            there.perform()?;
            let moved = try_all(&there.after());
            there.undo()?;
            moved?;
            try_all(&there.before())?;
        }
        drop(shuffler);
        worker.end()?;
        if wrong >= 5 {
            return Ok((acts, wrong));
        }
        println!("round {round}: {rules} rules, {acts} acts so far, {allowed} of them allowed");
    }
    // Either verdict must have had its chance, or the comparison says little.
    if allowed * 20 < acts || allowed * 20 > acts * 19 {
        return Err(
            format!("only {allowed} of {acts} acts were allowed: the generator is out of balance").into()
        );
    }
    Ok((acts, wrong))
}

/// Makes the daemon refuse at once what rules hold: here nobody answers.
fn nobody_is_asked() -> Result<()> {
    const SETTINGS: &str = "/etc/enforcer/enforcer.toml";
    let text = fs::read_to_string(SETTINGS)?;
    let changed: Vec<&str> = text
        .lines()
        .map(|line| if line.starts_with("per_agent =") { "per_agent = 0" } else { line })
        .collect();
    let changed = changed.join("\n");
    if !changed.contains("per_agent = 0") {
        return Err(format!("{SETTINGS} does not say how many requests may wait").into());
    }
    fs::write(SETTINGS, changed)?;
    let restarted = Command::new("systemctl").args(["restart", "enforcer.service"]).status()?;
    if restarted.success() { Ok(()) } else { Err("the daemon did not start again".into()) }
}

/// A batch of acts that do not disturb each other, or a single one that changes the tree.
fn choose(random: &mut Random, root: &str, tree: &Tree) -> Vec<Act> {
    let want = if random.chance(60) { BATCH } else { 1 };
    let mut batch = Vec::new();
    while batch.len() < want {
        let act = random_act(random, root, tree);
        if act.makes_sense() && (want == 1 || !act.changes_names()) {
            batch.push(act);
        }
    }
    batch
}

/// Puts the policy in force and waits until the daemon says so.
fn publish(text: &str, valid: &ValidPolicy) -> Result<()> {
    // At once, so that nobody reads the half of it.
    fs::write(DRAFT, text)?;
    fs::rename(DRAFT, POLICY)?;
    let deadline = Instant::now() + Duration::from_secs(300);
    let digest: String = valid.digest().iter().map(|b| format!("{b:02x}")).collect();
    loop {
        // The reload is answered when it is done; the file's own notification may have been quicker.
        Command::new("enforcer").arg("reload").stdout(Stdio::null()).status()?;
        let agents = Command::new("enforcer").args(["agents", "--output", "json"]).output()?;
        if String::from_utf8_lossy(&agents.stdout).contains(&digest) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the daemon does not take the policy:\n{text}").into());
        }
    }
}

struct Worker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    fn start(me: &str) -> Result<Self> {
        let mut child = Command::new("enforcer")
            .args(["exec", AGENT, "--cwd", "/", "--", me, "worker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().ok_or("no pipe")?;
        let from = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, to, from })
    }

    fn perform(&mut self, acts: &[Act]) -> Result<Vec<String>> {
        let lines: String = acts.iter().map(|act| act.to_line() + "\n").collect();
        self.to.write_all(lines.as_bytes())?;
        let mut answers = Vec::new();
        for _ in acts {
            let mut line = String::new();
            if self.from.read_line(&mut line)? == 0 {
                return Err("the worker ended".into());
            }
            answers.push(line.trim_end().to_owned());
        }
        Ok(answers)
    }

    fn end(mut self) -> Result<()> {
        drop(self.to);
        self.child.wait()?;
        Ok(())
    }
}

/// The agent: does what the lines on standard input say.
fn worker() -> ExitCode {
    let mut from = BufReader::new(std::io::stdin().lock());
    let mut answers = Vec::new();
    let mut line = String::new();
    while from.read_line(&mut line).is_ok_and(|n| n > 0) {
        let Some(act) = Act::from_line(line.trim_end()) else { return ExitCode::from(64) };
        match act.perform() {
            Ok(()) => answers.extend(b"ok\n"),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => answers.extend(b"EPERM\n"),
            Err(e) => answers.extend(format!("{e}\n").bytes()),
        }
        line.clear();
        // Everything that was sent is done: answer.
        if from.buffer().is_empty() {
            if std::io::stdout().write_all(&answers).is_err() {
                return ExitCode::FAILURE;
            }
            answers.clear();
        }
    }
    ExitCode::SUCCESS
}
