//! The pure part: which frames are kept, and when they are let go. No lock, no waker, no inner body.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

/// How many frames are kept whatever their size. See [`Tape::max_frames`].
const FREE_FRAMES: usize = 1024;

#[derive(Clone, Debug)]
pub(super) enum Kept {
    Data(Bytes),
    // Boxed, because there is one at most and a `HeaderMap` is three times as large as `Bytes`.
    Trailers(Box<HeaderMap>),
}

impl Kept {
    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }

    /// Trailers count as well, else a body of nothing but headers would be kept for free.
    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
            }
        }
    }
}

/// What has to be done with a frame that has just been taken from the inner body.
#[derive(Debug, PartialEq)]
pub(super) enum Recorded {
    /// It was kept, or there was nothing in it to keep.
    Kept,
    /// It was not kept: from now on the body cannot be repeated.
    Passed,
    /// It did not fit. Everything that was kept is handed back for freeing.
    Overflowed,
}

#[derive(Debug)]
pub(super) struct Tape {
    max_bytes: usize,
    /// Frames `gone .. gone + frames.len()` of the body, in order. Empty data frames are neither kept nor
    /// counted.
    frames: VecDeque<Kept>,
    /// How many frames were taken from the inner body and are not here any more. A copy that needs one
    /// of them is lost, so "lost" is `next < gone` and needs no flag of its own.
    gone: usize,
    /// The bytes of `frames`, at most `max_bytes`.
    kept: usize,
    /// All data bytes ever taken from the inner body, whether kept or not: with the bytes that a copy has
    /// delivered, this is what it still has to deliver before the inner body's own rest.
    pulled: u64,
    /// Whether new frames are kept. Once false, it stays false.
    keeping: bool,
}

impl Tape {
    /// A body whose size is known to exceed the limit is not kept at all, instead of up to the limit.
    pub(super) fn new(max_bytes: usize, announced: u64) -> Self {
        let keeping = usize::try_from(announced).is_ok_and(|bytes| bytes <= max_bytes);
        Self { max_bytes, frames: VecDeque::new(), gone: 0, kept: 0, pulled: 0, keeping }
    }

    /// The number of the frame that the inner body yields next.
    pub(super) fn end(&self) -> usize {
        self.gone + self.frames.len()
    }

    pub(super) fn gone(&self) -> usize {
        self.gone
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept
    }

    pub(super) fn pulled_bytes(&self) -> u64 {
        self.pulled
    }

    /// Bounds what many tiny frames cost beside their bytes: about 32 bytes each in the queue, so that the
    /// whole stays below twice the limit.
    fn max_frames(&self) -> usize {
        FREE_FRAMES.saturating_add(self.max_bytes / 64)
    }

    /// The data of all frames there ever were, if all of them are here.
    pub(super) fn data(&self) -> Option<Bytes> {
        let mut frames = self.frames.iter().filter_map(|frame| match frame {
            Kept::Data(data) => Some(data),
            Kept::Trailers(_) => None,
        });
        match (self.gone, frames.next(), frames.next()) {
            (1.., ..) => None,
            (0, None, _) => Some(Bytes::new()),
            (0, Some(only), None) => Some(only.clone()),
            (0, Some(first), Some(second)) => {
                let mut all = BytesMut::with_capacity(self.kept);
                [first, second].into_iter().chain(frames).for_each(|data| all.extend_from_slice(data));
                Some(all.freeze())
            }
        }
    }

    /// Frame number `next`, if it is here.
    pub(super) fn get(&self, next: usize) -> Option<Kept> {
        self.frames.get(next.checked_sub(self.gone)?).cloned()
    }

    /// Takes note of the frame with the number `end()`. What has to be freed goes to `swept`.
    pub(super) fn record(&mut self, frame: &Kept, swept: &mut VecDeque<Kept>) -> Recorded {
        let bytes = frame.bytes();
        if let Kept::Data(_) = frame {
            if bytes == 0 {
                return Recorded::Kept;
            }
            self.pulled = self.pulled.saturating_add(bytes as u64);
        }
        if !self.keeping {
            // The taker stands at the end, so whatever is left lies behind it.
            self.forget_all(swept);
            self.gone += 1;
            return Recorded::Passed;
        }
        let fits = self.kept.checked_add(bytes).is_some_and(|sum| sum <= self.max_bytes)
            && self.frames.len() < self.max_frames();
        if !fits {
            self.forget_all(swept);
            self.gone += 1;
            return Recorded::Overflowed;
        }
        self.kept += bytes;
        self.frames.push_back(frame.clone());
        Recorded::Kept
    }

    /// Takes note of a frame that cannot be copied.
    pub(super) fn record_unknown(&mut self, swept: &mut VecDeque<Kept>) {
        self.forget_all(swept);
        self.gone += 1;
    }

    /// Keeps nothing new, and lets go of the frames before `next`.
    pub(super) fn release(&mut self, next: usize, swept: &mut VecDeque<Kept>) {
        self.keeping = false;
        while self.gone < next {
            let Some(frame) = self.frames.pop_front() else { break };
            self.kept -= frame.bytes();
            self.gone += 1;
            swept.push_back(frame);
        }
    }

    /// Lets go of everything, for good.
    pub(super) fn forget_all(&mut self, swept: &mut VecDeque<Kept>) {
        self.gone = self.end();
        self.kept = 0;
        self.keeping = false;
        if swept.is_empty() {
            *swept = std::mem::take(&mut self.frames);
        } else {
            swept.append(&mut self.frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(len: usize) -> Kept {
        Kept::Data(Bytes::from(vec![0; len]))
    }

    #[test]
    fn the_limit_is_inclusive() {
        let (mut tape, mut swept) = (Tape::new(4, 0), VecDeque::new());
        assert_eq!(tape.record(&data(3), &mut swept), Recorded::Kept);
        assert_eq!(tape.record(&data(1), &mut swept), Recorded::Kept);
        assert_eq!(tape.kept_bytes(), 4);
        assert_eq!(tape.record(&data(1), &mut swept), Recorded::Overflowed);
        assert_eq!((tape.kept_bytes(), tape.gone(), tape.end(), swept.len()), (0, 3, 3, 2));
        assert_eq!(tape.record(&data(1), &mut swept), Recorded::Passed);
        assert_eq!(tape.pulled_bytes(), 6);
    }

    #[test]
    fn tiny_frames_are_bounded_by_their_number() {
        let (mut tape, mut swept) = (Tape::new(64 * 1024, 0), VecDeque::new());
        let kept = (0..).take_while(|_| tape.record(&data(1), &mut swept) == Recorded::Kept).count();
        assert_eq!(kept, 1024 + 1024);
    }

    #[test]
    fn an_announced_size_above_the_limit_is_never_kept() {
        let (mut tape, mut swept) = (Tape::new(4, 5), VecDeque::new());
        assert_eq!(tape.record(&data(1), &mut swept), Recorded::Passed);
        assert!(swept.is_empty());
    }

    #[test]
    fn trailers_count() {
        let mut trailers = HeaderMap::new();
        trailers.insert("abc", http::HeaderValue::from_static("de"));
        let trailers = Kept::Trailers(Box::new(trailers));
        let (mut tape, mut swept) = (Tape::new(4, 0), VecDeque::new());
        assert_eq!(tape.record(&trailers, &mut swept), Recorded::Overflowed);
        assert_eq!(Tape::new(5, 0).record(&trailers, &mut swept), Recorded::Kept);
        assert_eq!(tape.pulled_bytes(), 0, "the length of a body is that of its data");
    }

    #[test]
    fn releasing_lets_go_of_what_was_read() {
        let (mut tape, mut swept) = (Tape::new(9, 0), VecDeque::new());
        for _ in 0..3 {
            tape.record(&data(2), &mut swept);
        }
        tape.release(2, &mut swept);
        assert_eq!((tape.kept_bytes(), tape.gone(), tape.end()), (2, 2, 3));
        assert!(tape.get(1).is_none());
        assert!(tape.get(2).is_some());
        assert_eq!(tape.record(&data(2), &mut swept), Recorded::Passed);
        assert_eq!((tape.kept_bytes(), tape.gone(), tape.end()), (0, 4, 4));
    }
}
