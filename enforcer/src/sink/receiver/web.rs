//! One HTTP POST.

use super::tls;
use crate::{
    event::text::escape,
    log::key::read_secret,
    sink::{error::SinkError, settings::TlsSettings},
};
use std::{io, path::PathBuf, time::Duration};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of an answer is looked at. Bytes.
const ANSWER: u64 = 65_536;

/// Where requests go.
pub(crate) struct Web {
    url: String,
    scheme: &'static str,
    token: Option<PathBuf>,
    tls: TlsSettings,
    agent: Option<ureq::Agent>,
}

impl Web {
    /// `scheme` is what stands before the token.
    pub(crate) fn new(url: String, scheme: &'static str, token: Option<PathBuf>, tls: TlsSettings) -> Self {
        Self { url, scheme, token, tls, agent: None }
    }

    /// Posts; the answer's text where it was a good one. Files are read again after each failure, so that
    /// what an operator has mended counts.
    pub(super) fn post(&mut self, body: &[u8], content: &str, records: usize) -> Result<Vec<u8>, SinkError> {
        let agent = match self.agent.take() {
            Some(agent) => agent,
            None => self.agent()?,
        };
        let text = self.post_with(&agent, (body, content), records)?;
        self.agent = Some(agent);
        Ok(text)
    }

    /// Posts, whatever the answer is: its status and text.
    pub(crate) fn post_raw(
        &mut self,
        body: &[u8],
        patience: Duration,
        most: u64,
    ) -> Result<(u16, Vec<u8>), SinkError> {
        let agent = match self.agent.take() {
            Some(agent) => agent,
            None => self.agent()?,
        };
        let failed = |e: ureq::Error| SinkError::io("post to", &self.url, io::Error::other(e));
        let request = agent.post(&self.url).config().timeout_global(Some(patience)).build();
        let mut response = request.send(body).map_err(failed)?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(most).read_to_vec().map_err(failed)?;
        self.agent = Some(agent);
        Ok((status, text))
    }

    fn post_with(
        &self,
        agent: &ureq::Agent,
        (body, content): (&[u8], &str),
        records: usize,
    ) -> Result<Vec<u8>, SinkError> {
        let mut request = agent.post(&self.url).header("Content-Type", content);
        if let Some(path) = &self.token {
            let token = read_secret(path).map_err(|e| SinkError::secret(path, e))?;
            request = request.header("Authorization", format!("{} {}", self.scheme, token.trim()));
        }
        let failed = |e: ureq::Error| SinkError::io("post to", &self.url, io::Error::other(e));
        let mut response = request.send(body).map_err(failed)?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(ANSWER).read_to_vec().map_err(failed);
        if status.is_success() {
            return text;
        }
        if status.as_u16() == 413 {
            return Err(SinkError::TooLarge { place: self.url.clone(), records });
        }
        let text = escape(&text.unwrap_or_default());
        let start: String = text.chars().take(200).collect();
        let answer = if start.is_empty() { status.to_string() } else { format!("{status}: {start}") };
        Err(SinkError::Refused { place: self.url.clone(), answer })
    }

    fn agent(&self) -> Result<ureq::Agent, SinkError> {
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            // A token must not follow wherever an answer points.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("enforcer/", env!("CARGO_PKG_VERSION")));
        if self.url.starts_with("https://") {
            let roots = tls::authorities(&self.tls)?;
            let roots = roots.iter().map(|der| Certificate::from_der(der).to_owned());
            let mut secure =
                TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots.collect::<Vec<_>>()));
            if let (Some((chain, _)), Some(path)) = (tls::identity(&self.tls)?, &self.tls.key) {
                let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                let text = read_secret(path).map_err(|e| SinkError::secret(path, e))?;
                let key = PrivateKey::from_pem(text.as_bytes()).map_err(|e| SinkError::secret(path, e))?;
                secure = secure.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
            }
            config = config.tls_config(secure.build());
        }
        Ok(config.build().into())
    }
}
