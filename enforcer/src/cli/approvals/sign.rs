//! Signing with `ssh-keygen`, which knows agents, passphrases and hardware keys.

use crate::cli::exit::{Exit, Failure};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Signs a statement. ssh-keygen asks for a passphrase or a touch on the terminal.
pub(in crate::cli) fn sign(key: &Path, namespace: &str, statement: &str) -> Result<String, Failure> {
    let failed = |message: String, remedy: &str| Failure::new(Exit::NoInput, message, remedy);
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("cannot run ssh-keygen: {e}"), "install openssh-client"))?;
    if let Some(mut input) = child.stdin.take() {
        // One that ends early says why itself.
        let _ = input.write_all(statement.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(format!("ssh-keygen: {e}"), ""))?;
    let signature = String::from_utf8(output.stdout).unwrap_or_default();
    if !output.status.success() || signature.is_empty() {
        let message = format!("ssh-keygen did not sign with {}", key.display());
        return Err(failed(message, "see what it says above"));
    }
    Ok(signature)
}
