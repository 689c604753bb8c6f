//! The simulator behind a real socket, with hyper-util's client. Real time, so latencies are small and what
//! is awaited is bounded.

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower_gemini::sim::{Fault, Rule, SimServer, Simulator, SimulatorBuilder};

use super::*;

type HyperClient = Client<HttpConnector, Full<Bytes>>;

fn quick() -> SimulatorBuilder {
    Simulator::builder().head_latency(ms(5)).chunk_interval(ms(5))
}

fn client() -> HyperClient {
    Client::builder(TokioExecutor::new()).build_http()
}

fn to(server: &SimServer, method: &str) -> Request<Full<Bytes>> {
    let uri = format!("{}/v1beta/models/{MODEL}:{method}", server.base_url());
    Request::post(uri).body(Full::from(prompt("Hello"))).expect("a request")
}

#[tokio::test]
async fn a_client_gets_unary_and_streamed_answers() {
    let sim = quick().build().expect("valid");
    let server = sim.serve().await.expect("a port");
    let client = client();
    let unary = client.request(to(&server, "generateContent")).await.expect("an answer");
    assert!(unary.headers().contains_key("content-length"));
    let body = unary.into_body().collect().await.expect("a body").to_bytes();
    assert!(serde_json::from_slice::<Value>(&body).is_ok());
    let streamed = client.request(to(&server, "streamGenerateContent?alt=sse")).await.expect("an answer");
    assert_eq!(streamed.headers()["transfer-encoding"], "chunked");
    let body = streamed.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(String::from_utf8_lossy(&body).matches("data: ").count(), 5);
    assert!(sim.calls().iter().all(|call| !call.was_dropped() && call.ended_at().is_some()));
}

#[tokio::test]
async fn a_reset_before_the_head_closes_the_connection() {
    for fault in [Fault::reset_before_head(), Fault::connection_refused(), Fault::stalled(ms(10))] {
        let sim = quick().rule(Rule::new(fault).times(1)).build().expect("valid");
        let server = sim.serve().await.expect("a port");
        let error = client().request(to(&server, "generateContent")).await.expect_err("no head");
        assert!(!error.is_connect(), "the connection stood: {error:?}");
        let next = client().request(to(&server, "generateContent")).await.expect("the server lives on");
        assert_eq!(next.status(), 200);
    }
}

#[tokio::test]
async fn a_reset_inside_the_body_delivers_what_came_before() {
    for (fault, method, at_least) in [
        (Fault::reset_after_bytes(40), "generateContent", 40),
        (Fault::reset_after_chunks(2), "streamGenerateContent?alt=sse", 100),
    ] {
        let sim = quick().rule(fault).build().expect("valid");
        let server = sim.serve().await.expect("a port");
        let mut body = client().request(to(&server, method)).await.expect("a head").into_body();
        let mut received = 0;
        while let Ok(frame) = body.frame().await.expect("no clean end") {
            received += frame.into_data().expect("data").len();
        }
        assert!(received >= at_least, "{received}");
    }
}

#[tokio::test]
async fn a_truncated_error_ends_cleanly() {
    let sim = quick().rule(Fault::internal().truncated_at(30)).build().expect("valid");
    let server = sim.serve().await.expect("a port");
    let response = client().request(to(&server, "generateContent")).await.expect("a head");
    assert_eq!(response.status(), 500);
    assert_eq!(response.into_body().collect().await.expect("a clean end").to_bytes().len(), 30);
}

#[tokio::test]
async fn a_client_that_leaves_is_noted() {
    let sim = quick().rule(Fault::stalled_stream_after(1, secs(3_600))).build().expect("valid");
    let server = sim.serve().await.expect("a port");
    {
        let client = client();
        let mut body =
            client.request(to(&server, "streamGenerateContent?alt=sse")).await.expect("a head").into_body();
        body.frame().await.expect("a chunk").expect("no fault");
    }
    let noted = async {
        while !sim.calls()[0].was_dropped() {
            tokio::time::sleep(ms(2)).await;
        }
    };
    tokio::time::timeout(secs(10), noted).await.expect("the server sees the client leave");
}

#[tokio::test]
async fn stopping_the_server_closes_the_port_and_the_connections() {
    for by_drop in [true, false] {
        let sim = quick().rule(Fault::stalled_stream_after(1, secs(3_600))).build().expect("valid");
        let server = sim.serve().await.expect("a port");
        let addr = server.addr();
        let client = client();
        let mut body =
            client.request(to(&server, "streamGenerateContent?alt=sse")).await.expect("a head").into_body();
        body.frame().await.expect("a chunk").expect("no fault");
        if by_drop {
            drop(server);
        } else {
            server.shutdown().await;
            assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "the port is closed");
        }
        let end = tokio::time::timeout(secs(10), body.frame()).await.expect("the connection ends");
        assert!(end.expect("not a clean end").is_err());
    }
}

#[tokio::test]
async fn one_simulator_serves_many_doors() {
    let sim = quick().build().expect("valid");
    let (one, two) = (sim.serve().await.expect("a port"), sim.serve().await.expect("a port"));
    client().request(to(&one, "generateContent")).await.expect("an answer");
    client().request(to(&two, "generateContent")).await.expect("an answer");
    generate(&sim, "x").await;
    assert_eq!(sim.call_count(), 3);
}
