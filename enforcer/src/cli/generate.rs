//! What packages ship and what comes from the definitions of the command line and of policies: man pages,
//! completions, the JSON Schema.

use super::{Cli, Exit, Failure, policy};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::{fs, io, path::Path, process::ExitCode};

/// Where a package has a shell's completions, and under which name that shell looks for them.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "usr/share/bash-completion/completions/enforcer"),
    (Shell::Zsh, "usr/share/zsh/vendor-completions/_enforcer"),
    (Shell::Fish, "usr/share/fish/vendor_completions.d/enforcer.fish"),
];
const MAN: &str = "usr/share/man/man1";
const SCHEMA: &str = "usr/share/enforcer/policy.schema.json";

/// The completions for a shell.
pub(super) fn completions(shell: Shell) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut shown(Cli::command()), "enforcer", &mut bytes);
    String::from_utf8(bytes).map_err(|e| Failure::new(Exit::Internal, format!("completions: {e}"), ""))
}

/// Everything, below `root`, as a package lays it out.
pub(super) fn all(root: &Path) -> Result<ExitCode, Failure> {
    let failed = |e: io::Error| {
        let message = format!("cannot write below {}: {e}", root.display());
        Failure::new(Exit::CannotWrite, message, "name a directory that can be written")
    };
    for (shell, path) in COMPLETIONS {
        write(&root.join(path), completions(shell)?.as_bytes()).map_err(failed)?;
    }
    for (name, page) in pages(shown(Cli::command())).map_err(failed)? {
        write(&root.join(MAN).join(name), &page).map_err(failed)?;
    }
    write(&root.join(SCHEMA), policy::schema_text().as_bytes()).map_err(failed)?;
    Ok(Exit::Ok.into())
}

/// A man page for the program and each of its commands.
fn pages(program: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut waiting = vec![("enforcer".to_owned(), program)];
    let mut pages = Vec::new();
    while let Some((name, command)) = waiting.pop() {
        for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
            waiting.push((format!("{name}-{}", child.get_name()), child.clone()));
        }
        let mut page = Vec::new();
        let title: &'static str = Box::leak(name.clone().into_boxed_str());
        // A fixed date would lie, today's would make two builds differ: the version says enough.
        clap_mangen::Man::new(command.name(title)).section("1").render(&mut page)?;
        pages.push((format!("{name}.1"), page));
    }
    Ok(pages)
}

/// The command line without what nobody types.
fn shown(command: Command) -> Command {
    let hidden: Vec<String> =
        command.get_subcommands().filter(|c| c.is_hide_set()).map(|c| c.get_name().to_owned()).collect();
    let mut kept = Command::new("enforcer").version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = command.get_about() {
        kept = kept.about(about.clone());
    }
    kept = kept.args(command.get_arguments().cloned()).subcommand_required(true);
    kept.subcommands(
        command.get_subcommands().filter(|c| !hidden.iter().any(|name| name == c.get_name())).cloned(),
    )
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_people_type_has_a_page_and_a_completion() {
        let pages = pages(shown(Cli::command())).expect("pages");
        let bash = completions(Shell::Bash).expect("text");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let page = pages.iter().find(|(file, _)| *file == format!("enforcer-{name}.1"));
            assert_eq!(page.is_some(), !command.is_hide_set(), "{name}");
            assert_eq!(bash.contains(&format!("enforcer,{name})")), !command.is_hide_set(), "{name}");
        }
        let exec = pages.iter().find(|(file, _)| file == "enforcer-exec.1").expect("a page");
        let text = String::from_utf8_lossy(&exec.1);
        assert!(text.contains("enforcer\\-exec") && text.contains("\\-\\-detach"), "{text}");
        assert!(pages.iter().any(|(file, _)| file == "enforcer-policy-check.1"));
    }
}
