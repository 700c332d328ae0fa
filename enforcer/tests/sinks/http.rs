//! An HTTP server that fails at random, and a daemon that is killed at random.

use crate::world::{Random, World, record, wait_until};
use enforcer::audit::Sink;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// After so long without a request the server turns to its next connection.
const IDLE: Duration = Duration::from_secs(1);

/// A server that takes records.
#[derive(Clone)]
struct Server {
    address: String,
    /// What was taken, in order.
    taken: Arc<Mutex<Vec<Value>>>,
    authorizations: Arc<Mutex<Vec<String>>>,
    fails: Arc<AtomicBool>,
}

impl Server {
    fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let server = Self {
            address: listener.local_addr().expect("address").to_string(),
            taken: Arc::default(),
            authorizations: Arc::default(),
            fails: Arc::new(AtomicBool::new(true)),
        };
        let one = server.clone();
        thread::spawn(move || {
            let mut random = Random(seed);
            for stream in listener.incoming().flatten() {
                // One connection at a time: a server that took two at once could mix their order.
                let _ = one.serve(stream, &mut random);
            }
        });
        server
    }

    fn serve(&self, stream: TcpStream, random: &mut Random) -> std::io::Result<()> {
        stream.set_read_timeout(Some(IDLE))?;
        let mut input = BufReader::new(stream.try_clone()?);
        let mut output = stream;
        loop {
            let (mut length, mut line) = (0, String::new());
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            while !line.trim().is_empty() {
                let lower = line.to_ascii_lowercase();
                if let Some(number) = lower.strip_prefix("content-length:") {
                    length = number.trim().parse().expect("length");
                }
                if lower.starts_with("authorization:") {
                    self.authorizations.lock().expect("lock").push(line.trim().to_owned());
                }
                line.clear();
                input.read_line(&mut line)?;
            }
            let what = if self.fails.load(Ordering::Relaxed) { random.below(8) } else { 7 };
            if what == 0 {
                // Cut in the middle of the request.
                return Ok(());
            }
            let mut body = vec![0; length];
            input.read_exact(&mut body)?;
            let answer = match what {
                1 => "500 No\r\nContent-Length: 2\r\n\r\nno",
                2 => "413 Large\r\nContent-Length: 0\r\n\r\n",
                // It took them, and nobody will know.
                3 => {
                    self.take(&body);
                    return Ok(());
                }
                _ => {
                    self.take(&body);
                    "200 Good\r\nContent-Length: 0\r\n\r\n"
                }
            };
            output.write_all(format!("HTTP/1.1 {answer}").as_bytes())?;
        }
    }

    fn take(&self, body: &[u8]) {
        let values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
        for value in values.map(|value| value.expect("JSON")) {
            match value {
                Value::Array(all) => self.taken.lock().expect("lock").extend(all),
                mut one => self.taken.lock().expect("lock").push(one["event"].take()),
            }
        }
    }

    fn taken(&self) -> Vec<Value> {
        self.taken.lock().expect("lock").clone()
    }

    fn seqs(&self) -> Vec<u64> {
        self.taken().iter().filter_map(|record| record["seq"].as_u64()).collect()
    }
}

#[test]
fn nothing_is_missing_after_random_failures_and_kills_and_the_order_is_kept() {
    let server = Server::start(5);
    let world = World::new(&format!(
        "[[sinks]]\nname='a'\nbatch=40\nhttp={{url='http://{}/records'}}\n\
         [[sinks]]\nname='b'\nfile={{path='DIR/out/events.jsonl',rotate_megabytes=1,rotate_keep=900}}",
        server.address
    ));
    let (mut random, begun) = (Random(77), Instant::now());
    // On a busy machine one that is killed so soon has hardly begun.
    for round in 0.. {
        if round >= 12 && world.size() > 100 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "{} records of {round} processes", world.size());
        let mut child = world.spawn();
        sleep(Duration::from_millis(60 + random.below(300)));
        child.kill();
    }
    server.fails.store(false, Ordering::Relaxed);
    let recorder = world.recorder();
    let size = wait_until(|| world.has_come(&server.seqs()));
    let in_file = wait_until(|| world.has_come(&seqs_in_files(&world.dir.path().join("out"))));
    drop(recorder);
    assert!(size > 100, "{size}");
    world.check(&server.seqs(), size);
    let checkpoints = server.taken().iter().filter(|r| r["kind"] == "checkpoint").count();
    assert!(checkpoints > 0);
    // The file got the same.
    world.check(&seqs_in_files(&world.dir.path().join("out")), in_file);
}

/// Of the records in a sink's file and those that were rotated away, oldest first.
fn seqs_in_files(dir: &Path) -> Vec<u64> {
    let mut files: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    let number = |name: &str| name.rsplit('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    files.sort_by_key(|file| std::cmp::Reverse(number(&file.file_name().to_string_lossy())));
    let text: String = files.iter().map(|f| fs::read_to_string(f.path()).unwrap_or_default()).collect();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter_map(|record| record["seq"].as_u64()).collect()
}

#[test]
fn a_dead_receiver_holds_up_nothing_and_its_failure_and_recovery_are_records() {
    // It keeps its port, which somebody else could get meanwhile, and ends whatever connection comes.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let server = Server {
        address: address.to_string(),
        taken: Arc::default(),
        authorizations: Arc::default(),
        fails: Arc::new(AtomicBool::new(false)),
    };
    let dead = Arc::new(AtomicBool::new(true));
    let (one, is_dead) = (server.clone(), Arc::clone(&dead));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if !is_dead.load(Ordering::SeqCst) {
                drop(one.serve(stream, &mut Random(1)));
            }
        }
    });
    let world = World::new(&format!(
        "[[sinks]]\nname='dead'\nhttp={{url='http://{address}/'}}\n\
         [[sinks]]\nname='live'\nfile={{path='DIR/out.jsonl'}}"
    ));
    let recorder = std::cell::RefCell::new(world.recorder());
    (0..5_000).for_each(|n| recorder.borrow_mut().append(&record(n)));
    recorder.borrow_mut().flush().expect("flush");
    let status = |at: usize| recorder.borrow().sinks()[at].clone();
    let out = world.dir.path().join("out.jsonl");
    let has = |text: &str| {
        recorder.borrow_mut().flush().expect("flush");
        let found = fs::read_to_string(&out).is_ok_and(|all| all.contains(text));
        found.then_some(()).ok_or_else(|| format!("no {text} in the file; {:?}", status(0)))
    };
    wait_until(|| has("\"n\":4999"));
    wait_until(|| has("\"kind\":\"sink-failed\""));
    wait_until(|| {
        let dead = status(0);
        let failing = dead.error.as_ref().is_some_and(|e| e.contains("post to"));
        let all = failing && dead.lag > 5_000 && dead.failures > 2;
        all.then_some(()).ok_or_else(|| format!("{dead:?}"))
    });
    // The receiver comes back at the same place.
    dead.store(false, Ordering::SeqCst);
    wait_until(|| has("\"kind\":\"sink-recovered\""));
    let size = wait_until(|| world.has_come(&server.seqs()));
    // The answer to the last ones may be on its way.
    wait_until(|| {
        let now = status(0);
        (now.error.is_none() && now.lag == 0).then_some(()).ok_or_else(|| format!("{now:?}"))
    });
    drop(recorder);
    world.check(&server.seqs(), size);
}

#[test]
fn splunk_gets_its_token_and_a_token_that_others_can_read_is_refused() {
    let server = Server::start(9);
    server.fails.store(false, Ordering::Relaxed);
    let world = World::new(&format!(
        "[[sinks]]\nname='hec'\nkinds=['decision']\nhttp={{url='http://{}/services/collector/event',\
         style='splunk',token_file='DIR/token'}}",
        server.address
    ));
    let token = world.dir.path().join("token");
    fs::write(&token, "secret-1\n").expect("write");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("chmod");
    let mut recorder = world.recorder();
    (0..3).for_each(|n| recorder.append(&record(n)));
    recorder.flush().expect("flush");
    wait_until(|| {
        let error = recorder.sinks()[0].error.clone().unwrap_or_default();
        error.contains("chmod 600").then_some(()).ok_or(error)
    });
    assert!(server.authorizations.lock().expect("lock").is_empty());
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("chmod");
    // Only the kinds that were asked for: neither the record about the key nor checkpoints.
    let expected = Ok(());
    wait_until(|| {
        if server.seqs() == [1, 2, 3] { expected.clone() } else { Err(format!("{:?}", server.taken())) }
    });
    assert!(server.authorizations.lock().expect("lock").iter().all(|a| a.ends_with(": Splunk secret-1")));
    drop(recorder);
    assert_eq!(server.taken().len(), 3);
}

#[test]
fn an_alert_reaches_a_webhook_and_nothing_else_does() {
    let server = Server::start(3);
    server.fails.store(false, Ordering::Relaxed);
    let world = World::new(&format!(
        "[[sinks]]\nname='pager'\nkinds=['alert']\nhttp={{url='http://{}/hook'}}\n\
         [alerts]\ndenials={{count=3,seconds=60}}",
        server.address
    ));
    let mut recorder = world.recorder();
    // Three agents in turn: the third denial of the first one is the seventh record.
    (0..7).for_each(|n| recorder.append(&record(n)));
    recorder.flush().expect("flush");
    let alerts = || server.taken().into_iter().filter(|r| r["kind"] != "checkpoint").collect::<Vec<_>>();
    wait_until(|| if alerts().is_empty() { Err("no alert".to_owned()) } else { Ok(()) });
    drop(recorder);
    let all = alerts();
    let [alert] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        (&alert["kind"], &alert["rule"], &alert["agent"]),
        (&"alert".into(), &"denials".into(), &"bot-0".into())
    );
    assert_eq!((&alert["record"], &alert["seq"]), (&7.into(), &8.into()));
}

#[test]
fn what_a_dead_sink_has_not_had_is_not_removed_and_a_later_sink_is_told_what_was() {
    let audit = "[audit]\nmax_bytes=1048576\n";
    let live = "[[sinks]]\nname='live'\nfile={path='DIR/out.jsonl'}\n";
    let world =
        World::new(&format!("{audit}{live}[[sinks]]\nname='dead'\nhttp={{url='http://127.0.0.1:1/'}}\n"));
    let first = world.log().join("tile/entries/000");
    let mut recorder = world.recorder();
    (0..6_000).for_each(|n| recorder.append(&record(n)));
    let out = |name: &str| fs::read_to_string(world.dir.path().join(name)).unwrap_or_default();
    let mut until = |what: &dyn Fn() -> bool, text: &str| {
        wait_until(|| {
            recorder.flush().expect("flush");
            if what() { Ok(()) } else { Err(text.to_owned()) }
        });
    };
    until(&|| out("out.jsonl").contains("\"n\":5999"), "the live sink has not all");
    // Long enough for several looks of what removes.
    let begun = std::time::Instant::now();
    until(&|| begun.elapsed() > Duration::from_secs(3), "");
    assert!(first.exists(), "removed although a sink has not had it");
    drop(recorder);

    // Without the dead one; and one more, which never had anything.
    world.set(&format!("{audit}{live}"));
    let mut recorder = world.recorder();
    wait_until(|| {
        recorder.flush().expect("flush");
        if first.exists() { Err("nothing was removed".to_owned()) } else { Ok(()) }
    });
    drop(recorder);
    world.set(&format!("{audit}{live}[[sinks]]\nname='new'\nfile={{path='DIR/new.jsonl'}}\n"));
    let recorder = world.recorder();
    wait_until(
        || if out("new.jsonl").contains("\"truncated\"") { Ok(()) } else { Err("not all".to_owned()) },
    );
    drop(recorder);
    let line = out("new.jsonl").lines().next().expect("a line").to_owned();
    let told: Value = serde_json::from_str(&line).expect("json");
    assert_eq!((&told["kind"], &told["seq"]), (&"unreadable".into(), &0.into()));
    assert!(told["because"].as_str().is_some_and(|why| why.contains("retention")), "{told}");
}
