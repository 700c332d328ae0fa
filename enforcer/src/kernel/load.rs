//! Loads the programs, attaches all of them or none, and pins what must outlive the daemon.

use super::{
    btf::Btf,
    calls::{self, Watched},
    cast::{self, Cast},
    hooks::{ANY, HookProgram, Kind, PROGRAMS, TAGGED_FUNCTIONS, When},
    offsets::{self, Globals, Numbers},
    trust_tag::tag_trusted,
};
use crate::daemon::enforcement::{StartCause, StartError};
use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, Endianness,
    programs::{BtfTracePoint, FEntry, FExit, Lsm, Program, ProgramError, links::FdLink},
};
use enforcer_common::offsets::SINGLES;
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    sync::Mutex,
};

/// The programs, as built.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ENFORCER_BPF_OBJECT"));

/// Every map, by the name that it has in the object and in the directory of pins.
pub const MAPS: &[&str] = &[
    "GATE",
    "META",
    "ROOT_PATHS",
    "EXECUTORS",
    "AGENTS",
    "SESSIONS",
    "SESSION_OF",
    "SEEDS",
    "STRAYS",
    "POLICIES",
    "ARENA",
    "PREFIXES",
    "PASSES",
    "LINKS",
    "DECISIONS",
    "ACTIVITY",
    "MOVES",
    "DIRECTORIES",
    "LABELS",
    "SCRATCH",
    "CGROUP_SCRATCH",
    "RECORDS",
    "HOLDS",
    "WAITERS",
    "QUOTAS",
    "HOLD_SETTINGS",
    "IPC_OBJECTS",
];

/// What this kernel is, as far as loading depends on it.
pub struct Host {
    /// Values of the programs' globals.
    pub globals: Globals,
    /// How the programs can read kernel memory without a call, if they can.
    pub cast: Option<Cast>,
    /// The programs that this kernel needs.
    pub programs: Vec<&'static HookProgram>,
    /// The rare system calls that this kernel has.
    pub calls: Vec<Watched>,
    /// The kernel's types, as far as programs are attached to them.
    types: Vec<u8>,
}

impl Host {
    /// Reads the kernel's type information and symbols and checks every hook against them.
    pub fn probe() -> Result<Self, StartError> {
        let bytes = std::fs::read("/sys/kernel/btf/vmlinux").map_err(|e| {
            kernel(format!("/sys/kernel/btf/vmlinux: {e}"), "use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
        })?;
        let unsupported = "this kernel is not supported by this version; see the support matrix in README.md";
        let btf = Btf::parse(&bytes).map_err(|e| kernel(e.to_string(), unsupported))?;
        let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let globals = Globals::find(&btf, &symbols).map_err(|e| kernel(e.to_string(), unsupported))?;
        let cast = Cast::find(&btf);
        let wanted = if globals.tagged_paths { When::TaggedPaths } else { When::PlainPaths };
        let needed = |p: &&HookProgram| {
            p.when == When::Always
                || p.when == wanted
                || p.when == When::IfPresent && btf.function(&format!("bpf_lsm_{}", p.hook)).is_some()
                || p.when == When::IfSoMany
                    && btf.function(&format!("bpf_lsm_{}", p.hook)) == Some(p.parameters)
                || p.when == When::IfOfUse && cast.is_some() && btf.function(p.hook) == Some(p.parameters)
        };
        let programs: Vec<_> = PROGRAMS.iter().filter(needed).collect();
        let missing = |p: &&HookProgram| {
            p.when == When::IfSoMany && !programs.iter().any(|chosen| chosen.hook == p.hook)
        };
        if let Some(program) = PROGRAMS.iter().find(missing) {
            let found = btf.function(&format!("bpf_lsm_{}", program.hook));
            return Err(kernel(
                format!("hook {} takes {found:?} parameters; no program is for that", program.hook),
                unsupported,
            ));
        }
        for program in &programs {
            check_hook(&btf, program)?;
        }
        let calls = calls::find(&symbols, |function| btf.prototype(function));
        let names: Vec<_> = programs.iter().map(|p| type_of(p)).collect();
        let wanted = names.iter().map(|name| name.as_bytes()).chain(calls.iter().map(Watched::function));
        let types =
            btf.only(&wanted.collect::<HashSet<_>>()).map_err(|e| kernel(e.to_string(), unsupported))?;
        Ok(Self { globals, cast, programs, calls, types })
    }
}

/// The name of what the kernel knows the program's hook by.
fn type_of(program: &HookProgram) -> Cow<'static, str> {
    match program.kind {
        Kind::Lsm => format!("bpf_lsm_{}", program.hook).into(),
        Kind::Entry | Kind::Exit => program.hook.into(),
        Kind::Tracepoint => format!("btf_trace_{}", program.hook).into(),
    }
}

fn check_hook(btf: &Btf<'_>, program: &HookProgram) -> Result<(), StartError> {
    if program.kind == Kind::Tracepoint {
        // The loader itself looks for the tracepoint's type.
        return Ok(());
    }
    match btf.function(&type_of(program)) {
        None => Err(kernel(
            format!("the kernel has no hook {}", program.hook),
            "use a kernel of 6.1 or later with CONFIG_BPF_LSM=y and CONFIG_SECURITY_PATH=y",
        )),
        Some(found) if program.parameters != ANY && found != program.parameters => Err(kernel(
            format!("hook {} takes {found} parameters, expected {}", program.hook, program.parameters),
            "this kernel is not supported by this version; see the support matrix in README.md",
        )),
        Some(_) => Ok(()),
    }
}

/// A program that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its name.
    pub program: &'static str,
    /// Instructions that the verifier went through, if the kernel says so.
    pub verified: Option<u32>,
    /// Bytes of machine code.
    pub machine_code: u32,
}

/// The programs of a generation.
pub struct Programs {
    /// All of them.
    pub ebpf: Ebpf,
    /// Those that were loaded.
    pub loaded: Vec<Loaded>,
    /// The kernel's types, as far as programs are attached to them.
    pub btf: AyaBtf,
    /// The maps, whose descriptors stand in the instructions of programs that are loaded later.
    _maps: Ebpf,
}

/// Loads the object with its maps pinned in `maps` (those that are there already are used). `arena`: the size of the one
/// that is there, or that is to be made, in bytes.
pub fn load(host: &Host, generation: u32, maps: &Path, arena: usize) -> Result<Programs, StartError> {
    let mut object = OBJECT.to_vec();
    if host.globals.tagged_paths {
        object = tag_trusted(object, TAGGED_FUNCTIONS).map_err(|e| internal(e.to_string()))?;
    }
    // Never half: a placeholder that stayed would be a call of nothing.
    let words = match host.cast {
        Some(cast) if cast::fill_in(&mut object, cast.function) > 0 => u64::from(cast.words),
        _ => 0,
    };
    let numbers = Numbers { cast_type: words, generation, arena };
    offsets::fill_in(&mut object, &host.globals, &numbers).map_err(internal)?;
    offsets::resize_arena(&mut object, arena).map_err(internal)?;
    // Twice: the first time the maps are made, the second time the instructions can refer to them. Nothing is handed to
    // the verifier before.
    let made = with_maps(&object, maps)?;
    let singles = SINGLES
        .iter()
        .map(|(single, name)| {
            let map = made.map(name).ok_or_else(|| internal(format!("no map {name}")))?;
            let aya::maps::Map::Array(data) = map else {
                return Err(internal(format!("map {name} is no array")));
            };
            Ok((*single, data.fd().as_fd().as_raw_fd()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if offsets::fill_in_maps(&mut object, &singles) == 0 {
        return Err(internal("the programs refer to no map of one entry".to_owned()));
    }
    let mut ebpf = with_maps(&object, maps)?;
    let btf = AyaBtf::parse(&host.types, Endianness::default())
        .map_err(|e| internal(format!("cut type information: {}", chain(&e))))?;
    let loaded = load_all(&mut ebpf, host, &btf)?;
    Ok(Programs { ebpf, loaded, btf, _maps: made })
}

/// The object with its maps, which are made unless they are pinned already.
fn with_maps(object: &[u8], maps: &Path) -> Result<Ebpf, StartError> {
    let mut loader = EbpfLoader::new();
    // Task storage: aya has no type for it, and needs none.
    loader.allow_unsupported_maps();
    // Nothing in the programs is for the loader to relocate (offsets are filled in), so it need not read the kernel's types.
    loader.btf(None);
    for name in MAPS {
        loader.map_pin_path(name, maps.join(name));
    }
    loader.load(object).map_err(|e| refused(format!("cannot create the maps: {}", chain(&e))))
}

/// Hands all programs to the verifier, as many at a time as there are CPUs: it is most of the time
/// that a start takes.
fn load_all(ebpf: &mut Ebpf, host: &Host, btf: &AyaBtf) -> Result<Vec<Loaded>, StartError> {
    let mut programs: HashMap<String, &mut Program> =
        ebpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let mut work = Vec::new();
    for wanted in &host.programs {
        let program = programs
            .remove(wanted.program)
            .ok_or_else(|| internal(format!("no program {}", wanted.program)))?;
        work.push((*wanted, program));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(work);
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| load_some(&queue, btf))).collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| Err(internal("a loading thread panicked".to_owned()))))
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(results.into_iter().flatten().collect())
}

fn load_some(
    queue: &Mutex<Vec<(&'static HookProgram, &mut Program)>>,
    btf: &AyaBtf,
) -> Result<Vec<Loaded>, StartError> {
    let mut loaded = Vec::new();
    loop {
        let next = queue.lock().map_err(|_| internal("a loading thread panicked".to_owned()))?.pop();
        let Some((wanted, program)) = next else { return Ok(loaded) };
        load_one(program, wanted, btf).map_err(|e| not_loaded(wanted.program, &e))?;
        let info = program.info().map_err(|e| refused(e.to_string()))?;
        loaded.push(Loaded {
            program: wanted.program,
            verified: info.verified_instruction_count(),
            machine_code: info.size_jitted(),
        });
    }
}

fn load_one(program: &mut Program, wanted: &HookProgram, btf: &AyaBtf) -> Result<(), ProgramError> {
    match wanted.kind {
        Kind::Lsm => <&mut Lsm>::try_from(program)?.load(wanted.hook, btf),
        Kind::Tracepoint => <&mut BtfTracePoint>::try_from(program)?.load(wanted.hook, btf),
        Kind::Entry => <&mut FEntry>::try_from(program)?.load(wanted.hook, btf),
        Kind::Exit => <&mut FExit>::try_from(program)?.load(wanted.hook, btf),
    }
}

/// Attaches every program and pins the links in `links`. If one fails, none stays attached: links
/// that are not pinned go with the process, pinned ones are removed here.
pub fn attach(ebpf: &mut Ebpf, host: &Host, links: &Path) -> Result<(), StartError> {
    let mut attached: Vec<(&str, FdLink)> = Vec::new();
    for wanted in &host.programs {
        let program = ebpf
            .program_mut(wanted.program)
            .ok_or_else(|| internal(format!("no program {}", wanted.program)))?;
        let link = attach_one(program, wanted).map_err(|e| {
            kernel(
                format!("cannot attach {} to {}: {}", wanted.program, wanted.hook, chain(&e)),
                "another security agent may use up the hook (38 programs each); remove it or use another kernel",
            )
        })?;
        attached.push((wanted.program, link));
    }
    for (name, link) in attached {
        if let Err(e) = link.pin(links.join(name)) {
            // Already failing: whatever cannot be removed is reported by the next start.
            let _ = std::fs::remove_dir_all(links);
            return Err(refused(format!("cannot pin {name} in {}: {}", links.display(), chain(&e))));
        }
    }
    Ok(())
}

fn attach_one(program: &mut Program, wanted: &HookProgram) -> Result<FdLink, ProgramError> {
    // The types have these two functions in common, and no trait.
    macro_rules! attached {
        ($type:ty) => {{
            let program: &mut $type = program.try_into()?;
            let id = program.attach()?;
            Ok(program.take_link(id)?.into())
        }};
    }
    match wanted.kind {
        Kind::Lsm => attached!(Lsm),
        Kind::Tracepoint => attached!(BtfTracePoint),
        Kind::Entry => attached!(FEntry),
        Kind::Exit => attached!(FExit),
    }
}

pub(super) fn not_loaded(program: &str, error: &ProgramError) -> StartError {
    let mut message = format!("the kernel does not load {program}: {}", chain(error));
    if let ProgramError::LoadError { verifier_log, .. } = error {
        // The end of the log says why; all of it can be megabytes.
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        message = format!("{message}\n{}", tail.join("\n"));
    }
    kernel(message, "this kernel is not supported by this version; see the support matrix in README.md")
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

pub(super) fn kernel(message: String, remedy: &str) -> StartError {
    StartError { cause: StartCause::Kernel, message, remedy: remedy.to_owned() }
}

pub(super) fn internal(message: String) -> StartError {
    StartError {
        cause: StartCause::Internal,
        message,
        remedy: "report this; it is a fault of the program".to_owned(),
    }
}

pub(super) fn refused(message: String) -> StartError {
    let remedy =
        "run as root with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN, on a kernel that is not locked down";
    StartError { cause: StartCause::Permission, message, remedy: remedy.to_owned() }
}
