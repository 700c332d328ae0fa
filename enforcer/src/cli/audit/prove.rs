//! `enforcer audit prove`.

use super::{Failure, Output, ProveArgs, failure};
use crate::{
    cli::{exit::Exit, json_text, print},
    log::{
        reader::Reader,
        tree::{Hash, prove_consistency, prove_inclusion, root_at},
    },
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use std::{path::Path, process::ExitCode};

/// Prints a proof.
pub(super) fn run(args: &ProveArgs, output: Output, log: &Path) -> Result<ExitCode, Failure> {
    let mut reader = Reader::open(log).map_err(|e| failure(&e))?;
    let size = args.size.unwrap_or(reader.size());
    if size > reader.size() {
        return Err(usage(format!("the log has {} records, not {size}", reader.size())));
    }
    let root = root_at(&mut reader, size).map_err(|e| failure(&e))?;
    match (args.index, args.from) {
        (Some(index), _) if index < size => {
            let proof = prove_inclusion(&mut reader, index, size).map_err(|e| failure(&e))?;
            inclusion(&reader, index, size, &root, &proof, output)
        }
        (_, Some(old)) if (1..=size).contains(&old) => {
            let old_root = root_at(&mut reader, old).map_err(|e| failure(&e))?;
            let proof = prove_consistency(&mut reader, old, size).map_err(|e| failure(&e))?;
            consistency((old, &old_root), (size, &root), &proof, output)
        }
        _ => Err(usage(format!("there is no such record among the first {size}"))),
    }
}

/// In the form of C2SP tlog-proof (<https://c2sp.org/tlog-proof>), which carries the checkpoint along.
fn inclusion(
    reader: &Reader,
    index: u64,
    size: u64,
    root: &Hash,
    proof: &[Hash],
    output: Output,
) -> Result<ExitCode, Failure> {
    if output == Output::Json {
        return print(&json_text(&json!({
            "index": index, "size": size, "root": base64(root), "proof": texts(proof),
            "checkpoint": String::from_utf8_lossy(&reader.note),
        })));
    }
    if size != reader.size() {
        return Err(usage(
            "a proof for an earlier size has no checkpoint to carry; use --output json".to_owned(),
        ));
    }
    let mut text = format!("c2sp.org/tlog-proof@v1\nindex {index}\n");
    proof.iter().for_each(|hash| text += &(base64(hash) + "\n"));
    print(&format!("{text}\n{}", String::from_utf8_lossy(&reader.note)))
}

fn consistency(
    (old, old_root): (u64, &Hash),
    (size, root): (u64, &Hash),
    proof: &[Hash],
    output: Output,
) -> Result<ExitCode, Failure> {
    print(&match output {
        Output::Json => json_text(&json!({
            "from": old, "from_root": base64(old_root), "size": size, "root": base64(root), "proof": texts(proof),
        })),
        Output::Human => {
            let (old_root, root) = (base64(old_root), base64(root));
            let proof = texts(proof).join("\n");
            format!("from {old} {old_root}\nto {size} {root}\n{proof}\n")
        }
    })
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message, "")
}

fn base64(hash: &Hash) -> String {
    BASE64_STANDARD.encode(hash)
}

fn texts(proof: &[Hash]) -> Vec<String> {
    proof.iter().map(base64).collect()
}
