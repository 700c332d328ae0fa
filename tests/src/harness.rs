//! A tiny test runner: sentences in a table, one after the other, each in a directory of its own.

use crate::{
    agent::Agent,
    command::{Command, Ran},
    policy::Policy,
};
use std::{
    cell::Cell,
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

/// Where tests have their files.
pub const HOME: &str = "/srv/t";

/// Why a test failed, in lines.
#[derive(Debug)]
pub struct Failed(String, How);

/// How a test ended that did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The promise is broken.
    Failed,
    /// It was not tried.
    Skipped,
}

impl Failed {
    /// With this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into(), How::Failed)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(error.to_string(), How::Failed)
    }
}

impl From<ssh_key::Error> for Failed {
    fn from(error: ssh_key::Error) -> Self {
        Self(error.to_string(), How::Failed)
    }
}

impl From<String> for Failed {
    fn from(text: String) -> Self {
        Self(text, How::Failed)
    }
}

/// Promises that the product does not keep yet, with the reason; `docs/bypasses.md` names each. A test
/// in this list runs and must fail.
const OPEN: &[(&str, &str)] = &[];

/// What a test returns.
pub type Outcome<T = ()> = Result<T, Failed>;

/// Fails with a formatted text.
#[macro_export]
macro_rules! fail {
    ($($text:tt)*) => { return Err($crate::harness::Failed::new(format!($($text)*))) };
}

/// Fails unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => { if !$condition { $crate::fail!($($text)*) } };
}

/// A test.
pub struct Case {
    /// A sentence: `module::what_is_promised`.
    pub name: &'static str,
    /// The test.
    pub run: fn(&mut Test) -> Outcome,
}

/// A table of tests: `cases!(module: one_sentence, another)`.
#[macro_export]
macro_rules! cases {
    ($module:ident: $($name:ident),* $(,)?) => {
        /// What this module promises.
        pub const CASES: &[$crate::harness::Case] = &[$($crate::harness::Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: $name,
        }),*];
    };
}

/// What a test works with.
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// Whether the long form was asked for.
    pub full: bool,
    /// How long what has a length is to take, where the command line says so.
    pub minutes: Option<u64>,
    directory: PathBuf,
}

impl Test {
    fn new(case: &Case, full: bool, minutes: Option<u64>) -> io::Result<Self> {
        let directory = Path::new(HOME).join(case.name.replace("::", "."));
        let test = Self { name: case.name, full, minutes, directory };
        test.fresh()?;
        Ok(test)
    }

    /// Ends a test of which only the long form was asked for.
    pub fn needs_full(&self) -> Outcome {
        if self.full { Ok(()) } else { Err(Failed("only with --full".to_owned(), How::Skipped)) }
    }

    /// Ends a test on a kernel where what it tries, which is the same everywhere, is not tried.
    pub fn needs_thorough(&self) -> Outcome {
        let why = "on 6.12, or with --full";
        if self.thorough() { Ok(()) } else { Err(Failed(why.to_owned(), How::Skipped)) }
    }

    /// Whether this is the kernel on which what is slow and the same everywhere is tried, or everything is to be.
    pub fn thorough(&self) -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        self.full || release.starts_with("6.12.")
    }

    /// Ends a test on a kernel that does not have what it needs.
    pub fn newer_than(&self, major: u32, minor: u32) -> Outcome {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let numbers: Vec<u32> = release.split(['.', '-']).map_while(|word| word.parse().ok()).collect();
        let newer = numbers.get(..2).is_some_and(|found| found > [major, minor].as_slice());
        if newer { Ok(()) } else { Err(Failed(format!("after {major}.{minor}"), How::Skipped)) }
    }

    /// An empty directory of the test's own.
    pub fn fresh(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&self.directory)
    }

    /// A path below the test's directory.
    pub fn at(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Makes a file with some text, and the directories above it; returns its path.
    pub fn file(&self, name: &str) -> io::Result<String> {
        let path = self.at(name);
        if let Some(parent) = Path::new(&path).parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, format!("the text of {name}\n"))?;
        Ok(path)
    }

    /// Makes a program with this text, and the directories above it; returns its path.
    pub fn program(&self, name: &str, text: &str) -> io::Result<String> {
        let path = self.file(name)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Makes a directory and those above it; returns its path.
    pub fn dir(&self, name: &str) -> io::Result<String> {
        let path = self.at(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// A policy with what the probe needs, for an agent that no other test has.
    pub fn policy(&self) -> Policy {
        thread_local!(static NEXT: Cell<u32> = const { Cell::new(1) });
        let number = NEXT.replace(NEXT.get() + 1);
        Policy::new(format!("t{number}"), self.name)
    }

    /// Publishes a policy.
    pub fn agent(&self, policy: Policy) -> Outcome<Agent> {
        Agent::publish(policy)
    }
}

/// Whether something is at this path, by `lstat`.
pub fn exists(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Runs an act outside every agent and returns its line.
pub fn outside(act: &str) -> Outcome<String> {
    let ran = Command::new("/usr/lib/enforcer-tests/probe").args(act.split_whitespace()).run()?;
    only_line(&ran, act)
}

fn only_line(ran: &Ran, act: &str) -> Outcome<String> {
    match ran.out.lines().collect::<Vec<_>>()[..] {
        [line] if ran.code == Some(0) => Ok(line.to_owned()),
        _ => fail!("`{act}` outside: {ran}"),
    }
}

/// Runs acts in one process outside every agent and returns their lines.
pub fn outside_all(acts: &[String]) -> Outcome<Vec<String>> {
    let words = acts.join(" , ");
    let ran =
        Command::new("/usr/lib/enforcer-tests/probe").args(["seq"]).args(words.split_whitespace()).run()?;
    ensure!(ran.code == Some(0), "`{words}` outside: {ran}");
    Ok(ran.out.lines().map(str::to_owned).collect())
}

/// How many samples there are of the cases; the kernels beside the first have different ones.
const SAMPLES: usize = 2;

/// Runs the tests of some tables as the command line says: `[--full] [--minutes=N]
/// [--sample-0|--sample-1|--half-0|--half-1] [--list] [FILTER…]`. Prints libtest's lines and a summary, or the tests'
/// names; 1 if one failed. A sample is every other case, and of the modules that are named in `seldom` every fourth;
/// the two halves are everything.
pub fn main(tables: &[&[Case]], seldom: &[&str]) -> ExitCode {
    let (mut full, mut minutes, mut list, mut filters) = (false, None, false, Vec::new());
    let (mut sample, mut half) = (None, None);
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--full" => full = true,
            "--sample-0" => sample = Some(0),
            "--sample-1" => sample = Some(1),
            "--half-0" => half = Some(0),
            "--half-1" => half = Some(1),
            "--list" => list = true,
            _ if word.strip_prefix("--minutes=").is_some_and(|n| n.parse::<u64>().is_ok()) => {
                minutes = word.strip_prefix("--minutes=").and_then(|n| n.parse().ok());
            }
            _ if word.starts_with('-') => {
                eprintln!(
                    "usage: [--full] [--minutes=N] [--sample-0|--sample-1|--half-0|--half-1] [--list] [FILTER…]"
                );
                return ExitCode::from(2);
            }
            _ => filters.push(word),
        }
    }
    let wanted = |case: &&Case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter));
    if list {
        let cases = tables.iter().flat_map(|table| table.iter()).filter(wanted);
        cases.for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let is_left_out = |place: usize, case: &Case| {
        let module = case.name.split("::").next().unwrap_or_default();
        // It looks back on whatever else was run.
        if module == "outsiders" {
            return false;
        }
        let every = if seldom.contains(&module) { 2 * SAMPLES } else { SAMPLES };
        sample.is_some_and(|sample| place % every != sample) || half.is_some_and(|half| place % 2 != half)
    };
    for (place, case) in tables.iter().flat_map(|table| table.iter().enumerate()) {
        if !wanted(&case) || is_left_out(place, case) {
            skipped += 1;
            continue;
        }
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut test = Test::new(case, full, minutes)?;
            (case.run)(&mut test)
        }));
        let outcome = outcome.unwrap_or_else(|_| Err(Failed::new("the test panicked")));
        let seconds = begun.elapsed().as_secs_f32();
        let open = OPEN.iter().find(|(name, _)| *name == case.name).map(|(_, why)| *why);
        match outcome {
            Ok(()) if open.is_some() => {
                failed += 1;
                println!("test {} ... FAILED", case.name);
                println!(
                    "  it passes now: take it from the list of what is open, here and in docs/bypasses.md"
                );
            }
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok", case.name);
            }
            Err(Failed(why, How::Skipped)) => {
                skipped += 1;
                println!("test {} ... ignored, {why}", case.name);
            }
            Err(why) if open.is_some() => {
                skipped += 1;
                println!("test {} ... ignored, open: {}", case.name, open.unwrap_or_default());
                why.0.lines().for_each(|line| println!("  {line}"));
            }
            Err(why) => {
                failed += 1;
                println!("test {} ... FAILED", case.name);
                println!("---- {} ({seconds:.1} s) ----", case.name);
                why.0.lines().for_each(|line| println!("  {line}"));
            }
        }
        if seconds > 10.0 {
            eprintln!("{}: {seconds:.1} s", case.name);
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}
