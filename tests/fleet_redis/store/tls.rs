//! TLS, by certificates that are made for the test. The member is this program again, since the certificates that rustls takes
//! are told by the environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use tower_gemini::fleet::RedisStore;

use super::member::{Log, Member, WINDOW, millis};
use crate::redis::{Server, free_port};

struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Files {
    /// An authority, and a server's certificate of its.
    fn make() -> Self {
        let dir = std::env::temp_dir().join(format!("tower-gemini-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = Self(dir);
        let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let dir = files.0.as_path();
        openssl(dir, &["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a test"], &new);
        openssl(dir, &["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"], &new);
        std::fs::write(files.path("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let sign =
            ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"];
        openssl(dir, &["x509", "-req", "-in", "server.csr", "-out", "server.pem"], &sign);
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

fn openssl(dir: &Path, words: &[&str], more: &[&str]) {
    let said = Command::new("openssl").current_dir(dir).args(words).args(more).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

pub(crate) async fn a_server_with_tls_is_asked_and_one_of_an_unknown_authority_is_not() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: no openssl here: install it with `apt-get install openssl`");
        assert!(std::env::var_os("TOWER_GEMINI_NEEDS_REDIS").is_none());
        return;
    }
    let files = Files::make();
    let port = free_port().to_string();
    let (cert, key, ca) = (files.path("server.pem"), files.path("server.key"), files.path("ca.pem"));
    let args = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let more = ["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no"];
    let Some(server) = Server::start(&[&args[..], &more].concat()).await else { return };
    let run = |authority: &str| {
        let said = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store::tls::member", "--nocapture"])
            .env("FLEET_TLS_PORT", &port)
            .env("SSL_CERT_FILE", authority)
            .output()
            .unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let said = run(&ca);
    assert!(said.contains("sent 3, lost 0"), "{said}");
    assert!(server.say(&["KEYS", "tg:1:{*"]).starts_with("tg:1:"));
    // The server's own certificate is no authority.
    let said = run(&cert);
    assert!(said.contains("sent 0, lost 1") && said.contains("check that the store runs"), "{said}");
}

/// No test: what the other process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of a process that the other test starts"]
async fn member() {
    let Ok(port) = std::env::var("FLEET_TLS_PORT") else { return };
    let log = Log::default();
    let store = RedisStore::new(&format!("rediss://localhost:{port}")).unwrap();
    let member = Member::new(store, &log);
    for _ in 0..3 {
        let _ = member.send(WINDOW).await;
    }
    tokio::time::sleep(millis(200)).await;
    let lost = member.told.lines("lost");
    println!("sent {}, lost {}: {lost:?}", log.lock().unwrap().len(), lost.len());
}
