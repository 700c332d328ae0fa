//! Getting approvals, levels and policies that nobody gave.

use super::{Attack, refused};

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("R01", "approving one's own request", "unix_stream_connect", "holds::what_an_agent_says_decides_nothing", "approve"),
    refused("R02", "going on by a signal of one's own", "the call is checked again", "holds::a_signal_to_go_on_answers_nothing", "-CONT"),
    refused("R03", "putting another object where the approved one was", "the grant names device and inode", "holds::an_approval_is_for_one_object_as_it_was", "rename"),
    refused("R04", "using an approval a second time", "the grant's uses", "holds::an_approval_is_for_one_object_as_it_was", "unlink"),
    refused("R05", "more requests than anybody reads", "a limit for each agent", "holds::an_agent_asks_for_no_more_than_it_may", "unlink-each"),
    refused("R06", "waiting until nobody answers", "a time limit", "holds::what_nobody_answers_is_refused_in_time", "unlink"),
    refused("R07", "waiting until the daemon is dead", "the kernel's own time limit", "holds::what_waits_is_refused_in_time_without_a_daemon", "kill -s KILL enforcer.service"),
    refused("R08", "a rename that waits, and gains rights when it is approved", "path_rename", "holds::a_rename_that_waits_gains_nothing", "rename"),
    refused("R09", "what waits under a policy that no longer asks", "judged anew", "holds::another_policy_judges_what_waits_anew", "change"),
    refused("R10", "setting one's own level of trust", "unix_stream_connect, signatures", "trust::an_agent_does_not_set_its_own_level", "autonomous"),
    refused("R11", "beginning break-glass as root", "unix_stream_connect, the terminal", "break_glass::only_root_at_a_terminal_outside_agents_begins_break_glass", "script"),
    refused("R12", "break-glass that goes on while no daemon runs", "the kernel's deadline", "break_glass::break_glass_ends_by_itself_while_no_daemon_runs", "NoDaemon"),
    refused("R13", "a push that nobody signed for", "sched_process_exec", "signed::a_push_waits_for_a_signature_and_completes", "push"),
    refused("R14", "a broken policy, in the hope that none is left", "the last good one stays", "policies::a_broken_policy_keeps_the_last_good_one_and_says_so", "an unknown key"),
    refused("R15", "going on after one's policy is gone", "every hook: no policy, no rights", "policies::an_agent_whose_policy_is_gone_is_refused_everything", "read"),
    refused("R16", "a verdict mixed from two policies", "one write switches", "policies::no_verdict_is_mixed_from_two_policies", "hammer"),
    refused("R17", "rights of another agent that were remembered", "caches are keyed by policy", "policies::two_agents_do_not_share_their_rights", "read"),
    refused("R18", "a denied name among allowed ones, in any order of the rules", "deny beats allow", "files::deny_beats_allow_in_any_order", "read"),
    super::open("R19", "what is written into an approved script while its interpreter reads it", "An approved script"),
    super::open("R20", "what is written into a file after its opening was approved", "An approval to open a file"),
];
