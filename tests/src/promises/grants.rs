//! What a policy grants of what every session is refused: sockets of others, items of the floor,
//! capabilities. Each is refused without the grant, which the other modules try too.

use crate::{
    agent::{Agent, PROBE},
    cases, ensure, events,
    harness::{Outcome, Test},
    peer::UnixServers,
    promise::{self as check, Attempt, Denial},
};

cases!(grants:
    sockets_of_outsiders_that_rules_name_are_reached,
    a_denied_socket_stays_denied_among_allowed_ones,
    items_of_the_floor_that_are_granted_work,
    a_capability_that_is_granted_works,
    no_process_passes_itself_off_as_another,
    processes_trace_each_other_unless_denied,
);

fn sockets_of_outsiders_that_rules_name_are_reached(t: &mut Test) -> Outcome {
    let directory = t.dir("sockets")?;
    let servers = UnixServers::open(&directory, "enforcer-grants")?;
    let (named, others): (Vec<String>, Vec<Attempt>) = (
        vec![
            format!("unix-stream {directory}/stream"),
            format!("unix-dgram {directory}/dgram"),
            format!("unix-dgram-connect {directory}/dgram"),
            "unix-stream @enforcer-grants-stream".to_owned(),
            "unix-dgram @enforcer-grants-dgram".to_owned(),
        ],
        ["/run/dbus/system_bus_socket", "/run/systemd/private"]
            .map(|path| Attempt::new(format!("unix-stream {path}"), Denial::floor("unix-connect").on(path)))
            .into(),
    );
    check::control(&others)?;
    check::allowed_outside(&named)?;
    let policy = t.policy().allow("all", &format!("{directory}/**"));
    let refused: Vec<Attempt> = named
        .iter()
        .map(|act| {
            let operation = if act.starts_with("unix-stream") { "unix-connect" } else { "unix-send" };
            Attempt::new(act.clone(), Denial::floor(operation))
        })
        .collect();
    let mut agent = t.agent(policy.clone())?;
    check::refused(t, &agent, &[], &refused)?;
    let sockets = format!("unix: [ {{ allow: ['{directory}/*', '@enforcer-grants-*'] }} ]");
    agent.change(policy.next().line(&sockets))?;
    let before = servers.arrivals.count()?;
    check::refused(t, &agent, &named, &others)?;
    let arrived = servers.arrivals.count()? - before;
    ensure!(arrived >= 3, "only {arrived} arrived");
    Ok(())
}

fn a_denied_socket_stays_denied_among_allowed_ones(t: &mut Test) -> Outcome {
    let directory = t.dir("sockets")?;
    let _servers = UnixServers::open(&directory, "enforcer-shut")?;
    let rules = format!(
        "unix: [ {{ allow: ['/**', '@**'] }}, {{ deny: ['{directory}/stream', '@enforcer-shut-*'], because: 'a test says so' }} ]"
    );
    let stream = format!("{directory}/stream");
    let denial = || Denial::by_rule("unix-connect|unix-send", "deny connect").asking("connect");
    let attempts = [
        Attempt::new(format!("unix-stream {stream}"), denial().on(&stream)),
        Attempt::new("unix-stream @enforcer-shut-stream", denial()),
        Attempt::new("unix-dgram @enforcer-shut-dgram", denial()),
    ];
    check::control(&attempts)?;
    let agent = t.agent(t.policy().line(&rules))?;
    check::refused(t, &agent, &[format!("unix-dgram {directory}/dgram")], &attempts)
}

fn items_of_the_floor_that_are_granted_work(t: &mut Test) -> Outcome {
    super::tree(t)?;
    let acts = ["io-uring", "clock-settime", "adjtimex", "syslog", "keyctl-describe -4"].map(str::to_owned);
    check::allowed_outside(&acts)?;
    let all = t.policy().allow("all", "/**").deny("read", &check::marker(t)?);
    let granted = all.clone().line("system: [io-uring, clock, kernel-log, user-keyrings]");
    let rest = [
        Attempt::new("bpf-next-program", Denial::floor("bpf|capability")),
        Attempt::new("sethostname", Denial::floor("capability")),
    ];
    check::refused(t, &t.agent(granted)?, &acts, &rest)?;
    let none = t.agent(all.next())?.probe(&acts)?;
    ensure!(none.lines == ["EPERM", "EPERM", "EPERM", "EPERM", "ENOKEY"], "without: {:?}", none.lines);
    Ok(())
}

/// The niceness that a program gets which asks for less than it has.
fn niceness(agent: &Agent) -> Outcome<(Vec<String>, String, events::Mark)> {
    let session = agent.run(&["/usr/bin/nice", "-n", "-5", "/usr/bin/nice"].map(str::to_owned))?;
    Ok((session.lines, session.id, session.mark))
}

fn a_capability_that_is_granted_works(t: &mut Test) -> Outcome {
    let policy = t.policy().exec("/usr/bin/nice");
    let mut agent = t.agent(policy.clone())?;
    let (lines, id, mark) = niceness(&agent)?;
    ensure!(lines == ["0"], "without: {lines:?}");
    events::wait("the refused capability", mark, |record| {
        events::decides(record, &id) && record["operation"] == "capability"
    })?;
    agent.change(policy.next().line("capabilities: [sys_nice]"))?;
    let (lines, ..) = niceness(&agent)?;
    ensure!(lines == ["-5"], "with: {lines:?}");
    Ok(())
}

fn no_process_passes_itself_off_as_another(t: &mut Test) -> Outcome {
    let acts = ["raise-limit", "set-stack"].map(str::to_owned);
    check::allowed_outside(&acts)?;
    let denial = || Denial::floor("capability").argument("cap_sys_resource");
    let [limit, stack] = acts;
    let without = t.agent(t.policy())?;
    let attempts = [Attempt::new(limit.clone(), denial()), Attempt::new(stack.clone(), denial())];
    check::refused(t, &without, &["prctl-name".to_owned()], &attempts)?;
    // What the capability is granted for works. What a process says of itself stays what the kernel knows.
    let granted = t.agent(t.policy().line("capabilities: [sys_resource]"))?;
    check::refused(t, &granted, &[limit], &[Attempt::new(stack, denial())])
}

fn processes_trace_each_other_unless_denied(t: &mut Test) -> Outcome {
    super::tree(t)?;
    let script =
        format!("/usr/bin/sleep 100 & {PROBE} seq ptrace-attach $! , process-vm-readv $!; kill -9 $!");
    let words = ["/usr/bin/sh".to_owned(), "-c".to_owned(), script];
    let policy = t.policy().exec("/usr/bin/*");
    let mut agent = t.agent(policy.clone())?;
    let session = agent.run(&words)?;
    ensure!(session.lines.first().is_some_and(|line| line == "ok"), "{:?} {}", session.lines, session.err);
    agent.change(policy.next().line("process: { trace: deny }"))?;
    let session = agent.run(&words)?;
    ensure!(session.lines.first().is_some_and(|line| line == "EPERM"), "{:?} {}", session.lines, session.err);
    let record = events::wait("the refused trace", session.mark, |record| {
        events::decides(record, &session.id) && record["operation"] == "ptrace"
    })?;
    ensure!(record["reason"] == "rule", "{record}");
    Ok(())
}
