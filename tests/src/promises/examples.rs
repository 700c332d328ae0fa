//! The policies of `examples/`, in force as they are, with real programs: each lets something be done and refuses
//! something else.

use super::units::Unit;
use crate::{
    cases,
    command::{Command, wait_for},
    ensure, events,
    harness::{Outcome, Test},
};
use serde_json::Value;
use std::fs;

cases!(examples: every_example_lets_its_programs_work_and_refuses_the_rest);

/// How an agent is started.
enum Start {
    /// By this user, who is in a group of this name.
    Launched(&'static str, &'static str),
    /// As this unit in this slice.
    Unit(&'static str, &'static str),
}
use Start::{Launched, Unit as InUnit};

/// One policy: what is there before, a program that works, and one that is refused.
struct Example {
    name: &'static str,
    text: &'static str,
    start: Start,
    prepare: &'static str,
    works: Option<&'static [&'static str]>,
    refused: &'static [&'static str],
    /// The operation in the record of the refusal.
    operation: &'static str,
}

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/policies/", $name, ".yaml"))
    };
}

const PYTHON: &str = "/usr/bin/python3";
const SHELL: &str = "/usr/bin/sh";
const GIT: &str =
    "git init -q --template= . && git -c user.name=A -c user.email=a commit -q --allow-empty -m one";

#[rustfmt::skip]
fn all() -> Vec<Example> {
    vec![
        Example {
            name: "coding-agent", text: example!("coding-agent"), start: Launched("coder", "developers"),
            prepare: "mkdir -p /srv/shop/src /srv/shop/migrations; cd /srv/shop; GIT; echo KEY=1 >.env; chown -R coder: /srv/shop",
            works: Some(&[SHELL, "-c", "cd /srv/shop && export HOME=/home/coder && echo x >src/cart.py && git add src && git -c user.name=A -c user.email=a commit -qm two && python3 -c 'print(1)' && node -e 'console.log(2)'"]),
            refused: &[SHELL, "-c", "cat /srv/shop/.env"], operation: "open",
        },
        Example {
            name: "build-bot", text: example!("build-bot"), start: Launched("builder", "builder"),
            prepare: "mkdir -p /srv/build/src /srv/build/target/debug/deps /tmp/build; echo 'int main(void){return 0;}' >/srv/build/src/a.c; chown -R builder: /srv/build/target /srv/build/src /tmp/build",
            works: Some(&[SHELL, "-c", "cd /srv/build && TMPDIR=/tmp/build gcc -o target/debug/deps/a src/a.c && target/debug/deps/a"]),
            refused: &[SHELL, "-c", "echo x >>/srv/build/src/a.c"], operation: "open",
        },
        Example {
            name: "ci-bot", text: example!("ci-bot"), start: InUnit("job-17", "agents-ci.slice"),
            prepare: "mkdir -p /var/lib/ci/jobs/17/tree /var/lib/ci/jobs/17/secrets; cd /var/lib/ci/jobs/17; echo k >secrets/key; printf 'all:\\n\\tcp Makefile made\\n' >tree/Makefile",
            works: Some(&[SHELL, "-c", "cd /var/lib/ci/jobs/17/tree && make -s && cat made"]),
            refused: &[SHELL, "-c", "cat /var/lib/ci/jobs/17/secrets/key"], operation: "open",
        },
        Example {
            name: "data-analysis", text: example!("data-analysis"), start: Launched("notebook", "analysts"),
            prepare: "mkdir -p /srv/data/sales/2030/customers /srv/data/results; echo 1,2 >/srv/data/sales/2030/q1.csv; echo n >/srv/data/sales/2030/customers/names.csv; chown -R notebook: /srv/data",
            works: Some(&[PYTHON, "-c", "open('/srv/data/results/sum', 'w').write(str(sum(map(int, open('/srv/data/sales/2030/q1.csv').read().split(',')))))"]),
            refused: &[PYTHON, "-c", "open('/srv/data/sales/2030/customers/names.csv')"], operation: "open",
        },
        Example {
            name: "docs-bot", text: example!("docs-bot"), start: Launched("docs", "docs"),
            prepare: "mkdir -p /srv/product/docs; chown -R docs: /srv/product",
            works: Some(&[PYTHON, "-c", "open('/srv/product/docs/index.md', 'w').write('x')"]),
            // In audit mode only the floor refuses.
            refused: &[PYTHON, "-c", "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)"], operation: "socket",
        },
        Example {
            name: "mcp-filesystem", text: example!("mcp-filesystem"), start: Launched("mcp", "assistants"),
            prepare: "mkdir -p /srv/handbook/drafts; echo x >/srv/handbook/travel.md; chown -R mcp: /srv/handbook",
            works: Some(&["/usr/bin/node", "-e", "const f = require('fs'); f.writeFileSync('/srv/handbook/drafts/new.md.tmp', f.readFileSync('/srv/handbook/travel.md')); f.renameSync('/srv/handbook/drafts/new.md.tmp', '/srv/handbook/drafts/new.md')"]),
            refused: &["/usr/bin/node", "-e", "require('fs').appendFileSync('/srv/handbook/travel.md', 'y')"], operation: "open",
        },
        Example {
            name: "mcp-git", text: example!("mcp-git"), start: Launched("mcp", "assistants"),
            prepare: "mkdir -p /srv/repos/site; cd /srv/repos/site; GIT; git branch topic; chown -R mcp: /srv/repos",
            works: Some(&["/usr/bin/git", "--git-dir=/srv/repos/site/.git", "log"]),
            refused: &["/usr/bin/git", "--git-dir=/srv/repos/site/.git", "config", "a.b", "c"], operation: "create",
        },
        Example {
            name: "oncall-bot", text: example!("oncall-bot"), start: InUnit("oncall-bot", "agents.slice"),
            prepare: "mkdir -p /var/log/service /var/lib/oncall-bot; echo broken >/var/log/service/error.log; echo secret >/var/log/auth.log",
            works: Some(&[SHELL, "-c", "uptime >/dev/null && ps >/dev/null && cat /var/log/service/error.log && cp /var/log/service/error.log /var/lib/oncall-bot/seen"]),
            refused: &[SHELL, "-c", "cat /var/log/auth.log"], operation: "open",
        },
        Example {
            name: "web-researcher", text: example!("web-researcher"), start: Launched("researcher", "research"),
            prepare: "mkdir -p /srv/research/reports /srv/research/cache; chown -R researcher: /srv/research",
            works: Some(&[PYTHON, "-c", "open('/srv/research/reports/1.md', 'w').write('x'); open('/srv/research/cache/page', 'w').write('y')"]),
            refused: &[PYTHON, "-c", "import socket; socket.create_connection(('127.0.0.1', 443))"], operation: "connect",
        },
        Example {
            name: "browser-agent", text: example!("browser-agent"), start: Launched("browser", "research"),
            prepare: "",
            // No guest has Chromium; what is tried is that nothing else runs.
            works: None,
            refused: &[SHELL, "-c", "exit 0"], operation: "exec",
        },
    ]
}

fn shell(words: &str) -> Outcome {
    let ran = Command::new(SHELL).args(["-c", words]).run()?;
    ensure!(ran.code == Some(0), "{ran}");
    Ok(())
}

/// Runs a program as the agent; its status, and what it complained about.
fn run(t: &Test, example: &Example, words: &[&str]) -> Outcome<(Option<i32>, String)> {
    match example.start {
        Launched(user, _) => {
            let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--init-groups".to_owned()];
            let exec = ["enforcer", "exec", "--cwd", "/", example.name, "--"];
            let ran = Command::new("/usr/bin/setpriv").args(ids).args(exec).args(words).run()?;
            Ok((ran.code, format!("{} {}", ran.out, ran.err)))
        }
        InUnit(name, slice) => {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let (unit, code) = Unit::start_in(t, slice, "out", name, &words, true)?;
            Ok((code, format!("{:?} {}", unit.lines(), fs::read_to_string(t.at("err")).unwrap_or_default())))
        }
    }
}

fn every_example_lets_its_programs_work_and_refuses_the_rest(t: &mut Test) -> Outcome {
    t.needs_thorough()?;
    let examples = all();
    let file = |name: &str| format!("/etc/enforcer/policies.d/{name}.yaml");
    for example in &examples {
        if let Launched(user, group) = example.start {
            shell(&format!(
                "getent group {group} >/dev/null || groupadd {group}; \
                 getent passwd {user} >/dev/null || useradd --create-home --user-group {user} 2>/dev/null || \
                 useradd --create-home --gid {user} {user}; usermod --append --groups {group},$(stat --format %G /run/enforcer/control.sock) {user}"
            ))?;
        }
        shell(&format!("set -e; {}", example.prepare.replace("GIT;", &format!("{GIT};"))))?;
        fs::write(file(example.name), example.text)?;
    }
    Command::new("enforcer").args(["reload"]).run()?;
    let known = || -> Option<()> {
        let ran = Command::new("enforcer").args(["agents", "--output", "json"]).run().ok()?;
        let answer: Value = serde_json::from_str(&ran.out).ok()?;
        let names: Vec<&str> =
            answer["agents"].as_array()?.iter().filter_map(|a| a["name"].as_str()).collect();
        examples.iter().all(|example| names.contains(&example.name)).then_some(())
    };
    let outcome = wait_for("the examples in force", 120, known).map_err(Into::into).and_then(|()| {
        let mut wrong = Vec::new();
        for example in &examples {
            if let Err(why) = one(t, example) {
                wrong.push(format!("{}: {why}", example.name));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    });
    examples.iter().for_each(|example| drop(fs::remove_file(file(example.name))));
    outcome
}

fn one(t: &Test, example: &Example) -> Outcome {
    if let Some(works) = example.works {
        let mark = events::mark()?;
        let (code, said) = run(t, example, works)?;
        let refusals = events::since(mark)?;
        let mine = refusals.iter().filter(|r| r["agent"] == example.name && r["kind"] == "decision");
        let shown: Vec<String> = mine.map(events::shown).collect();
        ensure!(code == Some(0), "{works:?} ended with {code:?}: {said}\n{}", shown.join("\n"));
    }
    let mark = events::mark()?;
    let (code, said) = run(t, example, example.refused)?;
    ensure!(code != Some(0), "{:?} was not refused: {said}", example.refused);
    events::wait("the record of the refusal", mark, |record| {
        let operation = record["operation"].as_str().unwrap_or_default();
        record["kind"] == "decision"
            && record["agent"] == example.name
            && record["verdict"] == "deny"
            && example.operation.split('|').any(|one| one == operation)
    })?;
    Ok(())
}
