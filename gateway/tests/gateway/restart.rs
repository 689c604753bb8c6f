//! A restart under a socket that somebody else keeps open, as systemd does.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{GENERATE, HELLO, soon};

/// Keeps a socket, and hands it to one gateway after the other: each line on its input is a restart. Says the port, and each exit code.
const KEEPER: &str = r#"
import os, signal, socket, sys
kept = socket.socket()
kept.bind(("127.0.0.1", 0))
kept.listen(256)
print(kept.getsockname()[1], flush=True)
def start():
    pid = os.fork()
    if pid == 0:
        os.dup2(kept.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        os.execv(sys.argv[1], sys.argv[1:])
    return pid
pid = start()
for line in sys.stdin:
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    pid = start()
os.kill(pid, signal.SIGTERM)
os.waitpid(pid, 0)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_a_kept_socket_lose_no_call() {
    let mut keeper = Command::new("python3")
        .args(["-c", KEEPER, env!("CARGO_BIN_EXE_tower-gemini-gateway")])
        .args(["--simulate", "--admin=off", "--log=off", "--listen=127.0.0.1:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut restart = keeper.stdin.take().unwrap();
    let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
    let mut line = move || lines.next().unwrap().unwrap();
    let port = line();
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            let addr = format!("127.0.0.1:{port}");
            tokio::spawn(async move {
                let length = HELLO.len();
                let text = format!(
                    "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
                );
                while !over.load(Ordering::Relaxed) {
                    let mut client = TcpStream::connect(&addr).await.unwrap();
                    client.write_all(text.as_bytes()).await.unwrap();
                    let mut seen = Vec::new();
                    soon(client.read_to_end(&mut seen)).await.unwrap();
                    assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        // Each has answered something.
        let before = answered.load(Ordering::Relaxed);
        soon(async {
            while answered.load(Ordering::Relaxed) < before + 20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        restart.write_all(b"again\n").unwrap();
        let code = tokio::task::block_in_place(&mut line);
        assert_eq!(code, "0");
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        soon(caller).await.unwrap();
    }
    drop(restart);
    keeper.wait().unwrap();
}
