//! A gateway on a loopback port, an upstream that says what it is told to, and clients that see every byte.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use tower_gemini_gateway::Gateway;
use tower_gemini_gateway::settings::{Command, Settings, parse};

/// Longer than anything here may take, so that a test fails and does not hang.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it hangs")
}

// ===== the gateway =====

/// What was written so far. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

pub(crate) struct Gate {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) log: Written,
    stop: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

pub(crate) fn settings(args: &[&str]) -> Settings {
    match parse(args.iter().map(OsString::from), |_| None).unwrap() {
        Command::Run(settings, _) => *settings,
        other => panic!("{other:?}"),
    }
}

impl Gate {
    pub(crate) async fn to(upstream: &str, args: &[&str]) -> Self {
        let mut all = vec!["--listen=127.0.0.1:0", "--upstream", upstream];
        all.extend(args);
        Self::start(&all).await
    }

    pub(crate) async fn start(args: &[&str]) -> Self {
        let log = Written::default();
        let mut all = vec!["--admin=127.0.0.1:0"];
        all.extend(args);
        let gateway = Gateway::start(&settings(&all), Box::new(log.clone())).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (addr, admin) = (gateway.addr, gateway.admin_addr().unwrap());
        let task = tokio::spawn(gateway.run(async move { drop(stopped.await) }));
        Self { addr, admin, log, stop, task }
    }

    /// How many connections were cut.
    pub(crate) async fn stop(self) -> usize {
        let _ = self.stop.send(());
        soon(self.task).await.unwrap()
    }

    /// What it has logged in the end.
    pub(crate) async fn logged(self) -> String {
        let log = self.log.clone();
        self.stop().await;
        log.text()
    }

    /// From the administrators' listener.
    pub(crate) async fn page(&self, target: &str) -> Answer {
        page(self.admin, target).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends these bytes, and reads until the gateway closes.
    pub(crate) async fn say(&self, bytes: impl AsRef<[u8]>) -> Answer {
        said(self.connect().await, bytes).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.say(format!("GET {target} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n")).await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Answer {
        let length = body.len();
        self.say(format!(
            "POST {target} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: {KEY}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

/// From the administrators' listener at this address.
pub(crate) async fn page(admin: SocketAddr, target: &str) -> Answer {
    let get = format!("GET {target} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n");
    said(TcpStream::connect(admin).await.unwrap(), get).await
}

/// Sends these bytes, and reads until the other side closes.
async fn said(mut stream: TcpStream, bytes: impl AsRef<[u8]>) -> Answer {
    // Whoever is refused in mid-sentence cannot say the rest.
    let _ = stream.write_all(bytes.as_ref()).await;
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    Answer::read(&all)
}

pub(crate) const KEY: &str = "AIzaSyTHIS-is-a-key-of-nobody_0123456789";
pub(crate) const GENERATE: &str = "/v1beta/models/gemini-3.5-flash-lite:generateContent";
pub(crate) const HELLO: &str = r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#;

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Names and values in their order, without the `date`, `connection` and `x-request-id` of the gateway's own.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    fn read(all: &[u8]) -> Self {
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("no head") + 4;
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .filter(|(name, _)| !["date", "connection", "x-request-id"].contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut body = Bytes::copy_from_slice(&all[end..]);
        if headers.iter().any(|(name, _)| name == "transfer-encoding") {
            body = unchunked(&body);
        }
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Asserts that it is an error in Google's form, and gives the error.
    pub(crate) fn google(&self) -> Value {
        assert!(self.header("content-type").is_some_and(|v| v.starts_with("application/json")), "{self:?}");
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["error"]["code"], self.status.as_u16(), "{self:?}");
        assert!(body["error"]["status"].is_string() && body["error"]["message"].is_string(), "{self:?}");
        body["error"].clone()
    }
}

fn unchunked(mut body: &[u8]) -> Bytes {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
        if size == 0 {
            return whole.into();
        }
    }
}

// ===== the upstream =====

/// One call that an [`Upstream`] received, on a connection of its own.
pub(crate) struct Call {
    /// The head, as it came.
    pub(crate) head: String,
    stream: TcpStream,
    /// Of the body, what came with the head.
    read: Vec<u8>,
}

impl Call {
    /// The first line.
    pub(crate) fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap()
    }

    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        self.head.trim_end().split("\r\n").skip(1).map(|line| line.split_once(": ").unwrap()).collect()
    }

    /// The body of a call that says its length.
    pub(crate) async fn body(&mut self) -> Vec<u8> {
        let length = self.headers().iter().find(|(name, _)| *name == "content-length").map(|(_, n)| *n);
        let length = length.map_or(0, |n| n.parse().unwrap());
        while self.read.len() < length {
            assert!(soon(self.stream.read_buf(&mut self.read)).await.unwrap() > 0, "cut");
        }
        std::mem::take(&mut self.read)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The error is a connection that the gateway has cut.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        soon(self.stream.write_all(bytes)).await
    }

    /// Waits for the head of the next call on this connection.
    pub(crate) async fn next(&mut self) -> &Self {
        let mut read = std::mem::take(&mut self.read);
        while !read.ends_with(b"\r\n\r\n") {
            assert!(soon(self.stream.read_buf(&mut read)).await.unwrap() > 0, "closed");
        }
        self.head = String::from_utf8(read).unwrap();
        self
    }

    /// Waits until the gateway closes the connection.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // Closed in good order or not.
        let _ = soon(self.stream.read_to_end(&mut rest)).await;
    }
}

/// Hands over each call as soon as its head is there.
pub(crate) struct Upstream {
    pub(crate) url: String,
    calls: mpsc::UnboundedReceiver<Call>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, calls) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    let end = loop {
                        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                            break end + 4;
                        }
                        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                            return;
                        }
                    };
                    let head = String::from_utf8_lossy(&read[..end]).into_owned();
                    let _ = sender.send(Call { head, stream, read: read.split_off(end) });
                });
            }
        });
        Self { url, calls }
    }

    pub(crate) async fn call(&mut self) -> Call {
        soon(self.calls.recv()).await.unwrap()
    }

    /// Whether nobody calls for that long.
    pub(crate) async fn is_quiet(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.calls.recv()).await.is_err()
    }

    /// Answers the next call with these bytes and closes. The call.
    pub(crate) async fn answer(&mut self, bytes: impl AsRef<[u8]>) -> Call {
        let mut call = self.call().await;
        let body = call.body().await;
        call.send(bytes).await;
        let _ = call.stream.shutdown().await;
        call.read = body;
        call
    }
}

/// An answer with this body, said to be the last on its connection.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}
