//! TLS of the gateway's own: either version of HTTP over it, and sockets that say nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::world::{GENERATE, Gate, HELLO, soon};

async fn secure(args: &[&str]) -> (Gate, RootCertStore, tempfile::TempDir) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let cert = format!("--tls-cert={}", file("cert.pem", certified.cert.pem()));
    let key = format!("--tls-key={}", file("key.pem", certified.signing_key.serialize_pem()));
    let all = [&["--listen=127.0.0.1:0", "--simulate", &*cert, &*key], args].concat();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    (Gate::start(&all).await, roots, dir)
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_as_the_client_asks() {
    let (gate, roots, _dir) = secure(&[]).await;
    for (alpn, version) in [(&b"h2"[..], Version::HTTP_2), (b"http/1.1", Version::HTTP_11)] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, gate.connect().await).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let io = TokioIo::new(stream);
        let request = Request::post(format!("https://localhost{GENERATE}")).header("host", "localhost");
        let request = request.body(Full::<Bytes>::from(HELLO)).unwrap();
        let answer = if version == Version::HTTP_2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            // Ten on one connection.
            let many = (0..10).map(|_| sender.clone().send_request(request.clone()));
            for answer in soon(futures_util::future::join_all(many.collect::<Vec<_>>())).await {
                assert_eq!(answer.unwrap().status(), 200);
            }
            soon(sender.send_request(request)).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            let request = request.map(|body| body);
            soon(sender.send_request(request)).await.unwrap()
        };
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(body.windows(4).any(|four| four == b"Echo"), "{body:?}");
    }
}

/// Nothing, half of a greeting, and what is no TLS at all.
#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut() {
    let (gate, ..) = secure(&["--head-time=0.5"]).await;
    for said in [&b""[..], &[22, 3, 1, 2, 0, 1, 0], b"GET / HTTP/1.1\r\nhost: gate\r\n\r\n"] {
        let mut client = gate.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut client, said).await.unwrap();
        let began = Instant::now();
        let _ = soon(client.read_to_end(&mut Vec::new())).await;
        assert!(Instant::now() - began < Duration::from_secs(3), "{said:?}: {:?}", Instant::now() - began);
    }
}
