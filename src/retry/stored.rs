//! A request in store for another attempt. Pure.
//!
//! Nearly every call succeeds, so what counts is what it costs to keep a request that is thrown away. A `HeaderMap` is copied in two
//! allocations and one more for each value that is neither static nor shared; here all names and values lie in one
//! block, and are made headers again when an attempt has failed.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, Request, Uri, Version};

/// A request that can be sent again.
pub(super) enum Stored<B> {
    /// There is none: the last attempt has it.
    Gone,
    Packed(Packed<B>),
    /// As it was: an attempt has failed.
    Whole(Box<Request<B>>),
}

pub(super) struct Packed<B> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: PackedHeaders,
    extensions: Extensions,
    body: B,
}

impl<B: Clone> Packed<B> {
    /// Without the extensions where they are kept elsewhere.
    #[inline(always)]
    pub(super) fn new(request: &Request<B>, with_extensions: bool) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: PackedHeaders::new(request.headers()),
            extensions: if with_extensions { request.extensions().clone() } else { Extensions::new() },
            body: request.body().clone(),
        }
    }
}

impl<B> Packed<B> {
    fn unpack(self) -> Request<B> {
        let Self { method, uri, version, headers, extensions, body } = self;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers.unpack();
        *request.extensions_mut() = extensions;
        request
    }
}

impl<B> Stored<B> {
    /// The request, if it is here.
    #[cold]
    pub(super) fn get(&mut self) -> Option<&Request<B>> {
        if let Self::Packed(_) = self {
            if let Self::Packed(packed) = std::mem::replace(self, Self::Gone) {
                *self = Self::Whole(Box::new(packed.unpack()));
            }
        }
        match self {
            Self::Whole(request) => Some(request),
            Self::Packed(_) | Self::Gone => None,
        }
    }

    /// The request for the last attempt.
    pub(super) fn take(&mut self) -> Option<Request<B>> {
        match std::mem::replace(self, Self::Gone) {
            Self::Gone => None,
            Self::Packed(packed) => Some(packed.unpack()),
            Self::Whole(request) => Some(*request),
        }
    }
}

/// Headers in one block: for each a [`Record`], with what is too long for it behind.
struct PackedHeaders(Vec<u8>);

/// A word, with the lengths and whether the value is sensitive, and room for a short name and a short value. Most are short, and two
/// words are written sooner than so many bytes.
type Record = [u8; 8 + 2 * SHORT];
const SHORT: usize = 16;

impl PackedHeaders {
    #[inline(always)]
    fn new(headers: &HeaderMap) -> Self {
        if headers.is_empty() {
            return Self(Vec::new());
        }
        // Some are longer; one that is very long is given its room when it comes.
        let mut bytes = Vec::with_capacity(headers.len() * size_of::<Record>() + 64);
        for (name, value) in headers {
            let (name, text) = (name.as_str().as_bytes(), value.as_bytes());
            // A name has less than 2^16 bytes.
            let word = (text.len() as u64) << 17 | u64::from(value.is_sensitive()) << 16 | name.len() as u64;
            let ([a, b], [c, d]) = (packed(name), packed(text));
            let mut record: Record = [0; size_of::<Record>()];
            for (place, word) in record.chunks_exact_mut(8).zip([word, a, b, c, d]) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            bytes.extend_from_slice(&record);
            for long in [name, text] {
                if long.len() > SHORT {
                    bytes.extend_from_slice(long);
                }
            }
        }
        Self(bytes)
    }

    /// The headers, in their order.
    fn unpack(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut rest = &self.0[..];
        while let Some((record, behind)) = rest.split_first_chunk::<{ size_of::<Record>() }>() {
            rest = behind;
            let (word, texts) = record.split_first_chunk::<8>().expect("it is longer");
            let word = u64::from_le_bytes(*word);
            let (name, text) = texts.split_at(SHORT);
            let name = unpacked(name, (word & 0xffff) as usize, &mut rest);
            let text = unpacked(text, (word >> 17) as usize, &mut rest);
            // Both were a header's before.
            if let (Ok(name), Ok(mut text)) =
                (HeaderName::from_bytes(&name), HeaderValue::from_maybe_shared(text))
            {
                text.set_sensitive(word >> 16 & 1 != 0);
                headers.append(name, text);
            }
        }
        headers
    }
}

/// A short text: its first bytes and its last ones, which overlap.
#[inline(always)]
fn packed(text: &[u8]) -> [u64; 2] {
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return [u64::from_le_bytes(*first), u64::from_le_bytes(*last)];
    }
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return [u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()];
    }
    let byte = |n| text.get(n).copied().unwrap_or(0);
    [u32::from_le_bytes([byte(0), byte(1), byte(2), 0]).into(), 0]
}

/// The text of this length, which is in its record or the next one in `rest`.
fn unpacked(place: &[u8], len: usize, rest: &mut &[u8]) -> Bytes {
    if len > SHORT {
        let (text, behind) = rest.split_at(len);
        *rest = behind;
        return Bytes::copy_from_slice(text);
    }
    let (first, last) = place.split_at(8);
    let text = match len {
        8.. => [first, &last[SHORT - len..]].concat(),
        4.. => [&first[..4], &last[8 - len..4]].concat(),
        _ => first[..len].to_vec(),
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_comes_out_as_it_went_in() {
        #[derive(Clone, Debug, PartialEq)]
        struct Mark(u8);
        let mut request =
            Request::put("http://user@127.0.0.1:80/a/b?c=d").version(Version::HTTP_2).body(7).expect("valid");
        request.headers_mut().append("x-a", HeaderValue::from_static("1"));
        request.headers_mut().append(
            "accept",
            HeaderValue::from_bytes(b"\xff\t latin-1 and more than sixteen").expect("valid"),
        );
        request.headers_mut().append("x-a", HeaderValue::from_static(""));
        let long = HeaderName::from_bytes(&[b'x'; 65_000]).expect("a name of that length");
        request.headers_mut().append(long, HeaderValue::from_bytes(&[b'y'; 100_000]).expect("valid"));
        request.extensions_mut().insert(Mark(3));
        for with_extensions in [true, false] {
            let mut stored = Stored::Packed(Packed::new(&request, with_extensions));
            assert_eq!(stored.get().expect("it is here").headers(), request.headers());
            let out = stored.take().expect("it is here");
            assert_eq!(
                (out.method(), out.uri(), out.version()),
                (request.method(), request.uri(), request.version())
            );
            assert_eq!(
                out.headers().iter().collect::<Vec<_>>(),
                request.headers().iter().collect::<Vec<_>>()
            );
            assert_eq!(out.extensions().get::<Mark>(), with_extensions.then_some(&Mark(3)));
            assert_eq!(*out.body(), 7);
            assert!(stored.get().is_none() && stored.take().is_none());
        }
    }

    proptest! {
        #[test]
        fn headers_of_any_length_come_out_as_they_went_in(
            headers in prop::collection::vec(("[a-z][a-z-]{0,24}", "[ -~]{0,40}", any::<bool>()), 0..12),
        ) {
            let mut map = HeaderMap::new();
            for (name, value, is_sensitive) in &headers {
                let mut value = HeaderValue::from_str(value).expect("printable");
                value.set_sensitive(*is_sensitive);
                map.append(HeaderName::from_bytes(name.as_bytes()).expect("valid"), value);
            }
            let told = |map: &HeaderMap| {
                map.iter().map(|(name, value)| (name.clone(), value.clone(), value.is_sensitive())).collect::<Vec<_>>()
            };
            prop_assert_eq!(told(&PackedHeaders::new(&map).unpack()), told(&map));
        }
    }
}
