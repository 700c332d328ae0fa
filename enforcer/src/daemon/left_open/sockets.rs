//! What sockets are connected to, by the tables of their network namespace.

use super::seen::{CONNECTED, Object, REACHABLE};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// The tables, and the protocol that each is about.
const TABLES: [(&str, i32); 6] = [
    ("tcp", libc::IPPROTO_TCP),
    ("tcp6", libc::IPPROTO_TCP),
    ("udp", libc::IPPROTO_UDP),
    ("udp6", libc::IPPROTO_UDP),
    ("udplite", libc::IPPROTO_UDPLITE),
    ("udplite6", libc::IPPROTO_UDPLITE),
];

/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTENING: u8 = 10;

/// The tables of the namespaces that were looked at, each read once.
#[derive(Default)]
pub(super) struct Sockets(BTreeMap<PathBuf, BTreeMap<u64, Vec<(Object, u16)>>>);

impl Sockets {
    /// What the socket with this inode, of a task with this directory in `/proc`, is connected to or reached by.
    /// One that is neither, or of another family, is nothing that rules about addresses speak of.
    pub(super) fn of(&mut self, task: &Path, inode: u64) -> io::Result<Vec<(Object, u16)>> {
        let namespace = fs::read_link(task.join("ns/net"))?;
        if !self.0.contains_key(&namespace) {
            let mut rows = Vec::new();
            for (table, protocol) in TABLES {
                match fs::read_to_string(task.join("net").join(table)) {
                    Ok(text) => rows.extend(text.lines().skip(1).filter_map(|line| row(line, protocol))),
                    // A kernel without this protocol.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && task.join("net").exists() => {}
                    Err(error) => return Err(error),
                }
            }
            self.0.insert(namespace.clone(), judged(&rows));
        }
        Ok(self.0.get(&namespace).and_then(|all| all.get(&inode)).cloned().unwrap_or_default())
    }
}

/// A line of a table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    inode: u64,
    protocol: u8,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    listens: bool,
}

fn row(line: &str, protocol: i32) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let tcp = protocol == libc::IPPROTO_TCP;
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    let row = Row {
        inode: fields.get(9)?.parse().ok()?,
        protocol: u8::try_from(protocol).ok()?,
        local: address(fields.get(1)?)?,
        remote: address(fields.get(2)?)?,
        listens: tcp && state == LISTENING,
    };
    Some(row)
}

/// `0100007F:1F90`: words as the machine has them in memory, a port.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

fn judged(rows: &[Row]) -> BTreeMap<u64, Vec<(Object, u16)>> {
    let listening: BTreeSet<(u8, u16)> =
        rows.iter().filter(|row| row.listens).map(|row| (row.protocol, row.local.1)).collect();
    let mut all: BTreeMap<u64, Vec<(Object, u16)>> = BTreeMap::new();
    for row in rows {
        // Whoever is reached where somebody listens has not connected: that others may reach it was asked.
        let accepted = !row.listens && listening.contains(&(row.protocol, row.local.1));
        let connected = row.remote.1 != 0 && !accepted;
        let ((ip, port), want) = if connected { (row.remote, CONNECTED) } else { (row.local, REACHABLE) };
        if port != 0 {
            let object = Object::Address { ip, port, protocol: row.protocol };
            all.entry(row.inode).or_default().push((object, want));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn rows(lines: &str) -> Vec<Row> {
        let text = format!("{HEAD}{lines}");
        text.lines().skip(1).filter_map(|line| row(line, libc::IPPROTO_TCP)).collect()
    }

    #[test]
    fn addresses_are_read_as_the_machine_has_them() {
        assert_eq!(address("0100007F:1F90"), Some((IpAddr::from([127, 0, 0, 1]), 8080)));
        let mapped = address("0000000000000000FFFF00000100007F:0050").expect("read");
        assert_eq!(mapped.0, "::ffff:127.0.0.1".parse::<IpAddr>().expect("ip"));
        assert_eq!(address("01:50"), None);
    }

    #[test]
    fn who_is_reached_has_not_connected() {
        let tail = "00000000:00000000 00:00000000 00000000     0        0";
        let listens = format!("   0: 0100007F:1F90 00000000:0000 0A {tail} 11 1\n");
        let accepted = format!("   1: 0100007F:1F90 0100007F:9C40 01 {tail} 12 1\n");
        let connected = format!("   2: 0100007F:9C40 0100007F:1F90 01 {tail} 13 1\n");
        let all = judged(&rows(&format!("{listens}{accepted}{connected}")));
        let of = |inode: u64| {
            let [(Object::Address { port, .. }, want)] = &all[&inode][..] else { panic!("{all:?}") };
            (*port, *want)
        };
        assert_eq!((of(11), of(12), of(13)), ((8080, REACHABLE), (8080, REACHABLE), (8080, CONNECTED)));
    }

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        let to = listener.local_addr().expect("address");
        let stream = std::net::TcpStream::connect(to).expect("connects");
        let inode = |fd: &dyn std::os::fd::AsRawFd| {
            let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("link");
            let text = link.display().to_string();
            text.trim_start_matches("socket:[").trim_end_matches(']').parse::<u64>().expect("inode")
        };
        let mut sockets = Sockets::default();
        let object = Object::Address { ip: to.ip(), port: to.port(), protocol: 6 };
        let own = Path::new("/proc/self");
        assert_eq!(sockets.of(own, inode(&stream)).expect("read"), [(object.clone(), CONNECTED)]);
        assert_eq!(sockets.of(own, inode(&listener)).expect("read"), [(object, REACHABLE)]);
    }
}
