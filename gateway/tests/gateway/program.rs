//! The gateway as a process of its own. What is measured of a process (memory, descriptors) is measured here: in the process of the
//! tests, a hundred others run at the same time, and the figure would be theirs too.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

/// The running program. Killed when dropped.
pub(crate) struct Program {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    /// Kept open, so that what the program says goes somewhere.
    _err: BufReader<ChildStderr>,
}

impl Program {
    /// Starts the program with all its defaults but these arguments and free ports.
    pub(crate) fn to(upstream: &str, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tower-gemini-gateway"))
            .args(["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log=off", "--upstream", upstream])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        err.read_line(&mut first).unwrap();
        // gateway: http://ADDR to UPSTREAM, pages at http://ADMIN/page
        let ends = [first.split("http://").nth(1), first.rsplit("http://").next()];
        let [addr, admin] = ends.map(|end| end.unwrap().split([' ', '/']).next().unwrap().parse().unwrap());
        Self { addr, admin, child, _err: err }
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }

    fn status(&self, of: &str) -> u64 {
        let status = std::fs::read_to_string(self.file("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Resident memory now, in MiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory that it had at any moment, in MiB.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(self.file("fd")).unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
