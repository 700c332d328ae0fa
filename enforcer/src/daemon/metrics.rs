//! Figures for monitoring: counted as records come, and put into OpenMetrics text when somebody asks.

use super::{
    core::{Core, now},
    enforcement::NETWORK_LAYER,
};
use crate::{
    control::message::{DecisionCounts, State},
    event::decode::{Event, Kind},
    log::{segments, store::CHECKPOINT},
};
use enforcer_common::{
    event::{flag, operation, reason},
    verdict::Verdict,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{
    collections::HashMap,
    fs,
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

/// Operation, verdict, reason, and the flags that say whether it only would have been refused.
type Act = (u16, u16, u16, u16);

/// Decisions since the daemon started, by agent and by what they were.
#[derive(Default)]
pub(super) struct Verdicts {
    by_agent: HashMap<String, HashMap<Act, u64>>,
    /// Below a root, and nobody's.
    of_nobody: HashMap<Act, u64>,
}

impl Verdicts {
    /// Counts a record, if it is a decision.
    pub(super) fn note(&mut self, agent: Option<&str>, event: &Event<'_>) {
        if !matches!(event.kind, Kind::Decision | Kind::Held) {
            return;
        }
        let header = &event.header;
        // Whether arguments are held is known later, and counted then.
        if event.kind == Kind::Held && header.operation == operation::ARGUMENTS {
            return;
        }
        let would = header.flags & (flag::WOULD | flag::BREAK_GLASS);
        self.count(agent, (header.operation, header.verdict, header.reason, would));
    }

    /// Counts a verdict on arguments.
    pub(super) fn note_arguments(&mut self, agent: &str, verdict: Verdict) {
        let reason = if verdict == Verdict::Hold { reason::HELD } else { reason::RULE };
        self.count(Some(agent), (operation::ARGUMENTS, verdict as u16, reason, 0));
    }

    fn count(&mut self, agent: Option<&str>, act: Act) {
        let acts = match agent {
            None => &mut self.of_nobody,
            Some(name) => {
                if !self.by_agent.contains_key(name) {
                    self.by_agent.insert(name.to_owned(), HashMap::new());
                }
                let Some(acts) = self.by_agent.get_mut(name) else { return };
                acts
            }
        };
        *acts.entry(act).or_default() += 1;
    }

    /// An agent's decisions, by what became of them.
    pub(super) fn counts(&self, agent: &str) -> DecisionCounts {
        let mut out = DecisionCounts::default();
        for ((_, verdict, _, would), count) in self.by_agent.get(agent).into_iter().flatten() {
            let place = match *verdict {
                _ if *would != 0 => &mut out.would,
                v if v == Verdict::Allow as u16 => &mut out.granted,
                v if v == Verdict::Hold as u16 => &mut out.held,
                _ => &mut out.denied,
            };
            *place += count;
        }
        out
    }

    fn all(&self) -> impl Iterator<Item = (&str, Act, u64)> {
        let named = self.by_agent.iter().map(|(name, acts)| (name.as_str(), acts));
        named
            .chain([("", &self.of_nobody)])
            .flat_map(|(name, acts)| acts.iter().map(move |(act, count)| (name, *act, *count)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    agent: String,
    operation: String,
    verdict: String,
    reason: String,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    agent: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: String,
    kernel: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    table: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    hook: String,
}

type Count = Counter<u64, AtomicU64>;
type Seconds = Counter<f64, AtomicU64>;

impl Core {
    /// All figures, as OpenMetrics text.
    pub fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("enforcer");
        self.put_state(&mut registry);
        self.put_times(&mut registry);
        self.put_decisions(&mut registry);
        self.put_audit(&mut registry);
        self.put_sinks(&mut registry);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing into a string does not fail.
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }

    fn put_state(&self, registry: &mut Registry) {
        let status = self.status();
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: status.version, kernel: status.kernel }).set(1);
        registry.register("build_info", "The daemon and the kernel that it runs on", build);
        let state = Family::<StateLabels, Gauge>::default();
        for one in [State::Enforcing, State::Degraded, State::NotEnforcing] {
            let is = i64::from(one == status.state);
            state.get_or_create(&StateLabels { state: one.word() }).set(is);
        }
        registry.register("state", "1 for the state that `enforcer status` says, 0 for the others", state);
        let lifted = status.break_glass.iter().map(|one| one.agents.len()).sum::<usize>();
        let errors = status.policies.iter().filter(|file| file.error.is_some()).count();
        let missing = status.hooks.iter().filter(|hook| !hook.attached).count();
        let layer = |attached| {
            let roots = status.hooks.iter().filter(|hook| hook.name.starts_with(NETWORK_LAYER));
            roots.filter(|hook| hook.attached == attached).count()
        };
        for (name, help, value) in [
            ("agents", "Agents with a policy, the daemon's own included", status.agents),
            ("sessions", "Sessions that exist", status.sessions),
            (
                "break_glass_agents",
                "Agents whose policy only records, because break-glass is in force",
                lifted,
            ),
            ("problems", "What `enforcer status` lists as needing attention", status.problems.len()),
            ("policy_errors", "Policy files that are not in force as they stand", errors),
            ("hooks_missing", "Hooks that are not attached", missing),
            ("network_layer_roots", "Roots with the second layer on the network", layer(true)),
            ("network_layer_missing", "Roots without the second layer on the network", layer(false)),
        ] {
            gauge(registry, name, help, value as i64);
        }
        if let Some(proven) = self.proven_at {
            let age = (now() - proven).max(0) / 1_000_000_000;
            gauge(registry, "canary_age_seconds", "Since a refusal was last proven", age as i64);
        }
        let (used, room) = (Family::<TableLabels, Gauge>::default(), Family::<TableLabels, Gauge>::default());
        for table in status.usage {
            let labels = TableLabels { table: table.name };
            used.get_or_create(&labels).set(i64::try_from(table.used).unwrap_or(i64::MAX));
            room.get_or_create(&labels).set(i64::try_from(table.room).unwrap_or(i64::MAX));
        }
        registry.register("table_used", "Entries or bytes of the kernel's tables in use", used);
        registry.register("table_room", "Entries or bytes that the kernel's tables have", room);
    }

    /// What hooks cost, where root has set `kernel.bpf_stats_enabled`: the kernel does not count it otherwise.
    fn put_times(&self, registry: &mut Registry) {
        let (runs, time) = (Family::<HookLabels, Count>::default(), Family::<HookLabels, Seconds>::default());
        for (hook, (count, nanoseconds)) in self.enforcement.health().timed {
            let labels = HookLabels { hook };
            runs.get_or_create(&labels).inc_by(count);
            time.get_or_create(&labels).inc_by(nanoseconds as f64 / 1e9);
        }
        let help = "Runs of a hook while the kernel counted them (kernel.bpf_stats_enabled)";
        registry.register("hook_runs", help, runs);
        registry.register("hook_seconds", "How long these runs took, all together", time);
    }

    fn put_decisions(&self, registry: &mut Registry) {
        let decisions = Family::<DecisionLabels, Count>::default();
        for (agent, (operation, verdict, reason, would), count) in self.verdicts.all() {
            let unknown = |number: u16| format!("unknown-{number}");
            let named = |known: &Verdict| *known as u16 == verdict;
            let verdict = match [Verdict::Allow, Verdict::Hold, Verdict::Deny].into_iter().find(named) {
                Some(Verdict::Allow) => "allow".to_owned(),
                Some(Verdict::Hold) => "hold".to_owned(),
                Some(Verdict::Deny) => "deny".to_owned(),
                None => unknown(verdict),
            };
            let labels = DecisionLabels {
                agent: agent.to_owned(),
                operation: operation::name(operation).map_or_else(|| unknown(operation), str::to_owned),
                verdict,
                reason: crate::event::decode::reason_name(reason)
                    .map_or_else(|| unknown(reason), str::to_owned),
                mode: match would {
                    0 => "enforce",
                    flag::WOULD => "audit",
                    _ => "break-glass",
                },
            };
            decisions.get_or_create(&labels).inc_by(count);
        }
        let help = "Recorded decisions since the daemon started; no agent: below a root, and nobody's";
        registry.register("decisions", help, decisions);
        let folded = Family::<AgentLabels, Count>::default();
        for (slot, count) in self.folded() {
            let Some(name) = self.slots.name(slot) else { continue };
            folded.get_or_create(&AgentLabels { agent: name.to_owned() }).inc_by(count);
        }
        let help = "Refusals that were a further check of a system call whose refusal is recorded";
        registry.register("folded_refusals", help, folded);
        let lost = Family::<KindLabels, Count>::default();
        for (kind, count) in [
            ("decisions", self.lost.decisions),
            ("activity", self.lost.activity),
            ("malformed", self.lost.malformed),
            ("unwritten", self.lost.unwritten),
        ] {
            lost.get_or_create(&KindLabels { kind }).inc_by(count);
        }
        registry.register("lost_records", "Records that could not be kept since the daemon started", lost);
    }

    fn put_sinks(&self, registry: &mut Registry) {
        let (waiting, failing) =
            (Family::<SinkLabels, Gauge>::default(), Family::<SinkLabels, Gauge>::default());
        let (delivered, failures) =
            (Family::<SinkLabels, Count>::default(), Family::<SinkLabels, Count>::default());
        for sink in self.audit.sinks() {
            let labels = SinkLabels { sink: sink.name, target: sink.target };
            waiting.get_or_create(&labels).set(i64::try_from(sink.lag).unwrap_or(i64::MAX));
            failing.get_or_create(&labels).set(sink.error.is_some().into());
            delivered.get_or_create(&labels).inc_by(sink.delivered);
            failures.get_or_create(&labels).inc_by(sink.failures);
        }
        registry.register("sink_waiting_records", "Signed records that a sink has not delivered", waiting);
        registry.register("sink_failing", "1 while a sink does not deliver", failing);
        registry.register(
            "sink_delivered_records",
            "Records that a sink has delivered, repeated ones too",
            delivered,
        );
        registry.register("sink_failures", "Deliveries that failed", failures);
    }

    /// The log as it lies on the disk; what is not there yet is left out.
    fn put_audit(&self, registry: &mut Registry) {
        let state = &self.settings.paths.state;
        if let Ok(meta) = fs::metadata(state.join("audit/events.jsonl")) {
            gauge(registry, "audit_live_copy_bytes", "Size of events.jsonl", meta.len() as i64);
        }
        let logs = segments::list(&crate::audit::directory(state)).unwrap_or_default();
        let checkpoint = logs.last().and_then(|(_, log)| fs::metadata(log.join(CHECKPOINT)).ok());
        if let Some(written) = checkpoint.and_then(|meta| meta.modified().ok()) {
            let since = SystemTime::now().duration_since(written).unwrap_or_default();
            let at = written.duration_since(UNIX_EPOCH).unwrap_or_default();
            let help = "Since the last checkpoint of the signed log; a quiet log has one a minute";
            gauge(registry, "audit_checkpoint_age_seconds", help, since.as_secs() as i64);
            gauge(registry, "audit_checkpoint_time_seconds", "When it was written", at.as_secs() as i64);
        }
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}
