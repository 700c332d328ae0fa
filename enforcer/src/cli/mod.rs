//! The command line. Errors are printed here, once, with their remedy.

mod apply;
mod approvals;
mod audit;
mod break_glass;
mod doctor;
mod exec;
pub mod exit;
mod format;
mod generate;
mod learn;
mod overdue;
mod policy;
mod relay;
mod screen;
mod session;
mod status;
mod support_bundle;
mod top;
mod trust;
mod why;

use crate::{
    control::{
        agent::agent_socket,
        client::Client,
        message::{Reply, Request},
    },
    daemon,
    event::text::escape,
    launch::helper,
    policy::Trust,
    settings::{DEFAULT_PATH, Settings},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use exit::{Exit, Failure};
use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Confines AI agents by cgroup, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "enforcer", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// The settings file [default: /etc/enforcer/enforcer.toml, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Human,
    /// For programs: one JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the kernel programs, publish the policies and serve until told to end.
    Daemon(DaemonArgs),
    /// Run a command as an agent.
    Exec(ExecArgs),
    /// List the agents and their sessions.
    Agents,
    /// Say whether agents are confined. Exits with 0 (enforcing), 1 (degraded) or 2 (NOT ENFORCING).
    Status,
    /// Look for what keeps this host from enforcing, before or after the installation, and say how to mend it.
    /// Exits as status does.
    Doctor {
        /// Exit with 0 if this host can enforce and with 71 if not, whether or not anything is installed.
        #[arg(long)]
        host: bool,
    },
    /// Say why an agent was refused something: the rule, the layer, and what to ask for. Exits with 15 if no
    /// refusal is recorded that fits.
    Why(why::WhyArgs),
    /// Inside a session: whose it is, why it was refused something, and saying why it asks for something.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Print figures for monitoring as OpenMetrics text.
    Metrics,
    /// Make the daemon read the policies again.
    Reload,
    /// Check and explain policies; needs no daemon.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Verify, prove, search and export the signed audit log; needs no daemon.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// What waits for a person: list, show, approve, deny, submit, watch.
    #[command(subcommand)]
    Approvals(approvals::ApprovalsCommand),
    /// How far agents are trusted, and changing it: show, set, submit.
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Lift what policies refuse, for a while, in an emergency: start, stop, status.
    #[command(subcommand)]
    BreakGlass(break_glass::BreakGlassCommand),
    /// Show what agents do now: sessions, verdicts a second, what waits, how full tables are, what was lost.
    Top(top::TopArgs),
    /// Gather what helps others to help into an archive, without secrets.
    SupportBundle(support_bundle::SupportBundleArgs),
    /// Print the version.
    Version,
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages, completions and the JSON Schema of policies into a directory, for packages.
    #[command(hide = true)]
    Generate {
        /// The directory.
        directory: PathBuf,
    },
    /// Wakes what waits for a person and is overdue, until there is a daemon again.
    #[command(hide = true)]
    WakeOverdue,
    #[command(hide = true)]
    LaunchHelper,
    #[command(hide = true)]
    Canary {
        /// `cgroup.procs` of the canary's cgroup.
        procs: PathBuf,
        /// The file that must be refused inside.
        refused: PathBuf,
        /// The file that must be allowed inside: the cgroup is a session.
        allowed: Option<PathBuf>,
    },
}

/// One run of a program, for `exec`.
#[derive(Debug, Args)]
struct RunArgs {
    /// SHA-256 of the program, for `exec`, as sha256sum prints it.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// The program that executes it, for `exec`.
    #[arg(long, value_name = "PATH")]
    parent: Option<String>,
    /// The program's arguments, for `exec`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
struct DaemonArgs {
    /// End enforcement instead: detach the programs and remove what is pinned. Agents must have ended.
    #[arg(long)]
    uninstall: bool,
    /// Why enforcement ends; goes into the audit log.
    #[arg(long, value_name = "TEXT", requires = "uninstall")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct ExecArgs {
    /// The agent whose policy decides.
    agent: String,
    /// Set an environment variable in the session. Nothing of the caller's environment goes in by itself.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<OsString>,
    /// The directory to start in [default: the home directory of the session's user].
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// What the session is for, a ticket's number for example; goes into the audit log.
    #[arg(long, value_name = "REF")]
    task: Option<String>,
    /// Print the session's id and leave the session running, without input and output.
    #[arg(long)]
    detach: bool,
    /// Print the session's id on standard error.
    #[arg(short, long)]
    verbose: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check policy files: syntax, rules, the tests that they carry, and overlaps between them.
    Check {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Put policies in force: check them, put them into the policy directory, and have the daemon load them.
    /// Where it refuses one, every file is put back as it was.
    Apply {
        /// The files; each replaces its agent's policy.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what a policy answers, and which rules decide.
    Explain {
        /// A policy file, or the name of an agent in the policy directory.
        #[arg(value_name = "FILE|AGENT")]
        policy: OsString,
        /// An operation: read, write, create, delete, exec, connect …
        operation: String,
        /// An absolute path, or ADDRESS:PORT/PROTOCOL.
        object: String,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Say what authority a policy grants or takes away, compared with another. Exits with 0 (the same),
    /// 10 (less), 11 (more) or 12 (both).
    Diff {
        /// A policy file, or the name of an agent in the policy directory.
        #[arg(value_name = "FILE|AGENT")]
        before: OsString,
        /// The policy to compare with it.
        #[arg(value_name = "FILE|AGENT")]
        after: OsString,
        /// Compare at this level of trust only: probation, supervised, trusted or autonomous.
        #[arg(long, value_name = "LEVEL", value_parser = policy::trust_level)]
        trust: Option<Trust>,
    },
    /// Lay policy files out in the canonical way; comments stay. Exits with 13 under --check if a file
    /// would change.
    Fmt {
        /// The files; they are rewritten in place.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Change nothing and name the files that would change.
        #[arg(long)]
        check: bool,
    },
    /// Draft the rules that sessions in audit mode would have needed, from the audit log.
    Learn {
        /// A session, by its id; can be given several times.
        #[arg(long = "session", required = true, value_name = "ID")]
        sessions: Vec<String>,
        /// The audit log, and the older ones too where it was rotated [default: the daemon's].
        #[arg(long = "log", value_name = "FILE")]
        logs: Vec<PathBuf>,
        /// The policy in force in those sessions [default: the agent's in the policy directory].
        #[arg(long, value_name = "FILE|AGENT")]
        base: Option<OsString>,
    },
    /// Print the JSON Schema of policies.
    Schema,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done where the terminal has gone.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match cli.command {
        // These two run before anything else of the program exists in the process.
        Command::LaunchHelper => helper::run(),
        Command::Canary { procs, refused, allowed } => {
            daemon::canary::sing(&procs, &refused, allowed.as_deref())
        }
        _ => run(&cli).unwrap_or_else(|failure| {
            complain(&failure);
            failure.exit.into()
        }),
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Daemon(DaemonArgs { uninstall: true, reason }) => {
            let said = daemon::uninstall::run(&settings(cli)?, reason.as_deref(), pinned_sessions)?;
            print(&match cli.output {
                Output::Human => format!("{said}\n"),
                Output::Json => json_text(&serde_json::json!({"done": said})),
            })
        }
        Command::Daemon(_) => {
            log_to_stderr();
            daemon::run(settings(cli)?, start).map(|()| Exit::Ok.into())
        }
        Command::Exec(args) => exec::run(&settings(cli)?, args),
        Command::Agents => match connect(cli)?.ask(&Request::Agents)? {
            Reply::Agents { agents } => status::print_agents(&agents, cli.output),
            other => Err(unexpected(&other)),
        },
        Command::Status => match connect(cli)?.ask(&Request::Status)? {
            Reply::Status(status) => status::print_status(&status, cli.output),
            other => Err(unexpected(&other)),
        },
        Command::Doctor { host } => doctor::run(settings(cli), *host, cli.output),
        Command::Why(args) => match why::inside(&sessions_socket(cli), args, cli.output) {
            Some(told) => told,
            None => why::run(&settings(cli)?, args, cli.output),
        },
        Command::Session(command) => session::run(&sessions_socket(cli), command, cli.output),
        Command::Metrics => match connect(cli)?.ask(&Request::Metrics)? {
            Reply::Metrics { text } => print(&match cli.output {
                Output::Human => text,
                Output::Json => json_text(&serde_json::json!({"openmetrics": text})),
            }),
            other => Err(unexpected(&other)),
        },
        Command::Reload => match connect(cli)?.ask(&Request::Reload)? {
            Reply::Reloaded { published, retired, problems } => {
                status::print_reload(&published, &retired, &problems, cli.output)
            }
            other => Err(unexpected(&other)),
        },
        Command::Policy(PolicyCommand::Check { files }) => policy::check(files, cli.output),
        Command::Policy(PolicyCommand::Apply { files }) => {
            apply::apply(&settings(cli)?, files, &mut connect(cli)?, cli.output)
        }
        Command::Policy(PolicyCommand::Explain { policy: named, operation, object, run }) => {
            policy::explain(&settings(cli)?, named, operation, object, run, cli.output)
        }
        Command::Policy(PolicyCommand::Diff { before, after, trust }) => {
            policy::diff(&settings(cli)?, before, after, *trust, cli.output)
        }
        Command::Policy(PolicyCommand::Fmt { files, check }) => format::format(files, *check, cli.output),
        Command::Policy(PolicyCommand::Learn { sessions, logs, base }) => {
            learn::learn(&settings(cli)?, sessions, logs, base.as_deref(), cli.output)
        }
        Command::Policy(PolicyCommand::Schema) => policy::schema(),
        Command::Audit(command) => audit::run(command, cli.output, &|| settings(cli)),
        Command::Approvals(command) => approvals::run(command, cli.output, &|| connect(cli)),
        Command::Trust(command) => trust::run(command, cli.output, &|| connect(cli)),
        Command::BreakGlass(command) => break_glass::run(command, cli.output, &|| connect(cli)),
        Command::Top(args) => top::run(&mut connect(cli)?, args, cli.output),
        Command::SupportBundle(args) => support_bundle::run(settings(cli), args, cli.output),
        Command::Version => print(&match cli.output {
            Output::Human => format!("enforcer {}\n", env!("CARGO_PKG_VERSION")),
            Output::Json => json_text(&serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"), "abi": enforcer_common::ABI_VERSION,
                "kernel_side": cfg!(feature = "kernel"),
            })),
        }),
        Command::Completions { shell } => print(&generate::completions(*shell)?),
        Command::Generate { directory } => generate::all(directory),
        Command::WakeOverdue => {
            let paths = settings(cli).unwrap_or_default().paths;
            overdue::run(&paths.pins, &paths.socket)
        }
        Command::LaunchHelper | Command::Canary { .. } => {
            Err(Failure::new(Exit::Internal, "a hidden command came this far", ""))
        }
    }
}

#[cfg(feature = "kernel")]
use crate::kernel::{pinned_sessions, start, wake_overdue};

#[cfg(not(feature = "kernel"))]
fn wake_overdue(
    _: &std::path::Path,
) -> Result<Option<std::time::Duration>, daemon::enforcement::EnforcementError> {
    Ok(None)
}

#[cfg(not(feature = "kernel"))]
fn pinned_sessions(_: &std::path::Path) -> Result<Vec<u64>, daemon::enforcement::StartError> {
    start(&Settings::default()).map(|_| Vec::new())
}

#[cfg(not(feature = "kernel"))]
fn start(_: &Settings) -> Result<Box<dyn daemon::enforcement::Enforcement>, daemon::enforcement::StartError> {
    Err(daemon::enforcement::StartError {
        cause: daemon::enforcement::StartCause::Kernel,
        message: "this program was built without its kernel side".to_owned(),
        remedy: "build it with --features kernel".to_owned(),
    })
}

fn settings(cli: &Cli) -> Result<Settings, Failure> {
    Settings::load(cli.settings.as_deref()).map_err(|e| {
        Failure::new(Exit::BadSettings, e.to_string(), format!("see the comments in {DEFAULT_PATH}"))
    })
}

fn connect(cli: &Cli) -> Result<Client, Failure> {
    Client::connect(&settings(cli)?.paths.socket)
}

/// The socket at which sessions ask. Where packages have it, if it is there: most sessions are refused to read the
/// settings, and that would be the last refusal that they hear of.
fn sessions_socket(cli: &Cli) -> PathBuf {
    let usual = agent_socket(&Settings::default().paths.socket);
    if cli.settings.is_none() && usual.exists() {
        return usual;
    }
    agent_socket(&settings(cli).unwrap_or_default().paths.socket)
}

fn unexpected_of_session() -> Failure {
    Failure::new(Exit::Unavailable, "the daemon answers something else", "")
}

fn unexpected(reply: &Reply) -> Failure {
    let text = escape(format!("{reply:?}").as_bytes());
    Failure::new(Exit::Unavailable, format!("the daemon answers something else: {text}"), "")
}

/// Prints on standard output. Whoever reads it may go away at any time.
fn print(text: &str) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::CannotWrite, format!("cannot write: {e}"), ""))
        }
        _ => Ok(Exit::Ok.into()),
    }
}

fn json_text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn complain(failure: &Failure) {
    let (red, bold, off) =
        if std::io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}enforcer{off}: {}\n", printable(&failure.message));
    if !failure.remedy.is_empty() {
        text += &format!("  {bold}remedy{off}: {}\n", printable(&failure.remedy));
    }
    // Nothing can be done where the terminal has gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Text that may name what an agent has chosen, fit for a terminal; line ends stay.
fn printable(text: &str) -> String {
    let safe =
        |line: &str| line.chars().map(|c| if crate::event::text::is_plain(c) { c } else { '?' }).collect();
    text.trim_end().lines().map(safe).collect::<Vec<String>>().join("\n")
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ENFORCER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // The journal has a clock of its own.
    if std::env::var_os("JOURNAL_STREAM").is_some() { log.without_time().init() } else { log.init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_begins_after_two_dashes() {
        let line = ["enforcer", "exec", "bot", "--env", "A=b", "--", "ls", "-l", "--env"];
        let Command::Exec(args) = Cli::try_parse_from(line).expect("valid").command else {
            panic!("not exec");
        };
        assert_eq!(args.command, ["ls", "-l", "--env"]);
        assert_eq!(args.environment, ["A=b"]);
        assert!(Cli::try_parse_from(["enforcer", "exec", "bot"]).is_err());
    }

    #[test]
    fn every_command_is_documented() {
        let page = include_str!("../../../docs/cli.md");
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = command.get_name();
            assert!(page.contains(&format!("enforcer {name}")), "docs/cli.md lacks {name}");
            for argument in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("--{argument}")), "docs/cli.md lacks {name} --{argument}");
            }
        }
    }
}
