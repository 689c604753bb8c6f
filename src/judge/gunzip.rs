//! Undoes the gzip coding ([RFC 1952](https://www.rfc-editor.org/rfc/rfc1952)) for the scanner, a piece at a time.

use flate2::{Decompress, FlushDecompress, Status};

use crate::scan::Scanner;

/// Decoded at once, on the stack.
const SCRATCH: usize = 8 * 1024;
/// Decoded in all. A few bytes can hold a thousand times as many, and nobody should have to wait for them.
const MAX_DECODED: u64 = 64 * 1024 * 1024;

const FLAG_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;

pub(crate) struct Gunzip {
    inflate: Decompress,
    at: At,
    /// The optional fields of the header that are still to come.
    flags: u8,
    decoded: u64,
}

#[derive(Clone, Copy)]
enum At {
    /// As many bytes of the ten that every header has.
    Head(u8),
    /// The two bytes of a length, the first of which may have been read.
    ExtraLength(Option<u8>),
    /// Bytes of the header to pass over.
    Pass(u16),
    /// Text up to a zero.
    Text,
    Deflate,
    /// As many bytes of the check sum and the length, which are not looked at.
    Trailer(u8),
    /// Not gzip, or no longer.
    Broken,
    /// Content that cannot be decoded.
    Damaged,
    TooLong,
}

impl Gunzip {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(false), at: At::Head(0), flags: 0, decoded: 0 }
    }

    /// There was more than is decoded: how the answer ended is not known.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.at, At::TooLong)
    }

    /// It is damaged. How much was decoded before depends on how the bytes were cut, so nothing is made of it.
    pub(crate) fn is_damaged(&self) -> bool {
        matches!(self.at, At::Damaged)
    }

    /// Nothing more will be decoded.
    pub(crate) fn has_stopped(&self) -> bool {
        matches!(self.at, At::Broken | At::Damaged | At::TooLong)
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], scanner: &mut Scanner) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if let At::Deflate = self.at {
                rest = self.inflate(rest, scanner);
                continue;
            }
            rest = after;
            self.at = match self.at {
                At::Head(0) if byte != 0x1f => At::Broken,
                At::Head(1) if byte != 0x8b => At::Broken,
                At::Head(2) if byte != 8 => At::Broken,
                At::Head(9) => self.next_field(),
                At::Head(n) => {
                    if n == 3 {
                        self.flags = byte;
                    }
                    At::Head(n + 1)
                }
                At::ExtraLength(None) => At::ExtraLength(Some(byte)),
                At::ExtraLength(Some(low)) => match u16::from_le_bytes([low, byte]) {
                    0 => self.next_field(),
                    n => At::Pass(n),
                },
                At::Pass(n) if n > 1 => At::Pass(n - 1),
                At::Text if byte != 0 => At::Text,
                At::Pass(_) | At::Text => self.next_field(),
                At::Trailer(n) if n < 7 => At::Trailer(n + 1),
                // Another member may follow.
                At::Trailer(_) => At::Head(0),
                At::Deflate | At::Broken | At::Damaged | At::TooLong => return,
            };
        }
    }

    /// What follows in the header, or the content.
    fn next_field(&mut self) -> At {
        for (flag, at) in [
            (FLAG_EXTRA, At::ExtraLength(None)),
            (FLAG_NAME, At::Text),
            (FLAG_COMMENT, At::Text),
            (FLAG_CRC, At::Pass(2)),
        ] {
            if self.flags & flag != 0 {
                self.flags &= !flag;
                return at;
            }
        }
        At::Deflate
    }

    /// What is left of the bytes.
    fn inflate<'a>(&mut self, bytes: &'a [u8], scanner: &mut Scanner) -> &'a [u8] {
        let mut scratch = [0; SCRATCH];
        let mut rest = bytes;
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(rest, &mut scratch, FlushDecompress::None);
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            rest = &rest[read..];
            scanner.feed(&scratch[..written]);
            self.decoded += written as u64;
            match status {
                Ok(Status::StreamEnd) => {
                    self.inflate.reset(false);
                    self.at = At::Trailer(0);
                    return rest;
                }
                Err(_) => self.at = At::Damaged,
                Ok(_) if self.decoded > MAX_DECODED => self.at = At::TooLong,
                // A full scratch may mean that there is more, without another byte.
                Ok(_) if written == SCRATCH || (read > 0 && !rest.is_empty()) => continue,
                Ok(_) if rest.is_empty() => {}
                Ok(_) => self.at = At::Damaged,
            }
            return &[];
        }
    }
}
