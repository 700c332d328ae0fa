//! Leaving the cgroup, and what else control groups can do.

use super::{Attack, almighty, refused};
use crate::{
    agent::ROOT,
    cases, ensure,
    harness::{Outcome, Test, exists, outside},
    promise::{self, Attempt, Denial},
};
use std::fs;

cases!(attack_cgroups: no_control_group_is_changed_by_any_call);

const OTHER: &str = "/sys/fs/cgroup/probe-attacks";

fn no_control_group_is_changed_by_any_call(t: &mut Test) -> Outcome {
    promise::marker(t)?;
    let lay = || -> Outcome {
        for name in ["", "/old", "/old2"] {
            fs::create_dir_all(format!("{OTHER}{name}"))?;
        }
        for name in ["/new", "/new2", "/new3"] {
            let _ = fs::remove_dir(format!("{OTHER}{name}"));
        }
        Ok(())
    };
    let write = |path: String| {
        let denial = Denial::floor("open").on(&path).asking("write");
        Attempt::new(format!("write {path}"), denial)
    };
    let floor = |act: String, operation: &'static str| Attempt::new(act, Denial::floor(operation));
    let mut attempts: Vec<Attempt> = [
        "cgroup.procs",
        "cgroup.threads",
        "cgroup.kill",
        "cgroup.freeze",
        "cgroup.subtree_control",
        "cgroup.type",
        "cgroup.max.depth",
        "cgroup.max.descendants",
    ]
    .iter()
    .map(|file| write(format!("{OTHER}/{file}")))
    .collect();
    attempts.push(write(format!("{ROOT}/cgroup.subtree_control")));
    attempts.push(write(format!("{ROOT}/cgroup.procs")));
    attempts.push(floor(format!("mkdir {OTHER}/new"), "mkdir"));
    attempts.push(floor(format!("mkdir-plain {OTHER}/new2"), "mkdir"));
    attempts.push(floor(format!("rmdir {OTHER}/old"), "rmdir"));
    attempts.push(floor(format!("rmdir-plain {OTHER}/old2"), "rmdir"));
    attempts.push(floor(format!("chmod {OTHER}/cgroup.procs"), "chmod"));
    attempts.push(floor(format!("chown {OTHER}/cgroup.procs"), "chown"));
    attempts.push(floor(format!("setxattr {OTHER}"), "xattr").fails_somehow_outside());
    attempts.push(floor(format!("utimes {OTHER}/cgroup.procs"), "setattr"));
    attempts.push(floor(format!("rename {OTHER}/cgroup.procs {OTHER}/new3"), "rename").not_outside());
    attempts.push(floor(format!("clone-own-cgroup {OTHER}"), "fork"));
    attempts.push(floor("clone-parent".to_owned(), "fork").not_outside());
    lay()?;
    promise::control(&attempts)?;
    lay()?;
    let agent = t.agent(almighty(t)?)?;
    let outcome =
        promise::refused(t, &agent, &[format!("read {OTHER}/cgroup.procs"), "fork".to_owned()], &attempts);
    let left = [exists(&format!("{OTHER}/old")), !exists(&format!("{OTHER}/new"))];
    for name in ["/new", "/new2", "/old", "/old2", ""] {
        let _ = fs::remove_dir(format!("{OTHER}{name}"));
    }
    outcome?;
    ensure!(left == [true; 2], "a group was made or removed although refused");
    ensure!(outside("fork")? == "ok", "an outsider cannot fork");
    Ok(())
}

const BY: &str = "attack_cgroups::no_control_group_is_changed_by_any_call";
const FILES: &str = "knobs::cgroup_files_cannot_be_written";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("C01", "writing one's own number to another group's `cgroup.procs`", "file_open", FILES, "cgroup-move"),
    refused("C02", "opening `cgroup.procs` of the root group", "file_open", FILES, "cgroup.procs"),
    refused("C03", "`cgroup.kill` of all agents", "file_open", FILES, "cgroup.kill"),
    refused("C04", "`cgroup.freeze` of the system", "file_open", FILES, "cgroup.freeze"),
    refused("C05", "`memory.high` of the daemon", "file_open", FILES, "memory.high"),
    refused("C06", "`cgroup.threads`", "file_open", BY, "cgroup.threads"),
    refused("C07", "`cgroup.subtree_control`", "file_open", BY, "cgroup.subtree_control"),
    refused("C08", "`cgroup.type`", "file_open", BY, "cgroup.type"),
    refused("C09", "limits on groups below (`cgroup.max.depth`)", "file_open", BY, "cgroup.max.depth"),
    refused("C10", "a group of one's own below", "path_mkdir", BY, "mkdir"),
    refused("C11", "removing a group", "path_rmdir", BY, "rmdir"),
    refused("C12", "letting others write to `cgroup.procs` (`chmod`)", "path_chmod", BY, "chmod"),
    refused("C13", "giving it away (`chown`)", "path_chown", BY, "chown"),
    refused("C14", "attributes of a group, by which managers delegate", "inode_setxattr", BY, "setxattr"),
    refused("C15", "renaming in a control group", "path_rename", BY, "rename"),
    refused("C16", "a second mount of the control groups", "sb_mount, capable", "floor::nothing_is_mounted_or_unmounted", "mount-cgroup"),
    refused("C17", "a child that is born in another group, by an `O_PATH` descriptor", "task_alloc", "tasks::no_child_is_born_in_another_cgroup", "clone-into-cgroup"),
    refused("C18", "the same by a descriptor that was opened", "task_alloc", BY, "clone-own-cgroup"),
    refused("C19", "a child of the parent's (`CLONE_PARENT`)", "task_alloc", BY, "clone-parent"),
    refused("C20", "a namespace of control groups", "capable", "floor::no_namespace_is_left_or_made", "cgroup"),
    refused("C21", "being moved out by somebody", "every hook: the label stays", "sessions::a_process_moved_out_stays_governed_and_so_do_its_children", "from-child"),
    refused("C22", "being moved into another session", "every hook: the label stays", "sessions::a_process_moved_into_another_session_keeps_its_own_rules", "read"),
    refused("C23", "living in a group below the session's", "every hook: ancestors count", "sessions::a_child_cgroup_is_governed", "child"),
    refused("C24", "living in a child of the agents' slice that no policy names", "every hook: no session, no rights", "sessions::an_unknown_child_of_the_root_has_no_rights", "nobody"),
];
