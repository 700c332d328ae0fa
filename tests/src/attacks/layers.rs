//! What a layer refuses by itself, with the others switched off: a fault in one of them is not by itself a way out.

use super::{Attack, Tried};

/// An attack that a layer refuses where nothing else does.
const fn alone(
    id: &'static str,
    tries: &'static str,
    layers: &'static str,
    hooks: &'static str,
    case: &'static str,
    act: &'static str,
) -> Attack {
    Attack { id, tries, kernels: "all", hooks, layers, tried: Tried::By(case, act) }
}

const FILTER: &str = "layers::the_filter_alone_refuses_what_no_policy_grants";
const CHANGES: &str = "layers::the_ruleset_alone_refuses_changes_where_no_rule_could_allow_them";
const READING: &str = "layers::the_ruleset_alone_refuses_reading_where_that_was_asked_for";
const OTHERS: &str = "layers::the_ruleset_alone_refuses_ports_and_processes_of_others";
const CGROUP: &str = "second_layer::without_the_hooks_on_the_network_cgroup_programs_refuse";
const CONTENT: &str = "identity::a_program_is_known_by_its_content_whatever_becomes_of_its_name";
const PARENT: &str = "identity::who_executes_a_program_can_decide";
const ASKING: &str = "asking::nobody_else_learns_anything_at_the_sessions_socket";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    alone("Y01", "mounting, without the kernel programs", "seccomp", "the filter", FILTER, "mount-tmpfs"),
    alone("Y02", "unmounting, without them", "seccomp", "the filter", FILTER, "umount"),
    alone("Y03", "a mount namespace, without them", "seccomp", "the filter", FILTER, "unshare-mount"),
    alone("Y04", "a user namespace, without them", "seccomp", "the filter", FILTER, "unshare-user"),
    alone("Y05", "a network namespace, without them", "seccomp", "the filter", FILTER, "unshare-net"),
    alone("Y06", "joining a namespace, without them", "seccomp", "the filter", FILTER, "setns 1 net"),
    alone("Y07", "a detached copy of a mount, without them", "seccomp", "the filter", FILTER, "open-tree"),
    alone("Y08", "the new mount calls, without them", "seccomp", "the filter", FILTER, "fsopen tmpfs"),
    alone("Y09", "moving a mount, without them", "seccomp", "the filter", FILTER, "move-mount"),
    alone("Y10", "another root, without them", "seccomp", "the filter", FILTER, "chroot"),
    alone("Y11", "programs and tables of `bpf`, without them", "seccomp", "the filter", FILTER, "bpf-next-program"),
    alone("Y12", "performance events, without them", "seccomp", "the filter", FILTER, "perf-event"),
    alone("Y13", "a ring, without them", "seccomp", "the filter", FILTER, "io-uring"),
    alone("Y14", "`userfaultfd`", "seccomp", "the filter", "layers::by_default_the_filter_refuses_what_leaves_no_record", "userfaultfd"),
    alone("Y15", "modules, without them", "seccomp", "the filter", FILTER, "finit-module"),
    alone("Y16", "another kernel (`kexec_file_load`), without them", "seccomp", "the filter", FILTER, "kexec-file-load"),
    alone("Y17", "ports of the machine (`iopl`), without them", "seccomp", "the filter", FILTER, "iopl"),
    alone("Y18", "swapping and accounting to a file, without them", "seccomp", "the filter", FILTER, "acct"),
    alone("Y19", "the clock, without them", "seccomp", "the filter", FILTER, "clock-settime"),
    alone("Y20", "a file by its handle, without them", "seccomp", "the filter", FILTER, "handle"),
    alone("Y21", "a namespace by a 32-bit call, without them", "seccomp", "the filter", "layers::the_filter_alone_refuses_32_bit_calls_too", "310"),
    alone("Y22", "tracing where the policy forbids it, without them", "seccomp", "the filter", "layers::the_filter_alone_grants_what_the_policy_grants", "ptrace-attach 1"),
    alone("Y23", "writing outside the scope, without them", "Landlock", "the ruleset", CHANGES, "write"),
    alone("Y24", "creating outside the scope, without them", "Landlock", "the ruleset", CHANGES, "create"),
    alone("Y25", "directories, pipes and symbolic links outside the scope, without them", "Landlock", "the ruleset", CHANGES, "mknod-fifo"),
    alone("Y26", "removing outside the scope, without them", "Landlock", "the ruleset", CHANGES, "unlink"),
    alone("Y27", "moving into and out of the scope, without them", "Landlock", "the ruleset", CHANGES, "rename"),
    alone("Y28", "linking out of the scope, without them", "Landlock", "the ruleset", CHANGES, "link"),
    alone("Y29", "executing outside the scope, without them", "Landlock", "the ruleset", CHANGES, "exec"),
    alone("Y30", "reading outside the scope, without them", "Landlock (`all`)", "the ruleset", READING, "read"),
    alone("Y31", "truncating outside the scope, without them", "Landlock (`all`)", "the ruleset", READING, "truncate").on("6.2 and newer"),
    alone("Y32", "connecting to another port, without them", "Landlock", "the ruleset", OTHERS, "tcp 127.0.0.1").on("6.7 and newer"),
    alone("Y33", "binding another port, without them", "Landlock", "the ruleset", OTHERS, "bind 127.0.0.1 7008").on("6.7 and newer"),
    alone("Y34", "a signal to somebody outside, without them", "Landlock", "the ruleset", OTHERS, "kill").on("6.12 and newer"),
    alone("Y35", "tracing somebody outside, without them", "Landlock", "the ruleset", OTHERS, "ptrace-seize"),
    alone("Y36", "mounting under a ruleset, without them", "Landlock", "the ruleset", OTHERS, "mount-tmpfs"),
    alone("Y37", "a set-user-id program, without them", "no_new_privs", "the kernel's execve", "layers::no_new_privileges_alone_takes_the_power_of_set_user_id_programs", "setuid"),
    alone("Y38", "connecting, without the hooks on the network", "cgroup", "connect4, connect6", CGROUP, "tcp"),
    alone("Y39", "a datagram to another address than the connected one, without the hooks", "cgroup", "egress", CGROUP, "udp-connected-elsewhere"),
    alone("Y40", "connecting by sending (TCP Fast Open), without the hooks", "cgroup", "connect4", CGROUP, "tfo"),
    alone("Y41", "many datagrams in one call, without the hooks", "cgroup", "egress", CGROUP, "udp-sendmmsg"),
    alone("Y42", "binding and listening, without the hooks", "cgroup", "bind4, bind6", CGROUP, "bind-listen"),
    alone("Y43", "MPTCP, SCTP and UDP-Lite, without the hooks", "cgroup", "sock_create", CGROUP, "socket 2 1 262"),
    alone("Y44", "the network of a root that was made anew, without the hooks", "cgroup", "attached anew", "second_layer::a_root_made_anew_and_a_link_taken_away_get_the_programs_again", "stop agents.slice"),
    alone("Y45", "another program under the name of one that is known by its content", "LSM and daemon", "sched_process_exec, the file is read", CONTENT, "rename"),
    alone("Y46", "another program written over one that is known by its content", "LSM and daemon", "sched_process_exec, the file is read", CONTENT, "overlay"),
    alone("Y47", "a program that a rule lets only another one execute", "LSM and daemon", "sched_process_exec", PARENT, "exec /usr/bin/touch"),
    alone("Y48", "learning of other sessions at the sessions' socket", "daemon", "the peer's cgroup", ASKING, "nobody_else_learns_anything_at_the_sessions_socket"),
    alone("Y49", "packets in two calls, or cut by the kernel, without the hooks", "cgroup", "egress", CGROUP, "udp-corked"),
    alone("Y50", "unrecorded attempts: calls that fail before any hook is asked", "evidence", "fexit of the call", "evidence::rare_system_calls_leave_their_arguments_whatever_became_of_them", "setns"),
    alone("Y51", "the same by a 32-bit program, whose numbers are others", "evidence", "fexit of the call", "evidence::calls_of_32_bit_programs_do_too", "310"),
    alone("Y52", "hiding a program's start behind a flood of such calls", "evidence", "a quota for each session", "evidence::a_flood_of_calls_is_counted_and_hides_no_program", "call-each 319"),
    alone("Y53", "going on after a call that a policy ends processes for", "evidence", "SIGKILL", "evidence::a_policy_ignores_stops_and_kills_by_the_call", "memfd_create"),
    alone("Y54", "going on after such a call while another build takes over", "evidence", "SIGKILL", "evidence::whoever_a_policy_kills_for_a_call_does_not_survive_another_build", "killed {} 443"),
];
