//! The policy language as it is written: the types that documents are decoded into and that the
//! JSON Schema is made from. Nothing here has been checked beyond its shape.

use super::{
    decode::{At, OneOrMany, Tolerant},
    layers::{Landlock, Seccomp},
    rule::{Mode, OnHold, OnTighten, Tier, Trust},
};
use schemars::JsonSchema;
use serde::Deserialize;

/// A policy: what one agent may do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentPolicy")]
pub(super) struct Draft {
    /// Version of the language.
    #[serde(rename = "apiVersion")]
    #[expect(dead_code, reason = "its one value is checked by decoding it")]
    pub(super) api_version: Tolerant<ApiVersion>,
    /// Kind of document.
    #[expect(dead_code, reason = "its one value is checked by decoding it")]
    pub(super) kind: Tolerant<PolicyKind>,
    /// Who the agent is and who answers for it.
    pub(super) metadata: Tolerant<MetadataDraft>,
    /// The cgroups in which sessions of the agent live.
    #[serde(rename = "match")]
    pub(super) matches: Option<Tolerant<At<MatchDraft>>>,
    /// Who may start the agent, and as whom it runs.
    pub(super) launch: Option<Tolerant<LaunchDraft>>,
    /// The most trust that a session of the agent can have.
    pub(super) trust: Option<Tolerant<Trust>>,
    /// Whether verdicts are enforced or only recorded.
    pub(super) mode: Option<Tolerant<Mode>>,
    /// What becomes of a session that holds something open that this policy refuses and the one before it did not.
    pub(super) on_tighten: Option<Tolerant<OnTighten>>,
    /// What the host must be able to enforce.
    pub(super) requires: Option<Vec<At<String>>>,
    /// Profiles whose rules are added, as `name@version`.
    pub(super) include: Option<Vec<At<String>>>,
    /// Rules about files and directories.
    pub(super) files: Option<Vec<Tolerant<At<FileRuleDraft>>>>,
    /// Rules about running programs.
    pub(super) exec: Option<Vec<Tolerant<At<ExecRuleDraft>>>>,
    /// Rules about IPv4 and IPv6 addresses.
    pub(super) network: Option<Vec<Tolerant<At<NetworkRuleDraft>>>>,
    /// Rules about unix sockets that were not made in the session.
    pub(super) unix: Option<Vec<Tolerant<At<UnixRuleDraft>>>>,
    /// What the session's processes may do to each other.
    pub(super) process: Option<Tolerant<ProcessDraft>>,
    /// Capabilities that are not refused, for an agent that has them.
    pub(super) capabilities: Option<Vec<At<String>>>,
    /// What is granted of the floor, which refuses it to every session otherwise.
    pub(super) system: Option<Vec<At<String>>>,
    /// What becomes of whoever makes a rare system call, beside a record.
    pub(super) system_calls: Option<Tolerant<SystemCallsDraft>>,
    /// What the policy must answer; it does not load otherwise.
    pub(super) tests: Option<Vec<Tolerant<At<TestDraft>>>>,
}

/// A fragment that policies include.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Profile")]
pub(super) struct ProfileDraft {
    /// Version of the language.
    #[serde(rename = "apiVersion")]
    #[expect(dead_code, reason = "its one value is checked by decoding it")]
    pub(super) api_version: Tolerant<ApiVersion>,
    /// Kind of document.
    #[expect(dead_code, reason = "its one value is checked by decoding it")]
    pub(super) kind: Tolerant<ProfileKind>,
    /// Name, version and purpose.
    pub(super) metadata: Tolerant<ProfileMetadataDraft>,
    /// Rules about files and directories.
    pub(super) files: Option<Vec<Tolerant<At<FileRuleDraft>>>>,
    /// Rules about running programs.
    pub(super) exec: Option<Vec<Tolerant<At<ExecRuleDraft>>>>,
    /// Rules about IPv4 and IPv6 addresses.
    pub(super) network: Option<Vec<Tolerant<At<NetworkRuleDraft>>>>,
    /// Rules about unix sockets that were not made in the session.
    pub(super) unix: Option<Vec<Tolerant<At<UnixRuleDraft>>>>,
    /// What the profile must answer by itself.
    pub(super) tests: Option<Vec<Tolerant<At<TestDraft>>>>,
}

/// Version of the language.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    #[serde(rename = "enforcer/v1")]
    V1,
}

/// Kind of a policy document.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum PolicyKind {
    AgentPolicy,
}

/// Kind of a fragment.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum ProfileKind {
    Profile,
}

/// Who the agent is and who answers for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Metadata")]
pub(super) struct MetadataDraft {
    /// Name of the agent, unique on the host.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,62}$"))]
    pub(super) id: At<String>,
    /// Version of the policy; the larger one is newer.
    #[schemars(range(min = 1))]
    pub(super) version: At<u64>,
    /// Who answers for the agent: a person or team that can be reached.
    pub(super) owner: At<String>,
    /// What the agent is for.
    pub(super) purpose: At<String>,
    /// When the policy ends (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub(super) expires: Option<At<String>>,
}

/// Name, version and purpose of a fragment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ProfileMetadata")]
pub(super) struct ProfileMetadataDraft {
    /// Name.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,62}$"))]
    pub(super) id: At<String>,
    /// Version.
    #[schemars(range(min = 1))]
    pub(super) version: At<u64>,
    /// What it is for.
    pub(super) purpose: At<String>,
}

/// The cgroups in which sessions of the agent live.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Match")]
pub(super) struct MatchDraft {
    /// Path of a session's cgroup in the hierarchy, as a glob or a list of globs.
    pub(super) cgroup: Option<OneOrMany<At<String>>>,
    /// Name of a systemd service or scope, as a glob or a list of globs: `billing-bot@*.service`.
    pub(super) unit: Option<OneOrMany<At<String>>>,
    /// The slice that the units live in (`agents.slice` if it is left out).
    pub(super) slice: Option<At<String>>,
}

/// Who may start the agent, as whom it runs, and what stands around its sessions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Launch")]
pub(super) struct LaunchDraft {
    /// Users and groups that may start the agent: `uid:NAME`, `uid:N`, `group:NAME`, `group:N`.
    #[schemars(inner(regex(pattern = r"^(uid|group):[^\s:]+$")))]
    pub(super) by: Option<Vec<At<String>>>,
    /// The user that the agent runs as: name or number.
    pub(super) run_as: Option<At<NameOrNumber>>,
    /// Set `no_new_privs`: set-user-id programs and file capabilities give nothing. As the settings say without it.
    pub(super) no_new_privileges: Option<bool>,
    /// System calls that a filter of the session's refuses. As the settings say without it.
    pub(super) seccomp: Option<Seccomp>,
    /// What a Landlock ruleset of the session's is about. As the settings say without it; with it the session does
    /// not start where the kernel has no Landlock.
    pub(super) landlock: Option<Landlock>,
}

/// A user by name or number.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum NameOrNumber {
    /// By number.
    Number(u32),
    /// By name.
    Name(String),
}

/// An operation on files.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileOperation {
    /// Open for reading.
    Read,
    /// Open for writing or appending, and change the length.
    Write,
    /// Bring a name into existence.
    Create,
    /// Remove a name.
    Delete,
    /// Give a name up by renaming it.
    Rename,
    /// Give an object a further name.
    Link,
    /// Change the length.
    Truncate,
    /// Change mode, owner, times, extended attributes or flags.
    Metadata,
    /// Execute.
    Exec,
    /// Map executable: shared objects and the ELF interpreter.
    Load,
    /// Read a directory.
    List,
    /// Every operation.
    #[serde(alias = "*")]
    All,
}

/// A rule about files and directories: one verdict on some operations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FileRule", extend("oneOf" = [
    { "required": ["allow"] }, { "required": ["hold"] }, { "required": ["deny"] }
]))]
pub(super) struct FileRuleDraft {
    /// Operations that go on.
    pub(super) allow: Option<At<Vec<At<FileOperation>>>>,
    /// Operations that a person decides.
    pub(super) hold: Option<At<Vec<At<FileOperation>>>>,
    /// Operations that are refused, whatever other rules say.
    pub(super) deny: Option<At<Vec<At<FileOperation>>>>,
    /// Globs over absolute paths.
    pub(super) paths: Vec<At<String>>,
    /// What is at stake.
    pub(super) tier: Option<Tier>,
    /// The reason, shown to whoever is refused or has to decide.
    pub(super) because: Option<String>,
    /// What a held operation does meanwhile.
    pub(super) on_hold: Option<At<OnHold>>,
    /// How long a hold may stay undecided, such as `90s`, `15m` or `2h`; then it is refused.
    #[schemars(regex(pattern = r"^[1-9][0-9]*[smh]$"))]
    pub(super) hold_timeout: Option<At<String>>,
}

/// A rule about running programs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExecRule", extend("oneOf" = [
    { "required": ["allow"] }, { "required": ["hold"] }, { "required": ["deny"] }
]))]
pub(super) struct ExecRuleDraft {
    /// Programs that run.
    pub(super) allow: Option<At<Vec<At<String>>>>,
    /// Programs that a person decides about.
    pub(super) hold: Option<At<Vec<At<String>>>>,
    /// Programs that never run.
    pub(super) deny: Option<At<Vec<At<String>>>>,
    /// Arguments after the program's name that the rule is about, one pattern for each: `*` is any text, and `**`
    /// is any number of arguments. Without, whatever the arguments are.
    pub(super) arguments: Option<At<Vec<At<String>>>>,
    /// SHA-256 of the program's file, as `sha256sum` prints it: the rule is about these contents only. A script's cannot
    /// be told.
    pub(super) sha256: Option<At<Vec<At<String>>>>,
    /// Programs that execute it: the rule is about these only. Globs over absolute paths.
    pub(super) parent: Option<At<Vec<At<String>>>>,
    /// What is at stake.
    pub(super) tier: Option<Tier>,
    /// The reason.
    pub(super) because: Option<String>,
    /// What a held operation does meanwhile.
    pub(super) on_hold: Option<At<OnHold>>,
    /// How long a hold may stay undecided.
    #[schemars(regex(pattern = r"^[1-9][0-9]*[smh]$"))]
    pub(super) hold_timeout: Option<At<String>>,
}

/// A rule about unix sockets of others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UnixRule", extend("oneOf" = [
    { "required": ["allow"] }, { "required": ["hold"] }, { "required": ["deny"] }
]))]
pub(super) struct UnixRuleDraft {
    /// Sockets that may be connected and sent to: globs over absolute paths, or over abstract names
    /// behind `@`.
    pub(super) allow: Option<At<Vec<At<String>>>>,
    /// Sockets that a person decides about.
    pub(super) hold: Option<At<Vec<At<String>>>>,
    /// Sockets that are refused, whatever other rules say.
    pub(super) deny: Option<At<Vec<At<String>>>>,
    /// What is at stake.
    pub(super) tier: Option<Tier>,
    /// The reason.
    pub(super) because: Option<String>,
    /// What a held operation does meanwhile.
    pub(super) on_hold: Option<At<OnHold>>,
    /// How long a hold may stay undecided.
    #[schemars(regex(pattern = r"^[1-9][0-9]*[smh]$"))]
    pub(super) hold_timeout: Option<At<String>>,
}

/// What the session's processes may do to each other.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Process")]
pub(super) struct ProcessDraft {
    /// Tracing one another, and writing to one another's memory. Allowed unless denied; processes
    /// outside the session are never traced.
    pub(super) trace: Option<Permission>,
}

/// What becomes of whoever makes a rare system call; all that are not named are recorded. What may happen, the rules
/// and the floor decide.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SystemCalls")]
pub(super) struct SystemCallsDraft {
    /// Calls that leave no record.
    pub(super) ignore: Option<Vec<At<String>>>,
    /// Calls after which the process is stopped (SIGSTOP) until somebody outside lets it go on.
    pub(super) stop: Option<Vec<At<String>>>,
    /// Calls after which the process is killed.
    pub(super) kill: Option<Vec<At<String>>>,
}

/// Whether something is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Permission {
    /// It is.
    Allow,
    /// It is refused.
    Deny,
}

/// An operation on the network.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum NetOperation {
    /// Connect, or send without connecting.
    Connect,
    /// Bind a local address, or listen on it.
    Bind,
}

/// A rule about addresses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NetworkRule", extend("oneOf" = [
    { "required": ["allow"] }, { "required": ["hold"] }, { "required": ["deny"] }
]))]
pub(super) struct NetworkRuleDraft {
    /// Operations that go on.
    pub(super) allow: Option<At<Vec<At<NetOperation>>>>,
    /// Operations that a person decides.
    pub(super) hold: Option<At<Vec<At<NetOperation>>>>,
    /// Operations that are refused, whatever other rules say.
    pub(super) deny: Option<At<Vec<At<NetOperation>>>>,
    /// Addresses: `ADDRESS[/PREFIX]:PORTS/PROTOCOL`.
    pub(super) to: Vec<At<String>>,
    /// What is at stake.
    pub(super) tier: Option<Tier>,
    /// The reason.
    pub(super) because: Option<String>,
    /// What a held operation does meanwhile.
    pub(super) on_hold: Option<At<OnHold>>,
    /// How long a hold may stay undecided.
    #[schemars(regex(pattern = r"^[1-9][0-9]*[smh]$"))]
    pub(super) hold_timeout: Option<At<String>>,
}

/// What a test expects.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expectation {
    /// It goes on.
    Allow,
    /// A person decides.
    Hold,
    /// It is refused.
    Deny,
}

/// A question and the answer that it must get, at the policy's own level of trust.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Test")]
pub(super) struct TestDraft {
    /// The answer.
    pub(super) expect: Expectation,
    pub(super) read: Option<At<String>>,
    pub(super) write: Option<At<String>>,
    pub(super) create: Option<At<String>>,
    pub(super) delete: Option<At<String>>,
    pub(super) rename: Option<At<String>>,
    pub(super) link: Option<At<String>>,
    pub(super) truncate: Option<At<String>>,
    pub(super) metadata: Option<At<String>>,
    pub(super) exec: Option<At<String>>,
    /// The arguments of the program under `exec`, after its name; without, whether some may be allowed.
    pub(super) arguments: Option<At<Vec<At<String>>>>,
    /// SHA-256 of the program under `exec`.
    pub(super) sha256: Option<At<String>>,
    /// The program that executes the one under `exec`.
    pub(super) parent: Option<At<String>>,
    pub(super) load: Option<At<String>>,
    pub(super) list: Option<At<String>>,
    /// An address, as `10.0.0.1:443/tcp`, or a unix socket, as `unix:/run/x.sock` or `unix:@name`.
    pub(super) connect: Option<At<String>>,
    /// An address, as `127.0.0.1:8000/tcp`.
    pub(super) bind: Option<At<String>>,
}

/// The JSON Schema of policies and profiles, for editors.
pub fn schema() -> serde_json::Value {
    #[derive(JsonSchema)]
    #[schemars(untagged, rename = "Enforcer policy")]
    #[expect(dead_code, clippy::large_enum_variant, reason = "only its schema is used")]
    enum Document {
        Policy(Draft),
        Profile(ProfileDraft),
    }
    schemars::schema_for!(Document).to_value()
}
