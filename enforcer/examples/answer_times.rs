//! Prints how long the daemon takes from a person's signed answer to the signal that lets the call go on: the socket, the
//! signature, the record on the disk, the queue on the disk, the kernel's table (in memory here), the signal:
//! `cargo run --release -p enforcer --example answer_times -- [ANSWERS] [WAITING] [DIRECTORY]`. So many others wait
//! meanwhile. Needs root. The directory, with its log, is left behind where it is named.

#[path = "../tests/support/fake.rs"]
mod fake;

use enforcer::{
    approvals::{
        canonical::Digest,
        shape::Shape,
        statement::{NAMESPACE, Statement, Verdict},
    },
    control::{
        client::Client,
        message::{Reply, Request},
    },
    daemon,
    settings::Settings,
};
use enforcer_common::{
    access::file,
    event::{Header, VERSION, kind, operation, reason},
    hold::{Hold, WAITING, Waiter, WaiterKey, Word},
    map::Session,
    verdict::Verdict as Said,
};
use ssh_key::{
    HashAlg, LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};
use std::{
    error::Error,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant, SystemTime},
};
use zerocopy::{FromZeros, IntoBytes};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let answers: usize = arguments.next().map_or(Ok(200), |n| n.parse())?;
    let others: usize = arguments.next().map_or(Ok(0), |n| n.parse())?;
    let named = arguments.next().map(PathBuf::from);
    let temporary = tempfile::tempdir()?;
    let dir = named.unwrap_or_else(|| temporary.path().to_owned());
    let key = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[1; 32])), "example")?;
    let settings = prepare(&dir, &key, answers + others + 8)?;
    let socket = settings.paths.socket.clone();
    let (asks, asked) = channel::<usize>();
    let (wakes, woken) = channel::<Instant>();
    let cgroup = fs::metadata(dir.join("cgroups/agents.slice/one"))?.ino();
    let program = dir.join("program");
    std::thread::spawn(move || serve(settings, program, cgroup, &asked, &wakes));
    let mut client = loop {
        match Client::connect(&socket) {
            Ok(client) => break client,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    for number in 0..others {
        asks.send(1_000_000 + number)?;
    }
    let mut known = wait_for(&mut client, others)?;
    println!("{} others wait", known.len());
    let mut times = Vec::with_capacity(answers);
    for number in 0..answers {
        asks.send(number)?;
        let now = wait_for(&mut client, others + 1)?;
        let new = now.iter().find(|digest| !known.contains(digest)).ok_or("no new request")?;
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let statement = Statement {
            verdict: Verdict::Approve(Shape::Once),
            requests: vec![*new],
            valid_until: i64::try_from(seconds)? + 60,
            approver: "alice".to_owned(),
            reason: "measured".to_owned(),
        };
        let text = statement.text();
        let signature = key.sign(NAMESPACE, HashAlg::Sha512, text.as_bytes())?.to_pem(LineEnding::LF)?;
        while woken.try_recv().is_ok() {}
        let begun = Instant::now();
        let reply = client.ask(&Request::Decide { statement: text, signature: Some(signature) });
        if !matches!(&reply, Ok(Reply::Decided { decisions }) if decisions[0].outcome == "approved") {
            return Err(format!("{reply:?}").into());
        }
        times.push(woken.recv_timeout(Duration::from_secs(10))?.duration_since(begun));
        known = wait_for(&mut client, others)?;
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "from the answer to the signal, {answers} times: median {:.2} ms, p99 {:.2} ms, at most {:.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// Waits until exactly so many requests wait, and says which.
fn wait_for(client: &mut Client, count: usize) -> Result<Vec<Digest>, Box<dyn Error>> {
    loop {
        let Ok(Reply::Approvals { requests, .. }) = client.ask(&Request::Approvals) else {
            return Err("no list of requests".into());
        };
        let pending: Vec<_> = requests.into_iter().filter(|one| one.state == "pending").collect();
        if pending.len() == count {
            return Ok(pending.iter().map(|one| one.request.digest()).collect());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn prepare(dir: &Path, key: &PrivateKey, most: usize) -> Result<Settings, Box<dyn Error>> {
    for sub in ["policies.d", "approvers.d", "state", "cgroups/agents.slice/one"] {
        fs::create_dir_all(dir.join(sub))?;
        fs::set_permissions(dir.join(sub), fs::Permissions::from_mode(0o755))?;
    }
    let public = key.public_key().to_openssh()?;
    fs::write(
        dir.join("approvers.d/alice.toml"),
        format!(
            "name = 'alice'\nperson = 'Alice'\nkeys = ['{public}']\n[[scopes]]\nagents = ['*']\ntiers = ['low', \
             'medium', 'high']\n"
        ),
    )?;
    // The kernel side in memory refuses nothing, so the canary must be told to sing.
    fs::write(dir.join("program"), "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(dir.join("program"), fs::Permissions::from_mode(0o755))?;
    let text = format!(
        "[paths]\npolicies = '{0}/policies.d'\napprovers = '{0}/approvers.d'\nstate = '{0}/state'\n\
         socket = '{0}/control.sock'\npins = '{0}/pins'\ncgroups = '{0}/cgroups'\n[approvals]\nper_agent = {most}\n\
         [metrics]\nsocket = '{0}/metrics.sock'\n",
        dir.display()
    );
    Ok(Settings::parse("example", &text)?)
}

/// The daemon, and a session that asks for what it is told to.
fn serve(
    settings: Settings,
    program: PathBuf,
    cgroup: u64,
    asked: &Receiver<usize>,
    wakes: &Sender<Instant>,
) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let fake = fake::Fake::default();
    let mut session = Session::new_zeroed();
    (session.version, session.agent, session.generation, session.id) = (1, 0, 77, [5, 6]);
    session.cgroup = cgroup;
    fake.0.borrow_mut().sessions.insert(900, session);
    let daemon = daemon::run_with(settings, program, Box::new(fake.clone()));
    let turn = async {
        let mut told = 0;
        loop {
            while let Ok(number) = asked.try_recv() {
                hold(&fake, session.id, number);
            }
            let woken_at = fake.0.borrow().woken_at[told..].to_vec();
            told += woken_at.len();
            if woken_at.into_iter().any(|at| wakes.send(at).is_err()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            result = daemon => eprintln!("the daemon ended: {result:?}"),
            () = turn => {}
        }
    });
}

/// A thread of this process waits to remove a file.
fn hold(fake: &fake::Fake, session: [u64; 2], number: usize) {
    let mut told = fake.0.borrow_mut();
    let id = [0xabc0_0000_0000_0000 + number as u64, 1];
    let now = boot_time();
    let mut hold = Hold::new_zeroed();
    (hold.word, hold.deadline, hold.since) = (Word::new(id, WAITING, 0).0, now + 600_000_000_000, now);
    (hold.session, hold.slot) = (session, 900);
    told.holds.insert(id, hold);
    let (own, started) = (std::process::id(), started());
    let waiter = Waiter { id, since: now, woken: 0 };
    told.waiters.push((WaiterKey { pid: own, tgid: own, started }, waiter));
    let object = format!("/w/{number}");
    let mut header = Header::new_zeroed();
    (header.version, header.kind, header.verdict) = (VERSION, kind::HELD, Said::Hold as u16);
    (header.reason, header.operation) = (reason::HELD, operation::UNLINK);
    (header.access, header.session) = (u32::from(file::DELETE), session);
    (header.time, header.hold) = (now, id);
    (header.pid, header.tgid, header.started) = (own, own, started);
    header.object_len = object.len() as u16;
    header.length = (size_of::<Header>() + object.len()) as u32;
    told.records.push([header.as_bytes(), object.as_bytes()].concat());
}

fn boot_time() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or_default())
}

/// The start of this process, in nanoseconds of boot time.
fn started() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_ascii_whitespace().nth(19).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default()
        * 10_000_000
}
