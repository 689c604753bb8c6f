//! The day's counts of quotas, kept in a file over a restart.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use tower_gemini::rate_limit::{RateLimits, Snapshot};

/// The file, and what it is of. Clones share both.
#[derive(Clone)]
pub struct State {
    file: Arc<str>,
    quotas: RateLimits,
}

impl State {
    /// Restores what the file holds, if there is one. Counts of another day are left out.
    ///
    /// # Errors
    ///
    /// A sentence with the file: it cannot be read, or is none of ours. A file of somebody else is not written over.
    pub fn open(file: &str, quotas: RateLimits) -> Result<Self, String> {
        match std::fs::read(file) {
            Ok(bytes) => {
                let snapshot: Snapshot = serde_json::from_slice(&bytes)
                    .map_err(|_| format!("--state {file} must be a file that this gateway has written"))?;
                quotas
                    .restore(&snapshot)
                    .map_err(|error| format!("--state {file} cannot be restored: {error}"))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("--state {file} cannot be read: {error}")),
        }
        let state = Self { file: file.into(), quotas };
        state.write().map_err(|error| format!("--state {file} cannot be written: {error}"))?;
        Ok(state)
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
        let bytes = serde_json::to_vec(&self.quotas.snapshot()).unwrap_or_default();
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &*self.file)
    }
}
