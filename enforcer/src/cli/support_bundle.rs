//! `enforcer support-bundle`.

use super::{Failure, Output, exit::Exit, json_text, print};
use crate::{
    settings::Settings,
    support::{self, Gather},
};
use clap::Args;
use serde_json::json;
use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::ExitCode,
};

/// What goes into it, and where to.
#[derive(Debug, Args)]
pub(super) struct SupportBundleArgs {
    /// The archive, which must not exist; `-` is standard output.
    #[arg(default_value = "enforcer-support.tar", value_name = "FILE")]
    file: PathBuf,
    /// Leave the policies' texts out; their names and digests stay.
    #[arg(long)]
    no_policies: bool,
}

/// Gathers and writes it.
pub(super) fn run(
    settings: Result<Settings, Failure>,
    args: &SupportBundleArgs,
    output: Output,
) -> Result<ExitCode, Failure> {
    let settings = settings.ok();
    let (bundle, secrets) = support::gather(settings.as_ref(), Gather { policies: !args.no_policies });
    let shown = args.file.display();
    let failed = |e: io::Error| {
        let remedy = "name a file that does not exist, where there is room";
        Failure::new(Exit::CannotWrite, format!("cannot write {shown}: {e}"), remedy)
    };
    if args.file.as_os_str() == "-" {
        bundle.write(&secrets, io::stdout().lock()).map_err(failed)?;
        return Ok(Exit::Ok.into());
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file).map_err(failed)?;
    bundle.write(&secrets, &mut file).and_then(|()| file.flush()).map_err(failed)?;
    let files: Vec<String> = bundle.files(&secrets).into_iter().map(|(name, _)| name).collect();
    print(&match output {
        Output::Json => json_text(&json!({"file": args.file, "files": files})),
        Output::Human => format!(
            "{shown}: {} files. Read contents.txt in it before you pass it on: it says what is in it and what is not.\n",
            files.len()
        ),
    })
}
