//! The signing key: from the service manager's credentials or from a file that nobody else can read.

use super::{
    error::LogError,
    note::{PublicKey, SecretKey},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Name of the credential that holds the key (`LoadCredentialEncrypted=audit-key:…`).
pub const CREDENTIAL: &str = "audit-key";
/// The same of the key before it, while it is being replaced.
pub const PREVIOUS_CREDENTIAL: &str = "audit-key-previous";

/// The keys that a daemon has.
#[derive(Clone)]
pub struct Keys {
    /// The one that signs.
    pub current: SecretKey,
    /// The one that signed before, until it has handed over.
    pub previous: Option<SecretKey>,
    /// The file with the previous one, to be removed after that.
    pub previous_file: Option<PathBuf>,
    /// The key was made just now.
    pub fresh: bool,
}

/// Where keys are.
#[derive(Clone, Debug)]
pub struct KeyPlaces {
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// The file that is used, and made, where there is no credential.
    pub file: PathBuf,
}

impl KeyPlaces {
    /// Reads the keys. Where there is none at all, makes one under `name`.
    pub fn load(&self, name: &str) -> Result<Keys, LogError> {
        if let Some(directory) = &self.credentials {
            let current = directory.join(CREDENTIAL);
            if current.exists() {
                let previous = directory.join(PREVIOUS_CREDENTIAL);
                let previous = previous.exists().then(|| read(&previous)).transpose()?;
                return Ok(Keys { current: read(&current)?, previous, previous_file: None, fresh: false });
            }
        }
        let before = previous_file(&self.file);
        let previous = before.exists().then(|| read(&before)).transpose()?;
        let previous_file = previous.is_some().then_some(before);
        if self.file.exists() {
            return Ok(Keys { current: read(&self.file)?, previous, previous_file, fresh: false });
        }
        if let Some(path) = previous_file {
            let why = format!("{} is gone, but {} is there", self.file.display(), path.display());
            return Err(LogError::key(&self.file, why));
        }
        let current = make(name)?;
        write(&self.file, &current)?;
        Ok(Keys { current, previous: None, previous_file: None, fresh: true })
    }
}

/// Where the key goes that `file` replaces.
fn previous_file(file: &Path) -> PathBuf {
    file.with_extension("previous")
}

/// Puts a new key in the place of the one in `file`, which stays beside it until the daemon, at its next
/// start, has recorded the change with both. Returns the new public key.
pub fn replace(file: &Path) -> Result<PublicKey, LogError> {
    let old = read(file)?;
    let before = previous_file(file);
    if before.exists() {
        let why = format!("{} is there: the last change is not recorded yet", before.display());
        return Err(LogError::key(file, why));
    }
    let new = make(old.public().name())?;
    let fresh = file.with_extension("new");
    // What a crash has left.
    let _ = fs::remove_file(&fresh);
    write(&fresh, &new)?;
    // At every moment `file` is a whole key.
    fs::hard_link(file, &before).map_err(|e| LogError::io("keep the old key as", &before, e))?;
    fs::rename(&fresh, file).map_err(|e| LogError::io("replace", file, e))?;
    sync_directory(file)?;
    Ok(new.public())
}

/// Who the host is, without telling `/etc/machine-id`, which machine-id(5) wants kept secret.
pub fn host_id(machine_id: &str) -> String {
    let digest = Sha256::new().chain_update("enforcer/host-id/v1\n").chain_update(machine_id.trim());
    crate::event::text::hex(&digest.finalize()[..16])
}

fn make(name: &str) -> Result<SecretKey, LogError> {
    let mut seed = [0; 32];
    getrandom::getrandom(&mut seed)
        .map_err(|e| LogError::key(Path::new("getrandom(2)"), format!("no random bytes: {e}")))?;
    Ok(SecretKey::from_seed(name, &seed))
}

fn write(path: &Path, key: &SecretKey) -> Result<(), LogError> {
    let failed = |e| LogError::io("write", path, e);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| LogError::io("make", parent, e))?;
    }
    // Under its name only when it is whole: half a key would keep every later daemon from starting. One that somebody else has
    // made meanwhile stays.
    let fresh = path.with_extension("fresh");
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let mut file: File = options.map_err(failed)?;
    file.write_all((key.text() + "\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::hard_link(&fresh, path).map_err(failed)?;
    let _ = fs::remove_file(&fresh);
    sync_directory(path)
}

fn sync_directory(of: &Path) -> Result<(), LogError> {
    let parent = of.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| LogError::io("sync", parent, e))
}

fn read(path: &Path) -> Result<SecretKey, LogError> {
    SecretKey::parse(&read_secret(path)?).map_err(|e| LogError::key(path, e.to_string()))
}

/// Reads a secret from a file that only its owner can read, and that belongs to root or to us.
pub(crate) fn read_secret(path: &Path) -> Result<String, LogError> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| LogError::io("read", path, e))?;
    let meta = file.metadata().map_err(|e| LogError::io("read", path, e))?;
    if !meta.is_file() {
        return Err(LogError::key(path, "not a regular file"));
    }
    if meta.uid() != 0 && meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(LogError::key(path, format!("belongs to user {}; chown root it", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(LogError::key(path, "others than its owner have rights on it; chmod 600 it"));
    }
    let mut text = String::new();
    match (&mut file).take(65_536).read_to_string(&mut text) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(LogError::key(path, "not text")),
        Err(e) => Err(LogError::io("read", path, e)),
        Ok(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn places(dir: &Path) -> KeyPlaces {
        KeyPlaces { credentials: Some(dir.join("credentials")), file: dir.join("audit/key") }
    }

    #[test]
    fn a_key_is_made_once_and_nobody_else_can_read_it() {
        let dir = tempfile::tempdir().expect("dir");
        let places = places(dir.path());
        let first = places.load("n").expect("made");
        assert!(first.fresh);
        let again = places.load("other").expect("read");
        assert!(!again.fresh && again.current.public() == first.current.public());
        let mode = fs::metadata(&places.file).expect("meta").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let places = places(dir.path());
        places.load("n").expect("made");
        fs::set_permissions(&places.file, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(places.load("n").err().expect("refused").to_string().contains("chmod 600"));
    }

    #[test]
    fn a_credential_comes_first() {
        let dir = tempfile::tempdir().expect("dir");
        let places = places(dir.path());
        let file = places.load("n").expect("made").current.public();
        let credential = SecretKey::from_seed("c", &[1; 32]);
        write(&dir.path().join("credentials").join(CREDENTIAL), &credential).expect("write");
        let keys = places.load("n").expect("read");
        assert!(keys.current.public() == credential.public() && keys.current.public() != file);
    }

    #[test]
    fn a_replaced_key_stays_until_it_has_handed_over() {
        let dir = tempfile::tempdir().expect("dir");
        let places = places(dir.path());
        let old = places.load("n").expect("made").current.public();
        let new = replace(&places.file).expect("replaced");
        let keys = places.load("n").expect("read");
        assert_eq!((keys.current.public(), keys.previous.map(|k| k.public())), (new, Some(old)));
        assert!(replace(&places.file).is_err());
    }
}
