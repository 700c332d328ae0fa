//! TLS for syslog, and the files with certificates and keys for both ways.

use crate::{
    log::key::read_secret,
    sink::{error::SinkError, settings::TlsSettings},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The host's authorities.
const HOST: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The authorities that may vouch for the receiver.
pub(super) fn authorities(settings: &TlsSettings) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let path = settings.ca.clone().unwrap_or_else(|| HOST.into());
    certificates(&path)
}

/// Our certificate chain and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Who we are, where that is set.
pub(super) fn identity(settings: &TlsSettings) -> Result<Option<Identity>, SinkError> {
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else { return Ok(None) };
    let text = read_secret(key).map_err(|e| SinkError::secret(key, e))?;
    let secret = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|e| SinkError::secret(key, format!("no private key in PEM: {e}")))?;
    Ok(Some((certificates(certificate)?, secret)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let text = fs::read(path).map_err(|e| SinkError::io("read", path.display(), e))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(SinkError::secret(path, "has no certificate in PEM")),
        Err(e) => Err(SinkError::secret(path, format!("no certificates in PEM: {e}"))),
    }
}

/// A connection on which nothing was said yet; the handshake is part of the first delivery.
pub(super) fn connect(
    settings: &TlsSettings,
    host: &str,
    socket: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, SinkError> {
    let mut roots = RootCertStore::empty();
    // Hosts' collections have certificates that no library reads any more; without any there is an error.
    let (added, _) = roots.add_parsable_certificates(authorities(settings)?);
    if added == 0 {
        let path = settings.ca.clone().unwrap_or_else(|| PathBuf::from(HOST));
        return Err(SinkError::secret(&path, "has no certificate that can be used"));
    }
    let wrong = |e: rustls::Error| SinkError::io("set up TLS with", host, std::io::Error::other(e));
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots);
    let config = match identity(settings)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(wrong)?,
        None => builder.with_no_client_auth(),
    };
    let name = settings.name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name.clone())
        .map_err(|e| SinkError::io("use the name", &name, std::io::Error::other(e)))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(wrong)?;
    Ok(StreamOwned::new(connection, socket))
}
