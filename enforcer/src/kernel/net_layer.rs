//! The second layer on the network: programs that hang on the agents' root cgroups. Unlike LSM hooks, a cgroup takes its
//! links with it when it goes, so the programs stay pinned and are attached again to whatever stands at a root's path.

use super::{
    load::{Loaded, chain, internal, refused},
    pins::{make_private, remove_directory},
};
use crate::daemon::enforcement::{Followed, Hook, NETWORK_LAYER, StartError};
use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr,
        CgroupSockAddrAttachType as Address, CgroupSockAttachType, Program, ProgramError, links::FdLink,
    },
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What a program is attached to.
#[derive(Clone, Copy)]
enum Kind {
    /// The making of sockets.
    Socket,
    /// A call that names an address.
    Address(Address),
    /// Packets that leave.
    Leaving,
}

const PROGRAMS: &[(&str, Kind)] = &[
    ("sock_create", Kind::Socket),
    ("connect4", Kind::Address(Address::Connect4)),
    ("connect6", Kind::Address(Address::Connect6)),
    ("bind4", Kind::Address(Address::Bind4)),
    ("bind6", Kind::Address(Address::Bind6)),
    ("egress", Kind::Leaving),
];

/// Where the programs are pinned, among a generation's links.
const PINS: &str = "network";
/// Where the links to one cgroup are pinned: the cgroup's id follows.
const LINKS: &str = "network-";

/// Loads the programs and pins them among the generation's links.
pub(super) fn load(ebpf: &mut Ebpf, links: &Path) -> Result<Vec<Loaded>, StartError> {
    let directory = links.join(PINS);
    make_private(&directory)?;
    let mut loaded = Vec::new();
    for (name, _) in PROGRAMS {
        let program = ebpf.program_mut(name).ok_or_else(|| internal(format!("no program {name}")))?;
        let failed = |e: ProgramError| super::load::not_loaded(name, &e);
        match program {
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSkb(program) => program.load(),
            _ => return Err(internal(format!("{name} is not a program of a cgroup"))),
        }
        .map_err(failed)?;
        let info = program.info().map_err(|e| refused(e.to_string()))?;
        loaded.push(Loaded {
            program: name,
            verified: info.verified_instruction_count(),
            machine_code: info.size_jitted(),
        });
        let at = directory.join(name);
        program.pin(&at).map_err(|e| refused(format!("cannot pin {}: {}", at.display(), chain(&e))))?;
    }
    Ok(loaded)
}

/// The programs that are not pinned among these links.
pub(super) fn missing(links: &Path) -> impl Iterator<Item = &'static str> {
    let directory = links.join(PINS);
    PROGRAMS.iter().map(|(name, _)| *name).filter(move |name| !directory.join(name).exists())
}

/// What is attached to which root.
pub(super) struct NetLayer {
    links: PathBuf,
    cgroups: PathBuf,
    roots: Vec<String>,
    problems: BTreeMap<String, String>,
    attached: Vec<Followed>,
    /// The directories of links that are to be there, since nothing else was found: they are looked for again only when
    /// these become others.
    kept: Option<Vec<PathBuf>>,
}

impl NetLayer {
    pub(super) fn new(links: &Path, cgroups: &Path) -> Self {
        Self {
            links: links.to_owned(),
            cgroups: cgroups.to_owned(),
            roots: Vec::new(),
            problems: BTreeMap::new(),
            attached: Vec::new(),
            kept: None,
        }
    }

    /// Says which roots there are, and attaches to them.
    pub(super) fn set_roots(&mut self, roots: Vec<String>) {
        self.roots = roots;
        self.follow();
    }

    /// The roots to which the programs were attached since the last time.
    pub(super) fn take_attached(&mut self) -> Vec<Followed> {
        std::mem::take(&mut self.attached)
    }

    /// Attaches what is missing at the cgroups that stand at the roots' paths now, and removes what belongs to cgroups
    /// that do not stand there any more. What does not work is tried again the next time; until then the hooks decide
    /// alone, and [`Self::health`] says so.
    pub(super) fn follow(&mut self) {
        let mut keep = Vec::new();
        for root in &self.roots {
            // A root that does not exist has no tasks. Neither has one that is about to appear.
            let Some(cgroup) = cgroup_of(&self.cgroups, root) else { continue };
            keep.push(links_of(&self.links, cgroup));
            match attach_missing(&self.links, &directory(&self.cgroups, root), cgroup) {
                Ok(false) => drop(self.problems.remove(root)),
                Ok(true) => {
                    self.problems.remove(root);
                    self.attached.push(Followed { root: root.clone(), cgroup });
                }
                Err(problem) => drop(self.problems.insert(root.clone(), problem)),
            }
        }
        if self.kept.as_ref() == Some(&keep) {
            return;
        }
        self.kept = None;
        let Ok(entries) = fs::read_dir(&self.links) else { return };
        let (entries, mut clean) = (entries.flatten(), true);
        for entry in entries.filter(|e| e.file_name().as_encoded_bytes().starts_with(LINKS.as_bytes())) {
            if !keep.contains(&entry.path())
                && let Err(error) = remove_directory(&entry.path())
            {
                tracing::warn!(%error, "links of a cgroup that is gone stay pinned");
                clean = false;
            }
        }
        self.kept = clean.then_some(keep);
    }

    /// One entry for each root that exists.
    pub(super) fn health(&self, active: bool) -> Vec<Hook> {
        let one = |root: &String| {
            let cgroup = cgroup_of(&self.cgroups, root)?;
            let pins = links_of(&self.links, cgroup);
            let absent: Vec<&str> =
                PROGRAMS.iter().map(|(name, _)| *name).filter(|name| !pins.join(name).exists()).collect();
            let note = match (absent.is_empty(), active, self.problems.get(root)) {
                (true, true, _) => String::new(),
                (true, false, _) => "another generation decides".to_owned(),
                (false, _, Some(problem)) => problem.clone(),
                (false, _, None) => format!("{} not yet attached", absent.join(" ")),
            };
            let name = format!("{NETWORK_LAYER}{root}");
            Some(Hook { name, required: false, attached: absent.is_empty() && active, note })
        };
        self.roots.iter().filter_map(one).collect()
    }
}

fn directory(cgroups: &Path, root: &str) -> PathBuf {
    cgroups.join(root.trim_start_matches('/'))
}

/// The id of the cgroup that stands at a root's path: its inode number in cgroupfs (cgroup_id(), 64 bit).
fn cgroup_of(cgroups: &Path, root: &str) -> Option<u64> {
    fs::metadata(directory(cgroups, root)).ok().map(|meta| meta.ino())
}

fn links_of(links: &Path, cgroup: u64) -> PathBuf {
    links.join(format!("{LINKS}{cgroup}"))
}

/// Whether something was missing, and is attached now.
fn attach_missing(links: &Path, path: &Path, cgroup: u64) -> Result<bool, String> {
    let pins = links_of(links, cgroup);
    let missing: Vec<_> = PROGRAMS.iter().filter(|(name, _)| !pins.join(name).exists()).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let told = |e: &dyn std::error::Error| chain(e);
    make_private(&pins).map_err(|e| e.to_string())?;
    let file = File::open(path).map_err(|e| told(&e))?;
    // The path may have become another cgroup's since it was looked at.
    if file.metadata().map_err(|e| told(&e))?.ino() != cgroup {
        return Err("the cgroup was made anew just now".to_owned());
    }
    for (name, kind) in missing {
        let link = attach_one(&links.join(PINS).join(name), *kind, &file)
            .map_err(|e| format!("cannot attach {name}: {e}"))?;
        link.pin(pins.join(name)).map_err(|e| format!("cannot pin {name}: {}", chain(&e)))?;
    }
    Ok(true)
}

/// A link to a cgroup always lets others be attached there too, and the kernel takes no flag that would say so
/// (`cgroup_bpf_link_attach()`, kernel/bpf/cgroup.c): that is what aya calls single.
fn attach_one(program: &Path, kind: Kind, cgroup: &File) -> Result<FdLink, String> {
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let told = |e: ProgramError| chain(&e);
    let link = match kind {
        Kind::Socket => {
            let mut program =
                CgroupSock::from_pin(program, CgroupSockAttachType::SockCreate).map_err(told)?;
            let id = program.attach(cgroup, MODE).map_err(told)?;
            program.take_link(id).map_err(told)?.try_into()
        }
        Kind::Leaving => {
            const EGRESS: CgroupSkbAttachType = CgroupSkbAttachType::Egress;
            let mut program = CgroupSkb::from_pin(program, EGRESS).map_err(told)?;
            let id = program.attach(cgroup, EGRESS, MODE).map_err(told)?;
            program.take_link(id).map_err(told)?.try_into()
        }
        Kind::Address(kind) => {
            let mut program = CgroupSockAddr::from_pin(program, kind).map_err(told)?;
            let id = program.attach(cgroup, MODE).map_err(told)?;
            program.take_link(id).map_err(told)?.try_into()
        }
    };
    link.map_err(|e| chain(&e))
}
