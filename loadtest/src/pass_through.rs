//! The least a TLS reverse proxy can do: take a request, ask upstream, stream the answer back.
//!
//! Owns: a proxy from the same libraries as the gate, as the row that shows what the gate's own work costs; with `stages`,
//! rows in between.
//! Must never: be used for anything else: it has no bounds and no time-outs.
//! Look next: `site`, which starts it as a process of its own.

use crate::stages::{self, Stages};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode, Uri, header, uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
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
    #[command(flatten)]
    stages: stages::Steps,
}

/// What every request needs.
#[derive(Clone)]
struct Proxy {
    upstream: Upstream,
    address: SocketAddr,
    stages: Arc<Option<Stages>>,
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
    let stages = Stages::ready(&options.stages, options.port, &options.upstream.to_string())?;
    let proxy = Proxy { upstream, address: options.upstream, stages: Arc::new(stages) };
    let ended = tokio::signal::ctrl_c();
    let mut terminated = terminated()?;
    let serving = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(connection(acceptor.clone(), stream, proxy.clone()));
        }
    };
    tokio::select! {
        () = serving => {}
        _ = ended => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

/// The signal by which a run ends what it started.
///
/// # Errors
/// When it cannot be listened for.
pub(crate) fn terminated() -> Result<tokio::signal::unix::Signal, String> {
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

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, proxy: Proxy) {
    let _slower_only = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| forward(proxy.clone(), request));
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _client_left = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn forward(proxy: Proxy, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let (mut parts, body) = request.into_parts();
    let permit = match proxy.stages.as_ref().as_ref().map(|stages| stages.ask(&parts)) {
        None => None,
        Some(Ok(permit)) => permit,
        Some(Err(status)) => return Ok(bare(status)),
    };
    let Some(target) = target(&parts.uri, proxy.address) else { return Ok(bare(StatusCode::BAD_GATEWAY)) };
    parts.uri = target;
    parts.version = http::Version::HTTP_11;
    parts.headers.remove(header::HOST);
    let Ok(answer) = proxy.upstream.request(Request::from_parts(parts, body)).await else {
        return Ok(bare(StatusCode::BAD_GATEWAY));
    };
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::CONNECTION);
    parts.version = http::Version::default();
    let filtering =
        proxy.stages.as_ref().as_ref().filter(|stages| stages.filters() && parts.status == StatusCode::OK);
    let Some((stages, permit)) = filtering.zip(permit) else {
        return Ok(Response::from_parts(parts, body.boxed()));
    };
    let body = body.collect().await?.to_bytes();
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(match stages.filter(&permit, &body) {
        Ok(out) => {
            let out = Full::new(Bytes::from(out)).map_err(|never| match never {});
            Response::from_parts(parts, out.boxed())
        }
        Err(status) => bare(status),
    })
}

fn target(asked: &Uri, address: SocketAddr) -> Option<Uri> {
    let path = asked.path_and_query()?.clone();
    let authority = uri::Authority::try_from(address.to_string()).ok()?;
    Uri::builder().scheme(uri::Scheme::HTTP).authority(authority).path_and_query(path).build().ok()
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *answer.status_mut() = status;
    answer
}
