//! Reaching addresses that no rule names.

use super::{Attack, almighty, refused};
use crate::{
    cases, ensure,
    harness::{Outcome, Test},
    peer::Port,
    promise::{self, Attempt, Denial},
};

cases!(attack_network:
    no_spelling_of_an_address_is_another_address,
    nothing_reroutes_packets,
    no_option_leads_elsewhere,
    nothing_is_bound_by_another_spelling,
    no_interface_or_route_changes,
);

const HERE: &str = "127.0.0.1";

fn no_spelling_of_an_address_is_another_address(t: &mut Test) -> Outcome {
    let (open, shut) = (Port::open()?, Port::open()?);
    let (o, s) = (open.number, shut.number);
    let none =
        |operation, host: &str, protocol| Denial::no_rule(operation).to(host, s, protocol).asking("connect");
    let tcp = |host: &str| none("connect", host, "tcp");
    let unknown = |operation| Denial::because(operation, "unknown-object");
    let mut attempts = vec![
        Attempt::new(format!("tcp-cut {HERE} {s} 8"), tcp(HERE)).fails_outside("EINVAL"),
        Attempt::new(format!("tcp-cut {HERE} {s} 2"), unknown("connect")).fails_outside("EINVAL"),
        Attempt::new(format!("tcp-cut ::1 {s} 24"), tcp("::1")),
        Attempt::new(format!("tcp-cut ::1 {s} 16"), unknown("connect")).fails_outside("EINVAL"),
        Attempt::new(format!("tcp-padded {HERE} {s}"), tcp(HERE)),
        Attempt::new(format!("tcp-padded ::1 {s}"), tcp("::1")),
        Attempt::new(format!("tcp-scoped ::1 {s}"), tcp("::1")),
        Attempt::new(format!("tcp-other-family {HERE} {s}"), tcp(HERE)).fails_outside("EINVAL"),
        Attempt::new(format!("tcp-other-family ::1 {s}"), tcp("::1")).fails_outside("EAFNOSUPPORT"),
        Attempt::new(format!("tcp-send-unconnected {HERE} {s}"), none("send", HERE, "tcp"))
            .fails_outside("EPIPE"),
        Attempt::new(format!("tfo-sendmmsg {HERE} {s}"), none("send", HERE, "tcp")),
        Attempt::new(format!("udp-zero-copy {HERE} {s}"), none("send", HERE, "udp")),
        Attempt::new(format!("udp-cut {HERE} {s} 8"), none("send", HERE, "udp")).fails_outside("EINVAL"),
        Attempt::new(format!("udp-cut ::1 {s} 24"), none("send", "::1", "udp")),
        Attempt::new(format!("udp-scoped ::1 {s}"), none("send", "::1", "udp")),
        Attempt::new(format!("udp-again {HERE} {o} {HERE} {s}"), none("connect", HERE, "udp")),
        Attempt::new(format!("udp-after-disconnect {HERE} {o} {HERE} {s}"), none("send", HERE, "udp")),
        Attempt::new(format!("udp-mmsg-second {HERE} {o} {HERE} {s}"), none("send", HERE, "udp")),
        Attempt::new(format!("udp-send 255.255.255.255 {s}"), none("send", "255.255.255.255", "udp"))
            .fails_somehow_outside(),
        Attempt::new(format!("udp-send 224.0.0.1 {s}"), none("send", "224.0.0.1", "udp"))
            .fails_somehow_outside(),
        Attempt::new(format!("udp-send ff02::1 {s}"), none("send", "ff02::1", "udp")).fails_somehow_outside(),
    ];
    // They lead to IPv4 where a router translates them, and to a host's own address here: none is judged by a rule.
    for how in ["compatible", "translated", "nat64", "6to4", "isatap"] {
        attempts.push(
            Attempt::new(format!("tcp-wrapped {how} {HERE} {s}"), unknown("connect")).fails_somehow_outside(),
        );
        attempts.push(
            Attempt::new(format!("udp-wrapped {how} {HERE} {s}"), unknown("send")).fails_somehow_outside(),
        );
    }
    let twins = [
        format!("tcp-cut ::1 {o} 24"),
        format!("tcp-padded {HERE} {o}"),
        format!("tcp-scoped ::1 {o}"),
        format!("udp-scoped ::1 {o}"),
        format!("tfo-sendmmsg {HERE} {o}"),
        format!("udp-again {HERE} {o} {HERE} {o}"),
        format!("udp-mmsg-second {HERE} {o} {HERE} {o}"),
    ];
    promise::control(&attempts)?;
    let before = shut.arrivals.count()?;
    ensure!(before >= 9, "only {before} arrived from outside");
    let policy = t.policy().connect(&format!("{HERE}:{o}/*")).connect(&format!("[::1]:{o}/*"));
    promise::refused(t, &t.agent(policy)?, &twins, &attempts)?;
    let after = shut.arrivals.count()?;
    ensure!(after == before, "{} connections or packets arrived although refused", after - before);
    Ok(())
}

fn nothing_reroutes_packets(t: &mut Test) -> Outcome {
    let port = Port::open()?.number;
    let option = |act: &str| Attempt::new(act, Denial::floor("socket-option")).fails_somehow_outside();
    let capability = |act: &str| Attempt::new(act, Denial::floor("capability"));
    let mut attempts: Vec<Attempt> =
        ["option-ip", "option-retopts", "option-rthdr", "option-2292rthdr", "option-2292pktoptions"]
            .map(option)
            .into();
    attempts.extend(
        [
            "option-mark",
            "option-repair",
            "option-transparent",
            "option-transparent6",
            "option-priority",
            "option-force-buffer",
        ]
        .map(capability),
    );
    attempts.extend(
        [
            format!("control-retopts {HERE} {port}"),
            format!("control-rthdr ::1 {port}"),
            format!("control-behind-others {HERE} {port}"),
        ]
        .map(|act| option(&act)),
    );
    attempts.push(Attempt::new(format!("flow-label-route ::1 {port}"), Denial::floor("socket-option")));
    promise::control(&attempts)?;
    promise::refused(t, &t.agent(almighty(t)?)?, &[format!("control-tos {HERE} {port}")], &attempts)
}

/// What an option says rather than an address: the interface to leave by, groups, somebody else's address, a port.
fn no_option_leads_elsewhere(t: &mut Test) -> Outcome {
    let port = Port::open()?.number;
    let option = |family: u8, level: u8, name: u8, value: &str, what: &'static str| {
        Attempt::new(format!("option {family} {level} {name} {value}"), Denial::floor(what))
            .fails_somehow_outside()
    };
    let (four, six) = (
        |name, value| option(2, 0, name, value, "socket-option"),
        |name, value| option(10, 41, name, value, "socket-option"),
    );
    let group6 = format!("ff02{}123401000000", "00".repeat(12));
    let interface6 = format!("{}01000000", "00".repeat(16));
    // struct group_req: the interface, the group as an address.
    let request4 = format!("01000000{}02000000ef010204{}", "00".repeat(4), "00".repeat(120));
    let mut attempts = vec![
        option(2, 1, 25, "6c6f00", "socket-option"),
        option(2, 1, 62, "01000000", "socket-option"),
        four(50, "00000001"),
        four(32, "7f000001"),
        six(76, "00000001"),
        six(17, "01000000"),
        six(50, &interface6),
        four(35, "ef0102037f000001"),
        four(39, "ef0102037f0000010a090807"),
        four(42, &request4),
        six(20, &group6),
        six(27, &group6),
        four(15, "01000000"),
        six(78, "01000000"),
        four(51, "409c409c"),
    ];
    // IP_XFRM_POLICY, IPV6_XFRM_POLICY, IPT_SO_SET_REPLACE, IPV6_HOPOPTS, IPV6_DSTOPTS.
    let policy = "00".repeat(168);
    for (family, level, name, value) in [
        (2, 0, 17, &*policy),
        (10, 41, 35, &policy),
        (2, 0, 64, &policy),
        (10, 41, 54, "0000010400000000"),
        (10, 41, 59, "0000010400000000"),
    ] {
        attempts.push(option(family, level, name, value, "capability"));
    }
    for act in [format!("control-interface {HERE} {port}"), format!("control-interface6 ::1 {port}")] {
        attempts.push(Attempt::new(act, Denial::floor("socket-option")));
    }
    promise::control(&attempts)?;
    // IP_TTL, IPV6_UNICAST_HOPS, IP_MULTICAST_TTL; a packet from a local address of one's choice.
    let twins =
        ["option 2 0 2 40000000", "option 10 41 16 40000000", "option 2 0 33 01000000"].map(str::to_owned);
    let twins = [twins.to_vec(), vec![format!("control-source {HERE} {port}")]].concat();
    promise::allowed_outside(&twins)?;
    promise::refused(t, &t.agent(almighty(t)?)?, &twins, &attempts)
}

fn nothing_is_bound_by_another_spelling(t: &mut Test) -> Outcome {
    let (open, shut) = (Port::unused()?, Port::unused()?);
    let bind = |act: String, host: &str| {
        Attempt::new(act, Denial::no_rule("bind").to(host, shut, "tcp").asking("bind"))
    };
    let attempts = [
        bind(format!("bind-unspec6 {shut}"), "::").fails_somehow_outside(),
        bind(format!("bind-mapped {HERE} {shut}"), HERE),
        bind(format!("bind-cut ::1 {shut} 24"), "::1"),
        bind(format!("bind-cut {HERE} {shut} 8"), HERE).fails_outside("EINVAL"),
        Attempt::new("listen-unbound6", Denial::no_rule("listen").to("::", 0, "tcp").asking("bind")),
        // A port of the kernel's choice is not the port that a rule names.
        Attempt::new(format!("bind {HERE} 0"), Denial::no_rule("bind").to(HERE, 0, "tcp").asking("bind")),
    ];
    promise::control(&attempts)?;
    let policy = t.policy().bind(&format!("{HERE}:{open}/*"));
    let twins = [format!("bind-mapped {HERE} {open}"), "abstract-autobind".to_owned()];
    promise::refused(t, &t.agent(policy)?, &twins, &attempts)
}

fn no_interface_or_route_changes(t: &mut Test) -> Outcome {
    let capability = || Denial::floor("capability").argument("cap_net_admin");
    let attempts =
        [("link-down", capability()), ("add-route", capability()), ("set-address", Denial::floor("ioctl"))]
            .map(|(act, denial)| Attempt::new(act, denial).fails_somehow_outside());
    promise::control(&attempts)?;
    promise::refused(t, &t.agent(almighty(t)?)?, &["socket 16 3 0".to_owned()], &attempts)
}

const CONNECT: &str = "socket_connect";
const SEND: &str = "socket_sendmsg";
const TCP: &str = "network::connecting_by_tcp_needs_a_rule_in_every_spelling";
const UDP: &str = "network::sending_by_udp_needs_a_rule_in_every_spelling";
const ELSEWHERE: &str = "network::a_connected_socket_cannot_send_elsewhere";
const BLOCK: &str = "network::a_denied_address_stays_denied_inside_an_allowed_block";
const LISTEN: &str = "network::binding_and_listening_need_a_rule";
const PLAIN: &str = "network::only_plain_sockets_can_be_made";
const SPELLING: &str = "attack_network::no_spelling_of_an_address_is_another_address";
const REROUTE: &str = "attack_network::nothing_reroutes_packets";
const OPTION: &str = "attack_network::no_option_leads_elsewhere";
const OPTIONS: &str = "socket_setsockopt";
const BOUND: &str = "attack_network::nothing_is_bound_by_another_spelling";
const ROUTES: &str = "attack_network::no_interface_or_route_changes";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("T01", "TCP to an address that no rule names", CONNECT, TCP, "tcp"),
    refused("T02", "an IPv4 address as an IPv4-mapped one", CONNECT, TCP, "v4mapped"),
    refused("T03", "0.0.0.0, which is the host itself", CONNECT, TCP, "0.0.0.0"),
    refused("T04", "`::ffff:0.0.0.0`", CONNECT, TCP, "::ffff:0.0.0.0"),
    refused("T05", "TCP Fast Open: connecting by sending", SEND, TCP, "tfo"),
    refused("T06", "TCP Fast Open to a mapped address", SEND, TCP, "tfo-mapped"),
    refused("T07", "the option by which `connect` waits for the first data", CONNECT, TCP, "tfo-option"),
    refused("T08", "TCP Fast Open by `sendmmsg`", SEND, SPELLING, "tfo-sendmmsg"),
    refused("T09", "`sendto` on a TCP socket that is not connected", SEND, SPELLING, "tcp-send-unconnected"),
    refused("T10", "`::`, which is one loopback or the other", CONNECT, "network::an_address_that_cannot_be_told_is_refused", "tcp"),
    refused("T11", "a packet to `::`", SEND, "network::an_address_that_cannot_be_told_is_refused", "udp-send"),
    refused("T12", "an IPv4 address of 8 bytes", CONNECT, SPELLING, "tcp-cut"),
    refused("T13", "an address that is longer than one is", CONNECT, SPELLING, "tcp-padded"),
    refused("T14", "an IPv6 address with a scope and a flow label", CONNECT, SPELLING, "tcp-scoped"),
    refused("T15", "an address of one family on a socket of the other", CONNECT, SPELLING, "tcp-other-family"),
    refused("T16", "IPv4-compatible addresses (`::a.b.c.d`)", "socket_connect, socket_sendmsg", SPELLING, "compatible"),
    refused("T17", "IPv4-translated addresses (`::ffff:0:a.b.c.d`)", "socket_connect, socket_sendmsg", SPELLING, "translated"),
    refused("T18", "NAT64 (`64:ff9b::a.b.c.d`)", "socket_connect, socket_sendmsg", SPELLING, "nat64"),
    refused("T19", "6to4 (`2002:…`)", "socket_connect, socket_sendmsg", SPELLING, "6to4"),
    refused("T20", "ISATAP (`fe80::5efe:a.b.c.d`)", "socket_connect, socket_sendmsg", SPELLING, "isatap"),
    refused("T21", "a packet by `sendto` without connecting", SEND, UDP, "udp-send"),
    refused("T22", "a packet by `sendmsg`", SEND, UDP, "udp-sendmsg"),
    refused("T23", "packets by `sendmmsg`", SEND, UDP, "udp-sendmmsg"),
    refused("T24", "`sendmmsg` whose second packet goes elsewhere", SEND, SPELLING, "udp-mmsg-second"),
    refused("T25", "a packet to a mapped address", SEND, UDP, "udp-mapped"),
    refused("T26", "a plain IPv4 address on an IPv6 socket", SEND, UDP, "udp6-inet"),
    refused("T27", "a packet whose address is of no family", SEND, UDP, "udp-unspec"),
    refused("T28", "a packet to an address of 8 bytes", SEND, SPELLING, "udp-cut"),
    refused("T29", "a packet to an address with a scope", SEND, SPELLING, "udp-scoped"),
    refused("T30", "a connected UDP socket that sends elsewhere", SEND, ELSEWHERE, "udp-connected-elsewhere"),
    refused("T31", "connecting a UDP socket", CONNECT, ELSEWHERE, "udp-connect"),
    refused("T32", "connecting a UDP socket a second time", CONNECT, SPELLING, "udp-again"),
    refused("T33", "dissolving a connection, then sending elsewhere", SEND, SPELLING, "udp-after-disconnect"),
    refused("T34", "a packet to everybody", SEND, SPELLING, "255.255.255.255"),
    refused("T35", "a packet to an IPv4 group", SEND, SPELLING, "224.0.0.1"),
    refused("T36", "a packet to an IPv6 group", SEND, SPELLING, "ff02::1"),
    refused("T37", "a denied address inside an allowed block", CONNECT, BLOCK, "tcp"),
    refused("T38", "the same, mapped", CONNECT, BLOCK, "v4mapped"),
    refused("T39", "UDP where a rule names TCP", SEND, BLOCK, "udp-send"),
    refused("T40", "binding a TCP port", "socket_bind", LISTEN, "bind"),
    refused("T41", "binding a UDP port", "socket_bind", LISTEN, "bind-udp"),
    refused("T42", "binding every address", "socket_bind", LISTEN, "0.0.0.0"),
    refused("T43", "binding an address that is of no family", "socket_bind", LISTEN, "bind-unspec"),
    refused("T44", "listening without binding", "socket_listen", LISTEN, "listen-unbound"),
    refused("T45", "listening without binding, IPv6", "socket_listen", BOUND, "listen-unbound6"),
    refused("T46", "binding `::` that is of no family", "socket_bind", BOUND, "bind-unspec6"),
    refused("T47", "binding a mapped address", "socket_bind", BOUND, "bind-mapped"),
    refused("T48", "binding an address that is cut short", "socket_bind", BOUND, "bind-cut"),
    refused("T49", "binding a port of the kernel's choice", "socket_bind", BOUND, "bind"),
    refused("T50", "raw IPv4 and IPv6 sockets", "socket_create", PLAIN, "family, 3"),
    refused("T51", "packet sockets", "socket_create", PLAIN, "AF_PACKET"),
    refused("T52", "SCTP, MPTCP, SMC, UDP-Lite, L2TP, ping sockets", "socket_create", PLAIN, "[0, 6, 132, 256, 262]"),
    refused("T53", "every other family: ALG, VSOCK, CAN, TIPC, RDS, KEY, XDP, Bluetooth and their like", "socket_create", PLAIN, "0..48"),
    refused("T54", "netlink of every protocol but routes", "socket_create", PLAIN, "AF_NETLINK"),
    refused("T55", "a source route (`IP_OPTIONS`)", "socket_setsockopt", REROUTE, "option-ip"),
    refused("T56", "`IP_RETOPTS`", "socket_setsockopt", REROUTE, "option-retopts"),
    refused("T57", "an IPv6 routing header (`IPV6_RTHDR`)", "socket_setsockopt", REROUTE, "option-rthdr"),
    refused("T58", "the older `IPV6_2292RTHDR`", "socket_setsockopt", REROUTE, "option-2292rthdr"),
    refused("T59", "the older `IPV6_2292PKTOPTIONS`", "socket_setsockopt", REROUTE, "option-2292pktoptions"),
    refused("T60", "a source route in a packet's control data", SEND, REROUTE, "control-retopts"),
    refused("T61", "a routing header in a packet's control data", SEND, REROUTE, "control-rthdr"),
    refused("T62", "a source route behind harmless control data", SEND, REROUTE, "control-behind-others"),
    refused("T63", "`SO_MARK`, by which routes are chosen", "capable", REROUTE, "option-mark"),
    refused("T64", "`TCP_REPAIR`: a connection that was never made", "capable", REROUTE, "option-repair"),
    refused("T65", "`IP_TRANSPARENT`: others' addresses", "capable", REROUTE, "option-transparent"),
    refused("T66", "`IPV6_TRANSPARENT`", "capable", REROUTE, "option-transparent6"),
    refused("T67", "a priority that is for the system", "capable", REROUTE, "option-priority"),
    refused("T68", "buffers beyond the limit", "capable", REROUTE, "option-force-buffer"),
    refused("T69", "taking an interface down", "capable", ROUTES, "link-down"),
    refused("T70", "a route of one's own", "capable", ROUTES, "add-route"),
    refused("T71", "an address of one's own (`SIOCSIFADDR`)", "file_ioctl", ROUTES, "set-address"),
    super::open("T72", "carrying data out to an allowed address (DNS tunnels, uploads)", "An allowed destination can carry anything"),
    super::open("T73", "a connection that was made before its address was denied", "Open descriptors and connections outlive"),
    refused("T74", "a flow label that carries a routing header (`IPV6_FLOWLABEL_MGR`)", "socket_setsockopt", REROUTE, "flow-label-route"),
    refused("T75", "a packet that stays in the sender's memory (`MSG_ZEROCOPY`)", SEND, SPELLING, "udp-zero-copy"),
    refused("T76", "a packet in two calls (`MSG_MORE`)", SEND, UDP, "udp-corked"),
    refused("T77", "several packets that the kernel makes of one (`UDP_SEGMENT`)", SEND, UDP, "udp-segments"),
    refused("T78", "another interface than routes say: `SO_BINDTODEVICE`, `IP_UNICAST_IF`", OPTIONS, OPTION, "00000001"),
    refused("T79", "another interface in a packet's control data (`IP_PKTINFO`, `IPV6_PKTINFO`)", SEND, OPTION, "control-interface"),
    refused("T80", "joining a group, for which a packet leaves (`IP_ADD_MEMBERSHIP`, `MCAST_JOIN_GROUP`, `IPV6_JOIN_GROUP`)", OPTIONS, OPTION, "ef0102037f000001"),
    refused("T81", "a shared address (`IPV6_JOIN_ANYCAST`)", OPTIONS, OPTION, "six(27"),
    refused("T82", "packets in the name of an address that is not the host's (`IP_FREEBIND`, `IPV6_FREEBIND`)", OPTIONS, OPTION, "six(78"),
    refused("T83", "a port of one's choice without binding it (`IP_LOCAL_PORT_RANGE`)", OPTIONS, OPTION, "409c409c"),
    refused("T84", "a policy of IPsec for one socket (`IP_XFRM_POLICY`)", "capable", OPTION, "policy"),
    refused("T85", "headers between IPv6 and UDP (`IPV6_HOPOPTS`, `IPV6_DSTOPTS`)", "capable", OPTION, "0000010400000000"),
    refused("T86", "rules of the packet filter (`IPT_SO_SET_REPLACE`)", "capable", OPTION, "(2, 0, 64"),
    refused("T87", "taking a connection where the socket may not listen, which `listen` could not see", "socket_accept", "network::taking_connections_needs_the_rule_that_listening_did", "accept-when"),
    refused("T89", "no destination (0.0.0.0, `::ffff:0.0.0.0`) from a socket that is bound to an address of the host's: that one is reached", "socket_connect, socket_sendmsg", "network::without_a_destination_a_bound_socket_reaches_its_own_address", "127.0.0.2"),
    super::open("T88", "control data beside a further message of one `sendmmsg` to the same address", "Control data beside a further message"),
];
