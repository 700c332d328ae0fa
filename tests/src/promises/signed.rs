//! A person with a key decides about what a real program does.

use crate::{
    approvals::{asked, nothing_waits},
    cases,
    command::{Command, Ran},
    ensure,
    harness::{Outcome, Test},
};
use ssh_key::{HashAlg, LineEnding, PrivateKey, private::Ed25519Keypair};
use std::fs;

cases!(signed:
    a_push_waits_for_a_signature_and_completes,
);

const APPROVER: &str = "/etc/enforcer/approvers.d/signed-test.toml";

/// The approver's file, gone with its value.
struct Approver;

impl Approver {
    fn new(agent: &str, key: &str) -> Outcome<Self> {
        fs::create_dir_all("/etc/enforcer/approvers.d")?;
        let text = format!(
            "name = \"tester\"\nperson = \"tester\"\nkeys = [\"{key}\"]\n\
             [[scopes]]\nagents = [\"{agent}\"]\ntiers = [\"low\", \"medium\", \"high\"]\n"
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
    let (work, remote) = (t.at("work"), t.at("remote.git"));
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    git(&["init", "--quiet", "--bare", &remote])?;
    git(&["init", "--quiet", &work])?;
    t.file("work/a")?;
    git(&["-C", &work, "add", "a"])?;
    let who = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"];
    git(&[&["-C", &work], &who[..], &["commit", "--quiet", "-m", "a"]].concat())?;
    let wanted = git(&["-C", &work, "rev-parse", "HEAD"])?;

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
    let _approver = Approver::new(agent.name(), &key.public_key().to_openssh()?)?;
    let words = ["exec", agent.name(), "--cwd", "/", "--", "/usr/bin/git", "-C", &work, "push", "--quiet"];
    let push = Command::new("enforcer").args(words).args([&remote, "HEAD:refs/heads/main"]).spawn()?;
    let request = asked(&agent, "rename")?;
    ensure!(!fs::exists(&branch)?, "the branch moved before anybody had answered");
    // The text is carried to where the key is, and the signature back.
    let show = ["approvals", "show", &request.hold, "--request", "--as", "tester"];
    let statement = Command::new("enforcer").args(show).run()?;
    ensure!(statement.code == Some(0), "{statement}");
    let file = t.at("statement");
    fs::write(&file, &statement.out)?;
    let submit = |key: &PrivateKey| -> Outcome<Ran> {
        let signature = key.sign("enforcer-approval", HashAlg::Sha512, statement.out.as_bytes())?;
        fs::write(format!("{file}.sig"), signature.to_pem(LineEnding::LF)?)?;
        Ok(Command::new("enforcer").args(["approvals", "submit", &file]).run()?)
    };
    let other = submit(&PrivateKey::from(Ed25519Keypair::from_seed(&[8; 32])))?;
    ensure!(other.code == Some(14) && !fs::exists(&branch)?, "another key: {other}");
    let approved = submit(&key)?;
    ensure!(approved.code == Some(0), "{approved}");
    nothing_waits(&agent)?;
    let pushed = push.wait_with_output()?;
    ensure!(pushed.status.success(), "the push: {}", String::from_utf8_lossy(&pushed.stderr));
    let found = git(&["-C", &remote, "rev-parse", "refs/heads/main"])?;
    ensure!(found == wanted, "the branch is at {found}, not at {wanted}");
    Ok(())
}
