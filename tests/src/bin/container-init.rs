//! Does what a container runtime does between its start and the container's first program: a mount
//! namespace, an overlay for a root, `pivot_root`, then the program.
//! `container-init LOWER SCRATCH [SHARED] -- PROGRAM ARG…`

use std::{
    convert::Infallible,
    ffi::{CStr, CString, OsString},
    fs, io,
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let dashes = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (paths, command) = words.split_at(dashes);
    let ([lower, scratch, shared @ ..], [_, program, arguments @ ..]) = (paths, command) else {
        eprintln!("usage: container-init LOWER SCRATCH [SHARED] -- PROGRAM ARG…");
        return ExitCode::from(2);
    };
    let shared = shared.first().map(|path| path.to_string_lossy());
    let entered = enter(&lower.to_string_lossy(), &scratch.to_string_lossy(), shared.as_deref());
    let Err(error) = entered.and_then(|()| {
        Err::<Infallible, _>(io::Error::other(format!(
            "exec: {}",
            Command::new(program).args(arguments).exec()
        )))
    });
    eprintln!("container-init: {error}");
    ExitCode::from(3)
}

/// Makes an overlay of LOWER over the host's root the root of a new mount namespace. With SHARED, a mount of the host is
/// at two places there, and what the host mounts below it later arrives.
fn enter(lower: &str, scratch: &str, shared: Option<&str>) -> io::Result<()> {
    // SAFETY: takes flags only.
    named("unshare", unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let propagation = if shared.is_some() { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    mount("none", "/", "none", libc::MS_REC | propagation, "")?;
    mount("none", scratch, "tmpfs", 0, "")?;
    let inside = |name: &str| format!("{scratch}/{name}");
    for name in ["upper", "work", "root"] {
        fs::create_dir(inside(name))?;
    }
    // Layers may not lie in one another, and LOWER lies in the host's root.
    let image = inside("image");
    copy(Path::new(lower), Path::new(&image))?;
    let options = format!("lowerdir={image}:/,upperdir={},workdir={}", inside("upper"), inside("work"));
    let root = inside("root");
    mount("none", &root, "overlay", 0, &options)?;
    mount("none", &format!("{root}/proc"), "proc", 0, "")?;
    mount("/dev", &format!("{root}/dev"), "none", libc::MS_BIND | libc::MS_REC, "")?;
    if let Some(shared) = shared {
        for side in ["open", "shut"] {
            mount(shared, &format!("{root}/data/{side}/in"), "none", libc::MS_BIND, "")?;
        }
    }
    std::env::set_current_dir(&root)?;
    // SAFETY: two names that outlive the call.
    let pivoted = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    named("pivot_root", pivoted as i32)?;
    // The old root lies over the new one now.
    // SAFETY: a name that outlives the call.
    named("umount", unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })?;
    std::env::set_current_dir("/")
}

/// Copies directories and files.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    fs::read_dir(from)?.try_for_each(|entry| {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))
    })
}

fn mount(from: &str, onto: &str, kind: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let text = |text: &str| CString::new(OsString::from(text).into_vec()).map_err(io::Error::other);
    let texts = [text(from)?, text(onto)?, text(kind)?, text(options)?];
    let [from, onto, kind, options] = texts.each_ref().map(|text: &CString| CStr::as_ptr(text));
    // SAFETY: four texts that outlive the call.
    let done = unsafe { libc::mount(from, onto, kind, flags, options.cast()) };
    named("mount", done)
}

fn named(what: &str, result: i32) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!("{what}: {}", io::Error::last_os_error())))
    }
}
