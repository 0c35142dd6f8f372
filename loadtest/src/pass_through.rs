//! The least a TLS reverse proxy can do: take a request, ask upstream, stream the answer back.
//!
//! Owns: a proxy from the same libraries as the gate, as the row that shows what the gate's own work costs.
//! Must never: be used for anything else: it has no bounds and no time-outs.
//! Look next: `site`, which starts it as a process of its own.

use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode, Uri, header, uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// `pass-through --port P --certificate F --private-key F --upstream HOST:PORT`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Loopback port to listen on
    #[arg(long)]
    port: u16,
    /// Chain, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// Key, PEM
    #[arg(long)]
    private_key: PathBuf,
    /// Address of the upstream, plain HTTP
    #[arg(long)]
    upstream: SocketAddr,
}

type Upstream = Client<HttpConnector, Incoming>;
type Body = BoxBody<Bytes, hyper::Error>;

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Serves until the process is ended.
///
/// # Errors
/// When it cannot begin.
pub(crate) async fn run(options: &Options) -> Result<(), String> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(options)?));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await.map_err(text)?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let upstream: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let ended = tokio::signal::ctrl_c();
    let mut terminated = terminated()?;
    let serving = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(connection(acceptor.clone(), stream, upstream.clone(), options.upstream));
        }
    };
    tokio::select! {
        () = serving => {}
        _ = ended => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

fn terminated() -> Result<tokio::signal::unix::Signal, String> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(text)
}

fn server_config(options: &Options) -> Result<ServerConfig, String> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&options.certificate).map_err(text)?.collect();
    let key = PrivateKeyDer::from_pem_file(&options.private_key).map_err(text)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(text)?;
    let mut config =
        builder.with_no_client_auth().with_single_cert(chain.map_err(text)?, key).map_err(text)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, upstream: Upstream, address: SocketAddr) {
    let _slower_only = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| forward(upstream.clone(), address, request));
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _client_left = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn forward(
    upstream: Upstream,
    address: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let Some(target) = target(request.uri(), address) else { return Ok(bad_gateway()) };
    *request.uri_mut() = target;
    *request.version_mut() = http::Version::HTTP_11;
    request.headers_mut().remove(header::HOST);
    match upstream.request(request).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            parts.headers.remove(header::CONNECTION);
            parts.version = http::Version::default();
            Ok(Response::from_parts(parts, body.boxed()))
        }
        Err(_) => Ok(bad_gateway()),
    }
}

fn target(asked: &Uri, address: SocketAddr) -> Option<Uri> {
    let path = asked.path_and_query()?.clone();
    let authority = uri::Authority::try_from(address.to_string()).ok()?;
    Uri::builder().scheme(uri::Scheme::HTTP).authority(authority).path_and_query(path).build().ok()
}

fn bad_gateway() -> Response<Body> {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
