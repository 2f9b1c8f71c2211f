//! How a PostgreSQL server is reached: a TCP or Unix socket, TLS, and a bound for what it may send at once.
//!
//! TLS is begun here and not by the client, so that the bound stands behind it: a server answers with whole rows, and
//! one row may have a gigabyte.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_rustls::TlsConnector;
use url::Url;

/// Bytes of one message of the server, which is at most one row.
pub const MAX_MESSAGE: usize = 32 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server and how to log in.
pub struct Target {
    config: Config,
    tls: Tls,
    root: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tls {
    Off,
    /// Encrypted, whoever answers.
    Required,
    /// Encrypted, and the certificate is checked.
    Verified,
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Target {
    /// # Errors
    /// When the URL cannot be understood. The error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text).map_err(|error| error.to_string())?;
        let (mut mode, mut root) = (None, None);
        let others: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, value)| match name.as_ref() {
                "sslmode" => {
                    mode = Some(value.to_string());
                    false
                }
                "sslrootcert" => {
                    root = Some(PathBuf::from(value.as_ref()));
                    false
                }
                _ => true,
            })
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        url.set_query(None);
        if !others.is_empty() {
            // The client reads `%20` and not `+`.
            let encode = |text: &str| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
            };
            let query: Vec<String> = others
                .iter()
                .map(|(name, value)| format!("{}={}", encode(name).replace("%5F", "_"), encode(value)))
                .collect();
            url.set_query(Some(&query.join("&")));
        }
        let mut config = Config::from_str(url.as_str()).map_err(|error| error.to_string())?;
        config.ssl_mode(SslMode::Disable).application_name("ryemill");
        if config.get_hosts().is_empty() {
            return Err("it names no host".to_owned());
        }
        if config.get_user().is_none() {
            return Err("it names no user".to_owned());
        }
        let local = config.get_hosts().iter().all(is_local);
        let tls = match mode.as_deref() {
            None if local => Tls::Off,
            None | Some("verify-full") => Tls::Verified,
            Some("disable") => Tls::Off,
            Some("require") => Tls::Required,
            Some(_) => return Err("sslmode must be disable, require or verify-full".to_owned()),
        };
        Ok(Self { config, tls, root })
    }

    /// A connection that is logged in, and the flag of its bound.
    pub async fn connect(&self, runtime: &Handle) -> Result<(Client, Arc<AtomicBool>), String> {
        let connected = async {
            let stream = self.stream().await?;
            let flooded: Arc<AtomicBool> = Arc::default();
            let bounded = Bounded { stream, flooded: Arc::clone(&flooded), header: [0; 5], have: 0, skip: 0 };
            let (client, connection) = self.config.connect_raw(bounded, NoTls).await.map_err(|error| {
                let cause = error.as_db_error().map(|error| error.message().to_owned());
                cause.unwrap_or_else(|| innermost(&error))
            })?;
            runtime.spawn(connection);
            Ok((client, flooded))
        };
        let place = self.place();
        match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
            Ok(result) => result.map_err(|why: String| format!("cannot connect to {place}: {why}")),
            Err(_) => Err(format!("cannot connect to {place}: no answer within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }

    /// A stream to the first host that answers, with TLS if there is to be.
    pub async fn stream(&self) -> Result<Box<dyn Stream>, String> {
        let mut last = String::new();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let ports = self.config.get_ports();
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match self.stream_to(host, port).await {
                Ok(stream) => return Ok(stream),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn stream_to(&self, host: &Host, port: u16) -> Result<Box<dyn Stream>, String> {
        match host {
            Host::Unix(folder) => {
                let stream = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await;
                Ok(Box::new(stream.map_err(|error| error.to_string())?))
            }
            Host::Tcp(name) => {
                let mut stream = TcpStream::connect((name.as_str(), port)).await.map_err(|error| error.to_string())?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                if self.tls == Tls::Off {
                    return Ok(Box::new(stream));
                }
                // The protocol's own question whether TLS may begin.
                let question = [0, 0, 0, 8, 4, 210, 22, 47];
                let answer = async {
                    stream.write_all(&question).await?;
                    stream.read_u8().await
                };
                if answer.await.map_err(|error| error.to_string())? != b'S' {
                    return Err("the server has no TLS; sslmode=disable goes without".to_owned());
                }
                let name = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
                let connector = TlsConnector::from(Arc::new(self.tls_config()?));
                let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
                Ok(Box::new(stream))
            }
        }
    }

    fn tls_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        if self.tls == Tls::Required {
            let any = Arc::new(AnyCertificate(provider));
            return Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth());
        }
        let mut roots = RootCertStore::empty();
        match &self.root {
            Some(file) => {
                let unread = |error: &dyn std::fmt::Display| format!("sslrootcert {}: {error}", file.display());
                for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unread(&error))? {
                    let certificate = certificate.map_err(|error| unread(&error))?;
                    roots.add(certificate).map_err(|error| unread(&error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// Where it is, without the password.
    fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        });
        hosts.collect::<Vec<_>>().join(", ")
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

/// For `sslmode=require`, which asks for secrecy on the wire and not who answers.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A stream of the server's messages that ends in an error before a message that is too long.
struct Bounded<S> {
    stream: S,
    flooded: Arc<AtomicBool>,
    /// Kind and length of the message that begins.
    header: [u8; 5],
    have: usize,
    /// Bytes left of the message that began.
    skip: usize,
}

impl<S> Bounded<S> {
    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(());
            }
            let taken = (self.header.len() - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.header.len() {
                let [_, length @ ..] = self.header;
                // The length counts itself.
                self.skip = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.have = 0;
                if self.skip > MAX_MESSAGE {
                    self.flooded.store(true, Ordering::Relaxed);
                    return Err(io::Error::other("a message of the server is too long"));
                }
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(task, buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(self.look(&buffer.filled()[before..])),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_on_unless_the_server_is_here() {
        for (url, tls) in [
            ("postgres://me:pw@127.0.0.1:5433/shop", Tls::Off),
            ("postgres://me@localhost/shop?sslmode=require", Tls::Required),
            ("postgres://me@db.example.com/shop", Tls::Verified),
            ("postgres://me@db.example.com/shop?sslmode=disable&connect_timeout=3", Tls::Off),
            ("postgresql://me@%2Frun%2Fpostgresql:5433/shop", Tls::Off),
        ] {
            assert_eq!(Target::parse(url).map(|target| target.tls), Ok(tls), "{url}");
        }
        for url in [
            "postgres://h/db",
            "postgres:///db",
            "postgres://me@h/db?sslmode=sometimes",
            "postgres://me@h/?x=1",
            "postgres://me@/db",
        ] {
            let error = Target::parse(url).map(|target| target.tls).unwrap_err();
            assert!(!error.contains("me@"), "{error}");
        }
    }

    #[test]
    fn a_long_message_is_seen_before_it_is_read() {
        let bounded = || Bounded { stream: (), flooded: Arc::default(), header: [0; 5], have: 0, skip: 0 };
        let mut messages = bounded();
        let mut small = vec![b'D', 0, 0, 0, 8, 1, 2, 3, 4];
        small.extend([b'C', 0, 0, 0, 4]);
        for byte in small.repeat(3) {
            messages.look(&[byte]).unwrap();
        }
        messages.look(&small.repeat(3)).unwrap();
        assert!(messages.look(&[b'D', 0x40, 0, 0, 0]).is_err());
        assert!(messages.flooded.load(Ordering::Relaxed));
    }
}
