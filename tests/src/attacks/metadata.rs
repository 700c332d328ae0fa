//! Changing what files are and how they are called, by every call that there is for it.

use super::{Attack, all_refused, refused};
use crate::{
    cases, ensure,
    harness::{Outcome, Test, exists},
    promise::{self, Attempt, Denial},
};
use std::fs;

cases!(attack_metadata:
    no_call_changes_what_rules_let_be_read_and_written,
    what_may_be_read_only_keeps_its_content,
    no_file_is_born_with_its_owners_rights,
);

/// Files `m1` to `m60` and empty directories `e1` to `e9` in `open`, `shut` and `still`.
fn lay(t: &Test) -> Outcome {
    t.fresh()?;
    for side in ["open", "shut", "still"] {
        for number in 1..=60 {
            t.file(&format!("{side}/m{number}"))?;
        }
        for number in 1..=9 {
            t.dir(&format!("{side}/e{number}"))?;
        }
    }
    promise::marker(t)?;
    Ok(())
}

/// Calls on one file that exists, what records name them, and what the file is asked for.
const ON_A_FILE: &[(&str, &str, &str)] = &[
    ("chmod", "chmod", "metadata"),
    ("chmod-plain", "chmod", "metadata"),
    ("fchmod", "chmod", "metadata"),
    ("fchmod-by-name", "chmod", "metadata"),
    ("chown", "chown", "metadata"),
    ("chown-plain", "chown", "metadata"),
    ("lchown", "chown", "metadata"),
    ("fchown", "chown", "metadata"),
    ("fchownat-empty", "chown", "metadata"),
    ("utimes", "setattr", "metadata"),
    ("utime", "setattr", "metadata"),
    ("utimes-now", "setattr", "metadata"),
    ("futimens", "setattr", "metadata"),
    ("touch-link", "setattr", "metadata"),
    ("setxattr", "xattr", "metadata"),
    ("lsetxattr", "xattr", "metadata"),
    ("fsetxattr", "xattr", "metadata"),
    ("set-acl", "xattr", "metadata"),
    ("drop-acl", "xattr", "metadata"),
    ("setflags", "setattr", "metadata"),
    ("set-project", "setattr", "metadata"),
    ("unlink", "unlink", "delete"),
    ("unlink-plain", "unlink", "delete"),
];

/// The same of calls that only newer kernels have.
const NEWER: &[(&str, &str, &str)] = &[
    ("fchmodat2", "chmod", "metadata"),
    ("setxattrat", "xattr", "metadata"),
    ("file-setattr", "setattr", "metadata"),
];

/// Calls whose result outside is an error, which comes after the question whether it is allowed.
const FAILING: &[(&str, &str, &str)] = &[
    ("drop-xattr", "ENODATA", "xattr"),
    ("drop-lxattr", "ENODATA", "xattr"),
    ("drop-fxattr", "ENODATA", "xattr"),
];

fn no_call_changes_what_rules_let_be_read_and_written(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let policy = t
        .policy()
        .allow("all", &format!("{open}/**"))
        .allow("read, write, list", &format!("{shut}/**"))
        .deny("truncate", &format!("{shut}/**"));
    let mut next = 0;
    let mut file = || {
        next += 1;
        format!("m{next}")
    };
    let (mut attempts, mut twins) = (Vec::new(), Vec::new());
    for (newer, calls) in [(false, ON_A_FILE), (true, NEWER)] {
        for (act, operation, access) in calls {
            let name = file();
            let path = format!("{shut}/{name}");
            let denial = Denial::no_rule(operation).on(&path).asking(access);
            let attempt = Attempt::new(format!("{act} {path}"), denial);
            attempts.push(if newer { attempt.newer() } else { attempt });
            if !newer {
                twins.push(format!("{act} {open}/{name}"));
            }
        }
    }
    for (act, errno, operation) in FAILING {
        let path = format!("{shut}/{}", file());
        let denial = Denial::no_rule(operation).on(&path).asking("metadata");
        attempts.push(Attempt::new(format!("{act} {path}"), denial).fails_outside(errno));
    }
    let on =
        |act: &str, path: String, denial: Denial| Attempt::new(format!("{act} {path}"), denial.on(&path));
    let directory = |name: &str| format!("{shut}/{name}");
    attempts.push(on("set-default-acl", directory("e1"), Denial::no_rule("xattr").asking("metadata")));
    attempts.push(on("chmod", directory("e2"), Denial::no_rule("chmod").asking("metadata")));
    attempts.push(on("rmdir", directory("e3"), Denial::no_rule("rmdir").asking("delete")));
    attempts.push(on("rmdir-plain", directory("e4"), Denial::no_rule("rmdir").asking("delete")));
    // A file system that cannot keep a version says so when it is allowed to.
    attempts.push(
        on("set-version", directory("m59"), Denial::no_rule("setattr").asking("metadata"))
            .fails_outside("ENOTTY"),
    );
    for (act, operation, name) in [
        ("mknod-plain", "create", "n1"),
        ("mknod-fifo", "create", "n2"),
        ("mkdir", "mkdir", "n3"),
        ("mkdir-plain", "mkdir", "n4"),
        ("symlink x", "symlink", "n5"),
        ("symlink-plain x", "symlink", "n6"),
    ] {
        let path = directory(name);
        attempts.push(Attempt::new(
            format!("{act} {path}"),
            Denial::no_rule(operation).on(&path).asking("create"),
        ));
        twins.push(format!("{act} {open}/{name}"));
    }
    for (act, name) in [("link", "n7"), ("link-plain", "n8"), ("link-fd", "n9")] {
        let path = directory(name);
        let denial = Denial::no_rule("link").on(&path).asking("create+link");
        attempts.push(Attempt::new(format!("{act} {shut}/m60 {path}"), denial));
        twins.push(format!("{act} {open}/m60 {open}/{name}"));
    }
    for (act, name, access) in [
        ("rename", "n10", "delete+rename"),
        ("rename-plain", "n11", "delete+rename"),
        ("rename-noreplace", "n12", "delete+rename"),
        ("rename-whiteout", "n13", "create+delete+rename"),
        ("rename-exchange", "m58", "write+create+delete+rename"),
    ] {
        let from = directory(&file());
        let to = directory(name);
        let denial = Denial::no_rule("rename").on(&from).asking(access);
        attempts.push(Attempt::new(format!("{act} {from} {to}"), denial));
    }
    for (act, operation, access) in [
        ("truncate", "truncate", "truncate"),
        ("truncate-path", "truncate", "truncate"),
        ("ftruncate", "truncate", "truncate"),
        ("write-trunc", "open", "write+truncate"),
    ] {
        let path = directory(&file());
        let denial = Denial::by_rule(operation, "deny truncate").on(&path).asking(access);
        attempts.push(Attempt::new(format!("{act} {path}"), denial));
    }
    // What beside a rule takes a capability: the kernel asks for that one first.
    for (act, capability) in [("set-capability", "cap_setfcap"), ("set-trusted", "cap_sys_admin")] {
        let path = directory(&file());
        attempts
            .push(Attempt::new(format!("{act} {path}"), Denial::floor("capability").argument(capability)));
    }
    let path = directory(&file());
    attempts.push(on("set-immutable", path, Denial::no_rule("setattr").asking("metadata")));
    lay(t)?;
    all_refused(t, policy, &twins, attempts, 50, || lay(t))?;
    for number in 1..=60 {
        let name = directory(&format!("m{number}"));
        let text = fs::read_to_string(&name)?;
        ensure!(text == format!("the text of shut/m{number}\n"), "{name} has changed: {text:?}");
    }
    ensure!((1..=13).all(|number| !exists(&directory(&format!("n{number}")))), "a refused name exists");
    Ok(())
}

fn what_may_be_read_only_keeps_its_content(t: &mut Test) -> Outcome {
    let (open, still) = (t.at("open"), t.at("still"));
    let policy = t.policy().allow("all", &format!("{open}/**")).allow("read, list", &format!("{still}/**"));
    let mut attempts = Vec::new();
    let mut twins = Vec::new();
    for (number, (act, access)) in [
        ("allocate", "write"),
        ("punch-hole", "write"),
        ("collapse", "read+write"),
        ("rdonly-trunc", "read+write+truncate"),
        ("access-3", "read+write"),
        ("append", "write"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("{still}/m{}", number + 1);
        let denial = Denial::no_rule("open").on(&path).asking(access);
        attempts.push(Attempt::new(format!("{act} {path}"), denial));
        twins.push(format!("{act} {open}/m{}", number + 1));
    }
    lay(t)?;
    all_refused(t, policy, &twins, attempts, 6, || lay(t))?;
    Ok(())
}

/// Whoever may make files could otherwise leave a program outside that runs as root for everybody.
fn no_file_is_born_with_its_owners_rights(t: &mut Test) -> Outcome {
    let open = t.at("open");
    let attempt = |act: &str, operation, name: &str, access| {
        let path = format!("{open}/{name}");
        Attempt::new(format!("{act} {path}"), Denial::floor(operation).asking(access))
    };
    let attempts = vec![
        attempt("set-id-creat", "create", "s1", "create"),
        attempt("set-gid-creat", "create", "s2", "create"),
        attempt("set-id-mknod", "create", "s3", "create"),
        attempt("set-id-tmpfile", "open", "e1", "write+create"),
    ];
    let twins = [format!("create {open}/s4"), format!("mknod-file {open}/s5"), format!("tmpfile {open}/e1")];
    lay(t)?;
    let policy = t.policy().allow("read, write, create, list, delete", &format!("{open}/**"));
    all_refused(t, policy, &twins, attempts, 4, || lay(t))?;
    ensure!((1..=3).all(|number| !exists(&format!("{open}/s{number}"))), "a refused file exists");
    Ok(())
}

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("M01", "`chmod` of a file that may be read and written", "path_chmod", BY, "chmod"),
    refused("M02", "`chmod`, the old call", "path_chmod", BY, "chmod-plain"),
    refused("M03", "`fchmod` of a descriptor", "path_chmod", BY, "fchmod"),
    refused("M04", "`fchmodat` of a descriptor's name in `/proc`", "path_chmod", BY, "fchmod-by-name"),
    refused("M05", "`fchmodat2`", "path_chmod", BY, "fchmodat2").on("6.12, newest"),
    refused("M06", "`chown`", "path_chown", BY, "chown-plain"),
    refused("M07", "`fchownat`", "path_chown", BY, "chown"),
    refused("M08", "`lchown`", "path_chown", BY, "lchown"),
    refused("M09", "`fchown`", "path_chown", BY, "fchown"),
    refused("M10", "`fchownat` of an `O_PATH` descriptor", "path_chown", BY, "fchownat-empty"),
    refused("M11", "`utimensat`", "inode_setattr", BY, "utimes"),
    refused("M12", "`utime`", "inode_setattr", BY, "utime"),
    refused("M13", "`utimensat` to now", "inode_setattr", BY, "utimes-now"),
    refused("M14", "`futimens` of a descriptor", "inode_setattr", BY, "futimens"),
    refused("M15", "`utimensat` that follows no link", "inode_setattr", BY, "touch-link"),
    refused("M16", "`setxattr`", "inode_setxattr", BY, "setxattr"),
    refused("M17", "`lsetxattr`", "inode_setxattr", BY, "lsetxattr"),
    refused("M18", "`fsetxattr`", "inode_setxattr", BY, "fsetxattr"),
    refused("M19", "`setxattrat`", "inode_setxattr", BY, "setxattrat").on("newest"),
    refused("M20", "`removexattr`", "inode_removexattr", BY, "drop-xattr"),
    refused("M21", "`lremovexattr`", "inode_removexattr", BY, "drop-lxattr"),
    refused("M22", "`fremovexattr`", "inode_removexattr", BY, "drop-fxattr"),
    refused("M23", "an access list", "inode_set_acl; inode_setxattr before 6.2", BY, "set-acl"),
    refused("M24", "a directory's default access list", "inode_set_acl; inode_setxattr before 6.2", BY, "set-default-acl"),
    refused("M25", "taking an access list away", "inode_remove_acl; inode_removexattr before 6.2", BY, "drop-acl"),
    refused("M26", "`chattr` (`FS_IOC_SETFLAGS`)", "file_ioctl", BY, "setflags"),
    refused("M27", "`FS_IOC_FSSETXATTR`, projects", "file_ioctl", BY, "set-project"),
    refused("M28", "`FS_IOC_SETVERSION`", "file_ioctl", BY, "set-version"),
    refused("M29", "`chattr +i`", "file_ioctl, capable", BY, "set-immutable"),
    refused("M30", "`file_setattr`", "inode_file_setattr", BY, "file-setattr").on("newest"),
    refused("M31", "a file capability", "capable", BY, "set-capability"),
    refused("M32", "a `trusted.` attribute", "capable", BY, "set-trusted"),
    refused("M33", "`truncate` where only writing is allowed", "path_truncate", BY, "truncate"),
    refused("M34", "`truncate` to nothing", "path_truncate", BY, "truncate-path"),
    refused("M35", "`ftruncate` of a descriptor", "file_truncate; path_truncate before 6.2", BY, "ftruncate"),
    refused("M36", "`O_TRUNC`", "file_open", BY, "write-trunc"),
    refused("M37", "`fallocate` of a file that may not be written", "file_open", READ_ONLY, "allocate"),
    refused("M38", "punching a hole into a file that may not be written", "file_open", READ_ONLY, "punch-hole"),
    refused("M39", "zeroing a range of a file that may not be written", "file_open", READ_ONLY, "collapse"),
    refused("M40", "`O_RDONLY` with `O_TRUNC`", "file_open", READ_ONLY, "rdonly-trunc"),
    refused("M41", "the access mode 3, which asks for everything", "file_open", READ_ONLY, "access-3"),
    refused("M42", "`O_APPEND`", "file_open", READ_ONLY, "append"),
    refused("M43", "`mkdirat`", "path_mkdir", BY, "mkdir"),
    refused("M44", "`mkdir`, the old call", "path_mkdir", BY, "mkdir-plain"),
    refused("M45", "`mknod` of a file", "path_mknod", BY, "mknod-plain"),
    refused("M46", "`mknodat` of a pipe with a name", "path_mknod", BY, "mknod-fifo"),
    refused("M47", "`symlinkat`", "path_symlink", BY, "symlink"),
    refused("M48", "`symlink`, the old call", "path_symlink", BY, "symlink-plain"),
    refused("M49", "`linkat`", "path_link", BY, "link"),
    refused("M50", "`link`, the old call", "path_link", BY, "link-plain"),
    refused("M51", "`linkat` of a descriptor's name in `/proc`", "path_link", BY, "link-fd"),
    refused("M52", "`unlinkat`", "path_unlink", BY, "unlink"),
    refused("M53", "`unlink`, the old call", "path_unlink", BY, "unlink-plain"),
    refused("M54", "`unlinkat` of a directory", "path_rmdir", BY, "rmdir"),
    refused("M55", "`rmdir`, the old call", "path_rmdir", BY, "rmdir-plain"),
    refused("M56", "`renameat2`", "path_rename", BY, "rename"),
    refused("M57", "`rename`, the old call", "path_rename", BY, "rename-plain"),
    refused("M58", "`RENAME_NOREPLACE`", "path_rename", BY, "rename-noreplace"),
    refused("M59", "`RENAME_EXCHANGE` inside one directory", "path_rename", BY, "rename-exchange"),
    refused("M60", "`RENAME_WHITEOUT`", "path_rename", BY, "rename-whiteout"),
    super::open("M61", "`fallocate` by a descriptor that may write, where truncating is denied", "`fallocate` on an open"),
    refused("M62", "a new file with its owner's rights for whoever executes it (`open` with `S_ISUID`)", "path_mknod", BORN, "set-id-creat"),
    refused("M63", "the same with its group's rights", "path_mknod", BORN, "set-gid-creat"),
    refused("M64", "the same by `mknod`", "path_mknod", BORN, "set-id-mknod"),
    refused("M65", "the same without a name (`O_TMPFILE`)", "file_open", BORN, "set-id-tmpfile"),
    refused("M66", "`RENAME_WHITEOUT` where nothing may be created: a device takes the old name", "path_rename", "changes::a_whiteout_is_created", "rename-whiteout"),
];

const BORN: &str = "attack_metadata::no_file_is_born_with_its_owners_rights";
const BY: &str = "attack_metadata::no_call_changes_what_rules_let_be_read_and_written";
const READ_ONLY: &str = "attack_metadata::what_may_be_read_only_keeps_its_content";
