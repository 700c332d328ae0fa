use super::*;
use crate::{
    control::message::{Lost, Status},
    doctor::{Family, KeyFact, LayerFacts, missing_links},
};

const NEEDS: [Need; 6] = [Need::Kernel, Need::Cgroups, Need::BpfLsm, Need::Lockdown, Need::Btf, Need::Bpffs];

fn status(state: State) -> DaemonFact {
    DaemonFact::Answers(Box::new(Status {
        state,
        problems: Vec::new(),
        version: "1".to_owned(),
        pid: 7,
        kernel: "6.12".to_owned(),
        generation: 1,
        roots: Vec::new(),
        agents: 0,
        sessions: 0,
        hooks: Vec::new(),
        waiting: Vec::new(),
        usage: Vec::new(),
        policies: Vec::new(),
        canary: Some("2026-01-01T00:00:00Z".to_owned()),
        lost: Lost::default(),
        folded: 0,
        break_glass: Vec::new(),
        layers: vec![],
        plain_cgroups: None,
        sinks: Vec::new(),
    }))
}

fn good() -> Facts {
    Facts {
        uid: 0,
        family: Family::Debian,
        settings: None,
        needs: NEEDS.map(|need| (need, None)).to_vec(),
        lsms: Some("lockdown,capability,bpf".to_owned()),
        jit: Some("1".to_owned()),
        layers: LayerFacts::default(),
        systemd: true,
        unit: Some("enabled".to_owned()),
        links: Ok(Some(90)),
        missing: Vec::new(),
        daemon: status(State::Enforcing),
        policies: Ok(vec![("/p/a.yaml".into(), None)]),
        key: Ok(Some(KeyFact { path: "/k".into(), uid: 0, mode: 0o600 })),
        disk: Some((1 << 40, 1 << 41)),
    }
}

/// The finding that is not good, with its state.
fn only(facts: &Facts) -> (State, Finding) {
    let report = judge(facts);
    let mut bad: Vec<Finding> = report.findings.into_iter().filter(|f| f.level != Level::Good).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    let bad = bad.remove(0);
    assert!(!bad.remedy.is_empty(), "no remedy for {bad:?}");
    (report.state, bad)
}

#[test]
fn a_host_in_order_enforces_and_has_nothing_to_mend() {
    let report = judge(&good());
    assert_eq!((report.state, report.host_can_enforce), (State::Enforcing, true));
    assert!(report.findings.iter().all(|f| f.level == Level::Good), "{:?}", report.findings);
}

#[test]
fn whatever_a_host_must_have_is_fatal_and_has_a_remedy_of_the_distribution() {
    for (at, need) in NEEDS.into_iter().enumerate() {
        let mut facts = good();
        facts.needs[at].1 = Some("missing".to_owned());
        let (state, bad) = only(&facts);
        assert_eq!((state, bad.level), (State::NotEnforcing, Level::Fatal), "{need:?}");
        assert!(!judge(&facts).host_can_enforce);
    }
    let (state, bad) = only(&Facts { jit: Some("0".to_owned()), ..good() });
    assert_eq!((state, bad.level), (State::NotEnforcing, Level::Fatal));
}

#[test]
fn the_state_is_never_better_than_what_the_daemon_says() {
    for state in [State::Degraded, State::NotEnforcing] {
        assert_eq!(judge(&Facts { daemon: status(state), ..good() }).state, state);
    }
}

#[test]
fn without_a_daemon_what_is_pinned_counts() {
    let silent = || DaemonFact::Silent("nobody".to_owned());
    let (state, bad) = only(&Facts { daemon: silent(), ..good() });
    assert!(state == State::Degraded && bad.says.contains("goes on"), "{bad:?}");
    for links in [Ok(None), Ok(Some(0)), Err("why".to_owned())] {
        let report = judge(&Facts { daemon: silent(), links, ..good() });
        assert_eq!((report.state, report.host_can_enforce), (State::NotEnforcing, true));
    }
    // Links gone under a running daemon.
    assert_eq!(judge(&Facts { links: Ok(None), ..good() }).state, State::NotEnforcing);
    let alone = |missing| Facts { daemon: DaemonFact::Silent("no daemon".to_owned()), missing, ..good() };
    assert_eq!(judge(&alone(Vec::new())).state, State::Degraded);
    assert_eq!(judge(&alone(vec!["file_open"])).state, State::NotEnforcing);
    let pins = tempfile::tempdir().expect("dir");
    std::fs::create_dir(pins.path().join("links-2")).expect("dir");
    std::fs::write(pins.path().join("links-2/path_mkdir"), "").expect("file");
    assert_eq!(missing_links(pins.path(), vec!["path_mkdir", "path_link"]), ["path_link"]);
}

#[test]
fn what_is_less_than_fatal_degrades() {
    let policies = Ok(vec![("/p/a.yaml".into(), Some("/p/a.yaml: 3:1: unknown key".to_owned()))]);
    let key = |uid, mode| Ok(Some(KeyFact { path: "/k".into(), uid, mode }));
    for facts in [
        Facts { policies, ..good() },
        Facts { settings: Some("enforcer.toml: line 2".to_owned()), ..good() },
        Facts { key: key(0, 0o640), ..good() },
        Facts { key: key(1000, 0o600), ..good() },
        Facts { disk: Some((1 << 20, 1 << 40)), ..good() },
        Facts { unit: Some("disabled".to_owned()), ..good() },
    ] {
        let (state, bad) = only(&facts);
        assert_eq!((state, bad.level), (State::Degraded, Level::Problem), "{bad:?}");
    }
}

#[test]
fn what_cannot_be_told_is_said_and_not_taken_for_good() {
    for facts in [
        Facts { jit: None, ..good() },
        Facts { policies: Err("why".to_owned()), ..good() },
        Facts { key: Err("why".to_owned()), ..good() },
        Facts { disk: None, ..good() },
    ] {
        assert_eq!(only(&facts).1.level, Level::Unknown);
    }
    let report = judge(&Facts { daemon: DaemonFact::Forbidden, links: Err("why".to_owned()), ..good() });
    assert_eq!(report.state, State::NotEnforcing);
}
