//! The day's counts of quotas and the limits that 429s have named, kept in a file over a restart.

use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tower_gemini::rate_limit::{RateLimits, Snapshot};

use crate::quota::Secret;

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// What callers' keys are told apart by, so that the next process finds the same labels. Made at random; with it nobody finds a key.
    salt: String,
    quotas: Snapshot,
}

/// As many bits as a label has.
fn salt() -> String {
    (0..4_u8).map(|n| format!("{:016x}", RandomState::new().hash_one(n))).collect()
}

/// The file, and what it is of. Clones share both.
#[derive(Clone)]
pub struct State {
    file: Arc<str>,
    salt: Arc<str>,
    quotas: RateLimits,
}

impl State {
    /// Restores what the file holds, if there is one. Counts of another day are left out.
    ///
    /// # Errors
    ///
    /// A sentence with the file: it cannot be read, or is none of ours. A file of somebody else is not written over.
    pub fn open(file: &str, quotas: RateLimits) -> Result<Self, String> {
        let salt = match std::fs::read(file) {
            Ok(bytes) => {
                let kept: Kept = serde_json::from_slice(&bytes)
                    .map_err(|_| format!("--state {file} must be a file that this gateway has written"))?;
                quotas
                    .restore(&kept.quotas)
                    .map_err(|error| format!("--state {file} cannot be restored: {error}"))?;
                kept.salt
            }
            Err(error) if error.kind() == ErrorKind::NotFound => salt(),
            Err(error) => return Err(format!("--state {file} cannot be read: {error}")),
        };
        let state = Self { file: file.into(), salt: salt.into(), quotas };
        state.write().map_err(|error| format!("--state {file} cannot be written: {error}"))?;
        Ok(state)
    }

    /// What callers' keys are hashed with.
    pub fn secret(&self) -> Secret {
        Secret::new(&self.salt)
    }

    /// Writes what is counted now. Says on stderr if that fails: the next time it may not.
    pub fn save(&self) {
        if let Err(error) = self.write() {
            let _ = writeln!(std::io::stderr(), "gateway: --state {} cannot be written: {error}", self.file);
        }
    }

    /// In one step, so that no reader and no crash finds half of it.
    fn write(&self) -> std::io::Result<()> {
        let new = format!("{}.new", self.file);
        let kept = Kept { salt: self.salt.to_string(), quotas: self.quotas.snapshot() };
        let bytes = serde_json::to_vec(&kept).unwrap_or_default();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &*self.file)
    }
}
