//! A sink through which one secret does not pass.

use std::io::{self, Write};

use memchr::memmem;

const INSTEAD: &[u8] = b"[key]";

/// Replaces each occurrence of a secret in what is written, also where it comes in pieces.
///
/// What could be the beginning of the secret is held back until more is written, or until [`finish`](Self::finish).
pub(crate) struct Redacted<'a> {
    inner: &'a mut dyn Write,
    secret: Vec<u8>,
    held: Vec<u8>,
}

impl<'a> Redacted<'a> {
    /// An empty secret lets everything pass.
    pub(crate) fn new(inner: &'a mut dyn Write, secret: &str) -> Self {
        Self { inner, secret: secret.as_bytes().to_vec(), held: Vec::new() }
    }

    /// Writes what was held back.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        self.inner.write_all(&held)?;
        self.inner.flush()
    }

    /// How many of the last bytes may be the secret's first.
    fn suspicious(&self) -> usize {
        let longest = self.secret.len().saturating_sub(1).min(self.held.len());
        (1..=longest).rev().find(|n| self.held.ends_with(&self.secret[..*n])).unwrap_or(0)
    }
}

impl Write for Redacted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.secret.is_empty() {
            return self.inner.write(bytes);
        }
        self.held.extend_from_slice(bytes);
        while let Some(at) = memmem::find(&self.held, &self.secret) {
            self.inner.write_all(&self.held[..at])?;
            self.inner.write_all(INSTEAD)?;
            self.held.drain(..at + self.secret.len());
        }
        let safe = self.held.len() - self.suspicious();
        self.inner.write_all(&self.held[..safe])?;
        self.held.drain(..safe);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
