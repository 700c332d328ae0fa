//! Reaching addresses, and being reached.

use super::promise;
use crate::{
    cases,
    command::{Command, wait_for},
    ensure, events,
    harness::{Outcome, Test},
    peer::Port,
    promise::{self as check, Attempt, Denial},
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
};

cases!(network:
    connecting_by_tcp_needs_a_rule_in_every_spelling,
    sending_by_udp_needs_a_rule_in_every_spelling,
    a_connected_socket_cannot_send_elsewhere,
    without_a_destination_a_bound_socket_reaches_its_own_address,
    an_address_that_cannot_be_told_is_refused,
    an_address_that_leaves_ipv6_on_its_way_is_refused,
    a_denied_address_stays_denied_inside_an_allowed_block,
    binding_and_listening_need_a_rule,
    taking_connections_needs_the_rule_that_listening_did,
    only_plain_sockets_can_be_made,
);

const HERE: &str = "127.0.0.1";

/// Attempts at the port `shut`: the act, its host, and the address as it is recorded.
fn attempts(
    acts: &[(&str, &str, &str)],
    operations: &[&'static str],
    shut: u16,
    protocol: &'static str,
) -> Vec<Attempt> {
    let one = |((act, host, address), operation): (&(&str, &str, &str), &&'static str)| {
        let denial = Denial::no_rule(operation).to(address, shut, protocol).asking("connect");
        Attempt::new(format!("{act} {host} {shut}"), denial)
    };
    acts.iter().zip(operations).map(one).collect()
}

fn reaching(
    t: &Test,
    acts: &[(&str, &str, &str)],
    operations: &[&'static str],
    protocol: &'static str,
) -> Outcome {
    let (open, shut) = (Port::open()?, Port::open()?);
    let hosts = |policy: crate::policy::Policy, port: u16| {
        policy.connect(&format!("{HERE}:{port}/{protocol}")).connect(&format!("[::1]:{port}/{protocol}"))
    };
    let narrow = hosts(t.policy(), open.number);
    let wide = hosts(narrow.next(), shut.number);
    let attempts = attempts(acts, operations, shut.number, protocol);
    let twins: Vec<String> =
        acts.iter().map(|(act, host, _)| format!("{act} {host} {}", open.number)).collect();
    check::control(&attempts)?;
    let before = shut.arrivals.count()?;
    ensure!(before >= acts.len() as u64, "only {before} of {} arrived from outside", acts.len());
    let mut agent = t.agent(narrow)?;
    check::refused(t, &agent, &twins, &attempts)?;
    let after = shut.arrivals.count()?;
    ensure!(after == before, "{} connections or packets arrived although refused", after - before);
    agent.change(wide)?;
    check::allowed(&agent, &check::acts(&attempts))?;
    let granted = shut.arrivals.count()? - after;
    ensure!(granted >= acts.len() as u64, "only {granted} of {} arrived when granted", acts.len());
    Ok(())
}

fn connecting_by_tcp_needs_a_rule_in_every_spelling(t: &mut Test) -> Outcome {
    let acts = [
        ("tcp", HERE, HERE),
        ("tcp", "::1", "::1"),
        ("tcp", "::ffff:127.0.0.1", HERE),
        ("v4mapped", HERE, HERE),
        ("tcp", "0.0.0.0", HERE),
        ("tcp", "::ffff:0.0.0.0", HERE),
        ("tfo", HERE, HERE),
        ("tfo", "::1", "::1"),
        ("tfo-mapped", HERE, HERE),
        ("tfo-option", HERE, HERE),
    ];
    let mut operations = ["connect"; 10];
    operations[6..9].fill("send");
    reaching(t, &acts, &operations, "tcp")
}

fn sending_by_udp_needs_a_rule_in_every_spelling(t: &mut Test) -> Outcome {
    let acts = [
        ("udp-send", HERE, HERE),
        ("udp-send", "::1", "::1"),
        ("udp-corked", HERE, HERE),
        ("udp-segments", "::1", "::1"),
        ("udp-mapped", HERE, HERE),
        ("udp6-inet", HERE, HERE),
        ("udp-sendmsg", HERE, HERE),
        ("udp-sendmsg", "::1", "::1"),
        ("udp-sendmmsg", HERE, HERE),
        ("udp-unspec", HERE, HERE),
        ("udp-send", "0.0.0.0", HERE),
    ];
    reaching(t, &acts, &["send"; 11], "udp")
}

fn a_connected_socket_cannot_send_elsewhere(t: &mut Test) -> Outcome {
    let (open, shut) = (Port::open()?, Port::open()?);
    let (o, s) = (open.number, shut.number);
    let elsewhere = Denial::no_rule("send").to(HERE, s, "udp").asking("connect");
    let connect = Denial::no_rule("connect").to(HERE, s, "udp").asking("connect");
    let attempts = [
        Attempt::new(format!("udp-connected-elsewhere {HERE} {o} {HERE} {s}"), elsewhere),
        Attempt::new(format!("udp-connect {HERE} {s}"), connect),
    ];
    let twins = [
        format!("udp-connected-elsewhere {HERE} {o} {HERE} {o}"),
        format!("udp-connect {HERE} {o}"),
        // Reaches nothing: it takes an association back.
        "tcp-disconnect".to_owned(),
    ];
    let narrow = t.policy().connect(&format!("{HERE}:{o}/*"));
    let wide = narrow.next().connect(&format!("{HERE}:{s}/*"));
    promise(t, (narrow, wide), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

/// The kernel takes the own address for 0.0.0.0, and loopback only where there is none.
fn without_a_destination_a_bound_socket_reaches_its_own_address(t: &mut Test) -> Outcome {
    const OWN: &str = "127.0.0.2";
    let (open, shut) = (Port::open()?, Port::open()?);
    let spelled = |port: u16| {
        [
            (format!("tcp-from {OWN} 0.0.0.0 {port}"), "connect", "tcp"),
            (format!("tcp-from ::ffff:{OWN} ::ffff:0.0.0.0 {port}"), "connect", "tcp"),
            (format!("udp-from {OWN} 0.0.0.0 {port}"), "send", "udp"),
            (format!("udp-from ::ffff:{OWN} ::ffff:0.0.0.0 {port}"), "send", "udp"),
        ]
    };
    let attempts = spelled(shut.number).map(|(act, operation, protocol)| {
        Attempt::new(act, Denial::no_rule(operation).to(OWN, shut.number, protocol).asking("connect"))
    });
    let mut twins: Vec<String> = spelled(open.number).into_iter().map(|(act, ..)| act).collect();
    // Bound to loopback itself, and not bound.
    twins.push(format!("tcp-from {HERE} 0.0.0.0 {}", shut.number));
    twins.push(format!("tcp 0.0.0.0 {}", shut.number));
    check::control(&attempts)?;
    let before = shut.arrivals.count()?;
    let narrow = t.policy().bind("127.0.0.0/8:*/*").connect(&format!("{OWN}:{}/*", open.number));
    let narrow = narrow.connect(&format!("{HERE}:{}/tcp", shut.number));
    let wide = narrow.next().connect(&format!("{OWN}:{}/*", shut.number));
    let mut agent = t.agent(narrow)?;
    check::refused(t, &agent, &twins, &attempts)?;
    let arrived = shut.arrivals.count()? - before;
    ensure!(arrived == 2, "{arrived} arrived, of which the twins made two");
    agent.change(wide)?;
    check::allowed(&agent, &check::acts(&attempts))
}

fn an_address_that_cannot_be_told_is_refused(t: &mut Test) -> Outcome {
    let port = Port::open()?.number;
    let attempts = [
        Attempt::new(format!("tcp :: {port}"), Denial::because("connect", "unknown-object")),
        Attempt::new(format!("udp-send :: {port}"), Denial::because("send", "unknown-object")),
    ];
    check::control(&attempts)?;
    let agent = t.agent(t.policy().connect("*:*/*"))?;
    check::refused(t, &agent, &[format!("tcp ::1 {port}"), format!("tcp {HERE} {port}")], &attempts)
}

/// Even if everything is allowed, since a denied IPv4 block would be reached so.
fn an_address_that_leaves_ipv6_on_its_way_is_refused(t: &mut Test) -> Outcome {
    let port = Port::open()?.number;
    const ADDRESSES: [&str; 6] = [
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
    ];
    let mut attempts = Vec::new();
    for address in ADDRESSES {
        let unknown = |operation| Denial::because(operation, "unknown-object");
        attempts.push(Attempt::new(format!("udp-send {address} 9"), unknown("send")).not_outside());
        attempts.push(Attempt::new(format!("udp-connect {address} 9"), unknown("connect")).not_outside());
    }
    // Whether the guest has a way there or not: outside nothing is refused.
    let outside = crate::harness::outside_all(&check::acts(&attempts))?;
    ensure!(outside.iter().all(|line| line != "EPERM" && line != "EACCES"), "{outside:?}");
    let agent = t.agent(t.policy().connect("*:*/*"))?;
    check::refused(t, &agent, &[format!("tcp ::1 {port}")], &attempts)?;
    // A translator's is the IPv4 address that it becomes.
    let policy = t.policy().connect("*:*/*").connect_deny("203.0.113.0/24:*/*");
    let denial = Denial::by_rule("send", "deny connect 203.0.113.0").to("203.0.113.9", 9, "udp");
    let attempts = [Attempt::new("udp-send 64:ff9b::203.0.113.9 9", denial).not_outside()];
    check::refused(t, &t.agent(policy)?, &[format!("tcp ::1 {port}")], &attempts)
}

fn a_denied_address_stays_denied_inside_an_allowed_block(t: &mut Test) -> Outcome {
    let (open, shut) = (Port::open()?.number, Port::open()?.number);
    let policy = t.policy().connect("127.0.0.0/8:*/tcp").connect_deny(&format!("127.0.0.2:{shut}/tcp"));
    let denial = |rule: &str| Denial::by_rule("connect", rule).to("127.0.0.2", shut, "tcp").asking("connect");
    let attempts = [
        Attempt::new(format!("tcp 127.0.0.2 {shut}"), denial("deny connect 127.0.0.2")),
        Attempt::new(format!("v4mapped 127.0.0.2 {shut}"), denial("deny connect 127.0.0.2")),
        Attempt::new(format!("udp-send 127.0.0.1 {open}"), Denial::no_rule("send").to(HERE, open, "udp")),
    ];
    check::control(&attempts)?;
    let twins =
        [format!("tcp 127.0.0.2 {open}"), format!("tcp 127.0.0.1 {shut}"), format!("tcp 127.255.0.1 {shut}")];
    check::refused(t, &t.agent(policy)?, &twins, &attempts)
}

fn binding_and_listening_need_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (Port::unused()?, Port::unused()?);
    let narrow = t.policy().bind(&format!("{HERE}:{open}/*")).connect("*:*/*");
    let wide = narrow.next().bind("*:*/*");
    let bind = |act: &str, host: &str, protocol: &'static str| {
        let denial = Denial::no_rule("bind").to(host, shut, protocol).asking("bind");
        Attempt::new(format!("{act} {host} {shut}"), denial)
    };
    let attempts = [
        bind("bind", HERE, "tcp"),
        bind("bind", "0.0.0.0", "tcp"),
        bind("bind", "::1", "tcp"),
        bind("bind", "::", "tcp"),
        bind("bind-udp", HERE, "udp"),
        bind("bind-listen", HERE, "tcp"),
        Attempt::new(
            format!("bind-unspec {shut}"),
            Denial::no_rule("bind").to("0.0.0.0", shut, "tcp").asking("bind"),
        ),
        Attempt::new("listen-unbound", Denial::no_rule("listen").to("0.0.0.0", 0, "tcp").asking("bind")),
    ];
    let twins = [
        format!("bind {HERE} {open}"),
        format!("bind-udp {HERE} {open}"),
        format!("bind-listen {HERE} {open}"),
    ];
    promise(t, (narrow, wide), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

/// Family, type and protocol of sockets that cannot carry packets past the rules.
fn is_plain(family: i32, kind: i32, protocol: i32) -> bool {
    match (family, kind) {
        (libc::AF_UNIX, _) => true,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => [0, libc::IPPROTO_TCP].contains(&protocol),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) => [0, libc::IPPROTO_UDP].contains(&protocol),
        (libc::AF_NETLINK, _) => protocol == libc::NETLINK_ROUTE,
        _ => false,
    }
}

/// Runs `act` with the protocols loaded that this kernel has, and the kernel not looking for others: a
/// search for each takes longer than all the rest.
fn with_modules<T>(act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    const MODULES: &str = "af_packet af_alg vsock can can-raw sctp tipc rds l2tp_ip af_key xfrm_user smc dccp nfc \
                           phonet caif_socket kcm qrtr ieee802154_socket bluetooth xsk_diag";
    Command::new("modprobe").args(["--all", "--quiet"]).args(MODULES.split_whitespace()).run()?;
    let (setting, nowhere) = ("/proc/sys/kernel/modprobe", "/nowhere");
    let before = fs::read_to_string(setting)?;
    fs::write(setting, nowhere)?;
    let outcome = act();
    fs::write(setting, before.trim())?;
    outcome
}

/// Where a socket listens is certain when it takes a connection, and not before.
fn taking_connections_needs_the_rule_that_listening_did(t: &mut Test) -> Outcome {
    t.fresh()?;
    for (address, changes) in
        [(HERE, false), ("::1", false), ("::ffff:127.0.0.1", false), (HERE, true), ("::1", true)]
    {
        let to: IpAddr =
            if address == "::1" { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let port = TcpListener::bind((to, 0))?.local_addr()?.port();
        let narrow = t.policy();
        let wide = narrow.next().bind(&format!("{}/tcp", SocketAddr::new(to, port)));
        let mut agent = t.agent(wide)?;
        let go = t.at(&format!("go-{address}-{changes}"));
        let marker = check::marker(t)?;
        let acts = [format!("accept-when {address} {port} {go}"), format!("read {marker}")];
        let mut live = agent.start(&acts)?;
        let peer = wait_for("a socket that listens", 120, || TcpStream::connect((to, port)).ok())?;
        if changes {
            agent.change(narrow.next())?;
        }
        fs::write(&go, "")?;
        live.expect(&[if changes { "EPERM" } else { "ok" }, "EPERM"])?;
        drop(peer);
        let records = events::until_marker(live.mark, &live.id, &marker)?;
        let denial = Denial::no_rule("listen").to(&to.to_string(), port, "tcp").asking("bind");
        let faults: Vec<String> = records.iter().flat_map(|record| denial.faults(record, &agent)).collect();
        ensure!(
            faults.is_empty() && records.len() == usize::from(changes),
            "{address}: {faults:?} {records:?}"
        );
    }
    Ok(())
}

fn only_plain_sockets_can_be_made(t: &mut Test) -> Outcome {
    let mut acts: Vec<(i32, i32, i32)> = Vec::new();
    for family in 0..48 {
        acts.extend([2, 3].map(|kind| (family, kind, 0)));
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Streams: any, TCP, SCTP, SMC, MPTCP; datagrams: UDP, ICMP, ICMPv6, UDP-Lite, L2TP; raw: ICMP,
        // ICMPv6, GRE, ESP, raw; SCTP, DCCP, and SOCK_PACKET.
        acts.extend([0, 6, 132, 256, 262].map(|protocol| (family, 1, protocol)));
        acts.extend([17, 1, 58, 136, 115].map(|protocol| (family, 2, protocol)));
        acts.extend([1, 58, 47, 50, 255].map(|protocol| (family, 3, protocol)));
        acts.extend([(family, 5, 132), (family, 6, 33), (family, 10, 0)]);
    }
    acts.extend((1..23).map(|protocol| (libc::AF_NETLINK, libc::SOCK_RAW, protocol)));
    acts.push((libc::AF_PACKET, libc::SOCK_RAW, 0x0300));
    let words = |(family, kind, protocol): &(i32, i32, i32)| format!("socket {family} {kind} {protocol}");
    let all: Vec<String> = acts.iter().map(words).collect();
    let outside = with_modules(|| crate::harness::outside_all(&all))?;
    let possible = |plain: bool| {
        let both = acts.iter().zip(&outside);
        both.filter(move |((f, k, p), line)| *line == "ok" && is_plain(*f, *k, *p) == plain)
            .map(|(act, _)| act)
    };
    let twins: Vec<String> = possible(true).map(words).collect();
    let attempts: Vec<Attempt> =
        possible(false).map(|act| Attempt::new(words(act), Denial::floor("socket"))).collect();
    ensure!(twins.len() >= 8 && attempts.len() >= 8, "{} plain, {} others", twins.len(), attempts.len());
    let agent = t.agent(t.policy().connect("*:*/*").bind("*:*/*"))?;
    check::refused(t, &agent, &twins, &attempts)
}
