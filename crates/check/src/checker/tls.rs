//! TLS for checks: settings made of what the plan says, the handshake, and what a failed one means.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locum_plan::{Tls, Trust};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Answer, Shared, WaitingFor};

/// For the details of runs that take too long.
pub(crate) const SHAKING_HANDS: WaitingFor = "no TLS handshake";

/// Certificates are read again after so long: a CA or an identity that was renewed is taken up.
const FRESH: Duration = Duration::from_secs(60);

/// Configurations of one plan; beyond, those that nobody uses now are forgotten.
const MOST: usize = 256;

/// What the certificates on this host have been made into, for all probes that use the same; whose
/// server they ask by which name is all the same to it.
#[derive(Default, Debug)]
pub(crate) struct Configurations(Mutex<HashMap<(Tls, bool), Arc<ConfigSlot>>>);

/// Locked by whoever reads the files: thousands of probes read them once, and what hangs on a disk that
/// is stuck is one thread.
type ConfigSlot = tokio::sync::Mutex<Option<(Instant, Arc<ClientConfig>)>>;

impl Configurations {
    async fn get(
        &self,
        settings: &Tls,
        is_http2: bool,
        shared: &Shared,
    ) -> Result<Arc<ClientConfig>, Answer> {
        let unnamed = Tls { name: None, ..settings.clone() };
        let mut slot = self.slot(&unnamed, is_http2).lock_owned().await;
        if let Some((read, config)) = &*slot
            && read.elapsed() < FRESH
        {
            return Ok(Arc::clone(config));
        }
        // On a thread of its own: a dead file server must not keep other probes waiting.
        let work = move || {
            let config = Arc::new(build(&unnamed, is_http2)?);
            *slot = Some((Instant::now(), Arc::clone(&config)));
            Ok(config)
        };
        let built = match shared.readers.begin(work).await {
            Ok(receiver) => receiver.await.map_err(|error| error.to_string()),
            Err(error) => Err(format!("no thread to read certificates on: {error}")),
        };
        built.and_then(|built| built).map_err(Answer::unasked)
    }

    fn slot(&self, settings: &Tls, is_http2: bool) -> Arc<ConfigSlot> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (settings.clone(), is_http2);
        if known.len() >= MOST && !known.contains_key(&key) {
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(known.entry(key).or_default())
    }
}

/// Shakes hands. `host` is the Host header of what will be asked.
pub(crate) async fn wrap(
    stream: TcpStream,
    settings: &Tls,
    is_http2: bool,
    host: &str,
    target: SocketAddr,
    shared: &Shared,
) -> Result<TlsStream<TcpStream>, Answer> {
    let config = shared.certificates.get(settings, is_http2, shared).await?;
    let name = name(settings, host, target)?;
    let shaken = TlsConnector::from(config).connect(name.clone(), stream).await;
    let stream = shaken.map_err(|error| unshaken(&error, &name))?;
    if is_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(Answer::fail("the server does not speak HTTP/2: it did not choose h2"));
    }
    Ok(stream)
}

/// The name that is sent and looked for.
fn name(settings: &Tls, host: &str, target: SocketAddr) -> Result<ServerName<'static>, Answer> {
    if let Some(name) = &settings.name {
        return ServerName::try_from(name.clone())
            .map_err(|_| Answer::unasked(format!("\"{name}\" is no name for TLS")));
    }
    let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let named = ServerName::try_from(bare.to_owned()).ok();
    Ok(named.unwrap_or_else(|| ServerName::from(target.ip())))
}

fn build(settings: &Tls, is_http2: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?;
    let builder = match &settings.trust {
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::File(path) => builder.with_root_certificates(roots_of(path)?),
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        }
    };
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{}: no key in PEM: {error}", key.display()))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                format!("{} and {}: {error}", certificate.display(), key.display())
            })?
        }
    };
    config.enable_sni = settings.sends_name;
    config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    // A session that is resumed proves nothing of the certificate that the server has now.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some that nobody can read are usual among those of a distribution.
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(roots),
        (true, Some(error)) => Err(format!("no certificates of authorities on this host: {error}")),
        (true, None) => Err("no certificates of authorities on this host: install \
                             ca-certificates, or name a file with `ca`"
            .to_owned()),
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read().map_err(|error| format!("{}: {error}", path.display()))?;
    match found.is_empty() {
        true => Err(format!("{}: no certificate in PEM", path.display())),
        false => Ok(found),
    }
}

/// What an error of a connection means on which TLS may be spoken; `name` is that of the server, where
/// it is known.
pub(crate) fn refusal(error: &io::Error, name: Option<&ServerName<'_>>) -> Answer {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return super::dial::refusal(error);
    };
    Answer::fail(match inner {
        Error::InvalidCertificate(reason) => certificate(reason, name),
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => {
            format!("not a TLS answer: {inner}")
        }
        _ => format!("TLS: {inner}"),
    })
}

/// The handshake did not come to an end.
fn unshaken(error: &io::Error, name: &ServerName<'_>) -> Answer {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Answer::fail("the server closed the connection in the TLS handshake")
        }
        _ => refusal(error, Some(name)),
    }
}

fn certificate(reason: &CertificateError, name: Option<&ServerName<'_>>) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    match (reason, name) {
        (Expired | ExpiredContext { .. }, _) => "its certificate has expired".to_owned(),
        (NotValidYet | NotValidYetContext { .. }, _) => {
            "its certificate is not valid yet: is the clock of this host right?".to_owned()
        }
        (NotValidForName | NotValidForNameContext { .. }, Some(name)) => {
            format!("its certificate is not for {}", name.to_str())
        }
        // Of another authority with the same name: the same fault.
        (UnknownIssuer | BadSignature, _) => {
            "its certificate is signed by nobody who is trusted here: name the authority with `ca`"
                .to_owned()
        }
        (_, _) => format!("its certificate is refused: {reason}"),
    }
}

/// Takes any certificate, as long as the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
