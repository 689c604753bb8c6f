//! The header fields that concern one connection only.

use http::header::{
    CONNECTION, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");

/// [RFC 9110, 7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1), and the fields between a client and its proxy.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHENTICATION_INFO,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes hop-by-hop fields out, and those that `connection` names. The others keep their order, and the values of one
/// name theirs.
pub fn strip(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // `HeaderMap::remove` fills the gap with the last field, so the rest moves to a new map.
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    let mut stays = false;
    let mut current = None;
    for (name, value) in headers.drain() {
        // The further values of a name come without it.
        if let Some(name) = name {
            stays = !HOP_BY_HOP.contains(&name) && !named.contains(&name);
            current = Some(name);
        }
        if let Some(name) = current.as_ref().filter(|_| stays) {
            kept.append(name.clone(), value);
        }
    }
    *headers = kept;
}
