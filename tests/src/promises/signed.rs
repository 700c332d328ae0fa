//! A person with a key decides about what a real program does.

use crate::{
    approvals::{asked, nothing_waits},
    cases,
    command::Command,
    ensure,
    harness::{Outcome, Test},
};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
};

cases!(signed:
    a_push_waits_for_a_signature_and_completes,
);

/// A key of these tests, which nothing else trusts.
const KEY: &str = include_str!("../../keys/approver");
const PUBLIC: &str = include_str!("../../keys/approver.pub");
const APPROVER: &str = "/etc/enforcer/approvers.d/signed-test.toml";

/// The approver's file, gone with its value.
struct Approver;

impl Approver {
    fn new(agent: &str) -> Outcome<Self> {
        fs::create_dir_all("/etc/enforcer/approvers.d")?;
        let text = format!(
            "name = \"tester\"\nperson = \"tester\"\nkeys = [\"{}\"]\n\
             [[scopes]]\nagents = [\"{agent}\"]\ntiers = [\"low\", \"medium\", \"high\"]\n",
            PUBLIC.trim()
        );
        fs::write(APPROVER, text)?;
        Ok(Self)
    }
}

impl Drop for Approver {
    fn drop(&mut self) {
        let _ = fs::remove_file(APPROVER);
    }
}

fn git(words: &[&str]) -> Outcome<String> {
    let ran = Command::new("git").args(words).run()?;
    ensure!(ran.code == Some(0), "{ran}");
    Ok(ran.out.trim().to_owned())
}

/// `git push` to a repository on this host, where moving the branch needs a person.
fn a_push_waits_for_a_signature_and_completes(t: &mut Test) -> Outcome {
    t.fresh()?;
    let (work, remote, key) = (t.at("work"), t.at("remote.git"), t.at("key"));
    git(&["init", "--quiet", "--bare", &remote])?;
    git(&["init", "--quiet", &work])?;
    t.file("work/a")?;
    git(&["-C", &work, "add", "a"])?;
    let who = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"];
    git(&[&["-C", &work], &who[..], &["commit", "--quiet", "-m", "a"]].concat())?;
    let wanted = git(&["-C", &work, "rev-parse", "HEAD"])?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key)?.write_all(KEY.as_bytes())?;

    let branch = format!("{remote}/refs/heads/main");
    let policy = t
        .policy()
        .exec("/usr/bin/git")
        .exec("/usr/lib/git-core/**")
        .exec("/usr/bin/dash")
        .allow("all", &format!("{work}/**"))
        .allow("all", &format!("{remote}/**"))
        .hold("create, write", &branch);
    let agent = t.agent(policy)?;
    let _approver = Approver::new(agent.name())?;
    let words = ["exec", agent.name(), "--cwd", "/", "--", "/usr/bin/git", "-C", &work, "push", "--quiet"];
    let push = Command::new("enforcer").args(words).args([&remote, "HEAD:refs/heads/main"]).spawn()?;
    let request = asked(&agent, "rename")?;
    ensure!(!fs::exists(&branch)?, "the branch moved before anybody had answered");
    // Somebody who is no approver, and the approver.
    let approve = |who: &str| {
        let words =
            ["approvals", "approve", &request.hold, "--reason", "reviewed", "--key", &key, "--as", who];
        Command::new("enforcer").args(words).run()
    };
    let nobody = approve("nobody")?;
    ensure!(nobody.code != Some(0) && !fs::exists(&branch)?, "{nobody}");
    let approved = approve("tester")?;
    ensure!(approved.code == Some(0), "{approved}");
    nothing_waits(&agent)?;
    let pushed = push.wait_with_output()?;
    ensure!(pushed.status.success(), "the push: {}", String::from_utf8_lossy(&pushed.stderr));
    let found = git(&["-C", &remote, "rev-parse", "refs/heads/main"])?;
    ensure!(found == wanted, "the branch is at {found}, not at {wanted}");
    Ok(())
}
