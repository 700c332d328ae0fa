//! Agents: their policies in force, and their sessions.

use crate::{
    command::{Command, PATIENCE, wait_for},
    ensure,
    events::{self, Mark},
    fail,
    harness::{Outcome, exists},
    policy::Policy,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::Child,
    sync::mpsc::{Receiver, channel},
    thread,
};

/// The program that agents of tests run.
pub const PROBE: &str = "/usr/lib/enforcer-tests/probe";
const POLICIES: &str = "/etc/enforcer/policies.d";
/// Where sessions live.
pub const ROOT: &str = "/sys/fs/cgroup/agents.slice";

/// An agent whose policy is in force. Its file goes when this does.
pub struct Agent {
    policy: Policy,
    digest: String,
}

impl Agent {
    /// Writes the policy and waits until the daemon says that it is in force.
    pub fn publish(policy: Policy) -> Outcome<Self> {
        let mut agent = Self { policy, digest: String::new() };
        agent.put_in_force()?;
        Ok(agent)
    }

    /// Replaces the policy.
    pub fn change(&mut self, policy: Policy) -> Outcome {
        self.policy = policy;
        self.put_in_force()
    }

    /// The policy that was published last.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        self.policy.name()
    }

    /// SHA-256 of the policy in force, as the daemon says.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The file of the policy.
    pub fn file(&self) -> String {
        format!("{POLICIES}/{}.yaml", self.name())
    }

    fn put_in_force(&mut self) -> Outcome {
        let draft = format!("{POLICIES}/{}.draft", self.name());
        fs::write(&draft, self.policy.to_string())?;
        fs::rename(&draft, self.file())?;
        let ran = Command::new("enforcer").args(["reload", "--output", "json"]).run()?;
        let what = format!("version {} of {} in force", self.policy.version(), self.name());
        let found = wait_for(&what, 120, || {
            let agent = self.status().ok()??;
            (agent["version"] == self.policy.version()).then_some(agent)
        });
        let agent = match found {
            Ok(agent) => agent,
            Err(error) => fail!("{error}\n{ran}\n{}", self.policy),
        };
        self.digest = agent["digest"].as_str().unwrap_or_default().to_owned();
        ensure!(self.digest.len() == 64, "{} has the digest {:?}", self.name(), self.digest);
        Ok(())
    }

    /// What `enforcer agents` says of this agent.
    pub fn status(&self) -> Outcome<Option<Value>> {
        let ran = Command::new("enforcer").args(["agents", "--output", "json"]).run()?;
        let Ok(answer) = serde_json::from_str::<Value>(&ran.out) else { fail!("no JSON: {ran}") };
        let agents = answer["agents"].as_array().cloned().unwrap_or_default();
        Ok(agents.into_iter().find(|agent| agent["name"] == self.name()))
    }

    /// The command line that starts a session.
    fn exec(&self, words: &[String]) -> Command {
        Command::new("enforcer").args(["exec", self.name(), "--verbose", "--cwd", "/", "--"]).args(words)
    }

    /// Runs acts in one process of a new session.
    pub fn probe(&self, acts: &[String]) -> Outcome<Session> {
        let words = ["seq"].into_iter().chain([]).map(str::to_owned);
        let words: Vec<String> =
            [PROBE.to_owned()].into_iter().chain(words).chain(split(&acts.join(" , "))).collect();
        self.run(&words)
    }

    /// Runs a command in a new session.
    pub fn run(&self, words: &[String]) -> Outcome<Session> {
        self.run_for(words, PATIENCE.as_secs())
    }

    /// As [`Agent::run`], for so many seconds.
    pub fn run_for(&self, words: &[String], seconds: u64) -> Outcome<Session> {
        let mark = events::mark()?;
        let ran = self.exec(words).patience(seconds).run()?;
        let Some(id) = session_id(&ran.err) else { fail!("no session: {ran}") };
        let lines = ran.out.lines().map(str::to_owned).collect();
        Ok(Session { id, lines, code: ran.code, err: ran.err, mark })
    }

    /// Starts acts in one process of a new session that outlives the daemon.
    pub fn detached(&self, acts: &[String]) -> Outcome<Child> {
        let words = ["enforcer", "exec", self.name(), "--detach", "--cwd", "/", "--", PROBE, "seq"];
        Ok(Command::new("setsid").args(words).args(split(&acts.join(" , "))).spawn()?)
    }

    /// Starts acts in one process of a new session, and leaves it running.
    pub fn start(&self, acts: &[String]) -> Outcome<Live> {
        let mark = events::mark()?;
        let mut words = vec![PROBE.to_owned(), "seq".to_owned()];
        words.extend(split(&acts.join(" , ")));
        let mut child = self.exec(&words).spawn()?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            fail!("the pipes are missing")
        };
        let mut live = Live {
            child,
            out: lines_of(out),
            err: lines_of(err),
            mark,
            id: String::new(),
            name: String::new(),
        };
        let first = live.err.recv_timeout(PATIENCE).unwrap_or_default();
        let Some(id) = session_id(&first) else { fail!("no session: {first}") };
        live.name = format!("{}-{id}", self.name());
        live.id = id;
        Ok(live)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The daemon sees that by itself; the next test does not wait for it.
        let _ = fs::remove_file(self.file());
    }
}

fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn session_id(err: &str) -> Option<String> {
    err.lines().find_map(|line| Some(line.strip_prefix("session ")?.trim().to_owned()))
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (to, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// A session that has ended.
pub struct Session {
    /// Its id.
    pub id: String,
    /// What its command printed.
    pub lines: Vec<String>,
    /// Its status.
    pub code: Option<i32>,
    /// What it complained about.
    pub err: String,
    /// The log before it began.
    pub mark: Mark,
}

/// A session that runs.
pub struct Live {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    /// The log before it began.
    pub mark: Mark,
    /// Its id.
    pub id: String,
    name: String,
}

impl Live {
    /// The next line that its command prints.
    pub fn line(&mut self) -> Outcome<String> {
        match self.out.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(_) => {
                let err: Vec<String> = self.err.try_iter().collect();
                fail!("session {} says nothing more\n{}", self.id, err.join("\n"))
            }
        }
    }

    /// The next line that its command has printed, if there is one.
    pub fn try_line(&mut self) -> Option<String> {
        self.out.try_recv().ok()
    }

    /// Fails unless the next lines are these.
    pub fn expect(&mut self, lines: &[&str]) -> Outcome {
        for (index, expected) in lines.iter().enumerate() {
            let line = self.line()?;
            ensure!(line == *expected, "line {index} is {line}, not {expected} (of {lines:?})");
        }
        Ok(())
    }

    /// The unit that it is, if systemd has made its cgroup.
    pub fn unit(&self) -> String {
        format!("enforcer-{}.scope", self.name)
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> Outcome<PathBuf> {
        let root = Path::new(ROOT);
        let either = [root.join(self.unit()), root.join(format!("session-{}", self.name))];
        match either.iter().find(|path| path.is_dir()) {
            Some(path) => Ok(path.clone()),
            None => fail!("neither {} nor {} is there", either[0].display(), either[1].display()),
        }
    }

    /// The one process in it.
    pub fn pid(&self) -> Outcome<u32> {
        let text = fs::read_to_string(self.cgroup()?.join("cgroup.procs"))?;
        match text.lines().collect::<Vec<_>>()[..] {
            [pid] => pid.parse().map_err(|_| crate::harness::Failed::new(format!("{pid} is no process"))),
            _ => fail!("the processes of {} are {text:?}", self.id),
        }
    }

    /// Fails if it has ended, and says how.
    pub fn goes_on(&mut self) -> Outcome {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let (out, err): (Vec<String>, Vec<String>) =
            (self.out.try_iter().collect(), self.err.try_iter().collect());
        fail!("session {} has ended with {status}: {out:?}\n{}", self.id, err.join("\n"))
    }

    /// Waits for its end.
    pub fn finish(&mut self) -> Outcome<Option<i32>> {
        let status = wait_for("the end of the session", 120, || self.child.try_wait().ok().flatten())?;
        Ok(status.code())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Ends the session too, unless it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Moves a process to a cgroup.
pub fn move_to(cgroup: &str, pid: u32) -> Outcome {
    if !exists(cgroup) {
        fs::create_dir(cgroup)?;
    }
    Ok(fs::write(format!("{cgroup}/cgroup.procs"), pid.to_string())?)
}
