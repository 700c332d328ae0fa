//! Other names for the same thing, and other things under the same name.

use super::{Attack, refused};
use crate::{
    cases, ensure,
    harness::{Outcome, Test, exists, outside, outside_all},
    promise::{self, Attempt, Denial},
};

cases!(attack_names:
    no_way_around_a_name_leads_to_the_file,
    no_path_is_too_long_to_be_judged,
    what_has_no_name_gets_none_where_rules_allow_none,
    a_name_is_one_that_the_file_has_had,
);

fn lay(t: &Test) -> Outcome {
    t.fresh()?;
    for side in ["open", "shut"] {
        for number in 1..=9 {
            t.file(&format!("{side}/f{number}"))?;
        }
        t.file(&format!("{side}/d1/x"))?;
    }
    promise::marker(t)?;
    Ok(())
}

/// A directory moves between two names, under neither of which its file may be read. Were the first half of one taken
/// with the second half of the other, it might be.
fn a_name_is_one_that_the_file_has_had(t: &mut Test) -> Outcome {
    const SECONDS: u64 = 20;
    t.fresh()?;
    // The deeper it lies, the longer takes it to look at all of the name.
    let deep = "d/".repeat(60);
    let (one, other) = (t.at(&format!("r/{deep}xx")), t.at(&format!("t/{deep}ok")));
    t.file(&format!("r/{deep}xx/f"))?;
    t.dir(&format!("t/{}", deep.trim_end_matches('/')))?;
    let any = "*/".repeat(60);
    let policy = t.policy().allow("list, write, create, delete, rename", &t.at("{r,t}/**"));
    let policy = policy.allow("read", &t.at(&format!("r/{any}ok/**")));
    let policy = policy.allow("read", &t.at(&format!("t/{any}xx/**")));
    let act = format!("torn-names {one} {other} f {SECONDS}");
    ensure!(outside(&act)? == "ok", "the control");
    let session = t.agent(policy)?.probe(&[act, format!("rename {one} {other}")])?;
    ensure!(session.lines == ["EPERM", "ok"], "{:?}", session.lines);
    Ok(())
}

fn no_way_around_a_name_leads_to_the_file(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let (file, other) = (format!("{shut}/f1"), format!("{shut}/f2"));
    let read = |act: String| Attempt::new(act, Denial::no_rule("open").on(&file).asking("read"));
    let write = |act: String| Attempt::new(act, Denial::no_rule("open").on(&other).asking("write"));
    let attempts = [
        read(format!("descriptor-of-directory {shut} f1")),
        read(format!("descriptor-of-directory {open} ../shut/f1")),
        read(format!("descriptor-of-directory {open} d1/../../shut/./f1")),
        read(format!("read /{shut}//f1")),
        read(format!("read /proc/self/cwd/..{file}")),
        read(format!("copy-into {file} {open}/f1")),
        write(format!("copy-into {open}/f1 {other}")),
        // ext4 cannot share content, and says so when it is asked.
        read(format!("reflink {file} {open}/f2")).fails_outside("EOPNOTSUPP"),
        read(format!("splice-from {file}")),
        read(format!("copy-range {file} {open}/f1")),
        write(format!("copy-range {open}/f1 {other}")),
        write(format!("splice-into {other}")),
        read(format!("lease {file}")),
        read(format!("map-exec {file}")),
        read(format!("read {file}")),
    ];
    let twins = [
        format!("descriptor-of-directory {open} f1"),
        format!("descriptor-of-directory {shut} ../open/f1"),
        format!("copy-into {open}/f3 {open}/f4"),
        format!("splice-from {open}/f1"),
        format!("copy-range {open}/f3 {open}/f5"),
        format!("splice-into {open}/f6"),
        // Where a process stands is not what it may open there.
        format!("chdir {shut}"),
        "chdir /".to_owned(),
    ];
    lay(t)?;
    promise::control(&attempts)?;
    lay(t)?;
    let agent = t.agent(t.policy().allow("all", &format!("{open}/**")))?;
    promise::refused(t, &agent, &twins, &attempts)?;
    let relative = [
        Attempt::new("read f1", Denial::no_rule("open").on(&file).asking("read")),
        Attempt::new("read ../shut/f1", Denial::no_rule("open").on(&file).asking("read")),
        Attempt::new("create n1", Denial::no_rule("create").on(&format!("{shut}/n1")).asking("create")),
        Attempt::new("unlink f2", Denial::no_rule("unlink").on(&other).asking("delete")),
    ];
    promise::refused(t, &agent, &[format!("chdir {shut}"), "read ../open/f1".to_owned()], &relative)
}

fn no_path_is_too_long_to_be_judged(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    lay(t)?;
    // 20 names of 250 bytes: more than any call takes as a path.
    let lines = outside_all(&[format!("deep-long-make {open} 20"), format!("deep-long-make {shut} 20")])?;
    ensure!(lines == ["ok", "ok"], "{lines:?}");
    let attempts = [Attempt::new(
        format!("deep-long-read {shut} 20"),
        Denial::no_rule("open").asking("read").flagged("object-cut"),
    )];
    promise::control(&attempts)?;
    let agent = t.agent(t.policy().allow("all", &format!("{open}/**")))?;
    promise::refused(t, &agent, &[format!("deep-long-read {open} 20")], &attempts)
}

/// Kernels differ in who may link a descriptor itself, and by which error they say so.
fn what_has_no_name_gets_none_where_rules_allow_none(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    lay(t)?;
    let named =
        |act: String, to: &str| Attempt::new(act, Denial::no_rule("link").on(to).asking("create+link"));
    let attempts = [named(format!("tmpfile-link {open} {shut}/n1"), &format!("{shut}/n1"))];
    promise::control(&attempts)?;
    lay(t)?;
    let agent = t.agent(t.policy().allow("all", &format!("{open}/**")))?;
    promise::refused(t, &agent, &[format!("tmpfile-link {open} {open}/n1")], &attempts)?;
    let acts = [format!("tmpfile-link-empty {open} {shut}/n2"), format!("link-empty {shut}/f1 {open}/n3")];
    let outside = outside_all(&acts)?;
    ensure!(outside == ["ok", "ok"], "outside: {outside:?}");
    lay(t)?;
    let inside = agent.probe(&acts)?.lines;
    ensure!(inside.iter().all(|line| ["EPERM", "ENOENT"].contains(&line.as_str())), "{inside:?}");
    let made: Vec<&str> =
        ["shut/n1", "shut/n2", "open/n3"].into_iter().filter(|name| exists(&t.at(name))).collect();
    ensure!(made.is_empty(), "{made:?} exist");
    Ok(())
}

const EVERY: &str = "files::every_name_of_a_file_leads_to_the_same_verdict";
const READ: &str = "files::reading_needs_a_rule";
const CREATE: &str = "files::creating_needs_a_rule_and_leaves_nothing_behind";
const MOUNT: &str = "floor::nothing_is_mounted_or_unmounted";
const NAMESPACE: &str = "floor::no_namespace_is_left_or_made";
const ROOT: &str = "floor::no_other_root";
const RENAME: &str = "changes::renaming_needs_rules_at_both_names";
const EXCHANGE: &str = "changes::exchanging_needs_rules_in_both_directions";
const CARRY: &str = "changes::a_renamed_directory_cannot_carry_denied_children_out";
const GAIN: &str = "changes::a_rename_gives_no_rights_that_the_file_did_not_have";
const LINK: &str = "changes::a_link_gives_no_rights_that_the_file_did_not_have";
const LINKED: &str = "links::what_is_denied_stays_denied_under_names_that_were_there";
const BOX: &str = "units::a_container_is_governed_by_the_names_inside_it";
const SPREAD: &str = "propagation::nobody_changes_how_mounts_spread";
const MOVED: &str = "propagation::what_was_remembered_below_a_mount_does_not_survive_its_moving";
const ARRIVES: &str = "propagation::a_mount_that_arrives_in_a_container_is_judged_by_its_name_inside";
const AROUND: &str = "attack_names::no_way_around_a_name_leads_to_the_file";
const NAMELESS: &str = "attack_names::what_has_no_name_gets_none_where_rules_allow_none";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("N01", "opening a file that no rule names", "file_open", READ, "read"),
    refused("N02", "`openat2`", "file_open", READ, "openat2"),
    refused("N03", "opening in a child", "file_open, task_alloc", READ, "from-child"),
    refused("N04", "opening in another thread", "file_open, task_alloc", READ, "from-thread"),
    refused("N05", "a symbolic link inside the scope that leads out", "file_open", EVERY, "to-shut"),
    refused("N06", "`..` and `.` on the way", "file_open", EVERY, "/../shut/./f1"),
    refused("N07", "`/proc/self/root`", "file_open", EVERY, "proc-self-root"),
    refused("N08", "`/proc/self/root` again and again", "file_open", EVERY, "/proc/self/root/proc/self/root"),
    refused("N09", "`/proc/self/cwd`", "file_open", EVERY, "proc-self-cwd"),
    refused("N10", "an `O_PATH` descriptor, opened again in `/proc`", "file_open", EVERY, "opath-reopen"),
    refused("N11", "the same by `/dev/fd`", "file_open", EVERY, "opath-dev-fd"),
    refused("N12", "the same by `/dev/stdin`", "file_open", EVERY, "stdin-reopen"),
    refused("N13", "`openat` from a directory that was opened with `O_PATH`", "file_open", AROUND, "descriptor-of-directory"),
    refused("N14", "a relative path from a working directory outside the scope", "file_open", AROUND, "read f1"),
    refused("N15", "creating by a relative path", "path_mknod", AROUND, "create n1"),
    refused("N16", "removing by a relative path", "path_unlink", AROUND, "unlink f2"),
    refused("N17", "copying by `sendfile` from a file outside the scope", "file_open", AROUND, "copy-into {file}"),
    refused("N18", "copying by `sendfile` into one", "file_open", AROUND, "copy-into {open}/f1"),
    refused("N19", "`splice` from a file outside the scope", "file_open", AROUND, "splice-from"),
    refused("N20", "sharing its content (`FICLONE`)", "file_open", AROUND, "reflink"),
    refused("N21", "a lease on it", "file_open", AROUND, "lease"),
    refused("N22", "names of 255 bytes", "path_mknod", "files::names_of_255_bytes_are_told", "long-create"),
    refused("N23", "a tree that is too deep to be told", "file_open", "files::a_depth_of_100_is_told_and_200_is_refused", "deep-read"),
    refused("N24", "a path of 5,000 bytes", "file_open", "attack_names::no_path_is_too_long_to_be_judged", "deep-long-read"),
    refused("N25", "another case of the letters", "file_open", "globs::case_matters", "read"),
    refused("N26", "listing a directory", "file_open", "files::listing_a_directory_needs_a_rule", "list"),
    refused("N27", "`chroot`, so that the path begins elsewhere", "path_chroot, capable", ROOT, "chroot"),
    refused("N28", "`pivot_root`", "sb_pivotroot, capable", ROOT, "pivot-root"),
    refused("N29", "a bind mount inside the scope", "sb_mount, capable", MOUNT, "mount-bind"),
    refused("N30", "a tmpfs over a directory", "sb_mount, capable", MOUNT, "mount-tmpfs"),
    refused("N31", "another `/proc`", "sb_mount, capable", MOUNT, "mount-proc"),
    refused("N32", "changing how something is mounted", "sb_mount, capable", MOUNT, "remount"),
    refused("N33", "unmounting what covers something", "sb_umount, capable", MOUNT, "umount"),
    refused("N34", "a detached copy of a mount (`open_tree`)", "capable; the walk ends in no namespace", MOUNT, "open-tree"),
    refused("N35", "attaching a detached copy", "move_mount, capable", MOUNT, "open-tree-attach"),
    refused("N36", "the new mount calls: `fsopen`", "capable", MOUNT, "fsopen"),
    refused("N37", "`fspick` of the root", "capable", MOUNT, "fspick"),
    refused("N38", "`move_mount`", "move_mount, capable", MOUNT, "move-mount"),
    refused("N39", "`mount_setattr`", "capable", MOUNT, "mount-setattr"),
    refused("N40", "a mount namespace of one's own", "capable", NAMESPACE, "mount"),
    refused("N41", "a user namespace", "userns_create", NAMESPACE, "unshare-user"),
    refused("N42", "a user and a mount namespace at once", "userns_create", NAMESPACE, "unshare-user-mount"),
    refused("N43", "a network namespace", "capable", NAMESPACE, "net"),
    refused("N44", "a process namespace", "capable", NAMESPACE, "pid"),
    refused("N45", "joining the host's mount namespace", "ptrace_access_check", NAMESPACE, "setns 1 mnt"),
    refused("N46", "joining the host's network namespace", "ptrace_access_check", NAMESPACE, "setns 1 net"),
    refused("N47", "a file by its handle", "capable", "floor::no_file_by_its_handle", "handle"),
    refused("N48", "a device of the disk, by `mknod`", "capable", "floor::no_device_is_made", "mknod-disk"),
    refused("N49", "what an outsider bound into the scope is judged by its name there", "file_open", "mounts::a_bind_mount_is_judged_by_its_own_name", "read"),
    refused("N50", "a directory that an outsider renames while it is remembered", "file_open", "mounts::what_was_remembered_about_a_directory_does_not_survive_its_renaming", "read ../n1/x"),
    refused("N51", "creating with `O_EXCL`, and what a refusal leaves behind", "path_mknod", CREATE, "create"),
    refused("N52", "`creat`", "path_mknod", CREATE, "creat"),
    refused("N53", "`O_RDONLY` with `O_CREAT`", "path_mknod", CREATE, "rdonly-creat"),
    refused("N54", "a file without a name (`O_TMPFILE`)", "file_open", CREATE, "tmpfile"),
    refused("N55", "a name for it in another directory", "path_link", NAMELESS, "tmpfile-link"),
    refused("N56", "the same by `AT_EMPTY_PATH`", "path_link; capable before 6.10", NAMELESS, "tmpfile-link-empty"),
    refused("N57", "a name for an `O_PATH` descriptor by `AT_EMPTY_PATH`", "path_link; capable before 6.10", NAMELESS, "link-empty"),
    refused("N58", "a link into the scope to what may not be read", "path_link", LINK, "link"),
    refused("N59", "the same of a descriptor's name", "path_link", LINK, "link-fd"),
    refused("N60", "a link out of the scope", "path_link", "changes::linking_needs_a_rule_at_the_new_name", "link"),
    refused("N61", "moving a file into the scope", "path_rename", RENAME, "leaving"),
    refused("N62", "moving one onto a protected name", "path_rename", RENAME, "arriving"),
    refused("N63", "exchanging, in one direction", "path_rename", EXCHANGE, "rename-exchange"),
    refused("N64", "moving a directory whose children are denied", "path_rename", CARRY, "rename"),
    refused("N65", "exchanging such a directory", "path_rename", CARRY, "rename-exchange"),
    refused("N66", "moving a file to where more is allowed", "path_rename", GAIN, "rename"),
    refused("N67", "exchanging it", "path_rename", GAIN, "rename-exchange"),
    refused("N68", "reading a denied file by a hard link that was there", "file_open", LINKED, "read"),
    refused("N69", "writing to it", "file_open", LINKED, "write"),
    refused("N70", "truncating it", "path_truncate", LINKED, "truncate"),
    refused("N71", "changing its mode", "path_chmod", LINKED, "chmod"),
    refused("N72", "removing it", "path_unlink", LINKED, "unlink"),
    refused("N73", "giving it one more name", "path_link", LINKED, "link"),
    refused("N74", "a name that is denied anywhere", "file_open", "links::what_is_denied_anywhere_stays_denied_under_names_that_were_there", "read"),
    refused("N75", "links made in expectation of a stricter policy", "file_open", "links::what_an_agent_linked_before_is_denied_with_the_rest", "link"),
    refused("N76", "in a container's overlay: reading", "file_open", BOX, "read /data/shut/f1"),
    refused("N77", "in a container's overlay: writing, which would copy up", "file_open", BOX, "write /data/shut/f2"),
    refused("N78", "in a container's overlay: creating", "path_mknod", BOX, "create /data/shut/n1"),
    refused("N79", "in a container's overlay: removing", "path_unlink", BOX, "unlink /data/shut/f3"),
    refused("N80", "in a container's overlay: moving into the scope", "path_rename", BOX, "rename /data/shut/f4"),
    refused("N81", "in a container's overlay: changing a mode", "path_chmod", BOX, "chmod /data/shut/f5"),
    refused("N82", "in a container's overlay: `chroot`", "path_chroot, capable", BOX, "chroot /data"),
    refused("N83", "in a container's overlay: mounting", "sb_mount, capable", BOX, "mount-tmpfs /mnt"),
    super::open("N84", "whether a file exists, by `stat`, `access`, `readlink`", "Existence and metadata of any path"),
    super::open("N85", "a hard link that an outsider makes later", "A hard link that an outsider makes to a denied file"),
    super::open("N86", "a directory that an outsider mounts into the scope, by what lies below it", "A directory bind-mounted into the scope"),
    refused("N87", "copying by `copy_file_range` from a file outside the scope", "file_open", AROUND, "copy-range"),
    refused("N88", "`vmsplice`, `tee` and `splice` into one", "file_open", AROUND, "splice-into"),
    refused("N89", "changing how a mount spreads (`MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`)", "sb_mount, capable", SPREAD, "propagation slave"),
    refused("N90", "the same of every mount below the root", "sb_mount, capable", SPREAD, "propagation rshared /"),
    refused("N91", "the same by `mount_setattr`", "capable", SPREAD, "propagation-attr shared"),
    refused("N92", "joining the peers of another mount (`MOVE_MOUNT_SET_GROUP`)", "capable", SPREAD, "join-peers"),
    refused("N93", "what an outsider mounts elsewhere and arrives outside the scope by a peer, while the place is remembered", "file_open", "propagation::a_mount_that_arrives_is_judged_by_its_name_there", "read {shut}/sub/y"),
    refused("N94", "a mount that an outsider moves out of the scope, while directories in it are remembered", "file_open", MOVED, "read {shut}/d/x"),
    refused("N95", "a working directory in a mount that an outsider takes away", "the walk ends in no namespace", MOVED, "umount {open}"),
    refused("N96", "in a container: what the host mounts outside the scope and arrives inside", "file_open", ARRIVES, "read /data/shut/in/sub/y"),
    refused("N97", "in a container: changing how its mounts spread", "sb_mount, capable", ARRIVES, "propagation rshared /"),
    refused("N98", "in a container: unmounting what has arrived", "sb_umount, capable", ARRIVES, "umount /data/open/in/sub"),
    refused("N99", "removing the name under which a file is denied, so that another one is all it has", "path_unlink", "links::removing_a_denied_name_frees_no_other_one", "unlink"),
    refused("N100", "moving something else there", "path_rename", "links::removing_a_denied_name_frees_no_other_one", "rename"),
    refused("N101", "another spelling of a denied name, where the file system takes it (capitals)", "file_open", "mounts::another_spelling_that_a_file_system_takes_is_no_way_around_a_rule", "SECRET/key").on("newest"),
    refused("N102", "more links to what a stricter policy denies than it can know", "file_open", "links::more_links_than_there_is_room_for_are_all_refused", "many/0"),
    refused("N103", "moving the denied name away, to where nothing says that it is denied", "path_rename", "links::removing_a_denied_name_frees_no_other_one", "secret4"),
    refused("N104", "opening a file while its directory moves between two names, in the hope that parts of both are taken for one", "file_open", "attack_names::a_name_is_one_that_the_file_has_had", "torn-names"),
];
