//! Puts one layer of a policy's around itself and executes a program. It runs outside every agent, where the kernel
//! programs decide nothing: what is refused is refused by that layer alone.
//! `layered POLICY [nnp] [seccomp=WHICH] [landlock=WHICH] [uid=N] -- PROGRAM ARG…`

use enforcer::{
    launch::layers::{Layers, apply, calls, scope::scope},
    policy::{Landlock, Seccomp, ValidPolicy, parse},
};
use std::{
    convert::Infallible,
    error::Error,
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Err(error) = run(&words);
    eprintln!("layered: {error}");
    ExitCode::from(2)
}

fn run(words: &[OsString]) -> Result<Infallible, Box<dyn Error>> {
    let usage =
        || io::Error::other("usage: POLICY [nnp] [seccomp=WHICH] [landlock=WHICH] [uid=N] -- PROGRAM ARG…");
    let dashes = words.iter().position(|word| word == "--").ok_or_else(usage)?;
    let (own, command) = (&words[..dashes], &words[dashes + 1..]);
    let ([file, options @ ..], [program, arguments @ ..]) = (own, command) else {
        return Err(usage().into());
    };
    let file = file.to_string_lossy();
    let policy = parse(&file, &fs::read_to_string(&*file)?).map_err(|errors| errors.to_string())?;
    let (mut layers, mut user) = (Layers::default(), None);
    for option in options {
        let option = option.to_string_lossy();
        match option.split_once('=') {
            None if option == "nnp" => layers.no_new_privileges = true,
            Some(("seccomp", which)) => layers.seccomp = calls_of(&policy, which)?,
            Some(("landlock", which)) => {
                layers.landlock = Some(scope(&policy, which == Landlock::All.name()))
            }
            Some(("uid", number)) => user = Some(number.parse::<u32>()?),
            _ => return Err(usage().into()),
        }
    }
    apply::prepare(&layers)?.put_on()?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(uid) = user {
        command.uid(uid).gid(uid);
    }
    Err(command.exec().into())
}

fn calls_of(policy: &ValidPolicy, which: &str) -> Result<Option<calls::Calls>, Box<dyn Error>> {
    let known = [Seccomp::None, Seccomp::Unrecorded, Seccomp::All];
    let choice = known.into_iter().find(|one| one.name() == which).ok_or("which calls?")?;
    Ok(calls::refused(choice, policy.grants(), true))
}
