//! A Redis server of a test's own: on a free port, in a directory of its own, ended with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server, which is killed when this is dropped.
pub struct Server {
    child: Option<Child>,
    pub port: u16,
    dir: PathBuf,
    args: Vec<String>,
}

impl Server {
    /// Starts one; `None`, with a line that says so, where there is no `redis-server`. CI sets `TOWER_GEMINI_NEEDS_REDIS`, and
    /// then that is a failure.
    pub async fn start(args: &[&str]) -> Option<Self> {
        let known = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        if known.is_err() {
            let hint = "no redis-server here: install it with `apt-get install redis-server`";
            assert!(std::env::var_os("TOWER_GEMINI_NEEDS_REDIS").is_none(), "{hint}");
            println!("skipped: {hint}");
            return None;
        }
        let port = if args.contains(&"--cluster-enabled") { free_cluster_port() } else { free_port() };
        let dir = std::env::temp_dir().join(format!("tower-gemini-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the server");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { child: None, port, dir, args };
        server.run().await;
        Some(server)
    }

    /// Starts it again on the same port, after [`kill`](Self::kill).
    pub async fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--dir", &self.dir.display().to_string(), "--repl-diskless-sync-delay", "0"])
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.child = Some(child);
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not listen on port {}", self.port);
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What `redis-cli` says to a command.
    pub fn say(&self, words: &[&str]) -> String {
        let said = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(words)
            .output()
            .expect("redis-cli is there with redis-server");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The same where a node of a cluster can listen 10,000 above it, too.
fn free_cluster_port() -> u16 {
    loop {
        let port = free_port();
        if port.checked_add(10_000).is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
}

/// A port that nobody listens on, and that is not the standard one.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
