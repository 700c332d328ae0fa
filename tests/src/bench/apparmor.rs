//! The same rules as a profile for AppArmor, as far as it knows them: it allows networking by family and kind of
//! socket, not by address and port.

use super::{Done, ops, rules};
use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

/// Kernel's list of the LSMs that are active.
const ACTIVE: &str = "/sys/kernel/security/lsm";

/// Whether this boot has AppArmor.
pub fn is_active() -> std::io::Result<bool> {
    Ok(fs::read_to_string(ACTIVE)?.split(',').any(|name| name.trim() == "apparmor"))
}

/// The profile's name; configurations have the same.
pub fn name(count: usize) -> String {
    format!("apparmor, {count} rules")
}

/// A profile with `count` rules: ten that matter, then directories.
fn profile(count: usize) -> String {
    const FEW: usize = 10;
    let mut text = format!(
        "profile \"{}\" {{
  {read}/** mr,
  {cache} r,
  {null} rw,
  {allowed}/** rw,
  deny /**/.env rw,
  {itself} mr,
  {tiny} ix,
  {socket} rw,
  network inet,
  network unix,
",
        name(count),
        read = rules::READ[0],
        cache = rules::READ[1],
        null = rules::READ[2],
        allowed = rules::ALLOWED,
        itself = rules::SELF,
        tiny = rules::TINY,
        socket = rules::SOCKET,
    );
    for directory in rules::fill(count.saturating_sub(FEW)) {
        let _ = writeln!(text, "  {directory}/** r,");
    }
    text.push_str("}\n");
    text
}

/// Hands the profile to the kernel.
pub fn load(count: usize) -> Done {
    parser("--replace", count)
}

/// Takes it away again.
pub fn unload(count: usize) -> Done {
    parser("--remove", count)
}

fn parser(action: &str, count: usize) -> Done {
    let mut parser =
        Command::new("apparmor_parser").args(["--quiet", action]).stdin(Stdio::piped()).spawn()?;
    let Some(mut input) = parser.stdin.take() else { return Err("apparmor_parser reads nothing".into()) };
    input.write_all(profile(count).as_bytes())?;
    drop(input);
    let status = parser.wait()?;
    if status.success() { Ok(()) } else { Err(format!("apparmor_parser {action}: {status}").into()) }
}

/// Confines this process, which has one thread, for good. `profile` is its name.
pub fn confine(profile: &str) -> Done {
    fs::write("/proc/self/attr/apparmor/current", format!("changeprofile {profile}"))?;
    // Which profile it is can no longer be read; what no rule names must be refused.
    match fs::File::open(ops::DENIED) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
        other => {
            return Err(format!("under the profile {profile:?}, opening {}: {other:?}", ops::DENIED).into());
        }
    }
    Ok(())
}
