//! Files that change the kernel, and calls that do.

use super::{Attack, refused};

const SYSCTL: &str = "knobs::sysctl_settings_cannot_be_written";
const KERNEL: &str = "knobs::kernel_settings_cannot_be_written";
const MODULE: &str = "floor::no_module_and_no_other_kernel";
const PORT: &str = "floor::no_port_no_swap_no_host_name";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("K01", "`core_pattern`: a program that the kernel starts outside", "file_open", SYSCTL, "core_pattern"),
    refused("K02", "the kernel's `modprobe`", "file_open", SYSCTL, "/proc/sys/kernel/modprobe"),
    refused("K03", "any other setting in `/proc/sys`", "file_open", SYSCTL, "file-max"),
    refused("K04", "`sysrq-trigger`", "file_open", SYSCTL, "sysrq-trigger"),
    refused("K05", "`uevent_helper`", "file_open", KERNEL, "uevent_helper"),
    refused("K06", "settings in `/sys`", "file_open", KERNEL, "/sys/kernel/mm/transparent_hugepage/enabled"),
    refused("K07", "tracefs", "file_open", KERNEL, "trace_marker"),
    refused("K08", "debugfs", "file_open", KERNEL, "clear_warn_once"),
    refused("K09", "loading a module from memory", "capable", MODULE, "init-module"),
    refused("K10", "loading a module from a file", "capable", MODULE, "finit-module"),
    refused("K11", "unloading a module", "capable", MODULE, "delete-module"),
    refused("K12", "another kernel (`kexec_load`)", "capable", MODULE, "kexec-load"),
    refused("K13", "another kernel from a file", "capable", MODULE, "kexec-file-load"),
    refused("K14", "restarting the machine", "capable", MODULE, "reboot"),
    refused("K15", "input and output ports (`iopl`)", "capable", PORT, "iopl"),
    refused("K16", "single ports (`ioperm`)", "capable", PORT, "ioperm"),
    refused("K17", "swapping to a file", "capable", PORT, "swapon"),
    refused("K18", "process accounting", "capable", PORT, "acct"),
    refused("K19", "the kernel's log", "capable, syslog", PORT, "syslog"),
    refused("K20", "the host's name", "capable", PORT, "sethostname"),
    refused("K21", "watching whole file systems (`fanotify`)", "capable", PORT, "fanotify"),
    refused("K22", "performance counters of one's own", "perf_event_open, capable", "floor::no_kernel_programs_and_no_counters", "perf-event"),
    refused("K23", "a capability that no policy grants", "capable", "grants::a_capability_that_is_granted_works", "nice"),
    refused("K24", "registering a kind of program (`binfmt_misc`), which says what runs when others execute a file", "file_open", KERNEL, "{kinds}/register"),
];
