//! The same rules for Landlock, as far as it knows them: it denies nothing inside what it allows
//! (`**/.env`), and says nothing about UDP.

use super::{Done, rules};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr,
};

/// Confines this process, for good, with `count` rules: ten that matter, then nine further directories for each
/// further port.
pub fn confine(count: usize) -> Done {
    let abi = ABI::V4;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let work = read
        | AccessFs::WriteFile
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Truncate;
    let mut paths = vec![
        (rules::READ[0], read | AccessFs::Execute),
        (rules::READ[1], AccessFs::ReadFile.into()),
        (rules::READ[2], AccessFs::ReadFile | AccessFs::WriteFile),
        (rules::ALLOWED, work),
        (rules::SELF, AccessFs::ReadFile | AccessFs::Execute),
        (rules::TINY, AccessFs::ReadFile | AccessFs::Execute),
    ];
    // To ten, with the two ports.
    paths.extend([("/bench/fill", read), ("/bench/fill/group-0", read)]);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .create()?;
    for (path, access) in paths {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    }
    ruleset = ruleset
        .add_rule(NetPort::new(rules::TCP_PORT, AccessNet::ConnectTcp))?
        .add_rule(NetPort::new(rules::TCP_PORT, AccessNet::BindTcp))?;
    let more = count.saturating_sub(10);
    let ports = more / 10;
    for directory in rules::fill(more - ports) {
        std::fs::create_dir_all(&directory)?;
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(directory)?, read))?;
    }
    for port in (10_000u16..).take(ports) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    ruleset.restrict_self()?;
    Ok(())
}
