//! What proc says of tasks outside the session: nothing, whatever the rules about paths say.

use super::{floor::almighty, tasks::Victim, tree};
use crate::{
    cases,
    command::wait_for,
    ensure, events,
    harness::{Outcome, Test, exists, outside},
    promise::{self as check, Attempt, Denial},
};
use std::thread;

cases!(proc:
    nothing_that_everybody_may_read_of_an_outsider_is_read,
    no_outsider_is_read_by_another_way_to_the_same_file,
    nothing_of_a_task_that_is_gone_is_read,
    a_session_reads_about_its_own_tasks,
    nothing_in_proc_changes_its_owner,
    a_list_of_processes_shows_the_session,
);

fn refused(act: String) -> Attempt {
    Attempt::new(act, Denial::floor("open"))
}

fn nothing_that_everybody_may_read_of_an_outsider_is_read(t: &mut Test) -> Outcome {
    tree(t)?;
    let victim = Victim::new()?;
    let pid = victim.pid();
    const FILES: [&str; 18] = [
        "cmdline",
        "stat",
        "statm",
        "status",
        "comm",
        "cgroup",
        "limits",
        "mountinfo",
        "mounts",
        "wchan",
        "oom_score",
        "loginuid",
        "sched",
        "net/unix",
        "net/dev",
        "task/PID/cmdline",
        "task/PID/status",
        "task/PID/net/tcp",
    ];
    let mut attempts: Vec<Attempt> = FILES
        .iter()
        .map(|name| refused(format!("read /proc/{pid}/{}", name.replace("PID", &pid.to_string()))))
        .collect();
    for directory in ["", "/task", "/net", "/attr"] {
        attempts.push(refused(format!("list /proc/{pid}{directory}")));
    }
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["proc-maps-own".to_owned()], &attempts)
}

/// Another mount of proc, a directory that was found before, the first process, and the kernel's threads.
fn no_outsider_is_read_by_another_way_to_the_same_file(t: &mut Test) -> Outcome {
    tree(t)?;
    let victim = Victim::new()?;
    let at = t.at("open/e1");
    crate::harness::outside(&format!("mount-proc {at}"))?;
    let attempts = [
        refused(format!("read {at}/{}/cmdline", victim.pid())),
        refused("read /proc/1/cmdline".to_owned()),
        refused("read /proc/2/status".to_owned()),
        refused(format!("proc-self-cwd /proc/{}/comm", victim.pid())),
    ];
    let outcome = check::control(&attempts)
        .and_then(|()| check::refused(t, &almighty(t)?, &[format!("read {at}/uptime")], &attempts));
    crate::harness::outside(&format!("umount {at}"))?;
    outcome
}

/// Names below a task's directory lead to more than the task, and can be held until it has ended.
fn nothing_of_a_task_that_is_gone_is_read(t: &mut Test) -> Outcome {
    tree(t)?;
    let at = |name: &str| t.at(&format!("open/{name}"));
    let act = |victim: &Victim, who: &str| {
        format!("proc-net-gone {} {} {}", victim.pid(), at(&format!("found-{who}")), at(&format!("go-{who}")))
    };
    let gone = |victim: Victim, who: &str| -> Outcome {
        wait_for("the name", 60, || exists(&at(&format!("found-{who}"))).then_some(()))?;
        drop(victim);
        t.file(&format!("open/go-{who}"))?;
        Ok(())
    };
    let victim = Victim::new()?;
    let control = act(&victim, "outside");
    let control = thread::spawn(move || outside(&control));
    gone(victim, "outside")?;
    ensure!(matches!(control.join(), Ok(Ok(said)) if said == "ok"), "the control");

    let (agent, victim, marker) = (almighty(t)?, Victim::new()?, check::marker(t)?);
    let acts = [act(&victim, "agent"), "read /proc/self/net/tcp".to_owned(), format!("read {marker}")];
    let mut live = agent.start(&acts)?;
    gone(victim, "agent")?;
    live.expect(&["EPERM", "ok", "EPERM"])?;
    let records = events::until_marker(live.mark, &live.id, &marker)?;
    check::judged(&records, &[Denial::floor("open")], &agent)
}

fn a_session_reads_about_its_own_tasks(t: &mut Test) -> Outcome {
    tree(t)?;
    let mut twins: Vec<String> = ["cmdline", "status", "stat", "cgroup", "comm"]
        .iter()
        .flat_map(|name| {
            [
                format!("read /proc/self/{name}"),
                format!("read /proc/thread-self/{name}"),
                format!("proc-of-child {name}"),
                format!("proc-of-thread {name}"),
            ]
        })
        .collect();
    twins.extend(["status", "stat", "comm"].map(|name| format!("proc-of-zombie {name}")));
    twins.extend(["read /proc/net/unix", "list /proc/self", "list /proc/self/task"].map(str::to_owned));
    twins.extend(["read /proc/uptime", "read /proc/sys/net/ipv4/conf/lo/forwarding"].map(str::to_owned));
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &[])
}

fn nothing_in_proc_changes_its_owner(t: &mut Test) -> Outcome {
    tree(t)?;
    let attempts = [Attempt::new("chown /proc/uptime", Denial::floor("chown"))];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["read /proc/uptime".to_owned()], &attempts)
}

fn a_list_of_processes_shows_the_session(t: &mut Test) -> Outcome {
    tree(t)?;
    let policy = t.policy().exec("/usr/bin/*").allow("read, list", "/proc/**").allow("list", "/proc");
    let agent = t.agent(policy)?;
    let session = agent.run(&["/usr/bin/ps", "-e", "-o", "comm="].map(str::to_owned))?;
    ensure!(session.code == Some(0), "ps: {:?} {}", session.code, session.err);
    let lines: Vec<&str> = session.lines.iter().map(|line| line.trim()).collect();
    ensure!(lines == ["ps"], "{lines:?}");
    Ok(())
}
