//! The pieces of one body, and how far each of its readers has come. Pure: no lock, no waker, no clock.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderMap;

/// What a piece costs beside its data, so that many small ones are bounded, too.
pub(super) const PIECE: usize = 64;

/// A frame that can be handed out more than once.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn cost(&self) -> usize {
        PIECE
            + match self {
                Self::Data(data) => data.len(),
                Self::Trailers(map) => {
                    map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
                }
            }
    }
}

/// What a reader is given.
#[derive(Debug)]
pub(super) enum Next {
    Piece(Piece),
    /// It has read everything that there is.
    Nothing,
    /// It was so many bytes behind that its pieces are gone.
    Behind(usize),
}

/// Holds each piece until all readers have it, within a bound.
///
/// Until more than `max` bytes have come, everything is kept from the first piece on, and a newcomer can join. Then it is closed to newcomers,
/// what all have read is dropped, and while more than `max` are held, those who are furthest behind lose their places. The newest piece is held in any case.
#[derive(Debug)]
pub(super) struct Tape {
    pieces: VecDeque<Slot>,
    /// The number of the first piece in `pieces`.
    base: usize,
    held: usize,
    max: usize,
    open: bool,
    readers: Vec<Option<Reader>>,
    /// Places of `readers` that are empty.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    piece: Piece,
    cost: usize,
    /// Readers who have yet to read it.
    unread: usize,
}

#[derive(Clone, Copy, Debug)]
enum Reader {
    /// The piece that it reads next.
    At(usize),
    Behind(usize),
}

impl Tape {
    pub(super) fn new(max: usize) -> Self {
        Self {
            pieces: VecDeque::new(),
            base: 0,
            held: 0,
            max,
            open: true,
            readers: Vec::new(),
            free: Vec::new(),
        }
    }

    /// A further reader, from the first piece on; `None` where that is gone.
    pub(super) fn join(&mut self) -> Option<usize> {
        if !self.open {
            return None;
        }
        self.pieces.iter_mut().for_each(|slot| slot.unread += 1);
        let reader = Some(Reader::At(self.base));
        Some(match self.free.pop() {
            Some(id) => {
                self.readers[id] = reader;
                id
            }
            None => {
                self.readers.push(reader);
                self.readers.len() - 1
            }
        })
    }

    /// Whether newcomers find the first piece.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn readers(&self) -> usize {
        self.readers.len() - self.free.len()
    }

    #[cfg(test)]
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// No newcomers from now on.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.release();
    }

    pub(super) fn push(&mut self, piece: Piece) {
        let end = self.base + self.pieces.len();
        let cost = piece.cost();
        let unread = self.readers.iter().filter(|reader| matches!(reader, Some(Reader::At(_)))).count();
        self.held += cost;
        self.pieces.push_back(Slot { piece, cost, unread });
        if self.held <= self.max {
            // Should nobody be left to read it.
            self.release();
            return;
        }
        self.close();
        while self.held > self.max && self.pieces.len() > 1 {
            let (base, held) = (self.base, self.held);
            for id in 0..self.readers.len() {
                if let Some(Reader::At(at)) = self.readers[id] {
                    if at == base && at < end {
                        self.unread(at);
                        self.readers[id] = Some(Reader::Behind(held));
                    }
                }
            }
            self.release();
        }
    }

    pub(super) fn next(&mut self, id: usize) -> Next {
        match self.readers[id] {
            Some(Reader::At(at)) => {
                let Some(slot) = self.pieces.get_mut(at - self.base) else { return Next::Nothing };
                slot.unread -= 1;
                let piece = slot.piece.clone();
                self.readers[id] = Some(Reader::At(at + 1));
                self.release();
                Next::Piece(piece)
            }
            Some(Reader::Behind(bytes)) => Next::Behind(bytes),
            None => Next::Nothing,
        }
    }

    /// Whether this reader has lost its place.
    pub(super) fn is_behind(&self, id: usize) -> bool {
        matches!(self.readers.get(id), Some(Some(Reader::Behind(_))))
    }

    /// Whether this reader has read everything that there is.
    pub(super) fn is_at_end(&self, id: usize) -> bool {
        matches!(self.readers.get(id), Some(Some(Reader::At(at))) if at - self.base >= self.pieces.len())
    }

    /// A reader goes.
    pub(super) fn leave(&mut self, id: usize) {
        if let Some(reader) = self.readers.get_mut(id).and_then(Option::take) {
            if let Reader::At(at) = reader {
                self.unread(at);
            }
            self.free.push(id);
            self.release();
        }
    }

    /// One reader less for each piece from this one on.
    fn unread(&mut self, from: usize) {
        self.pieces.iter_mut().skip(from - self.base).for_each(|slot| slot.unread -= 1);
    }

    fn release(&mut self) {
        if self.open {
            return;
        }
        while self.pieces.front().is_some_and(|slot| slot.unread == 0) {
            if let Some(slot) = self.pieces.pop_front() {
                self.held -= slot.cost;
                self.base += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Join,
        Push(usize),
        Read(usize),
        Leave(usize),
        Close,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            2 => Just(Op::Join),
            4 => (0_usize..300).prop_map(Op::Push),
            8 => (0_usize..6).prop_map(Op::Read),
            1 => (0_usize..6).prop_map(Op::Leave),
            1 => Just(Op::Close),
        ];
        proptest::collection::vec(op, 1..120)
    }

    proptest! {
        // Whoever stays reads exactly what was pushed, from the first byte on, or is told that it is behind; and what is held is bounded.
        #[test]
        fn each_reader_reads_all_or_is_told(ops in ops(), max in 100_usize..1500) {
            let mut tape = Tape::new(max);
            let mut pushed: Vec<usize> = Vec::new();
            // Per person: its id and how many pieces it has read; `None` after it went.
            let mut people: Vec<Option<(usize, usize)>> = Vec::new();
            for op in ops {
                match op {
                    Op::Join => {
                        let joined = tape.join();
                        prop_assert_eq!(joined.is_some(), tape.is_open());
                        people.extend(joined.map(|id| Some((id, 0))));
                    }
                    Op::Push(len) => {
                        pushed.push(len);
                        let newest = len + PIECE;
                        tape.push(Piece::Data(Bytes::from(vec![0; len])));
                        prop_assert!(tape.held() <= max.max(newest), "{} of {max}", tape.held());
                    }
                    Op::Read(who) => {
                        let Some(Some((id, read))) = people.get_mut(who) else { continue };
                        match tape.next(*id) {
                            Next::Piece(Piece::Data(data)) => {
                                prop_assert_eq!(data.len(), pushed[*read]);
                                *read += 1;
                            }
                            Next::Piece(Piece::Trailers(_)) => prop_assert!(false, "none was pushed"),
                            Next::Nothing => prop_assert_eq!(*read, pushed.len()),
                            Next::Behind(bytes) => {
                                // It truly was: what it has not read is more than the bound.
                                let unread: usize = pushed[*read..].iter().map(|len| len + PIECE).sum();
                                prop_assert!(bytes > max && unread > max);
                            }
                        }
                    }
                    Op::Leave(who) => {
                        let Some(slot) = people.get_mut(who) else { continue };
                        if let Some((id, _)) = slot.take() {
                            tape.leave(id);
                        }
                    }
                    Op::Close => tape.close(),
                }
                let here = people.iter().flatten().count();
                prop_assert_eq!(tape.readers(), here);
                if here == 0 && !tape.is_open() {
                    prop_assert_eq!(tape.held(), 0, "nobody is there to read it");
                }
            }
        }
    }
}
