//! No false denials: real work under the profiles that are shipped ends as it does outside, with the same files,
//! and nothing of it is refused.

use super::stress::{some_stress_is_borne, ten_minutes_of_every_kind_of_stress_are_borne};
use crate::{
    cases,
    command::Command,
    ensure, events,
    harness::{Outcome, Test},
    policy::Policy,
    promise,
};
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

cases!(replay:
    git_works_as_outside,
    git_works_in_a_repository_that_a_coding_agent_was_given,
    python_runs_its_tests_as_outside,
    pytest_runs_as_outside,
    node_serves_and_is_asked_as_outside,
    make_and_a_compiler_build_as_outside,
    cargo_builds_as_outside,
    pip_installs_as_outside,
    npm_installs_as_outside,
    some_stress_is_borne,
    ten_minutes_of_every_kind_of_stress_are_borne,
);

/// Below a directory: each file's mode and content, or where a link leads.
type Files = BTreeMap<String, String>;

fn files(directory: &str, without: &[&str]) -> Outcome<Files> {
    let mut found = Files::new();
    let mut waiting = vec![Path::new(directory).to_path_buf()];
    while let Some(path) = waiting.pop() {
        for entry in fs::read_dir(&path)? {
            let path = entry?.path();
            let name = path.display().to_string();
            let name = name.strip_prefix(directory).unwrap_or(&name).to_owned();
            if without.iter().any(|part| name.contains(part)) {
                continue;
            }
            let metadata = fs::symlink_metadata(&path)?;
            let what = if metadata.is_symlink() {
                format!("leads to {}", fs::read_link(&path)?.display())
            } else if metadata.is_dir() {
                waiting.push(path);
                "a directory".to_owned()
            } else {
                let bytes = fs::read(&path)?;
                let digest: u64 = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
                    (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
                });
                format!("{} bytes, {digest:x}", bytes.len())
            };
            found.insert(name, format!("{:o} {what}", metadata.permissions().mode()));
        }
    }
    Ok(found)
}

/// Some work: what is there before it, what is done, and what of its results differs from run to run.
struct Work<'a> {
    prepare: &'a str,
    script: &'a str,
    without: &'a [&'a str],
    patience: u64,
}

fn shell(script: &str, patience: u64) -> Outcome<(Option<i32>, String, String)> {
    let ran = Command::new("/usr/bin/sh").args(["-c", script]).patience(patience).run()?;
    Ok((ran.code, ran.out, ran.err))
}

/// Does the work outside and inside, at the same place, and compares.
fn same(t: &Test, policy: Policy, work: &Work<'_>) -> Outcome {
    let w = t.at("w");
    let variables = format!(
        "set -e; export W={w} HOME={w}/home TMPDIR={w}/tmp LC_ALL=C PATH=/usr/bin PYTHONDONTWRITEBYTECODE=1 \
         GIT_AUTHOR_DATE='2030-01-01T00:00:00Z' GIT_COMMITTER_DATE='2030-01-01T00:00:00Z'; cd {w}; "
    );
    let lay = || -> Outcome {
        t.fresh()?;
        for name in ["w/home", "w/tmp"] {
            t.dir(name)?;
        }
        promise::marker(t)?;
        let ran = shell(&format!("{variables}{}", work.prepare), work.patience)?;
        ensure!(ran.0 == Some(0), "preparing: {ran:?}");
        Ok(())
    };
    lay()?;
    let script = format!("{variables}{}", work.script);
    let outside = shell(&script, work.patience)?;
    ensure!(outside.0 == Some(0), "outside: {outside:?}");
    let before = files(&w, work.without)?;
    lay()?;
    let agent =
        t.agent(policy.allow("all", &format!("{w}/**")).allow("list", &t.at("")[..t.at("").len() - 1]))?;
    let marker = promise::marker(t)?;
    let end = format!("({script}\n); code=$?; cat {marker} 2>/dev/null; exit $code");
    let inside = agent.run_for(&["/usr/bin/sh", "-c", &end].map(str::to_owned), work.patience)?;
    let after = files(&w, work.without)?;
    let records = events::until_marker(inside.mark, &inside.id, &marker)?;
    let shown: Vec<String> = records.iter().map(events::shown).collect();
    ensure!(records.is_empty(), "{} refusals:\n{}\n{}", records.len(), shown.join("\n"), inside.err);
    ensure!(inside.code == outside.0, "inside: {:?} {:?} {}", inside.code, inside.lines, inside.err);
    ensure!(
        inside.lines.join("\n") == outside.1.trim_end(),
        "inside: {:?}\noutside: {:?}",
        inside.lines,
        outside.1
    );
    let names = before.keys().chain(after.keys());
    let wrong: Vec<String> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| format!("{name}: {:?} outside, {:?} inside", before.get(name), after.get(name)))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A policy with profiles as they are shipped.
fn with(t: &Test, profiles: &str) -> Policy {
    t.policy().line(&format!("include: [base@1, shell@1, {profiles}]"))
}

const IDENTITY: &str = "git config --global user.name A; git config --global user.email a@example.com; \
                        git config --global init.defaultBranch main; git config --global gc.auto 0;";
/// The index has times and inode numbers in it.
const INDEX: &[&str] = &["/.git/index", "/.git/ORIG_HEAD.lock"];

fn git_works_as_outside(t: &mut Test) -> Outcome {
    let prepare = format!(
        "{IDENTITY} git init -q --bare origin.git; git init -q seed; cd seed; echo one >a; git add a; \
         git commit -qm one; git push -q ../origin.git main"
    );
    let script = "git clone -q origin.git copy; cd copy; echo two >b; git add b; git commit -qm two; \
                  git checkout -q -b topic HEAD~1; echo three >c; git add c; git commit -qm three; \
                  git rebase -q main; git checkout -q main; git merge -q --no-ff -m four topic; \
                  git mv c d; git commit -qm five; git push -q origin main; git tag v1; git status --short; \
                  git log --format='%h %s'; git ls-files -s; git diff --stat HEAD~3; git fsck --no-progress";
    same(t, with(t, "git@1"), &Work { prepare: &prepare, script, without: INDEX, patience: 600 })
}

fn git_works_in_a_repository_that_a_coding_agent_was_given(t: &mut Test) -> Outcome {
    t.needs_thorough()?;
    let prepare = format!(
        "{IDENTITY} git init -q shop; cd shop; echo one >a; git add a; git commit -qm one; echo x >b; git add b; \
         git commit -qm two"
    );
    let script = "cd shop; git checkout -q -b topic HEAD~1; echo three >c; git add c; git commit -qm three; \
                  git rebase -q main; git stash list; echo dirty >>a; git stash -q; git stash pop -q; \
                  git checkout -q -- a; git checkout -q main; git merge -q topic; \
                  git log --format='%h %s'; git grep -n three";
    same(
        t,
        with(t, "git@1, coding-agent@1"),
        &Work { prepare: &prepare, script, without: INDEX, patience: 600 },
    )
}

const TESTS: &str = r#"
import json, os, shutil, sqlite3, subprocess, tempfile, threading, unittest

class Works(unittest.TestCase):
    def test_files(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "a")
            with open(path, "w") as f:
                json.dump({"a": 1}, f)
            os.rename(path, path + "b")
            shutil.copytree(d, d + "-copy")
            shutil.rmtree(d + "-copy")

    def test_database(self):
        with tempfile.TemporaryDirectory() as d:
            db = sqlite3.connect(os.path.join(d, "db"))
            db.execute("create table t(x)")
            db.execute("insert into t values(1)")
            db.commit()
            db.close()

    def test_children(self):
        self.assertEqual(subprocess.check_output(["echo", "hello"]), b"hello\n")
        self.assertEqual(subprocess.run("exit 3", shell=True).returncode, 3)

    def test_threads(self):
        done = []
        threads = [threading.Thread(target=done.append, args=(n,)) for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(len(done), 4)
"#;

fn python_runs_its_tests_as_outside(t: &mut Test) -> Outcome {
    let prepare = format!("mkdir project; cat >project/test_works.py <<'END'{TESTS}END\n");
    let script = "cd project; python3 -m unittest -q 2>&1 | grep -v '^Ran'; python3 -m venv --without-pip ../venv; \
                  ../venv/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'; \
                  python3 -m compileall -q . ; echo done";
    let work = Work { prepare: &prepare, script, without: &["__pycache__", "pyvenv.cfg"], patience: 600 };
    same(t, with(t, "python@1"), &work)
}

const PYTEST: &str = r#"
import pathlib, subprocess, sys, pytest

@pytest.fixture
def place(tmp_path):
    (tmp_path / "f").write_text("text")
    return tmp_path

@pytest.mark.parametrize("times", [1, 3])
def test_reads(place, times):
    assert (place / "f").read_text() * times == "text" * times

def test_runs_a_program(place):
    ran = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, cwd=place)
    assert (ran.returncode, ran.stdout) == (0, "42\n")

def test_changes_names(place, monkeypatch):
    monkeypatch.chdir(place)
    pathlib.Path("f").rename("g")
    assert [path.name for path in place.iterdir()] == ["g"]

@pytest.mark.xfail(strict=True)
def test_fails():
    assert False
"#;

fn pytest_runs_as_outside(t: &mut Test) -> Outcome {
    t.needs_thorough()?;
    let prepare = format!("mkdir project; cat >project/test_all.py <<'END'{PYTEST}END\n");
    let script = "cd project; python3 -m pytest -q --basetemp=$W/base --junit-xml=$W/report.xml 2>&1 | sed 's/ in .*//'; \
                  grep -c '<testcase' $W/report.xml; rm -r $W/report.xml $W/base; echo done";
    let work = Work { prepare: &prepare, script, without: &["__pycache__"], patience: 600 };
    same(t, with(t, "python@1"), &work)
}

const SERVER: &str = r#"
const http = require("http"), fs = require("fs");
const server = http.createServer((ask, answer) => {
  fs.appendFileSync("log", ask.url + "\n");
  answer.end("hello " + ask.url + "\n");
  if (ask.url === "/end") server.close();
});
server.listen(3217, "127.0.0.1");
"#;

fn node_serves_and_is_asked_as_outside(t: &mut Test) -> Outcome {
    t.needs_thorough()?;
    let prepare = format!("cat >server.js <<'END'{SERVER}END\n");
    let script = "node server.js & curl -s --retry 600 --retry-connrefused --retry-delay 1 http://127.0.0.1:3217/a; \
                  curl -s http://127.0.0.1:3217/end; wait; echo served";
    let policy = with(t, "node@1")
        .exec("/usr/bin/curl")
        .network_rule("allow: [connect, bind], to: ['127.0.0.1:3217/tcp']");
    same(t, policy, &Work { prepare: &prepare, script, without: &[], patience: 600 })
}

fn make_and_a_compiler_build_as_outside(t: &mut Test) -> Outcome {
    t.needs_thorough()?;
    let prepare = "printf 'int add(int a, int b) { return a + b; }\\n' >add.c; \
                   printf '#include <stdio.h>\\nint add(int, int);\\nint main(void) { printf(\"%%d\\\\n\", add(1, 2)); return 0; }\\n' >main.c; \
                   printf 'target/sum: main.o add.o\\n\\tgcc -o $@ $^\\n' >Makefile; mkdir target";
    let script = "make -s; target/sum; make -s; touch add.c; make -s; target/sum";
    let policy = with(t, "rust@1").exec("/usr/bin/make").exec(&t.at("w/target/*"));
    same(t, policy, &Work { prepare, script, without: &[], patience: 600 })
}

/// A library, a program with a build script, tests: without a registry. What is built is named by digests of paths and
/// of the compiler, the same outside and inside; fingerprints hold times.
fn cargo_builds_as_outside(t: &mut Test) -> Outcome {
    t.needs_full()?;
    let prepare = "mkdir -p sum/src add/src; \
        printf '[workspace]\\nmembers = [\"sum\", \"add\"]\\n' >Cargo.toml; \
        printf '[package]\\nname = \"add\"\\nversion = \"1.0.0\"\\nedition = \"2021\"\\n' >add/Cargo.toml; \
        printf 'pub fn add(a: u32, b: u32) -> u32 { a + b }\\n#[test]\\nfn adds() { assert_eq!(add(1, 2), 3); }\\n' >add/src/lib.rs; \
        printf '[package]\\nname = \"sum\"\\nversion = \"1.0.0\"\\nedition = \"2021\"\\n[dependencies]\\nadd = { path = \"../add\" }\\n' >sum/Cargo.toml; \
        printf 'fn main() { println!(\"cargo:rustc-env=WORD=sum\"); }\\n' >sum/build.rs; \
        printf 'fn main() { println!(\"{} {}\", env!(\"WORD\"), add::add(1, 2)); }\\n' >sum/src/main.rs";
    let script = "cargo build -q --offline 2>&1; target/debug/sum; cargo test -q --offline -p add --lib 2>&1 | sed 's/; finished.*//'; \
                  touch add/src/lib.rs; cargo run -q --offline 2>&1; cargo clean -q; ls";
    let policy = with(t, "rust@1").exec(&t.at("w/target/debug/**"));
    same(t, policy, &Work { prepare, script, without: &["/home/.cargo/"], patience: 900 })
}

const WHEEL: &str = r#"
import zipfile
with zipfile.ZipFile("wheels/demo-1.0-py3-none-any.whl", "w") as wheel:
    info = "demo-1.0.dist-info/"
    wheel.writestr(zipfile.ZipInfo("demo/__init__.py"), "word = 'hello'\n")
    wheel.writestr(zipfile.ZipInfo(info + "METADATA"), "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    wheel.writestr(zipfile.ZipInfo(info + "WHEEL"), "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(zipfile.ZipInfo(info + "RECORD"), "demo/__init__.py,,\n")
"#;

/// From a directory of wheels: a guest reaches no index. Slow, since pip loads much.
fn pip_installs_as_outside(t: &mut Test) -> Outcome {
    t.needs_full()?;
    let prepare = format!("mkdir wheels; python3 - <<'END'{WHEEL}END\n");
    let script = "pip=$(echo /usr/share/python-wheels/pip-*.whl); python3 -m venv --without-pip venv; \
                  venv/bin/python $pip/pip install -q --no-index --no-cache-dir --find-links wheels demo; \
                  venv/bin/python -c 'import demo; print(demo.word)'";
    let without = &["__pycache__", "pyvenv.cfg", "/tmp/"];
    // It asks whether there is IPv6, and a compiler for its user agent; refused, it goes on without.
    let policy = with(t, "python@1").bind("[::1]:0/tcp").exec("/usr/bin/rustc");
    same(t, policy, &Work { prepare: &prepare, script, without, patience: 600 })
}

/// From a local archive: a guest reaches no registry. Slow, since npm loads much.
fn npm_installs_as_outside(t: &mut Test) -> Outcome {
    t.needs_full()?;
    let prepare = "mkdir package app; printf '{\"name\":\"demo\",\"version\":\"1.0.0\",\"main\":\"index.js\"}' >package/package.json; \
                   echo 'module.exports = \"hello\"' >package/index.js; \
                   tar -c --mtime=@0 package | gzip -n >demo.tgz; \
                   printf '{\"name\":\"app\",\"version\":\"1.0.0\"}' >app/package.json";
    let script = "cd app; npm install --offline --no-audit --no-fund --no-update-notifier --loglevel=error ../demo.tgz >/dev/null; \
                  node -e 'console.log(require(\"demo\"))'";
    let policy = with(t, "node@1");
    same(t, policy, &Work { prepare, script, without: &["/.npm/", "/tmp/"], patience: 600 })
}
